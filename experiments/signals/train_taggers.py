"""Train the taggers of sorting signals, in about a minute on one core.

    python experiments/signals/train_taggers.py --data ../shared/data --out src/deepgps/explain/taggers.npz

Then write the printed sha256 into ``deepgps.explain.signals``, and measure (``measure_signals.py``).
"""

import argparse
import csv
import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markov_training import MODELS, fit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from weak_labels import LabelledProtein, n_terminus, read_proteins

from deepgps.arrays import Doubles
from deepgps.explain.markov import MarkovModel
from deepgps.explain.signals import (
    N_CLASSES,
    PATTERNS,
    _padded_codes,
    gpi_features,
    n_terminus_features,
    peroxisome_features,
)
from deepgps.proteins.features import residue_codes

MARKOV_PROTEINS = 1500
OTHERS = 8000
NETWORK_UNITS = 24
PEROXISOME_RATE = 0.01
"""Share of the proteins of other compartments that may get a PTS1."""
GPI_RATE = 0.03
"""Share of the other secreted and membrane proteins that may get a GPI anchor."""
MEMBRANE_RATE = 0.03
"""Share of the proteins of cytoplasm, nucleus and peroxisome that may get a transmembrane segment."""

Arrays = dict[str, Doubles]


def main() -> None:
    """Train all taggers and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("taggers.npz"))
    given = parser.parse_args()
    with (given.data / "signals" / "sorting_signals.csv").open(encoding="utf-8") as lines:
        measured = {row["accession"] for row in csv.DictReader(lines)}
    proteins = read_proteins(given.data, measured)
    rng = np.random.default_rng(0)
    labels = [n_terminus(each) for each in proteins]
    print(len(proteins), "proteins;", {name: labels.count(name) for name in N_CLASSES})
    models = {name: _markov_model(name, proteins, labels, rng) for name in N_CLASSES}
    arrays = _markov_arrays(models)
    # From here on with what the file holds.
    arrays |= _network(models, proteins, labels, rng)
    arrays |= _membrane(models["TM"], proteins, labels)
    arrays["peroxisome"] = _peroxisome(proteins)
    arrays["gpi"] = _gpi(proteins, rng)
    arrays |= {f"rate/{name}": np.array(rate) for name, rate in _rates(proteins).items()}
    buffer = io.BytesIO()
    contents: dict[str, Any] = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    np.savez_compressed(buffer, **contents)
    content = buffer.getvalue()
    given.out.write_bytes(content)
    print(f"{given.out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def _markov_model(
    name: str, proteins: Sequence[LabelledProtein], labels: Sequence[str | None], rng: np.random.Generator
) -> MarkovModel:
    model, emission = MODELS[name]()
    own = [each.sequence for each, label in zip(proteins, labels, strict=True) if label == name]
    chosen = [own[place] for place in rng.permutation(len(own))[:MARKOV_PROTEINS]]
    return fit(model, emission, _padded_codes(chosen, model.length))


def _markov_arrays(models: dict[str, MarkovModel]) -> Arrays:
    arrays: Arrays = {}
    for name, model in models.items():
        arrays[f"{name}/start"], arrays[f"{name}/transitions"] = model.start, model.transitions
        arrays[f"{name}/emissions"] = model.emissions
        arrays[f"{name}/length"], arrays[f"{name}/cuts"] = np.array(model.length), np.array(model.cuts)
    return arrays


def _network(
    models: dict[str, MarkovModel],
    proteins: Sequence[LabelledProtein],
    labels: Sequence[str | None],
    rng: np.random.Generator,
) -> Arrays:
    """Train the network that chooses the class of an N-terminus."""
    others = [place for place, label in enumerate(labels) if label == "OTHER"]
    named = [place for place, label in enumerate(labels) if label and label != "OTHER"]
    rows = np.array([*named, *rng.permutation(others)[:OTHERS]])
    features = n_terminus_features([proteins[row].sequence for row in rows], models)
    truth = np.array([N_CLASSES.index(str(labels[row])) for row in rows])
    means, deviations = features.mean(0), features.std(0) + 1e-6
    network = MLPClassifier(
        (NETWORK_UNITS,), alpha=1e-2, learning_rate_init=3e-3, max_iter=25, batch_size=256, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((features - means) / deviations, truth)
    arrays = {"means": means, "deviations": deviations}
    for number, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        arrays |= {f"layer{number}/weights": weights, f"layer{number}/bias": bias}
    return arrays


def _membrane(
    model: MarkovModel, proteins: Sequence[LabelledProtein], labels: Sequence[str | None]
) -> Arrays:
    """Take the scale of hydrophobicity from the anchor's core, and its threshold from soluble proteins."""
    core, mature = model.emissions[2], model.emissions[-1]
    scale = np.append(np.log(core[:20] / mature[:20]), 0)
    soluble = [
        each
        for each, label in zip(proteins, labels, strict=True)
        if label == "OTHER" and each.compartments and "membrane" not in each.text
    ]
    best = []
    for each in soluble:
        sums = np.cumsum(np.append(0, scale[residue_codes(each.sequence)]))
        best.append(((sums[21:] - sums[:-21]) / 21).max())
    return {"membrane": scale, "membrane_threshold": np.array(np.quantile(best, 1 - MEMBRANE_RATE))}


def _peroxisome(proteins: Sequence[LabelledProtein]) -> Doubles:
    yes = [
        each
        for each in proteins
        if "Peroxisome" in each.compartments or re.search("Peroxisome(?! mem)", each.text)
    ]
    no = [
        each
        for each in proteins
        if each.compartments and "Peroxisome" not in each.compartments and "eroxisom" not in each.text
    ]
    features = np.array([peroxisome_features(residue_codes(each.sequence)) for each in [*yes, *no]])
    return _regression(features, len(yes), PEROXISOME_RATE, LogisticRegression(C=0.3, max_iter=300))


def _gpi(proteins: Sequence[LabelledProtein], rng: np.random.Generator) -> Doubles:
    yes = [each for each in proteins if "GPI-anchor" in each.text]
    no = [each for each in proteins if "GPI" not in each.text and re.search("Secreted|membrane", each.text)]
    no = [no[place] for place in rng.permutation(len(no))[:2500]]
    features = np.array(
        [gpi_features(each.sequence, residue_codes(each.sequence))[0] for each in [*yes, *no]]
    )
    return _regression(features, len(yes), GPI_RATE, LogisticRegression(class_weight="balanced"))


def _regression(features: Doubles, positives: int, rate: float, model: LogisticRegression) -> Doubles:
    """Fit a regression; its bias puts the threshold where ``rate`` of the negatives are above it."""
    means, deviations = features.mean(0), features.std(0) + 1e-6
    truth = np.arange(len(features)) < positives
    model.fit((features - means) / deviations, truth)
    weights = model.coef_[0] / deviations
    print("regression:", positives, "of", len(features))
    return np.append(weights, -np.quantile((features @ weights)[~truth], 1 - rate))


def _rates(proteins: Sequence[LabelledProtein]) -> dict[str, float]:
    """Return, by pattern, the share of the proteins with it that UniProt places where it leads."""
    membranes = {"Cell membrane", "Golgi apparatus", "Endoplasmic reticulum", "Lysosome/Vacuole"}
    leads = {
        "KDEL": (PATTERNS["KDEL"], {"Endoplasmic reticulum"}),
        "KKXX": (PATTERNS["KKXX"], {"Endoplasmic reticulum", "Golgi apparatus"}),
        "CAAX": (PATTERNS["CAAX"], membranes),
        "RAB": (PATTERNS["RAB"], membranes),
        "MYRISTOYL": (PATTERNS["MYRISTOYL"], membranes),
        "PTS2": (r"^.{1,35}?[RK][LVIQ].{2}[LVIHQ][LSGAK].[HQ][LAF]", {"Peroxisome"}),
    }
    known = [each for each in proteins if each.compartments]
    rates = {}
    for name, (pattern, places) in leads.items():
        hits = [each for each in known if re.search(pattern, each.sequence)]
        rates[name] = sum(bool(each.compartments & places) for each in hits) / max(1, len(hits))
        print(f"{name}: {len(hits)} proteins, {rates[name]:.2f} where it leads")
    return rates


if __name__ == "__main__":
    main()
