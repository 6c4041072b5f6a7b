"""Which proteins are known to be where: three tables merged into one set to train and test on."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from deepgps.arrays import Doubles, Floats, Ints, Mask, Strings
from deepgps.errors import InputError
from deepgps.localization import (
    HPA_TO_LOCALIZATIONS,
    UNIPROT_TO_LOCALIZATIONS,
    ClassSet,
    major_localizations,
)

HPA_WEIGHTS: Mapping[str, float] = {"Enhanced": 1.0, "Supported": 1.0, "Approved": 0.7, "Uncertain": 0.3}
"""How much an annotation of each HPA reliability counts beside one of OpenCell or Swiss-Prot."""

# Parts of a cell that a coarser word of Swiss-Prot leaves open.
_UNIPROT_OPEN: Mapping[str, tuple[str, ...]] = {
    "Nucleus": ("nucleolus_fc_dfc", "nucleolus_gc", "nuclear_punctae", "chromatin", "nuclear_membrane"),
    "Cytoplasm": ("cytoskeleton", "centrosome", "big_aggregates"),
    "Cell membrane": ("cell_contact", "focal_adhesions"),
}
# No microscope image of a cell shows a secreted protein outside it, and human cells have no plastids.
_UNSEEN_BY_MICROSCOPE = ("extracellular", "plastid")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledProteins:
    """Annotated proteins, one row per distinct sequence, homologs side by side.

    Attributes
    ----------
    ids
        (N,) accession of the first table that has the sequence.
    sequences
        N sequences.
    slugs
        The K classes.
    labels
        (N, K) float32 in [0, 1]: the weighted share of the tables that say yes; 0 or 1 where they agree.
    mask
        (N, K) bool: whether any table can tell.
    view_labels, view_mask
        (N, 2, K): the same, first by the microscopes alone (OpenCell, HPA), then by Swiss-Prot alone.
    weight
        (N,) float32 above 0: the most reliable annotation's weight.
    cluster
        (N,) homology cluster.
    source
        (N,) tables that hold the sequence, ``+``-joined: ``opencell``, ``swissprot``, ``hpa``.
    """

    ids: Strings
    sequences: tuple[str, ...]
    slugs: tuple[str, ...]
    labels: Floats
    mask: Mask
    view_labels: Floats
    view_mask: Mask
    weight: Floats
    cluster: Ints
    source: Strings

    def __len__(self) -> int:
        return len(self.sequences)

    def subset(self, keep: Mask) -> "LabelledProteins":
        """Keep the rows where ``keep`` (N,) is true."""
        sequences = tuple(sequence for sequence, kept in zip(self.sequences, keep, strict=True) if kept)
        arrays = {
            field.name: getattr(self, field.name)[keep]
            for field in fields(self)
            if field.name not in ("sequences", "slugs")
        }
        return replace(self, sequences=sequences, **arrays)


class _Annotation(NamedTuple):
    """One table's word on one protein; ``unknown`` are localizations it cannot tell."""

    id: str
    sequence: str
    cluster: int
    yes: frozenset[str]
    unknown: frozenset[str]
    weight: float
    source: str


def _opencell(row: dict[str, Any]) -> _Annotation | None:
    grades = [
        tuple(filter(None, (row[f"annotations_grade_{grade}"] or "").split(";"))) for grade in (3, 2, 1)
    ]
    major = frozenset(major_localizations(grades[0], grades[1]))
    if not major:
        return None
    minor = frozenset((*grades[1], *grades[2], *_UNSEEN_BY_MICROSCOPE)) - major
    return _Annotation(row["uniprot_id"], row["sequence"], row["cluster"], major, minor, 1.0, "opencell")


def _swissprot(row: dict[str, Any]) -> _Annotation | None:
    names = row["localizations"].split("|")
    yes = frozenset(place for name in names for place in UNIPROT_TO_LOCALIZATIONS[name])
    unknown = frozenset(place for name in names for place in _UNIPROT_OPEN.get(name, ())) - yes
    return _Annotation(row["accession"], row["sequence"], row["cluster"], yes, unknown, 1.0, "swissprot")


def _hpa(row: dict[str, Any]) -> _Annotation | None:
    sure, unsure = (
        frozenset(
            place
            for column in columns
            for name in filter(None, (row[column] or "").split(";"))
            for place in HPA_TO_LOCALIZATIONS.get(name, ())
        )
        for columns in (("main_location", "additional_location"), ("uncertain",))
    )
    if row["reliability"] != "Uncertain":
        sure = sure - unsure
    unknown = (unsure | set(_UNSEEN_BY_MICROSCOPE)) - sure
    weight = HPA_WEIGHTS[row["reliability"]]
    return (
        _Annotation(row["accession"], row["sequence"], row["cluster"], sure, unknown, weight, "hpa")
        if sure
        else None
    )


_TABLES: Mapping[str, Callable[[dict[str, Any]], _Annotation | None]] = {
    "opencell_targets": _opencell,
    "swissprot_localizations": _swissprot,
    "hpa_localizations": _hpa,
}


def read_table(data_dir: Path, name: str) -> pl.DataFrame:
    """Read one of the sequence tables of the shared data folder.

    Raises
    ------
    InputError
        If the folder does not hold it.
    """
    path = data_dir / "sequences" / f"{name}.csv.gz"
    try:
        with gzip.open(path) as file:
            return pl.read_csv(file.read(), infer_schema_length=None)
    except FileNotFoundError:
        raise InputError(f"Table '{path}' is missing; give the folder that holds 'sequences/'.") from None


def opencell_localizations(data_dir: Path) -> dict[str, frozenset[str]]:
    """Where OpenCell sees proteins by the paper's grade rule: the major localizations of each sequence.

    Raises
    ------
    InputError
        If the table is missing.
    """
    rows = read_table(data_dir, "opencell_targets").to_dicts()
    return {each.sequence: each.yes for row in rows if (each := _opencell(row)) is not None}


def _annotations(data_dir: Path) -> list[_Annotation]:
    rows = ((read, row) for name, read in _TABLES.items() for row in read_table(data_dir, name).to_dicts())
    return [annotation for read, row in rows if row["sequence"] and (annotation := read(row))]


def load_labelled_proteins(data_dir: Path, classes: ClassSet) -> LabelledProteins:
    """Merge OpenCell, Swiss-Prot and the Human Protein Atlas by sequence.

    A class is known for a protein if a table says yes, or if it can see every localization of the class and
    says no. Where tables disagree, the label is their weighted share. The peers' benchmark (``hou_test``)
    is a test set and never read here.

    Parameters
    ----------
    data_dir
        The shared data folder, the parent of ``sequences/``.
    classes
        What the localizations are grouped into.

    Raises
    ------
    InputError
        If a table is missing.
    """
    merged: dict[str, list[_Annotation]] = {}
    for annotation in _annotations(data_dir):
        merged.setdefault(annotation.sequence, []).append(annotation)
    groups = sorted(merged.values(), key=lambda group: group[0].cluster)
    labels, mask = _stacked(groups, classes)
    views = [_stacked([[a for a in group if is_view(a)] for group in groups], classes) for is_view in _VIEWS]
    return LabelledProteins(
        ids=np.array([group[0].id for group in groups], np.str_),
        sequences=tuple(group[0].sequence for group in groups),
        slugs=classes.slugs,
        labels=labels,
        mask=mask,
        view_labels=np.stack([labels for labels, _ in views], axis=1),
        view_mask=np.stack([mask for _, mask in views], axis=1),
        weight=np.array([max(each.weight for each in group) for group in groups], np.float32),
        cluster=np.array([group[0].cluster for group in groups], np.int64),
        source=np.array(
            ["+".join(dict.fromkeys(each.source for each in group)) for group in groups], np.str_
        ),
    )


_VIEWS: tuple[Callable[[_Annotation], bool], ...] = (
    lambda annotation: annotation.source != "swissprot",
    lambda annotation: annotation.source == "swissprot",
)


def _stacked(groups: list[list[_Annotation]], classes: ClassSet) -> tuple[Floats, Mask]:
    """Labels and mask, (N, K) each, of N groups of annotations."""
    labels, mask = zip(*(_labels_of(group, classes) for group in groups), strict=True)
    return np.stack(labels).astype(np.float32), np.stack(mask)


def _labels_of(group: list[_Annotation], classes: ClassSet) -> tuple[Doubles, Mask]:
    """Weighted share of yes (K,), and whether anyone can tell (K,)."""
    yes, known = np.zeros(len(classes.slugs)), np.zeros(len(classes.slugs))
    for annotation in group:
        for number, members in enumerate(classes.classes.values()):
            says_yes = not annotation.yes.isdisjoint(members)
            if says_yes or annotation.unknown.isdisjoint(members):
                yes[number] += annotation.weight * says_yes
                known[number] += annotation.weight
    return np.divide(yes, known, out=np.zeros_like(yes), where=known > 0), known > 0
