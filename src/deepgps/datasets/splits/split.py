"""Which proteins train, validate and test: the paper's rule, by protein or by homology cluster.

The paper (Materials and methods, *Dataset split*) sorts the classes by their number of proteins and samples,
linearly, 75 to 90 % of each for training, 4:1 overall. It does not say which end of the range is whose. Read
so that every class keeps enough proteins to test on: the smallest class trains on 75 %, and the share rises
linearly with the rank to what makes 4:1 overall. Part of the training side validates.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from deepgps.datasets.splits.clusters import find_clusters
from deepgps.errors import InputError

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
class Unit:
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


def assign(units: Iterable[Unit], seed: int) -> dict[str, str]:
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


def _chance(unit: Unit, seed: int) -> bytes:
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
    units = [Unit(each, Counter(classes[one] for one in each)) for each in together(keys)]
    return Split(assign(units, seed), classes, tuple(sorted(set(classes) - set(keys))))


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


def together(keys: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
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
