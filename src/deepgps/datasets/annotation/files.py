"""The table of annotated proteins, ``proteins.parquet``, and the problems beside it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

import deepgps
from deepgps.datasets.annotation.proteins import Annotated, AnnotatedProtein
from deepgps.files import atomic_path

_SCHEMA = {
    "protein_id": pl.String,
    "gene_symbol": pl.String,
    "accession": pl.String,
    "sequence": pl.String,
    "length": pl.Int64,
    "localizations": pl.String,
    "single_localized": pl.Boolean,
    "single_2": pl.String,
    "single_4": pl.String,
    "cluster": pl.Int64,
    "source": pl.String,
    "cell_line": pl.String,
}


def proteins_table(proteins: Iterable[AnnotatedProtein]) -> pl.DataFrame:
    """Put proteins into the table that ``proteins.parquet`` holds, one row each."""
    rows = [
        {
            **{name: getattr(each, name) for name in _SCHEMA if hasattr(each, name)},
            "length": len(each.sequence) if each.sequence else None,
            "localizations": "|".join(each.localizations),
            "single_2": each.class_in("single-2"),
            "single_4": each.class_in("single-4"),
        }
        for each in proteins
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def write_annotated(annotated: Annotated, out: Path, made_from: Mapping[str, str]) -> Path:
    """Write the table of proteins, and the problems beside it as ``<stem>_problems.csv``.

    Parameters
    ----------
    annotated
        What to write.
    out
        The Parquet file; written whole or not at all. Its metadata (key ``deepgps``) say what it was made of.
    made_from
        Name to sha256 of each input.

    Returns
    -------
    Path
        The file of problems; it has only a header if there are none.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    problems = out.with_name(f"{out.stem}_problems.csv")
    columns = ("protein_id", "source", "left_out", "reason")
    rows = [[getattr(each, name) for name in columns] for each in annotated.problems]
    schema = {"protein_id": pl.String, "source": pl.String, "left_out": pl.Boolean, "reason": pl.String}
    made = {"deepgps": json.dumps({"deepgps": deepgps.__version__, "inputs": dict(made_from)})}
    with atomic_path(problems) as draft:
        pl.DataFrame(rows, schema=schema, orient="row").write_csv(draft)
    with atomic_path(out) as draft:
        proteins_table(annotated.proteins).write_parquet(draft, metadata=made)
    return problems
