"""Homology clusters: those a table brings, or those that MMseqs2 finds."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from deepgps.errors import DeepGPSError, InputError

# 30 % identity over half of both sequences: beyond it, homologs can no longer be told from chance.
_MMSEQS_OPTIONS = ("--min-seq-id", "0.3", "-c", "0.5", "--cov-mode", "0")


def find_clusters(table: pl.DataFrame) -> dict[str, int]:
    """Cluster by protein; proteins without a cluster, or without the sequence to find it by, are left out.

    Parameters
    ----------
    table
        Rows with ``protein_id`` and ``cluster``, or ``sequence``.

    Raises
    ------
    InputError
        If a protein has two clusters, or the table has neither clusters nor sequences, or MMseqs2 is needed
        and not installed.
    """
    rows = table.drop_nulls("protein_id")
    if "cluster" in rows.columns and rows["cluster"].count():
        return _given(rows)
    if "sequence" not in rows.columns or not rows["sequence"].count():
        raise InputError(
            "The table has no homology clusters, and no sequences to find them by; give a table of proteins "
            "with a column 'cluster' or 'sequence'."
        )
    known = rows.drop_nulls("sequence").select("protein_id", "sequence")
    return mmseqs_clusters(dict(known.iter_rows()))


def _given(rows: pl.DataFrame) -> dict[str, int]:
    clusters: dict[str, int] = {}
    for protein, cluster in rows.drop_nulls("cluster").select("protein_id", "cluster").iter_rows():
        if clusters.setdefault(protein, cluster) != cluster:
            raise InputError(
                f"Protein '{protein}' is in the clusters {clusters[protein]} and {cluster}; give it one."
            )
    return clusters


def mmseqs_clusters(sequences: Mapping[str, str]) -> dict[str, int]:
    """Cluster sequences with MMseqs2 at 30 % identity over half of both.

    Parameters
    ----------
    sequences
        Protein to residues.

    Returns
    -------
    dict
        Protein to the number of its cluster, in the order of the clusters' first proteins.

    Raises
    ------
    InputError
        If MMseqs2 is not installed.
    DeepGPSError
        If it fails.
    """
    program = shutil.which("mmseqs")
    if program is None:
        raise InputError(
            "The table has no homology clusters, and MMseqs2, which finds them, is not installed; install it "
            "(conda install -c conda-forge -c bioconda mmseqs2), or give the table a column 'cluster'."
        )
    # By number: an id may hold what FASTA does not bear.
    ids = sorted(sequences)
    with TemporaryDirectory() as folder:
        pairs = _run(program, [sequences[each] for each in ids], Path(folder))
    first: dict[str, int] = {}
    for member, representative in sorted((int(member), representative) for representative, member in pairs):
        first.setdefault(representative, member)
    numbers = {representative: number for number, representative in enumerate(first)}
    return {ids[int(member)]: numbers[representative] for representative, member in pairs}


def _run(program: str, sequences: list[str], folder: Path) -> list[tuple[str, str]]:
    """Pairs of a cluster's representative and a member, by place in ``sequences``."""
    fasta = folder / "proteins.fasta"
    fasta.write_text("".join(f">{number}\n{residues}\n" for number, residues in enumerate(sequences)))
    paths = [str(path) for path in (fasta, folder / "found", folder / "tmp")]
    command = [program, "easy-cluster", *paths, *_MMSEQS_OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    table = folder / "found_cluster.tsv"
    if done.returncode or not table.exists():
        said = [f"exit code {done.returncode}", *(done.stderr or done.stdout).strip().splitlines()][-1]
        raise DeepGPSError(f"MMseqs2 failed ({said}); '{program} version' tells whether it runs at all.")
    return [(line.split("\t")[0], line.split("\t")[1]) for line in table.read_text().splitlines()]
