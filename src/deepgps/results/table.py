"""A prediction as a record (JSON Lines) and as a row of a table (CSV, TSV)."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from typing import Literal, TypedDict

from deepgps.prediction import Prediction

TableFormat = Literal["csv", "tsv", "json", "parquet"]
"""What stands beside ``results.jsonl``: the same as text or Parquet, or nothing."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
ImageFormat = Literal["files", "zarr"]
"""What images are kept in: files for each, or one Zarr store."""


class Evidence(TypedDict):
    """One annotated protein that resembles the query."""

    accession: str
    localizations: list[str]
    similarity: float


class Record(TypedDict):
    """One protein in one nucleus: a line of ``results.jsonl``."""

    protein_id: str
    sequence_sha256: str
    length: int
    localizations: list[str]
    probabilities: dict[str, float]
    confidence: float | None
    intranuclear_fraction: float | None
    model: str
    version: str
    nucleus: str | None
    images: str | None
    evidence: list[Evidence]
    warnings: list[str]


def sequence_sha256(sequence: str) -> str:
    """Fingerprint a sequence."""
    return hashlib.sha256(sequence.encode()).hexdigest()


def record_of(prediction: Prediction) -> Record:
    """Turn a prediction into a record; its images stay out of it, and have no name yet."""
    fraction = prediction.readouts.get("intranuclear_fraction", math.nan)
    return Record(
        protein_id=prediction.protein.id,
        sequence_sha256=sequence_sha256(prediction.protein.sequence),
        length=len(prediction.protein.sequence),
        localizations=list(prediction.localizations),
        probabilities={slug: round(float(p), 6) for slug, p in prediction.probabilities.items()},
        confidence=None if prediction.confidence is None else round(float(prediction.confidence), 6),
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


def columns(classes: Sequence[str]) -> list[str]:
    """Columns of the table, in order."""
    return [
        *("Protein_ID", "Localizations", "Confidence", *classes),
        *("Intranuclear_Fraction", "Model", "Version", "Nucleus", "Warnings"),
    ]


def cells(record: Record, classes: Sequence[str]) -> list[str]:
    """One row of the table: probabilities to four places, lists joined by ``|``."""
    fraction, confidence = record["intranuclear_fraction"], record["confidence"]
    return [
        record["protein_id"],
        "|".join(record["localizations"]),
        "" if confidence is None else f"{confidence:.4f}",
        *(f"{record['probabilities'][slug]:.4f}" for slug in classes),
        "" if fraction is None else f"{fraction:.4f}",
        record["model"],
        record["version"],
        record["nucleus"] or "",
        " | ".join(record["warnings"]),
    ]


def table_line(values: Sequence[str], delimiter: str = ",") -> bytes:
    """Encode one line of a table, quoted where a value needs it, in UTF-8."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "backslashreplace")


def json_line(record: Record) -> bytes:
    """Encode a record as one line of JSON."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
