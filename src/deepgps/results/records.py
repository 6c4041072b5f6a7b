"""Predictions as records: JSON Lines, and the lines of tables (CSV, TSV)."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

# Pydantic needs this one on Python 3.11.
from typing_extensions import TypedDict

from deepgps.arrays import Bytes
from deepgps.prediction import Prediction
from deepgps.prediction.overall import said_classes
from deepgps.proteins.known import KnownProtein, agreement, main_statements

TableFormat = Literal["csv", "tsv", "json", "parquet", "xlsx", "h5ad"]
"""Format of the table beside ``results.jsonl``; ``json`` is ``results.jsonl`` alone."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
ImageFormat = Literal["files", "zarr"]
"""How images are stored: as files, or as one Zarr store."""


class Evidence(TypedDict):
    """An annotated protein that resembles the predicted one."""

    accession: str
    localizations: list[str]
    similarity: float


class KnownStatement(TypedDict):
    """What one source says of a protein; see `deepgps.proteins.known.Statement`."""

    source: str
    reliability: str
    word: str
    localizations: list[str]
    part: str


class Known(TypedDict):
    """The known protein that a sequence is; see `deepgps.proteins.known.KnownProtein`."""

    accession: str
    gene_symbol: str | None
    human: bool
    identity: float
    coverage: float
    match: str
    others: list[str]
    localizations: list[str]
    agreement: str
    statements: list[KnownStatement]


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Record(TypedDict):
    """One protein in one cell: a line of ``results.jsonl``."""

    protein_id: str
    accession: str | None
    gene_symbol: str | None
    sequence_sha256: str
    length: int
    localizations: list[str]
    probabilities: dict[str, float]
    confidence: float | None
    prediction_set: list[str] | None
    known: Known | None
    predicted: dict[str, float]
    intranuclear_fraction: float | None
    model: str
    version: str
    nucleus: str | None
    images: str | None
    evidence: list[Evidence]
    warnings: list[str]


class ResultRow(NamedTuple):
    """One protein in one cell, before it is written.

    Attributes
    ----------
    record
        The record; it does not name its images yet.
    image
        Content of the PNG and of the OME-TIFF, or pixels (H, W) for a Zarr store; None without images.
    """

    record: Record
    image: tuple[bytes, bytes] | Bytes | None = None


def sequence_sha256(sequence: str) -> str:
    """Return the SHA-256 of a sequence."""
    return hashlib.sha256(sequence.encode()).hexdigest()


def to_record(prediction: Prediction) -> Record:
    """Turn a prediction into a record, which does not name its images yet."""
    fraction = prediction.readouts.get("intranuclear_fraction", math.nan)
    protein, known = prediction.protein, prediction.known
    same = known if known is not None and known.whole else None
    return Record(
        protein_id=protein.id,
        accession=protein.accession or (same.accession if same else None),
        gene_symbol=protein.gene_symbol or (same.gene_symbol if same else None),
        sequence_sha256=sequence_sha256(prediction.protein.sequence),
        length=len(prediction.protein.sequence),
        localizations=list(prediction.localizations),
        probabilities={slug: round(float(p), 6) for slug, p in prediction.probabilities.items()},
        confidence=None if prediction.confidence is None else round(float(prediction.confidence), 6),
        prediction_set=None if prediction.prediction_set is None else list(prediction.prediction_set),
        known=None if known is None else _known(known, tuple(prediction.probabilities)),
        predicted={slug: round(float(p), 6) for slug, p in prediction.predicted.items()},
        intranuclear_fraction=None if math.isnan(fraction) else round(float(fraction), 6),
        model=prediction.model,
        version=prediction.version,
        nucleus=prediction.cell.name if prediction.cell else None,
        images=None,
        evidence=[
            Evidence(
                accession=near.accession,
                localizations=list(near.localizations),
                similarity=round(float(near.similarity), 4),
            )
            for near in prediction.evidence
        ],
        warnings=list(prediction.warnings),
    )


def _known(known: KnownProtein, classes: Sequence[str]) -> Known:
    main = main_statements(known.statements)
    return Known(
        accession=known.accession,
        gene_symbol=known.gene_symbol,
        human=known.human,
        identity=round(known.identity, 4),
        coverage=round(known.coverage, 4),
        match=known.match,
        others=list(known.others),
        localizations=said_classes(main, classes),
        agreement=agreement(main),
        statements=[
            KnownStatement(
                source=each.source,
                reliability=each.reliability,
                word=each.word,
                localizations=list(each.localizations),
                part=each.part,
            )
            for each in known.statements
        ],
    )


def table_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of the table, in order."""
    return [
        *("Protein_ID", "Accession", "Gene", "Length", "Localizations", "Confidence"),
        "Prediction_Set",
        *("Known", "Known_Sources", *classes, "Nearest", "Similarity"),
        *("Intranuclear_Fraction", "Model", "Version", "Nucleus", "Warnings"),
    ]


def table_row(record: Record, classes: Sequence[str]) -> list[str]:
    """Return a row of the table: probabilities to four decimals, lists joined by ``|``."""
    fraction, confidence, known = record["intranuclear_fraction"], record["confidence"], record["known"]
    nearest = next(iter(record["evidence"]), None)
    return [
        record["protein_id"],
        record["accession"] or "",
        record["gene_symbol"] or "",
        str(record["length"]),
        "|".join(record["localizations"]),
        "" if confidence is None else f"{confidence:.4f}",
        "|".join(record["prediction_set"] or ()),
        "|".join(known["localizations"]) if known else "",
        known["agreement"] if known else "",
        *(f"{record['probabilities'][slug]:.4f}" for slug in classes),
        nearest["accession"] if nearest else "",
        f"{nearest['similarity']:.4f}" if nearest else "",
        "" if fraction is None else f"{fraction:.4f}",
        record["model"],
        record["version"],
        record["nucleus"] or "",
        " | ".join(record["warnings"]),
    ]


NUMBERS = ("Length", "Confidence", "Similarity", "Intranuclear_Fraction")
"""Columns of the table with numbers, beside the classes."""


def typed_row(record: Record, classes: Sequence[str]) -> list[str | float | None]:
    """Return a row of the table in which numbers are numbers; one that is missing is None."""
    numbers = {*NUMBERS, *classes}
    cells = zip(table_columns(classes), table_row(record, classes), strict=True)
    return [(float(cell) if cell else None) if name in numbers else cell for name, cell in cells]


def table_line(values: Sequence[str], delimiter: str = ",") -> bytes:
    """Encode a line of a table in UTF-8, with quotes where a value needs them."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "backslashreplace")


def json_line(record: Record) -> bytes:
    """Encode a record as one line of JSON."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_records(path: Path) -> Iterator[Record]:
    """Read the complete records of a ``results.jsonl``, one at a time.

    A missing file has no records; a line that was cut off by a kill, or is no record, ends the file.

    Yields
    ------
    Record
        One line of the file.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(record, dict):
                return
            yield record  # type: ignore[misc]


def parse_record(line: bytes) -> Record | None:
    """Parse a line of ``results.jsonl``; None if a field is missing, unknown or of another type."""
    try:
        return _record_type().validate_json(line)
    except ValidationError:
        return None


@cache
def _record_type() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
