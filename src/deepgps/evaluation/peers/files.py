"""Output files of other tools, told apart by content: ids, classes, probabilities, and what they name."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepgps.arrays import Doubles, Mask
from deepgps.errors import InputError
from deepgps.evaluation.peers.classes import is_place, plain
from deepgps.proteins.reading import text_lines

_ID_COLUMNS = ("protein id", "entry id", "id", "accession", "entry", "protein", "identifier", "name")
_NAMED_COLUMNS = ("localizations", "localization", "location", "go term", "prediction", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class PeerPredictions:
    """What a tool says of N proteins.

    Attributes
    ----------
    tool
        Its name.
    proteins
        N ids.
    classes
        Its P classes, as it writes them.
    probabilities
        (N, P); None for a tool that only names.
    named
        (N, P) bool, the classes that it names; of a tool that names none itself, the likeliest.
    """

    tool: str
    proteins: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Doubles | None
    named: Mask


def read_peer(path: Path) -> PeerPredictions:
    """Read the output file of a tool.

    MultiLoc2 (``-output=simple``), DeepLoc 1.0 and 2, BUSCA, MULocDeep, LAProtT5, deepGPS's own results, or
    any CSV or TSV with a column of ids and one of probabilities for each place, or one that names the place.

    Raises
    ------
    InputError
        If the file is of no such kind, a value is no number, or a protein is in it twice.
    """
    lines = [line.rstrip("\n") for line in text_lines(str(path)) if line.strip()]
    reader: Callable[[list[str], Path], PeerPredictions] = _table
    if any(line.startswith(">") and "Nucleus:" in line for line in lines):
        reader = _mulocdeep
    elif any("\tcytoplasmic: " in line.lower() or "\tnuclear: " in line.lower() for line in lines):
        reader = _multiloc2
    found = reader(lines, path)
    proteins = tuple(accession(each) for each in found.proteins)
    if not proteins:
        raise InputError(f"'{path}' holds no protein; give the output file of a tool.")
    for protein, times in Counter(proteins).most_common(1):
        if times > 1:
            raise InputError(f"Protein '{protein}' is in '{path}' {times} times; keep one of its rows.")
    return replace(found, proteins=proteins)


def accession(text: str) -> str:
    """Find the id in what a tool made of a FASTA header: ``sp|P68363|TBA1B_HUMAN Tubulin`` is P68363."""
    found = re.match(r"(?:sp|tr)[|_]([A-Z0-9]{6,10}(?:-\d+)?)[|_]", text)
    return found[1] if found else text.partition(" ")[0]


def _mulocdeep(lines: list[str], path: Path) -> PeerPredictions:
    """``>id:`` and, after tabs, ``Nucleus:0.93`` for each class, then the classes named."""
    records = []
    for line in lines:
        if line.startswith(">"):
            head, *cells = [cell.strip() for cell in line[1:].split("\t")]
            scores = [cell.rpartition(":") for cell in cells if ":" in cell]
            named = " ".join(cell for cell in cells if ":" not in cell)
            records.append((head.removesuffix(":"), scores, named))
    return _scored("MULocDeep", records, path)


def _multiloc2(lines: list[str], path: Path) -> PeerPredictions:
    """An id and, after tabs, ``nuclear: 0.93`` for each class, the likeliest first; headings are skipped."""
    records = []
    for line in lines:
        head, *cells = [cell.strip() for cell in line.split("\t")]
        scores = [cell.rpartition(":") for cell in cells if ":" in cell]
        if scores:
            records.append((head, scores, ""))
    return _scored("MultiLoc2", records, path)


def _scored(
    tool: str, records: Sequence[tuple[str, list[tuple[str, str, str]], str]], path: Path
) -> PeerPredictions:
    classes = tuple(dict.fromkeys(name.strip() for _, scores, _ in records for name, _, _ in scores))
    chances = np.zeros((len(records), len(classes)))
    said = np.zeros(chances.shape, np.bool_)
    for row, (protein, scores, named) in enumerate(records):
        for name, _, text in scores:
            chances[row, classes.index(name.strip())] = _number(text.strip(), name.strip(), protein, path)
        said[row] = [each in named.replace("/", " ").split() for each in classes]
    return PeerPredictions(
        tool, tuple(each for each, _, _ in records), classes, chances, _or_best(said, chances)
    )


def _table(lines: list[str], path: Path) -> PeerPredictions:
    if not lines:
        raise InputError(f"'{path}' is empty; give the output file of a tool.")
    mark = max("\t,;", key=lines[0].count)
    header, *rows = list(csv.reader(lines, delimiter=mark))
    names = [plain(name.removeprefix("p_")) for name in header]
    ids = next((names.index(name) for name in _ID_COLUMNS if name in names), None)
    if ids is None:
        raise InputError(
            f"'{path}' is the output of no tool that is known: it has no column such as 'Protein_ID' or 'id'."
        )
    for row in rows:
        if len(row) != len(header):
            raise InputError(
                f"'{path}' has a row of {len(row)} cells for {len(header)} columns, '{row[0]} …'; "
                "write it anew."
            )
    named = next((names.index(name) for name in _NAMED_COLUMNS if name in names), None)
    # DeepLoc 1.0 has both: a class, and whether a protein is bound to any membrane.
    passed_over = {"membrane"} if "cell membrane" in names else set()
    columns = [
        number
        for number, name in enumerate(names)
        if number not in (ids, named) and name not in passed_over and is_place(name)
    ]
    proteins = tuple(row[ids].strip() for row in rows)
    if not columns:
        return _only_named(_tool(names), proteins, _cells(rows, named, path), path)
    classes = tuple(header[number].removeprefix("p_") for number in columns)
    chances = np.array(
        [[_number(row[number], header[number], row[ids], path) for number in columns] for row in rows]
    ).reshape(len(rows), len(columns))
    said = np.zeros(chances.shape, np.bool_)
    if named is not None:
        for protein, words in enumerate(_cells(rows, named, path)):
            said[protein] = [plain(each) in map(plain, words) for each in classes]
    return PeerPredictions(_tool(names), proteins, classes, chances, _or_best(said, chances))


def _tool(names: Sequence[str]) -> str:
    """Tell which tool wrote a table by the names of its columns."""
    if {"localizations", "signals"} <= set(names):
        return "DeepLoc 2"
    if {"localization", "type"} <= set(names) or {"location", "membrane"} <= set(names):
        return "DeepLoc 1.0"
    if "go term" in names:
        return "BUSCA"
    return "table"


def _cells(rows: list[list[str]], named: int | None, path: Path) -> list[list[str]]:
    """Places that each row names."""
    if named is None:
        raise InputError(
            f"'{path}' has neither a column of probabilities for each place nor one such as 'Localization'."
        )
    return [[word for word in row[named].replace(";", "|").split("|") if word.strip()] for row in rows]


def _only_named(tool: str, proteins: tuple[str, ...], words: list[list[str]], path: Path) -> PeerPredictions:
    """A tool without probabilities; its rows of one protein are put together."""
    said: dict[str, set[str]] = {}
    for protein, each in zip(proteins, words, strict=True):
        said.setdefault(protein, set()).update(plain(word) for word in each)
    classes = tuple(sorted(set().union(*said.values()))) if said else ()
    named = np.array([[slug in each for slug in classes] for each in said.values()], np.bool_)
    nothing = [protein for protein, each in said.items() if not each]
    if nothing:
        raise InputError(f"Protein '{nothing[0]}' has no localization in '{path}'; leave it out.")
    return PeerPredictions(tool, tuple(said), classes, None, named.reshape(len(said), len(classes)))


def _or_best(said: Mask, chances: Doubles) -> Mask:
    """What a tool names, and its likeliest class where it names none."""
    best = chances.argmax(1)[:, None] == np.arange(chances.shape[1])
    return np.where(said.any(1, keepdims=True), said, best)


def _number(text: str, column: str, protein: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise InputError(
            f"'{path}' has '{text}' for '{column}' of protein '{protein}'; a probability lies in [0, 1]."
        )
    return value
