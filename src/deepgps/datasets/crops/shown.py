"""The proteins that a crop store shows: their rows of the table of proteins, kept beside the crops.

With them the store is all that training needs: localizations, sequences and homology clusters come along.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from deepgps.errors import InputError
from deepgps.files import atomic_path

PROTEINS = "proteins.parquet"


def write_shown(table: Path, ids: Iterable[str], store: Path) -> None:
    """Keep the rows of some proteins, in the order of the table; of a protein's rows the last."""
    named = pl.read_parquet(table).with_columns(pl.col("protein_id").cast(pl.String))
    rows = named.filter(pl.col("protein_id").is_in(list(ids)))
    with atomic_path(store / PROTEINS) as draft:
        rows.unique("protein_id", keep="last", maintain_order=True).write_parquet(draft)


def read_shown(store: Path) -> pl.DataFrame:
    """Read the proteins of a crop store.

    Returns
    -------
    DataFrame
        One row a protein, with the columns of the table that the store was prepared with.

    Raises
    ------
    InputError
        If there are none, or they cannot be read.
    """
    try:
        return pl.read_parquet(store / PROTEINS)
    except FileNotFoundError:
        raise InputError(
            f"Crop store '{store}' has no {PROTEINS}, which says what it shows; prepare it with --overwrite."
        ) from None
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"'{store / PROTEINS}' is damaged ({error}); prepare the crops with --overwrite."
        ) from None
