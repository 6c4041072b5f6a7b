"""The results as Parquet: ``results.jsonl`` with types, for tables too long to be read as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepgps.errors import MissingExtraError
from deepgps.files import atomic_path


def check_polars() -> None:
    """See that Parquet can be written.

    Raises
    ------
    MissingExtraError
        If not.
    """
    try:
        import polars  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--format parquet needs '{error.name}', which is not installed: pip install 'deepgps[scale]'."
        ) from None


def write_parquet(records: Path, target: Path, classes: Sequence[str]) -> None:
    """Write records as Parquet, a few at a time, whole or not at all.

    Parameters
    ----------
    records
        A ``results.jsonl``, whole.
    target
        The file to write; `deepgps.results.table.Record` says what its columns are. ``probabilities`` is a
        struct with a field for each class, and left out where there are none.
    classes
        The model's class slugs.
    """
    import polars as pl

    with atomic_path(target) as draft:
        rows = pl.scan_ndjson(records, schema=_schema(classes), low_memory=True)
        rows.sink_parquet(draft)


def _schema(classes: Sequence[str]) -> dict[str, Any]:
    import polars as pl

    text, number = pl.String(), pl.Float64()
    evidence = {"accession": text, "localizations": pl.List(text), "similarity": number}
    schema = {
        "protein_id": text,
        "sequence_sha256": text,
        "length": pl.Int64(),
        "localizations": pl.List(text),
        "probabilities": pl.Struct(dict.fromkeys(classes, number)),
        "confidence": number,
        "intranuclear_fraction": number,
        "model": text,
        "version": text,
        "nucleus": text,
        "images": text,
        "evidence": pl.List(pl.Struct(evidence)),
        "warnings": pl.List(text),
    }
    if not classes:
        # Parquet knows no struct without fields.
        del schema["probabilities"]
    return schema
