"""Predict the rows of a table: pandas in, pandas out; polars in, polars out."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deepgps.bundle import DEFAULT_MODEL
from deepgps.errors import InputError, MissingExtraError
from deepgps.prediction import Predictor
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.protein import Protein
from deepgps.results.records import NUMBERS, table_columns, to_record, typed_row

SEQUENCE_COLUMNS = ("sequence", "Sequence", "SEQUENCE")
"""Where sequences are looked for, in this order."""
PROBLEM = "Problem"
"""Column that says why a row could not be predicted."""

_OF_THE_INPUT = ("Protein_ID", "Accession", "Gene")
_OF_IMAGES = ("Intranuclear_Fraction", "Nucleus")


def predict_table(proteins: Any, model: str | Path | Predictor = DEFAULT_MODEL) -> Any:
    """Predict the labels of the rows of a table, or of sequences.

    Parameters
    ----------
    proteins
        A pandas or polars DataFrame with a column ``sequence``; a Series, a list or another iterable of
        sequences.
    model
        Name or path of a bundle, or a loaded `Predictor`.

    Returns
    -------
    DataFrame
        Of the same kind, with one row for each row of the input, in its order and with its index: its
        columns, after them those of ``results.csv`` (numbers as numbers), and ``Problem``: why a row could
        not be predicted, which then has no other result. From sequences alone: a pandas DataFrame, or a
        polars one where pandas is not installed.

    Raises
    ------
    InputError
        If the table has no column of sequences, or one of a name that results have.
    MissingExtraError
        If sequences are given, and neither pandas nor polars is installed.

    Examples
    --------
    >>> from deepgps import predict_table
    >>> table = predict_table(["MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ", "MKJ"])
    >>> [problem is None for problem in table["Problem"]]
    [True, False]
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    given = _package_of(proteins)
    package, index = given or _installed(), proteins.index if given == "pandas" else None
    if given is None or not hasattr(proteins, "columns"):
        return _frame(package, _predicted(predictor, list(proteins)), predictor.classes, index)
    columns = list(proteins.columns)
    name = next((each for each in SEQUENCE_COLUMNS if each in columns), None)
    if name is None:
        shown = ", ".join(map(str, columns[:12]))
        raise InputError(f"The table has no column 'sequence' (found: {shown}); rename or add it.")
    if clash := [each for each in _result_columns(predictor.classes) if each in columns]:
        raise InputError(f"The table has a column '{clash[0]}', as the results have; rename or drop it.")
    found = _frame(package, _predicted(predictor, list(proteins[name])), predictor.classes, index)
    if package == "polars":
        return proteins.hstack(found)
    import pandas as pd

    return pd.concat([proteins, found], axis=1)


def _package_of(proteins: Any) -> str | None:
    package = type(proteins).__module__.partition(".")[0]
    return package if package in ("pandas", "polars") else None


def _installed() -> str:
    for package in ("pandas", "polars"):
        if find_spec(package):
            return package
    raise MissingExtraError("A table needs pandas or polars, which are not installed: pip install pandas.")


def _result_columns(classes: Sequence[str]) -> list[str]:
    left_out = (*_OF_THE_INPUT, *_OF_IMAGES)
    return [*(name for name in table_columns(classes) if name not in left_out), PROBLEM]


def _predicted(predictor: Predictor, sequences: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the cells of each row."""
    rows: list[dict[str, Any]] = [{} for _ in sequences]
    places, usable = list[int](), list[Protein]()
    for place, given in enumerate(sequences):
        # Missing cells are None or NaN.
        sequence = clean_sequence(given) if isinstance(given, str) else ""
        name = f"row {place + 1}"
        if problem := check_sequence(name, sequence):
            rows[place] = {PROBLEM: problem}
        else:
            places.append(place)
            usable.append(Protein(name, sequence))
    for place, prediction in zip(places, predictor.predict(usable, images=False), strict=True):
        cells = typed_row(to_record(prediction), predictor.classes)
        rows[place] = dict(zip(table_columns(predictor.classes), cells, strict=True))
    return rows


def _frame(package: str, rows: Sequence[dict[str, Any]], classes: Sequence[str], index: Any) -> Any:
    names, numbers = _result_columns(classes), {*NUMBERS, *classes}
    cells = {name: [row.get(name) for row in rows] for name in names}
    if package == "polars":
        import polars as pl

        schema = {name: pl.Float64 if name in numbers else pl.String for name in names}
        return pl.DataFrame(cells, schema=schema)
    import pandas as pd

    kinds = {name: "float64" if name in numbers else "object" for name in names}
    return pd.DataFrame({name: pd.Series(cells[name], dtype=kinds[name]) for name in names}).set_axis(
        pd.RangeIndex(len(rows)) if index is None else index
    )
