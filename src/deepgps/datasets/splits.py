"""Which proteins train, validate and test: the paper's rule, by protein or by homology cluster.

The paper (Materials and methods, *Dataset split*) sorts the classes by their number of proteins and samples,
linearly, 75 to 90 % of each for training, 4:1 overall. It does not say which end of the range is whose. Read
so that every class keeps enough proteins to test on: the smallest class trains on 75 %, and the share rises
linearly with the rank to what makes 4:1 overall. Part of the training side validates.
"""

import csv
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
from deepgps.datasets.crops.store import INDEX, PROTEINS, open_crops, read_store_proteins
from deepgps.datasets.fingerprints import fingerprints
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path

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


PARTS = ("train", "validation", "test")
TRAINING_SHARE = 0.8
"""Share of all proteins on the training side: 4:1."""
LOWEST_SHARE = 0.75
"""Share of the smallest class's proteins on the training side."""
VALIDATION_SHARE = 0.1
"""Share of the training side that validates."""
MULTI, UNKNOWN = "multi-localized", "not annotated"

_Counts = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """Proteins that must not be parted, and how many of them are of each class."""

    proteins: tuple[str, ...]
    classes: Mapping[str, int]


def class_targets(sizes: Mapping[str, int]) -> dict[str, _Counts]:
    """How many proteins of each class train, validate and test.

    A class of one trains; one of two trains and tests; one of three or more is in every part.
    """
    ranked = sorted(sizes, key=lambda name: (sizes[name], name))
    ranks = {name: place / max(len(ranked) - 1, 1) for place, name in enumerate(ranked)}
    mean_rank = sum(ranks[name] * sizes[name] for name in ranked) / max(sum(sizes.values()), 1)
    slope = (TRAINING_SHARE - LOWEST_SHARE) / mean_rank if mean_rank else 0
    lowest = LOWEST_SHARE if mean_rank else TRAINING_SHARE
    return {name: _counts(sizes[name], lowest + slope * ranks[name]) for name in ranked}


def _counts(size: int, share: float) -> _Counts:
    most = floor(size * (1 - LOWEST_SHARE))
    test = max(min(round(size * (1 - share)), most), 1) if size > 1 else 0
    validation = max(round((size - test) * VALIDATION_SHARE), 1) if size > 2 else 0
    return size - test - validation, validation, test


def assign_parts(units: Iterable[SplitUnit], seed: int) -> dict[str, str]:
    """Give every protein its part, so that each class comes near its `class_targets`.

    Classes of the fewest units come first, and of a class the largest units; chance, by the seed, orders the
    others. A unit goes where the class lacks the largest share of its target and the unit still fits. A class
    of as many units as parts it is missing from is spread over them.

    Parameters
    ----------
    units
        Disjoint; their order does not matter.
    seed
        Another seed, another split.

    Returns
    -------
    dict
        Protein to ``train``, ``validation`` or ``test``.
    """
    waiting = sorted(units, key=lambda unit: _chance(unit, seed))
    sizes: Counter[str] = Counter()
    for unit in waiting:
        sizes.update(unit.classes)
    rarity = Counter(name for unit in waiting for name in unit.classes)
    targets, given = class_targets(sizes), {name: [0, 0, 0] for name in sizes}
    parts: dict[str, str] = {}
    for name in sorted(sizes, key=lambda name: (rarity[name], name)):
        mine = [unit for unit in waiting if name in unit.classes]
        waiting = [unit for unit in waiting if name not in unit.classes]
        mine.sort(key=lambda unit: -unit.classes[name])
        for left, unit in zip(range(len(mine), 0, -1), mine, strict=True):
            part = _part(targets[name], given[name], unit.classes[name], left)
            for other, count in unit.classes.items():
                given[other][part] += count
            parts.update(dict.fromkeys(unit.proteins, PARTS[part]))
    return parts


def _part(target: Sequence[int], given: Sequence[int], size: int, left: int) -> int:
    """Choose a part for a unit of which a class has ``size`` proteins, with ``left`` units to place."""
    missing = [part for part in range(3) if target[part] and not given[part]]
    options = missing if missing and left <= len(missing) else range(3)
    need = [wanted - got for wanted, got in zip(target, given, strict=True)]
    if fitting := [part for part in options if need[part] >= size]:
        return max(fitting, key=lambda part: need[part] / target[part])
    return max(options, key=lambda part: need[part])


def _chance(unit: SplitUnit, seed: int) -> bytes:
    # A hash and not a generator: the same on every machine, in every version, in any order of rows.
    return hashlib.sha256(f"{seed}/{min(unit.proteins)}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Split:
    """What became of a table of proteins.

    Attributes
    ----------
    parts
        Protein to part.
    classes
        Protein to class: its localization if it is single-localized, else ``multi-localized``; ``not
        annotated`` if it has none.
    left_out
        Proteins that are in no part: those without a homology cluster, where the split is by cluster.
    """

    parts: Mapping[str, str]
    classes: Mapping[str, str]
    left_out: tuple[str, ...]


def split_proteins(table: pl.DataFrame, by: Literal["protein", "cluster"], seed: int) -> Split:
    """Split proteins so that none, or none of one homology cluster, is on two sides.

    Parameters
    ----------
    table
        Rows with ``protein_id`` and ``localizations``; ``single_localized``, ``sequence`` and ``cluster`` are
        used where present. A protein may have several rows, such as its crops.
    by
        ``protein``: proteins of one sequence stay together; ``cluster``: those of one cluster do, besides.
        Clusters are those of the column, or found with MMseqs2.
    seed
        Another seed, another split.

    Raises
    ------
    InputError
        If a column is missing, no protein is left, or there is no way to clusters.
    """
    for column in ("protein_id", "localizations"):
        if column not in table.columns:
            raise InputError(f"The table has no column '{column}'; give proteins.parquet or a crop store.")
    classes, keys = _classes(table), _sequences(table)
    if by == "cluster":
        clusters = find_clusters(table)
        keys = {protein: {*keys[protein], f"cluster {number}"} for protein, number in clusters.items()}
    if not keys:
        raise InputError("There is no protein to split; annotate or prepare some first.")
    units = [SplitUnit(each, Counter(classes[one] for one in each)) for each in linked_groups(keys)]
    return Split(assign_parts(units, seed), classes, tuple(sorted(set(classes) - set(keys))))


def _classes(table: pl.DataFrame) -> dict[str, str]:
    """Class by protein; one with several sets of localizations is multi-localized."""
    single = pl.col("single_localized") if "single_localized" in table.columns else pl.lit(True)
    rows = table.drop_nulls("protein_id").select("protein_id", "localizations", single.alias("single"))
    classes: dict[str, str] = {}
    for protein, places, is_single in rows.unique(maintain_order=True).iter_rows():
        name = _class(places, is_single=is_single)
        classes[protein] = name if classes.get(protein, name) == name else MULTI
    return classes


def _class(localizations: str | None, *, is_single: bool | None) -> str:
    if not localizations:
        return UNKNOWN
    return localizations if is_single is not False and "|" not in localizations else MULTI


def _sequences(table: pl.DataFrame) -> dict[str, set[str]]:
    """What a protein shares with others that must not be parted from it: itself, and its sequences."""
    keys = {protein: {f"protein {protein}"} for protein in table["protein_id"].drop_nulls()}
    if "sequence" in table.columns:
        rows = table.select("protein_id", "sequence").drop_nulls().unique()
        for protein, sequence in rows.iter_rows():
            keys[protein].add(f"sequence {sequence}")
    return keys


def linked_groups(keys: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """Group proteins that share a key, directly or through others; sorted within the groups."""
    numbers: dict[str, int] = {}
    proteins = sorted(keys)
    links = [
        (row, numbers.setdefault(key, len(numbers)))
        for row, protein in enumerate(proteins)
        for key in keys[protein]
    ]
    rows, columns = np.array(links, np.int64).T
    shape = (len(proteins), len(numbers))
    holds = csr_array((np.ones(len(links), np.int32), (rows, columns)), shape=shape)
    _, labels = connected_components(holds @ holds.T, directed=False)
    groups: dict[int, list[str]] = {}
    for protein, label in zip(proteins, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(protein)
    return [tuple(group) for group in groups.values()]


COLUMNS = ("protein_id", "split")


def read_proteins_to_split(source: Path) -> pl.DataFrame:
    """Read the rows of a crop store, or of a Parquet table of proteins.

    To the rows of a store is added what it says of its proteins: sequence, cluster, how many locations.

    Raises
    ------
    InputError
        If it is neither.
    """
    if source.is_dir():
        return _with_shown(open_crops(source).index, source)
    if not source.exists():
        raise InputError(f"'{source}' was not found; give proteins.parquet or the folder of a crop store.")
    try:
        return pl.read_parquet(source)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"'{source}' is not a Parquet table ({error}); give proteins.parquet.") from error


def _with_shown(index: pl.DataFrame, store: Path) -> pl.DataFrame:
    if not (store / PROTEINS).exists():
        return index
    shown = read_store_proteins(store)
    added = [name for name in ("single_localized", "sequence", "cluster") if name in shown.columns]
    return index.join(shown.select("protein_id", *added), "protein_id", how="left", maintain_order="left")


def write_split(split: Split, out: Path, source: Path, options: Mapping[str, str | int]) -> Path:
    """Write ``split.csv``, and beside it what it was made of and how many proteins are where.

    Returns
    -------
    Path
        The manifest, ``<stem>.manifest.json``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = fingerprints([source / INDEX, source / PROTEINS] if source.is_dir() else [source])
    counts = {name: dict(zip(PARTS, row, strict=True)) for name, row in class_counts(split).items()}
    made = {"deepgps": deepgps.__version__, **options, "inputs": inputs, "proteins": counts}
    manifest = out.with_name(f"{out.stem}.manifest.json")
    with atomic_path(out) as draft:
        pl.DataFrame(sorted(split.parts.items()), schema=COLUMNS, orient="row").write_csv(draft)
    with atomic_path(manifest) as draft:
        draft.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_split(path: Path) -> dict[str, str]:
    """Read a split: protein to part.

    Raises
    ------
    InputError
        If the file is missing or no split, or has a protein twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"Split '{path}' was not found; make it with 'deepgps data split'.") from None
    if tuple(header) != COLUMNS:
        raise InputError(f"'{path}' is not a split; it needs the columns 'protein_id' and 'split'.")
    parts: dict[str, str] = {}
    for number, row in enumerate(filter(None, rows), 2):
        if len(row) != 2 or row[1] not in PARTS:
            raise InputError(f"Line {number} of '{path}' names no split; use {', '.join(PARTS)}.")
        if parts.setdefault(row[0], row[1]) != row[1]:
            raise InputError(f"Protein '{row[0]}' is in two splits in '{path}'; give it one.")
    return parts


def class_counts(split: Split) -> dict[str, tuple[int, ...]]:
    """Proteins of each class in each part, the largest class first."""
    cells = Counter((split.classes[protein], part) for protein, part in split.parts.items())
    sizes = Counter(split.classes[protein] for protein in split.parts)
    return {name: tuple(cells[name, part] for part in PARTS) for name, _ in sizes.most_common()}


def split_report(split: Split, table: pl.DataFrame) -> Iterator[str]:
    """Lines of a table of classes and parts, in proteins; and in crops, where a protein has several rows."""
    rows = class_counts(split)
    rows["proteins"] = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    ids = table["protein_id"].drop_nulls().to_list()
    if len(ids) > len(split.classes):
        crops = Counter(split.parts.get(protein) for protein in ids)
        rows["crops"] = tuple(crops[part] for part in PARTS)
    yield f"{'':<18}" + "".join(f"{name:>12}" for name in (*PARTS, "all", "train side"))
    for name, row in rows.items():
        share = f"{(row[0] + row[1]) / max(sum(row), 1):.0%}"
        yield f"{name:<18}" + "".join(f"{count:>12,}" for count in (*row, sum(row))) + f"{share:>12}"
