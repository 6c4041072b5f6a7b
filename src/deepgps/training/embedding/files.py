"""Embeddings on disk: a table of proteins, and the vectors of residues beside it."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

import deepgps
from deepgps.arrays import Floats
from deepgps.files import atomic_path
from deepgps.proteins.embedding import EncoderDescription, Level
from deepgps.proteins.protein import Protein
from deepgps.proteins.windows import window_count

Keep = Callable[[Protein, Floats], None]


def write_table(
    out: Path, proteins: Sequence[Protein], vectors: Floats | None, identity: EncoderDescription, level: Level
) -> int:
    """Write a row for each protein; its metadata (key ``deepgps``) say which encoder the vectors are of.

    Parameters
    ----------
    out
        The Parquet file; written whole or not at all.
    proteins
        N of them.
    vectors
        (N, E); None if they are vectors of residues, which lie beside.
    identity, level
        What they are.

    Returns
    -------
    int
        Proteins that were encoded in several windows.
    """
    windows = [window_count(len(protein.sequence), identity.max_length) for protein in proteins]
    columns = {
        "protein_id": pl.Series([protein.id for protein in proteins], dtype=pl.String),
        "gene_symbol": pl.Series([protein.gene_symbol for protein in proteins], dtype=pl.String),
        "accession": pl.Series([protein.accession for protein in proteins], dtype=pl.String),
        "length": pl.Series([len(protein.sequence) for protein in proteins], dtype=pl.Int64),
        "windows": pl.Series(windows, dtype=pl.Int64),
        "sequence_sha256": pl.Series([sha256(each.sequence.encode()).hexdigest() for each in proteins]),
    }
    if vectors is not None:
        columns["embedding"] = pl.Series(vectors, dtype=pl.Array(pl.Float32, identity.dimension))
    made = {"deepgps": deepgps.__version__, "encoder": asdict(identity), "level": level}
    with atomic_path(out) as draft:
        pl.DataFrame(columns).write_parquet(draft, metadata={"deepgps": json.dumps(made)})
    return sum(count > 1 for count in windows)


@contextmanager
def residue_file(path: Path) -> Iterator[Keep]:
    """Write vectors of residues as they come: an ``.npz`` with an array (L, E) a protein, by its id."""
    with atomic_path(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:

        def keep(protein: Protein, vectors: Floats) -> None:
            with archive.open(f"{protein.id}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(vectors), allow_pickle=False)

        yield keep
