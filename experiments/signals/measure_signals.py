"""Measure the finders of sorting signals, beside plain published patterns.

    python experiments/signals/measure_signals.py --data ../shared/data

For each kind: the MCC over the residues of all proteins of the collection, and of those that have the kind;
the share of known signals of which half of the residues are found; the findings per 100 proteins without one.
"""

import argparse
import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.explain.signals import find_signals

Spans = list[tuple[int, int]]
KINDS = ("SP", "MT", "CH", "TH", "TM", "PTS", "NLS", "NES", "GPI")
TRANSIT = r"^(M[^DE]{24})"
HYDROPHOBIC = r"(?=([LIVFMAGCTWYS]{19}))"
PATTERNS = {
    "SP": r"^(M.{0,12}[LAVIFMCWGST]{7,}.{2,10}?[AGSCT].[AGSC])",
    "MT": r"^(M(?:[^DE]{0,30}R[^DE]{1,9}){2}[FYL][SA])",
    "CH": r"^(M[AS].{20,70}?[VI].[AC])A",
    "TH": r"^(M.{30,90}?[RK]R.{5,25}?[AVS].A)",
    "TM": HYDROPHOBIC,
    "PTS": r"([SAC][KRH][LM])$",
    "NLS": r"(?=(K[KR].[KR]|[KR]{2}.{9,13}[KR]{3}))",
    "NES": r"(?=(L.{2,3}[LIVFM].{2,3}L.[LI]))",
    "GPI": r"([SGANDC].{8,14}[LIVFMAGCTWY]{11}.{0,5})$",
}
"""Plain published patterns, one for each kind."""


def main() -> None:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure_kinds(given.data)
    for kind, figure in figures.items():
        print(kind, figure["signals"], figure["deepgps"], "| pattern", figure["pattern"])
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure_kinds(data: Path) -> dict[str, dict[str, Any]]:
    """Measure every kind: the number of known signals, and figures of ours and of the plain pattern."""
    sequences, known = read_collection(data / "signals" / "sorting_signals.csv")
    names = list(sequences)
    found: dict[str, dict[str, Spans]] = {kind: {} for kind in KINDS}
    for name, signals in zip(names, find_signals(list(sequences.values())), strict=True):
        for signal in signals:
            if signal.kind in found:
                found[signal.kind].setdefault(name, []).append((signal.start - 1, signal.end))
    figures: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        plain = {name: pattern_spans(PATTERNS[kind], sequence) for name, sequence in sequences.items()}
        figures[kind] = {
            "signals": sum(len(spans) for spans in known[kind].values()),
            "deepgps": measure(sequences, known[kind], found[kind]),
            "pattern": measure(sequences, known[kind], plain),
        }
    return figures


def read_collection(path: Path) -> tuple[dict[str, str], dict[str, dict[str, Spans]]]:
    """Read the sequences by accession, and by kind and accession where the signals are."""
    sequences: dict[str, str] = {}
    known: dict[str, dict[str, Spans]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            sequences[row["accession"]] = row["sequence"]
            known[row["signal"]][row["accession"]].append((int(row["start"]) - 1, int(row["end"])))
    return sequences, known


def pattern_spans(pattern: str, sequence: str) -> Spans:
    """Find the matches of a pattern: its first group."""
    return [match.span(1) for match in re.finditer(pattern, sequence)]


def measure(
    sequences: Mapping[str, str], known: Mapping[str, Spans], found: Mapping[str, Spans]
) -> dict[str, float]:
    """Measure one kind."""
    everywhere, own = np.zeros((2, 2)), np.zeros((2, 2))
    hits = extra = without = 0
    for name, sequence in sequences.items():
        truth, answer = _flags(len(sequence), known.get(name, [])), _flags(len(sequence), found.get(name, []))
        counts = np.array([[np.sum((truth == a) & (answer == b)) for b in (0, 1)] for a in (0, 1)])
        everywhere += counts
        if name in known:
            own += counts
            hits += sum(bool(answer[start:end].mean() >= 0.5) for start, end in known[name])
        else:
            without += 1
            extra += len(found.get(name, []))
    total = sum(len(spans) for name, spans in known.items() if name in sequences)
    return {
        "mcc": round(mcc(everywhere), 3),
        "mcc_own": round(mcc(own), 3),
        "found": round(hits / total, 3),
        "extra_per_100": round(100 * extra / max(1, without), 1),
    }


def mcc(counts: "np.ndarray[tuple[int, int], np.dtype[np.floating]]") -> float:
    """Return Matthews's correlation of a table [[tn, fp], [fn, tp]]."""
    (tn, fp), (fn, tp) = counts
    size = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return float((tp * tn - fp * fn) / size) if size else 0.0


def _flags(length: int, spans: Sequence[tuple[int, int]]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    flags = np.zeros(length, np.bool_)
    for start, end in spans:
        flags[max(0, start) : end] = True
    return flags


if __name__ == "__main__":
    main()
