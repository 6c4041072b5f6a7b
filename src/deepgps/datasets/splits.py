"""Split proteins into training, validation and test, as in the paper, by protein or by homology cluster.

The paper (Materials and methods, *Dataset split*) ranks the classes by their number of proteins and takes
75 to 90 % of each, linearly, for training, 4:1 overall. It does not say which end of the range is for the
largest class. Here every class keeps enough proteins for testing: the smallest class uses 75 % for training,
and the fraction rises linearly with the rank to what gives 4:1 overall. A tenth of the training proteins is
for validation.
"""

import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import deepgps
from deepgps.datasets.crops.store import CROPS_INDEX, PROTEINS, open_crops, read_store_proteins
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path, hash_files
from deepgps.tables import read_table, strict_rows

# 30 % identity over half of both sequences: below that, homologs cannot be distinguished from chance.
_MMSEQS_OPTIONS = ("--min-seq-id", "0.3", "-c", "0.5", "--cov-mode", "0")


def find_clusters(table: pl.DataFrame) -> dict[str, int]:
    """Return the homology cluster of each protein; proteins with neither cluster nor sequence are left out.

    Parameters
    ----------
    table
        Rows with ``protein_id``, and ``cluster`` or ``sequence``.

    Returns
    -------
    dict
        Number of the cluster by protein id.

    Raises
    ------
    InputError
        If a protein has two clusters, the table has neither clusters nor sequences, or MMseqs2 is needed and
        not installed.
    """
    rows = table.drop_nulls("protein_id")
    if "cluster" in rows.columns and rows["cluster"].count():
        return _clusters_in_table(rows)
    if "sequence" not in rows.columns or not rows["sequence"].count():
        raise InputError(
            "The table has no homology clusters, and no sequences to compute them from; "
            "give a table of proteins with a column 'cluster' or 'sequence'."
        )
    sequences = rows.drop_nulls("sequence").select("protein_id", "sequence")
    return mmseqs_clusters(dict(sequences.iter_rows()))


def _clusters_in_table(rows: pl.DataFrame) -> dict[str, int]:
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
        Residues by protein.

    Returns
    -------
    dict
        Number of the cluster by protein; clusters are in the order of their first proteins.

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
            "The table has no homology clusters, and MMseqs2, which computes them, is not installed; "
            "install it (conda install -c conda-forge -c bioconda mmseqs2), "
            "or give the table a column 'cluster'."
        )
    # Proteins are numbered, as an id may contain characters that FASTA does not allow.
    ids = sorted(sequences)
    with TemporaryDirectory() as folder:
        pairs = _run_mmseqs(program, [sequences[each] for each in ids], Path(folder))
    first: dict[str, int] = {}
    for member, representative in sorted((int(member), representative) for representative, member in pairs):
        first.setdefault(representative, member)
    numbers = {representative: number for number, representative in enumerate(first)}
    return {ids[int(member)]: numbers[representative] for representative, member in pairs}


def _run_mmseqs(program: str, sequences: list[str], folder: Path) -> list[tuple[str, str]]:
    """Return pairs of (representative, member), as indices into `sequences`."""
    fasta = folder / "proteins.fasta"
    fasta.write_text("".join(f">{number}\n{residues}\n" for number, residues in enumerate(sequences)))
    paths = [str(path) for path in (fasta, folder / "found", folder / "tmp")]
    command = [program, "easy-cluster", *paths, *_MMSEQS_OPTIONS]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    table = folder / "found_cluster.tsv"
    if process.returncode or not table.exists():
        output = (process.stderr or process.stdout).strip().splitlines()
        reason = output[-1] if output else f"exit code {process.returncode}"
        raise DeepGPSError(f"MMseqs2 failed ({reason}); check that '{program} version' runs.")
    return [(line.split("\t")[0], line.split("\t")[1]) for line in table.read_text().splitlines()]


PARTS = ("train", "validation", "test")
TRAINING_FRACTION = 0.8
"""Fraction of all proteins for training and validation: 4:1."""
LOWEST_TRAINING_FRACTION = 0.75
"""Fraction of the smallest class for training and validation."""
VALIDATION_FRACTION = 0.1
"""Fraction of these for validation."""
MULTI, UNKNOWN = "multi-localized", "not annotated"

_Counts = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """Proteins that must stay in one part, and the number of them in each class."""

    proteins: tuple[str, ...]
    classes: Mapping[str, int]


def class_targets(sizes: Mapping[str, int]) -> dict[str, _Counts]:
    """Return how many proteins of each class are for training, validation and test.

    The only protein of a class is for training; of two, one is for training and one for test; a class of
    three or more is in every part.

    Parameters
    ----------
    sizes
        Number of proteins by class.

    Returns
    -------
    dict
        By class, the number of proteins of each part.
    """
    ranked = sorted(sizes, key=lambda name: (sizes[name], name))
    ranks = {name: index / max(len(ranked) - 1, 1) for index, name in enumerate(ranked)}
    mean_rank = sum(ranks[name] * sizes[name] for name in ranked) / max(sum(sizes.values()), 1)
    slope = (TRAINING_FRACTION - LOWEST_TRAINING_FRACTION) / mean_rank if mean_rank else 0
    lowest = LOWEST_TRAINING_FRACTION if mean_rank else TRAINING_FRACTION
    return {name: _counts(sizes[name], lowest + slope * ranks[name]) for name in ranked}


def _counts(size: int, fraction: float) -> _Counts:
    max_test = floor(size * (1 - LOWEST_TRAINING_FRACTION))
    test = max(min(round(size * (1 - fraction)), max_test), 1) if size > 1 else 0
    validation = max(round((size - test) * VALIDATION_FRACTION), 1) if size > 2 else 0
    return size - test - validation, validation, test


def assign_parts(units: Iterable[SplitUnit], seed: int) -> dict[str, str]:
    """Assign every protein to a part, so that each class comes near its `class_targets`.

    Classes of the fewest units are assigned first, and within a class the largest units; ties are in random
    order. A unit goes to the part that lacks the largest fraction of its target and still has room for it.
    The last units of a class go to the parts that have none of it.

    Parameters
    ----------
    units
        Disjoint units, in any order.
    seed
        Seed of the random order.

    Returns
    -------
    dict
        ``train``, ``validation`` or ``test`` by protein.
    """
    remaining = sorted(units, key=lambda unit: _random_key(unit, seed))
    sizes: Counter[str] = Counter()
    for unit in remaining:
        sizes.update(unit.classes)
    unit_counts = Counter(name for unit in remaining for name in unit.classes)
    targets, assigned = class_targets(sizes), {name: [0, 0, 0] for name in sizes}
    parts: dict[str, str] = {}
    for name in sorted(sizes, key=lambda name: (unit_counts[name], name)):
        members = [unit for unit in remaining if name in unit.classes]
        remaining = [unit for unit in remaining if name not in unit.classes]
        members.sort(key=lambda unit: -unit.classes[name])
        for left, unit in zip(range(len(members), 0, -1), members, strict=True):
            part = _part(targets[name], assigned[name], unit.classes[name], left)
            for other, count in unit.classes.items():
                assigned[other][part] += count
            parts.update(dict.fromkeys(unit.proteins, PARTS[part]))
    return parts


def _part(target: Sequence[int], assigned: Sequence[int], size: int, left: int) -> int:
    """Choose a part for a unit with `size` proteins of a class, of which `left` units remain."""
    missing = [part for part in range(3) if target[part] and not assigned[part]]
    options = missing if missing and left <= len(missing) else range(3)
    need = [total - count for total, count in zip(target, assigned, strict=True)]
    if fitting := [part for part in options if need[part] >= size]:
        return max(fitting, key=lambda part: need[part] / target[part])
    return max(options, key=lambda part: need[part])


def _random_key(unit: SplitUnit, seed: int) -> bytes:
    # Unlike a random generator, a hash does not depend on versions or on the order of rows.
    return hashlib.sha256(f"{seed}/{min(unit.proteins)}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Split:
    """A split of proteins.

    Attributes
    ----------
    parts
        ``train``, ``validation`` or ``test`` by protein.
    classes
        Class by protein: the localization of a single-localized protein, else ``multi-localized``, or ``not
        annotated`` without localizations.
    left_out
        Proteins in no part: those without a homology cluster in a split by cluster.
    """

    parts: Mapping[str, str]
    classes: Mapping[str, str]
    left_out: tuple[str, ...]


def split_proteins(table: pl.DataFrame, by: Literal["protein", "cluster"], seed: int) -> Split:
    """Split proteins so that no protein, sequence or homology cluster is in two parts.

    Parameters
    ----------
    table
        Rows with ``protein_id`` and ``localizations``; ``single_localized``, ``sequence`` and ``cluster`` are
        used if present. A protein may have several rows, such as its crops.
    by
        ``protein``: proteins of the same sequence stay together; ``cluster``: those of the same homology
        cluster, too. Clusters are from the column, or computed with MMseqs2.
    seed
        Seed of the random order.

    Returns
    -------
    Split
        The part of each protein, its class, and the proteins that could not be split.

    Raises
    ------
    InputError
        If a column is missing, there is no protein to split, or clusters cannot be computed.
    """
    for column in ("protein_id", "localizations"):
        if column not in table.columns:
            raise InputError(f"The table has no column '{column}'; give proteins.parquet or a crop store.")
    classes, keys = _classes(table), _shared_keys(table)
    if by == "cluster":
        clusters = find_clusters(table)
        keys = {protein: {*keys[protein], f"cluster {number}"} for protein, number in clusters.items()}
    if not keys:
        raise InputError("There is no protein to split; annotate or prepare some first.")
    units = [SplitUnit(each, Counter(classes[one] for one in each)) for each in linked_groups(keys)]
    return Split(assign_parts(units, seed), classes, tuple(sorted(set(classes) - set(keys))))


def _classes(table: pl.DataFrame) -> dict[str, str]:
    """Return the class of each protein; one with different localizations in its rows is multi-localized."""
    single = pl.col("single_localized") if "single_localized" in table.columns else pl.lit(True)
    rows = table.drop_nulls("protein_id").select("protein_id", "localizations", single.alias("single"))
    classes: dict[str, str] = {}
    for protein, localizations, is_single in rows.unique(maintain_order=True).iter_rows():
        name = _class(localizations, is_single=is_single)
        classes[protein] = name if classes.get(protein, name) == name else MULTI
    return classes


def _class(localizations: str | None, *, is_single: bool | None) -> str:
    if not localizations:
        return UNKNOWN
    return localizations if is_single is not False and "|" not in localizations else MULTI


def _shared_keys(table: pl.DataFrame) -> dict[str, set[str]]:
    """Return the keys of each protein, its id and sequences: proteins with a common key stay together."""
    keys = {protein: {f"protein {protein}"} for protein in table["protein_id"].drop_nulls()}
    if "sequence" in table.columns:
        rows = table.select("protein_id", "sequence").drop_nulls().unique()
        for protein, sequence in rows.iter_rows():
            keys[protein].add(f"sequence {sequence}")
    return keys


def linked_groups(keys: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """Group proteins with a common key, directly or through other proteins.

    Parameters
    ----------
    keys
        Keys by protein.

    Returns
    -------
    list of tuple
        The groups; proteins are sorted within each.
    """
    numbers: dict[str, int] = {}
    proteins = sorted(keys)
    links = [
        (row, numbers.setdefault(key, len(numbers)))
        for row, protein in enumerate(proteins)
        for key in keys[protein]
    ]
    rows, columns = np.array(links, np.int64).T
    shape = (len(proteins), len(numbers))
    has_key = csr_array((np.ones(len(links), np.int32), (rows, columns)), shape=shape)
    _, labels = connected_components(has_key @ has_key.T, directed=False)
    groups: dict[int, list[str]] = {}
    for protein, label in zip(proteins, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(protein)
    return [tuple(group) for group in groups.values()]


SPLIT_FILE = "split.csv"
SPLIT_COLUMNS = ("protein_id", "split")


def read_proteins_to_split(source: Path) -> pl.DataFrame:
    """Read the rows of a Parquet table of proteins, or of a crop store with the columns of its proteins.

    Returns
    -------
    polars.DataFrame
        Rows with ``protein_id`` and ``localizations``.

    Raises
    ------
    InputError
        If `source` is neither.
    """
    if source.is_dir():
        return _with_protein_columns(open_crops(source).index, source)
    if not source.exists():
        raise InputError(f"'{source}' was not found; give proteins.parquet or the folder of a crop store.")
    try:
        return pl.read_parquet(source)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"'{source}' is not a Parquet table ({error}); give proteins.parquet.") from error


def _with_protein_columns(index: pl.DataFrame, store: Path) -> pl.DataFrame:
    if not (store / PROTEINS).exists():
        return index
    proteins = read_store_proteins(store)
    added = [name for name in ("single_localized", "sequence", "cluster") if name in proteins.columns]
    return index.join(proteins.select("protein_id", *added), "protein_id", how="left", maintain_order="left")


def write_split(split: Split, out: Path, source: Path, options: Mapping[str, str | int]) -> Path:
    """Write ``split.csv``, and beside it a manifest with options, hashes of the input and counts.

    Parameters
    ----------
    split
        The split.
    out
        The CSV file.
    source
        The table or crop store that was split.
    options
        Options to record.

    Returns
    -------
    Path
        The manifest, ``<stem>.manifest.json``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = hash_files([source / CROPS_INDEX, source / PROTEINS] if source.is_dir() else [source])
    counts = {name: dict(zip(PARTS, row, strict=True)) for name, row in class_counts(split).items()}
    document = {"deepgps": deepgps.__version__, **options, "inputs": inputs, "proteins": counts}
    manifest = out.with_name(f"{out.stem}.manifest.json")
    with atomic_path(out) as draft:
        pl.DataFrame(sorted(split.parts.items()), schema=SPLIT_COLUMNS, orient="row").write_csv(draft)
    with atomic_path(manifest) as draft:
        draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_split(path: Path) -> dict[str, str]:
    """Read a split: ``train``, ``validation`` or ``test`` by protein.

    Returns
    -------
    dict
        Part by protein id.

    Raises
    ------
    InputError
        If the file does not exist, is not a split, or has a protein in two parts.
    """
    if not path.is_file():
        raise InputError(f"Split '{path}' was not found; make it with 'deepgps data split'.")
    table = read_table(path)
    if table.columns != SPLIT_COLUMNS:
        raise InputError(f"'{path}' is not a split; it needs the columns 'protein_id' and 'split'.")
    parts: dict[str, str] = {}
    for row in strict_rows(table, path):
        protein, part = row.cells["protein_id"], row.cells["split"]
        if part not in PARTS:
            raise InputError(f"Line {row.line} of '{path}' names no split; use {', '.join(PARTS)}.")
        if parts.setdefault(protein, part) != part:
            raise InputError(f"Protein '{protein}' is in two splits in '{path}'; give it one.")
    return parts


def class_counts(split: Split) -> dict[str, tuple[int, ...]]:
    """Count the proteins of each class in each part; the largest class is first."""
    counts = Counter((split.classes[protein], part) for protein, part in split.parts.items())
    sizes = Counter(split.classes[protein] for protein in split.parts)
    return {name: tuple(counts[name, part] for part in PARTS) for name, _ in sizes.most_common()}


def split_report(split: Split, table: pl.DataFrame) -> Iterator[str]:
    """Yield the lines of a table of proteins by class and part; with crops, if proteins have several rows."""
    rows = class_counts(split)
    rows["proteins"] = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    ids = table["protein_id"].drop_nulls().to_list()
    if len(ids) > len(split.classes):
        crops = Counter(split.parts.get(protein) for protein in ids)
        rows["crops"] = tuple(crops[part] for part in PARTS)
    yield f"{'':<18}" + "".join(f"{name:>12}" for name in (*PARTS, "all", "train+val"))
    for name, row in rows.items():
        fraction = f"{(row[0] + row[1]) / max(sum(row), 1):.0%}"
        yield f"{name:<18}" + "".join(f"{count:>12,}" for count in (*row, sum(row))) + f"{fraction:>12}"
