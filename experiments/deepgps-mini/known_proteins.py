"""Build the index of known proteins of the shipped model from the tables of the sources.

    python experiments/deepgps-mini/known_proteins.py --run runs/mini

Writes ``known.npz`` (the facts), ``known_sequences.npz`` (the human sequences that do not vote) and
``overall.json`` (how reliable each source is, and how it is combined with the prediction) into the bundle.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from deepgps.arrays import Floats
from deepgps.bundle import (
    KNOWN_FILE,
    KNOWN_SEQUENCES_FILE,
    NEIGHBOURS_FILE,
    OVERALL_FILE,
    Bundle,
    open_bundle,
    write_bundle,
)
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.localization import CLASS_SETS
from deepgps.prediction import Predictor
from deepgps.prediction.encoder import class_set_logits
from deepgps.proteins.check import UNUSUAL_RESIDUES
from deepgps.proteins.features import residue_codes
from deepgps.proteins.known import KnownFacts
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.card import mini_card
from deepgps.training.mini.labels import LABEL_ENCODER, REGIMES, read_held_out
from figures import read_figures, record
from known_combination import (
    document,
    fit_combination,
    hidden_rows,
    levels_of,
    measure_hidden_opencell,
    reliability_table,
)
from known_statements import UNSHIPPED_MAPS, Entry, read_entries

SOURCES = {
    "Known proteins, UniProt": (
        "subcellular locations with evidence of 17,004 reviewed human proteins (CC BY 4.0)"
    ),
    "Known proteins, Human Protein Atlas": "version 23, locations with reliability (CC BY-SA)",
    "Known proteins, mass-spectrometry maps": (
        "Itzhak 2016 (eLife), Schessner 2023 and Geladaki 2019 (Nature Communications), by gene (CC BY)"
    ),
}
CARD = """- **Known**: what UniProt, the Human Protein Atlas, OpenCell and mass-spectrometry maps say of the
  protein itself, with the reliability that each gives. The overall answer combines it with the prediction,
  which does without the protein's own record, by weights measured with one source hidden at a time."""


def build_index(
    entries: Sequence[Entry], voting: NeighbourIndex, logits: Mapping[bytes, Floats]
) -> tuple[KnownFacts, NeighbourIndex]:
    """Build the facts and the index of the sequences that do not vote.

    Parameters
    ----------
    entries
        The proteins.
    voting
        The neighbour index that votes.
    logits
        (K,) predictions by models that never saw a sequence or its relatives, by `indexed_residues`.
    """
    residues = [indexed_residues(each.sequence) for each in entries]
    row_of = {key: row for row, key in enumerate(index_residues(voting))}
    alone: dict[bytes, str] = {}
    for key, entry in zip(residues, entries, strict=True):
        if key not in row_of:
            alone.setdefault(key, entry.sequence)
    row_of |= {key: -1 - row for row, key in enumerate(alone)}
    terms = list(dict.fromkeys(statement for each in entries for statement in each.statements))
    term_rows = {term: row for row, term in enumerate(terms)}
    unusual = [
        (row, position, ord(letter))
        for row, each in enumerate(entries)
        for position, letter in enumerate(each.sequence)
        if letter in UNUSUAL_RESIDUES
    ]
    classes = len(voting.slugs)
    missing: Floats = np.full(classes, np.nan, np.float32)
    owners, positions, letters = np.array(unusual, np.int64).reshape(-1, 3).T
    facts = KnownFacts(
        ["\t".join((each.accession, each.gene_symbol, each.synonyms)) for each in entries],
        np.array([each.human for each in entries]),
        np.array([each.outdated for each in entries]),
        np.array([row_of[key] for key in residues], np.int32),
        np.array([len(each.statements) for each in entries], np.uint8),
        tuple(terms),
        np.array([term_rows[term] for each in entries for term in each.statements], np.uint16),
        (owners, positions, letters.astype(np.uint8)),
        np.stack([logits.get(key, missing) for key in residues]).astype(np.float16),
    )
    nothing = np.zeros((len(alone), 0), np.float32)
    names = [f"{row}" for row in range(len(alone))]
    return facts, NeighbourIndex.build(names, tuple(alone.values()), nothing, nothing > 0, ())


def indexed_residues(sequence: str) -> bytes:
    """Return the residue codes of a sequence, as the neighbour index keeps them."""
    return residue_codes(sequence).astype(np.uint8).tobytes()


def index_residues(index: NeighbourIndex) -> list[bytes]:
    """Return the residue codes of each sequence of an index."""
    ends = np.cumsum(index.lengths.astype(np.int64) + 1)
    content = index.residues.tobytes()
    return [
        content[end - 1 - length : end - 1] for end, length in zip(ends, index.lengths.tolist(), strict=True)
    ]


def predicted_logits(
    entries: Sequence[Entry], held_out: Mapping[bytes, tuple[Floats, Floats]], predictor: Predictor
) -> tuple[Floats, Floats]:
    """Predict proteins without their own record, and without them in training.

    Parameters
    ----------
    entries
        P proteins.
    held_out
        Logits and votes (K,) by models that never saw the protein's cluster, by `indexed_residues`.
    predictor
        The model, for proteins that did not train.

    Returns
    -------
    logits, votes
        (P, K) each.
    """
    logits, votes = list[Floats](), list[Floats]()
    for each in track(entries, "predicting", console=Console(stderr=True)):
        found = held_out.get(indexed_residues(each.sequence))
        if found is None:
            (encoding,) = predictor.encode([each.sequence])
            found = encoding.own_logits, encoding.votes
        logits.append(found[0])
        votes.append(found[1])
    return np.stack(logits), np.stack(votes)


def with_files(bundle: Bundle, files: Mapping[str, bytes], folder: Path, **fields: object) -> Bundle:
    """Write a bundle again with further files and other fields."""
    own = {name: bundle.read(name) for name in bundle.metadata.files}
    metadata = bundle.metadata.model_dump(mode="json", exclude={"files", "schema_version"})
    return write_bundle(folder, {**metadata, **fields}, {**own, **files})


def card(bundle: Bundle, fields: Mapping[str, object], encoder: Mapping[str, object]) -> bytes:
    """Write the model card anew, with the known proteins."""
    metadata = {**bundle.metadata.model_dump(mode="json"), **fields}
    text = mini_card(metadata, encoder)
    return text.replace("- **Doubt**", f"{CARD}\n- **Doubt**", 1).encode()


def main() -> None:
    """Read the command line, build and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shared data folder")
    parser.add_argument("--run", type=Path, default=Path("runs/mini"), help="the run that the model is from")
    parser.add_argument(
        "--bundle", type=Path, default=Path("src/deepgps/bundles/deepgps-mini"), help="the bundle to extend"
    )
    options = parser.parse_args()
    everything = read_entries(options.data, unshipped=True)
    unshipped = set(UNSHIPPED_MAPS.values())
    statements = [each.statements for each in everything if each.human]
    entries = [
        replace(each, statements=[one for one in each.statements if one.source not in unshipped])
        for each in everything
    ]
    proteins = load_labelled_proteins(options.data, CLASS_SETS["mini"])
    outputs = read_held_out(options.run / "labels")[REGIMES[1]]
    classes = len(proteins.slugs)
    held_out = {
        indexed_residues(sequence): (logits, votes[:classes])
        for sequence, logits, votes in zip(proteins.sequences, outputs.logits, outputs.votes, strict=True)
    }
    human = {indexed_residues(each.sequence) for each in entries if each.human}
    bundle = open_bundle(options.bundle)
    voting = NeighbourIndex.from_bytes(bundle.read(NEIGHBOURS_FILE))
    facts, others = build_index(
        entries, voting, {key: logits for key, (logits, _) in held_out.items() if key in human}
    )
    files = {KNOWN_FILE: facts.to_bytes(), KNOWN_SEQUENCES_FILE: others.to_bytes()}
    bundle = with_files(bundle, files, options.bundle)
    people = [each for each in entries if each.human]
    logits, votes = predicted_logits(people, held_out, Predictor.load(options.bundle, threads=1))
    clusters = np.array([each.cluster for each in people], np.int64)
    combinations = {}
    for name in ("mini", "all"):
        spec = bundle.metadata.class_sets.get(name)
        predicted = logits if spec is None else class_set_logits(spec, logits, votes)
        own = [each.statements for each in people]
        levels = levels_of([one for each in own for one in each])
        rows = hidden_rows(own, predicted, CLASS_SETS[name], levels)
        combinations[name] = fit_combination(rows, levels)
        if name == "mini":
            record(measure_hidden_opencell(rows, clusters, levels, bundle.metadata), "known")
    table = reliability_table(statements, CLASS_SETS["mini"])
    overall = json.dumps(document(combinations, table)).encode()
    fields = {
        "metrics": {name: each.model_dump(mode="json") for name, each in read_figures().items()},
        "training_data": {**bundle.metadata.training_data, **SOURCES},
    }
    encoder = json.loads((options.run / "labels" / LABEL_ENCODER).read_text("utf-8"))
    new = {OVERALL_FILE: overall, "CARD.md": card(bundle, fields, encoder)}
    bundle = with_files(bundle, new, options.bundle, **fields)
    for name in (KNOWN_FILE, KNOWN_SEQUENCES_FILE, OVERALL_FILE):
        print(f"{name}: {len(bundle.read(name)) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
