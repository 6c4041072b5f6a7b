"""Labelled proteins: annotations of OpenCell, Swiss-Prot and the Human Protein Atlas, merged by sequence."""

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
    undecided_localizations,
)

HPA_WEIGHTS: Mapping[str, float] = {"Enhanced": 1.0, "Supported": 1.0, "Approved": 0.7, "Uncertain": 0.3}
"""Weight of an HPA annotation by its reliability; annotations of OpenCell and Swiss-Prot have weight 1."""

# Images do not show proteins secreted from the cell, and human cells have no plastids.
_UNSEEN_BY_MICROSCOPE = ("extracellular", "plastid")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledProteins:
    """Annotated proteins, one row per distinct sequence, ordered by homology cluster.

    Attributes
    ----------
    ids
        (N,) accession, from the first table that has the sequence.
    sequences
        Residues of the N proteins.
    slugs
        Slugs of the K classes.
    labels
        (N, K) float32 in [0, 1]: weighted fraction of the tables that have the class; 0 or 1 if they agree.
    mask
        (N, K) bool: whether any table has a label.
    view_labels, view_mask
        (N, 2, K): the same from microscopy only (OpenCell, HPA), then from Swiss-Prot only.
    weight
        (N,) float32 in (0, 1]: weight of the most reliable annotation.
    cluster
        (N,) number of the homology cluster.
    source
        (N,) tables that have the sequence, ``+``-joined: ``opencell``, ``swissprot``, ``hpa``.
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
        """Return the rows where `keep` (N,) is true."""
        sequences = tuple(sequence for sequence, kept in zip(self.sequences, keep, strict=True) if kept)
        arrays = {
            field.name: getattr(self, field.name)[keep]
            for field in fields(self)
            if field.name not in ("sequences", "slugs")
        }
        return replace(self, sequences=sequences, **arrays)


class _Annotation(NamedTuple):
    """The annotation of a protein in one table; for ``unknown`` localizations it has no label."""

    id: str
    sequence: str
    cluster: int
    positive: frozenset[str]
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
    positive = frozenset(slug for name in names for slug in UNIPROT_TO_LOCALIZATIONS[name])
    unknown = frozenset(slug for name in names for slug in undecided_localizations(name)) - positive
    return _Annotation(row["accession"], row["sequence"], row["cluster"], positive, unknown, 1.0, "swissprot")


def _hpa(row: dict[str, Any]) -> _Annotation | None:
    certain, uncertain = (
        frozenset(
            slug
            for column in columns
            for name in filter(None, (row[column] or "").split(";"))
            for slug in HPA_TO_LOCALIZATIONS.get(name, ())
        )
        for columns in (("main_location", "additional_location"), ("uncertain",))
    )
    if row["reliability"] != "Uncertain":
        certain = certain - uncertain
    unknown = (uncertain | set(_UNSEEN_BY_MICROSCOPE)) - certain
    weight = HPA_WEIGHTS[row["reliability"]]
    return (
        _Annotation(row["accession"], row["sequence"], row["cluster"], certain, unknown, weight, "hpa")
        if certain
        else None
    )


_TABLES: Mapping[str, Callable[[dict[str, Any]], _Annotation | None]] = {
    "opencell_targets": _opencell,
    "swissprot_localizations": _swissprot,
    "hpa_localizations": _hpa,
}


def read_sequence_table(data_dir: Path, name: str) -> pl.DataFrame:
    """Read ``sequences/<name>.csv.gz`` of the data folder.

    Returns
    -------
    polars.DataFrame
        The table.

    Raises
    ------
    InputError
        If the table does not exist.
    """
    path = data_dir / "sequences" / f"{name}.csv.gz"
    try:
        with gzip.open(path) as file:
            return pl.read_csv(file.read(), infer_schema_length=None)
    except FileNotFoundError:
        raise InputError(f"Table '{path}' is missing; give the folder that contains 'sequences/'.") from None


def opencell_localizations(data_dir: Path) -> dict[str, frozenset[str]]:
    """Return the major localizations in OpenCell, by the grade rule of the paper, of each sequence.

    Returns
    -------
    dict
        Localizations by sequence; sequences without a major one are left out.

    Raises
    ------
    InputError
        If the table is missing.
    """
    rows = read_sequence_table(data_dir, "opencell_targets").to_dicts()
    return {each.sequence: each.positive for row in rows if (each := _opencell(row)) is not None}


def _annotations(data_dir: Path) -> list[_Annotation]:
    rows = (
        (read, row)
        for name, read in _TABLES.items()
        for row in read_sequence_table(data_dir, name).to_dicts()
    )
    return [annotation for read, row in rows if row["sequence"] and (annotation := read(row))]


def load_labelled_proteins(data_dir: Path, classes: ClassSet) -> LabelledProteins:
    """Merge OpenCell, Swiss-Prot and the Human Protein Atlas by sequence.

    A table labels a protein for a class if it has one of the localizations of the class, or none of them is
    unknown to it. If tables disagree, the label is their weighted mean. The public benchmark (``hou_test``)
    is a test set and not read here.

    Parameters
    ----------
    data_dir
        The data folder, the parent of ``sequences/``.
    classes
        Classes of the labels.

    Returns
    -------
    LabelledProteins
        One entry per distinct sequence, with a label and a weight for each class.

    Raises
    ------
    InputError
        If a table is missing.
    """
    merged: dict[str, list[_Annotation]] = {}
    for annotation in _annotations(data_dir):
        merged.setdefault(annotation.sequence, []).append(annotation)
    groups = sorted(merged.values(), key=lambda group: group[0].cluster)
    labels, mask = _labels_and_mask(groups, classes)
    views = [
        _labels_and_mask([[a for a in group if is_view(a)] for group in groups], classes)
        for is_view in _VIEWS
    ]
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


def _labels_and_mask(groups: list[list[_Annotation]], classes: ClassSet) -> tuple[Floats, Mask]:
    """Return labels and mask, (N, K) each, of N groups of annotations."""
    labels, mask = zip(*(_group_labels(group, classes) for group in groups), strict=True)
    return np.stack(labels).astype(np.float32), np.stack(mask)


def _group_labels(group: list[_Annotation], classes: ClassSet) -> tuple[Doubles, Mask]:
    """Return the weighted fraction of positive labels (K,), and whether there is any label (K,)."""
    positive, labelled = np.zeros(len(classes.slugs)), np.zeros(len(classes.slugs))
    for annotation in group:
        for number, members in enumerate(classes.classes.values()):
            is_positive = not annotation.positive.isdisjoint(members)
            if is_positive or annotation.unknown.isdisjoint(members):
                positive[number] += annotation.weight * is_positive
                labelled[number] += annotation.weight
    return np.divide(positive, labelled, out=np.zeros_like(positive), where=labelled > 0), labelled > 0
