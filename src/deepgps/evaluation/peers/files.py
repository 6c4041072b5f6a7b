"""Read the output files of other tools, recognised by content: ids, classes, probabilities, predictions."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepgps.arrays import Doubles, Mask
from deepgps.errors import InputError
from deepgps.evaluation.peers.classes import is_place, normalised_name
from deepgps.tables import text_lines

_ID_COLUMNS = ("protein id", "entry id", "id", "accession", "entry", "protein", "identifier", "name")
_PREDICTED_COLUMNS = ("localizations", "localization", "location", "go term", "prediction", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class PeerPredictions:
    """Predictions of a tool for N proteins.

    Attributes
    ----------
    tool
        Its name.
    proteins
        N ids.
    classes
        Its P classes, as it writes them.
    probabilities
        (N, P); None for a tool that gives none.
    predicted
        (N, P) bool, the classes that it predicts; the most probable where it does not say.
    """

    tool: str
    proteins: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Doubles | None
    predicted: Mask


def read_peer(path: Path) -> PeerPredictions:
    """Read the output file of a tool.

    MultiLoc2 (``-output=simple``), DeepLoc 1.0 and 2, BUSCA, MULocDeep, LAProtT5, deepGPS's own results, or
    any CSV or TSV with a column of ids and one of probabilities for each place, or of one that predicts the
    place.

    Returns
    -------
    PeerPredictions
        The tool, its classes and its predictions.

    Raises
    ------
    InputError
        If the file is none of these, a value is no probability, or a protein is in it twice.
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
    """Return the id in a FASTA header as tools write it: ``sp|P68363|TBA1B_HUMAN Tubulin`` is P68363."""
    found = re.match(r"(?:sp|tr)[|_]([A-Z0-9]{6,10}(?:-\d+)?)[|_]", text)
    return found[1] if found else text.partition(" ")[0]


def _mulocdeep(lines: list[str], path: Path) -> PeerPredictions:
    """``>id:`` and, after tabs, ``Nucleus:0.93`` for each class, then the classes predicted."""
    records = []
    for line in lines:
        if line.startswith(">"):
            head, *cells = [cell.strip() for cell in line[1:].split("\t")]
            scores = [cell.rpartition(":") for cell in cells if ":" in cell]
            predicted = " ".join(cell for cell in cells if ":" not in cell)
            records.append((head.removesuffix(":"), scores, predicted))
    return _scored("MULocDeep", records, path)


def _multiloc2(lines: list[str], path: Path) -> PeerPredictions:
    """An id and, after tabs, ``nuclear: 0.93`` for each class; headings are skipped."""
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
    predicted = np.zeros(chances.shape, np.bool_)
    for row, (protein, scores, text) in enumerate(records):
        for name, _, value in scores:
            chances[row, classes.index(name.strip())] = _number(value.strip(), name.strip(), protein, path)
        predicted[row] = [each in text.replace("/", " ").split() for each in classes]
    return PeerPredictions(
        tool, tuple(each for each, _, _ in records), classes, chances, _predicted_or_best(predicted, chances)
    )


def _table(lines: list[str], path: Path) -> PeerPredictions:
    if not lines:
        raise InputError(f"'{path}' is empty; give the output file of a tool.")
    mark = max("\t,;", key=lines[0].count)
    try:
        header, *rows = list(csv.reader(lines, delimiter=mark, strict=True))
    except csv.Error as error:
        raise InputError(f"'{path}' cannot be read ({error}); check its quotes.") from None
    names = [normalised_name(name.removeprefix("p_")) for name in header]
    ids = next((names.index(name) for name in _ID_COLUMNS if name in names), None)
    if ids is None:
        raise InputError(
            f"'{path}' is not the output of a known tool: it has no column such as 'Protein_ID' or 'id'."
        )
    for row in rows:
        if len(row) != len(header):
            raise InputError(
                f"'{path}' has a row of {len(row)} cells for {len(header)} columns, '{row[0]} …'; "
                "export it again."
            )
    predicted_in = next((names.index(name) for name in _PREDICTED_COLUMNS if name in names), None)
    # DeepLoc 1.0 has both: a class, and whether a protein is bound to any membrane.
    ignored = {"membrane"} if "cell membrane" in names else set()
    columns = [
        number
        for number, name in enumerate(names)
        if number not in (ids, predicted_in) and name not in ignored and is_place(name)
    ]
    proteins = tuple(row[ids].strip() for row in rows)
    if not columns:
        return _without_probabilities(_tool(names), proteins, _cells(rows, predicted_in, path), path)
    classes = tuple(header[number].removeprefix("p_") for number in columns)
    chances = np.array(
        [[_number(row[number], header[number], row[ids], path) for number in columns] for row in rows]
    ).reshape(len(rows), len(columns))
    predicted = np.zeros(chances.shape, np.bool_)
    if predicted_in is not None:
        for protein, places in enumerate(_cells(rows, predicted_in, path)):
            predicted[protein] = [normalised_name(each) in map(normalised_name, places) for each in classes]
    return PeerPredictions(_tool(names), proteins, classes, chances, _predicted_or_best(predicted, chances))


def _tool(names: Sequence[str]) -> str:
    """Recognise the tool that wrote a table by the names of its columns."""
    if {"localizations", "signals"} <= set(names):
        return "DeepLoc 2"
    if {"localization", "type"} <= set(names) or {"location", "membrane"} <= set(names):
        return "DeepLoc 1.0"
    if "go term" in names:
        return "BUSCA"
    return "table"


def _cells(rows: list[list[str]], column: int | None, path: Path) -> list[list[str]]:
    """Places predicted in each row."""
    if column is None:
        raise InputError(
            f"'{path}' has neither a column of probabilities for each place nor one such as 'Localization'."
        )
    return [[place for place in row[column].replace(";", "|").split("|") if place.strip()] for row in rows]


def _without_probabilities(
    tool: str, proteins: tuple[str, ...], places: list[list[str]], path: Path
) -> PeerPredictions:
    """A tool without probabilities; several rows of one protein are combined."""
    predicted: dict[str, set[str]] = {}
    for protein, each in zip(proteins, places, strict=True):
        predicted.setdefault(protein, set()).update(normalised_name(place) for place in each)
    classes = tuple(sorted(set().union(*predicted.values()))) if predicted else ()
    matrix = np.array([[slug in each for slug in classes] for each in predicted.values()], np.bool_)
    nothing = [protein for protein, each in predicted.items() if not each]
    if nothing:
        raise InputError(f"Protein '{nothing[0]}' has no localization in '{path}'; leave it out.")
    return PeerPredictions(
        tool, tuple(predicted), classes, None, matrix.reshape(len(predicted), len(classes))
    )


def _predicted_or_best(predicted: Mask, chances: Doubles) -> Mask:
    """Classes that a tool predicts, the most probable one where it does not say."""
    best = chances.argmax(1)[:, None] == np.arange(chances.shape[1])
    return np.where(predicted.any(1, keepdims=True), predicted, best)


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
