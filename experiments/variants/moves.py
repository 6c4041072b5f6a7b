"""Fit and measure the score `moves` of `deepgps.explain.moves` on VarChAMP's imaging hits.

    python experiments/variants/moves.py --data ../shared/data

Measured in folds by gene, beside minus BLOSUM62 and the largest change of a predicted probability; the
intervals come from a bootstrap over genes, paired for the difference. Prints the weights of the fit to all
variants. The features were chosen on the same variants, so that the measured AUROC is an upper bound.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from deepgps.arrays import Doubles
from deepgps.explain.moves import FEATURES, features
from deepgps.prediction import Predictor

FOLDS, REPEATS, DRAWS = 8, 4, 1000
STRENGTH = 0.03
"""Inverse of the penalty."""


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure(given.data)
    for name, figure in figures.items():
        print(name, figure)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(data: Path) -> dict[str, dict[str, list[float]]]:
    """Measure the scores, and print the weights of the fit to all variants."""
    with (data / "variants" / "varchamp.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["sequence"]]
    table = np.array([features(row["sequence"], int(row["position"]), row["mutant"]) for row in rows])
    hits = np.array([row["imaging_hit"] == "True" for row in rows])
    genes = np.array([row["gene_symbol"] for row in rows])
    scores = {
        "moves": cross_validated(table, hits, genes),
        "minus BLOSUM62": table[:, 0],
        "largest change of a probability": probability_changes(rows),
    }
    means, deviations = table.mean(0), table.std(0)
    model = LogisticRegression(C=STRENGTH).fit((table - means) / deviations, hits)
    weights = model.coef_[0] / deviations
    bias = float(model.intercept_[0]) - float(weights @ means)
    print(f"{len(rows)} variants, {hits.sum()} hits, {len(set(genes))} genes; {FEATURES}")
    print(f"WEIGHTS = ({', '.join(f'{weight:.4f}' for weight in weights)})\nBIAS = {bias:.4f}")
    return compare(scores, hits, genes)


def cross_validated(table: Doubles, hits: "np.ndarray", genes: "np.ndarray") -> Doubles:
    """Score each variant by models that saw no variant of its gene.

    The bias is left out: it carries the share of hits in the other folds, which is lower where that of the
    own fold is higher.
    """
    scaled, total = (table - table.mean(0)) / table.std(0), np.zeros(len(table))
    names = np.unique(genes)
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(names).tolist()
        fold = np.array([order.index(gene) % FOLDS for gene in genes])
        for number in range(FOLDS):
            train = fold != number
            weights = LogisticRegression(C=STRENGTH).fit(scaled[train], hits[train]).coef_[0]
            total[~train] += scaled[~train] @ weights / np.linalg.norm(weights)
    return total


def probability_changes(rows: list[dict[str, str]]) -> Doubles:
    """Return the largest change of a predicted probability of each variant."""
    predictor = Predictor.load(threads=1)
    changes = []
    for row in rows:
        place = int(row["position"]) - 1
        mutant = row["sequence"][:place] + row["mutant"] + row["sequence"][place + 1 :]
        before, after = (
            1 / (1 + np.exp(-each.logits)) for each in predictor.encode([row["sequence"], mutant])
        )
        changes.append(np.abs(after - before).max())
    return np.array(changes)


def compare(
    scores: dict[str, Doubles], hits: "np.ndarray", genes: "np.ndarray"
) -> dict[str, dict[str, list[float]]]:
    """Return the AUROC of each score, and its difference from minus BLOSUM62, with 95 % intervals."""
    rng = np.random.default_rng(0)
    names = np.unique(genes)
    places = {gene: np.flatnonzero(genes == gene) for gene in names}
    draws: list[list[float]] = []
    while len(draws) < DRAWS:
        chosen = np.concatenate([places[gene] for gene in rng.choice(names, len(names))])
        if 0 < hits[chosen].sum() < len(chosen):
            draws.append([roc_auc_score(hits[chosen], score[chosen]) for score in scores.values()])
    values = np.array([roc_auc_score(hits, score) for score in scores.values()])
    base, drawn = list(scores).index("minus BLOSUM62"), np.array(draws)
    figures = {}
    for number, name in enumerate(scores):
        interval = np.percentile(drawn[:, number], [2.5, 97.5])
        difference = np.percentile(drawn[:, number] - drawn[:, base], [2.5, 97.5])
        figures[name] = {
            "auroc": [round(float(each), 3) for each in (values[number], *interval)],
            "above": [round(float(each), 3) for each in (values[number] - values[base], *difference)],
        }
    return figures


if __name__ == "__main__":
    main()
