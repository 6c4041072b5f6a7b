"""Tables that are written whole, once a run is finished: Parquet, Excel and AnnData."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepgps.errors import InputError, MissingExtraError
from deepgps.files import atomic_path
from deepgps.results.records import (
    NUMBERS,
    Record,
    TableFormat,
    read_records,
    table_columns,
    typed_row,
)

MAX_XLSX_ROWS = 1_048_576
MAX_XLSX_TEXT = 32_767


def write_parquet(records: Path, target: Path, classes: Sequence[str]) -> None:
    """Write records as Parquet, a few at a time, whole or not at all.

    Parameters
    ----------
    records
        A complete ``results.jsonl``.
    target
        The file to write. Its columns are those of `Record`; ``probabilities`` is a struct with a field for
        each class, and left out if there are no classes.
    classes
        The model's class slugs.
    """
    import polars as pl

    with atomic_path(target) as draft:
        pl.scan_ndjson(records, schema=_parquet_schema(classes), low_memory=True).sink_parquet(draft)


def _parquet_schema(classes: Sequence[str]) -> dict[str, Any]:
    import polars as pl

    text, number = pl.String(), pl.Float64()
    evidence = {"accession": text, "localizations": pl.List(text), "similarity": number}
    known = {
        "accession": text,
        "gene_symbol": text,
        "human": pl.Boolean(),
        "identity": number,
        "coverage": number,
        "match": text,
        "others": pl.List(text),
        "localizations": pl.List(text),
        "agreement": text,
        "statements": pl.List(
            pl.Struct(
                {
                    "source": text,
                    "reliability": text,
                    "word": text,
                    "localizations": pl.List(text),
                    "part": text,
                }
            )
        ),
    }
    schema = {
        "protein_id": text,
        "accession": text,
        "gene_symbol": text,
        "sequence_sha256": text,
        "length": pl.Int64(),
        "localizations": pl.List(text),
        "probabilities": pl.Struct(dict.fromkeys(classes, number)),
        "confidence": number,
        "prediction_set": pl.List(text),
        "known": pl.Struct(known),
        "predicted": pl.Struct(dict.fromkeys(classes, number)),
        "intranuclear_fraction": number,
        "model": text,
        "version": text,
        "nucleus": text,
        "images": text,
        "evidence": pl.List(pl.Struct(evidence)),
        "warnings": pl.List(text),
    }
    if not classes:
        # Parquet has no struct without fields.
        del schema["probabilities"], schema["predicted"]
    return schema


def write_xlsx(records: Path, target: Path, classes: Sequence[str]) -> None:
    """Write records as an Excel workbook, one row in memory at a time, whole or not at all.

    Parameters
    ----------
    records
        A complete ``results.jsonl``.
    target
        The file to write: the columns and rows of ``results.csv``, numbers as numbers. Text is text: none is
        taken for a formula or a link.
    classes
        The model's class slugs.

    Raises
    ------
    InputError
        If there are more rows than a sheet holds.
    """
    import xlsxwriter

    texts = ("strings_to_formulas", "strings_to_urls", "strings_to_numbers")
    options = {"constant_memory": True, **dict.fromkeys(texts, False)}
    with atomic_path(target) as draft, xlsxwriter.Workbook(draft, options) as book:
        sheet = book.add_worksheet("results")
        sheet.freeze_panes(1, 1)
        sheet.write_row(0, 0, table_columns(classes), book.add_format({"bold": True}))
        for number, record in enumerate(read_records(records), start=1):
            if number == MAX_XLSX_ROWS:
                raise InputError(
                    f"A sheet of Excel holds {MAX_XLSX_ROWS:,} rows, and there are more; use --format csv."
                )
            for column, cell in enumerate(typed_row(record, classes)):
                if isinstance(cell, str):
                    sheet.write_string(number, column, cell[:MAX_XLSX_TEXT])
                elif cell is not None:
                    sheet.write_number(number, column, cell)


def write_h5ad(records: Path, target: Path, classes: Sequence[str]) -> None:
    """Write records as AnnData, whole or not at all.

    Parameters
    ----------
    records
        A complete ``results.jsonl``.
    target
        The file to write. ``X`` (n, K) float32 has the overall probabilities, the layer ``predicted`` those
        predicted without the protein's own record; ``var_names`` are the classes, ``obs`` the other columns
        of ``results.csv``, ``obs_names`` the ids, with the nucleus where there are several.
    classes
        The model's class slugs.
    """
    import anndata
    import pandas as pd

    rows = list(read_records(records))
    several = len({record["nucleus"] for record in rows}) > 1
    names = [f"{each['protein_id']} in {each['nucleus']}" if several else each["protein_id"] for each in rows]
    obs = pd.DataFrame([typed_row(record, ()) for record in rows], columns=table_columns(()), index=names)
    obs = obs.astype(dict.fromkeys(NUMBERS, "float64"))
    data = anndata.AnnData(
        _probabilities(rows, "probabilities", classes),
        obs=obs,
        var=pd.DataFrame(index=list(classes)),
        layers={"predicted": _probabilities(rows, "predicted", classes)},
    )
    with atomic_path(target) as draft:
        data.write_h5ad(draft)


def _probabilities(rows: Sequence[Record], field: str, classes: Sequence[str]) -> Any:
    found: list[Mapping[str, float]] = [row[field] for row in rows]  # type: ignore[literal-required]
    return np.array([[each[slug] for slug in classes] for each in found], np.float32).reshape(len(rows), -1)


class _Export(NamedTuple):
    """A format: the package that it needs, the extra that installs it, and its writer."""

    package: str
    extra: str
    write: Callable[[Path, Path, Sequence[str]], None]


_EXPORTS: Mapping[TableFormat, _Export] = {
    "parquet": _Export("polars", "scale", write_parquet),
    "xlsx": _Export("xlsxwriter", "xlsx", write_xlsx),
    "h5ad": _Export("anndata", "anndata", write_h5ad),
}

EXPORTED_FILES = tuple(f"results.{name}" for name in _EXPORTS)
"""Names of the files."""


def check_export(table: TableFormat) -> None:
    """Check that a format can be written; those that are written line by line always can.

    Raises
    ------
    MissingExtraError
        If a library is missing.
    """
    if table not in _EXPORTS:
        return
    package, extra, _ = _EXPORTS[table]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--format {table} needs '{error.name}', which is not installed: pip install 'deepgps[{extra}]'."
        ) from None


def export_table(table: TableFormat, records: Path, classes: Sequence[str]) -> None:
    """Write the table of a finished run beside its records, if its format is one of these.

    Parameters
    ----------
    table
        The format.
    records
        A complete ``results.jsonl``.
    classes
        The model's class slugs.
    """
    if table in _EXPORTS:
        _EXPORTS[table].write(records, records.with_name(f"results.{table}"), classes)
