"""The rows that ``deepgps predict`` prints: which come first, and how many."""

import heapq
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.prediction import Predictor
    from deepgps.proteins.protein import Protein
    from deepgps.results.records import Record, TableFormat

ORDERS = ("confidence", "similarity", "intranuclear")
"""What rows can be sorted by, beside the model's classes."""


def check_order(sort: str | None, classes: Sequence[str]) -> None:
    """Refuse an order that there is not.

    Raises
    ------
    InputError
        If so; it lists the orders.
    """
    if sort is not None and sort not in (*ORDERS, *classes):
        raise InputError(f"--sort '{sort}' is unknown; use one of {', '.join((*ORDERS, *classes))}.")


def first_rows(records: "Iterable[Record]", sort: str | None, top: int | None) -> "list[Record]":
    """Return the first records in an order; those without the number come last.

    Parameters
    ----------
    records
        Read whole if they are sorted, and else only as far as needed.
    sort
        One of `ORDERS` or a class; the order of the records if None.
    top
        How many; all if None.

    Returns
    -------
    list of Record
        At most `top`.
    """
    if sort is None:
        return list(islice(records, top))

    def rank(record: "Record") -> float:
        value = _value(record, sort)
        return float("inf") if value is None else -value

    return sorted(records, key=rank) if top is None else heapq.nsmallest(top, records, rank)


def _value(record: "Record", sort: str) -> float | None:
    if sort == "confidence":
        return record["confidence"]
    if sort == "intranuclear":
        return record["intranuclear_fraction"]
    if sort == "similarity":
        return max((each["similarity"] for each in record["evidence"]), default=None)
    return record["probabilities"][sort]


def check_streamed(table: "TableFormat") -> None:
    """Refuse formats that cannot be printed line by line.

    Raises
    ------
    InputError
        If so.
    """
    if table not in ("csv", "tsv", "json"):
        raise InputError(f"--format {table} is a file; give --out a folder, or use csv, tsv or json.")
    if sys.stdout is None:
        raise InputError("--out - prints to stdout, which is closed; give --out a folder.")


def print_rows(
    predictor: "Predictor",
    proteins: "Iterable[Protein]",
    table: "TableFormat",
    *,
    sort: str | None,
    top: int | None,
    workers: int,
    scheduler: str | None,
) -> int:
    """Predict labels and print them to stdout as a table, each row as soon as it is there unless sorted.

    Parameters
    ----------
    predictor
        The model.
    proteins
        The proteins.
    table
        ``csv``, ``tsv`` or ``json``.
    sort, top
        As in `first_rows`.
    workers, scheduler
        As in `deepgps.results.rows.predict_rows`.

    Returns
    -------
    int
        Proteins predicted.
    """
    from deepgps.results.records import DELIMITERS, json_line, table_columns, table_line, table_row
    from deepgps.results.rows import PredictionTask, predict_rows

    predictor.check_output(images=False)
    task = PredictionTask(
        bundle=predictor.bundle,
        structures=predictor.structures,
        mean=predictor.mean,
        seed=predictor.seed,
        cells=(),
        images=False,
        image_format="files",
        threads=predictor.threads,
    )
    predicted = 0

    def counted() -> "Iterator[Record]":
        nonlocal predicted
        for record, _ in predict_rows(predictor, task, proteins, workers=workers, scheduler=scheduler):
            predicted += 1
            yield record

    stdout, classes = sys.stdout.buffer, predictor.classes
    if table in DELIMITERS:
        stdout.write(table_line(table_columns(classes), DELIMITERS[table]))
    records = counted() if sort is None and top is None else first_rows(counted(), sort, top)
    for record in records:
        if table in DELIMITERS:
            stdout.write(table_line(table_row(record, classes), DELIMITERS[table]))
        else:
            stdout.write(json_line(record))
        stdout.flush()
    return predicted
