"""What a model is evaluated on: proteins with localizations and, from a crop store, their crops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from deepgps.arrays import Ints, Strings
from deepgps.bundle import BundleMetadata
from deepgps.datasets.crops.reading import CropStore
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, LOCALIZATIONS, ClassSet
from deepgps.prediction import Predictor
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.protein import Protein, Rejection

MANY = "|"
"""Between the names of several classes of one image."""


class LeftOut(NamedTuple):
    """Something that could not be used: a protein or a crop, how many crops went with it, and why."""

    what: str
    crops: int
    reason: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A protein to evaluate on.

    Attributes
    ----------
    protein
        Its checked sequence under its id.
    classes
        Where it goes, as classes of the model, in the model's order.
    cluster
        Homology cluster, where known.
    """

    protein: Protein
    classes: tuple[str, ...]
    cluster: str | None = None

    @property
    def class_name(self) -> str:
        """Its classes, joined by ``|``."""
        return MANY.join(self.classes)


@dataclass(frozen=True, eq=False)
class Subjects:
    """Everything that a model is evaluated on.

    Attributes
    ----------
    subjects
        P proteins.
    store
        The crop store; None if only labels are measured.
    rows, owner
        (N,) rows of the store to evaluate on, and the number of each one's protein.
    groups
        (N,) what the bootstrap draws, a number a group: the store's ``group`` where its proteins stand in
        for unknown ones, else the protein.
    shown
        (N,) classes that the crops show, as `Subject.class_name`.
    training, training_shown
        (T,) rows of the store with the split ``train``, and what they show.
    left_out
        What could not be used.
    notes
        What a reader must know of these data.
    """

    subjects: tuple[Subject, ...]
    store: CropStore | None
    rows: Ints
    owner: Ints
    groups: Ints
    shown: Strings
    training: Ints
    training_shown: Strings
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @cached_property
    def crops_of(self) -> Ints:
        """(P,) how many crops each protein has."""
        return np.bincount(self.owner, minlength=len(self.subjects))


def model_classes(metadata: BundleMetadata) -> ClassSet:
    """Class set of a model, by its classes; the 17 localizations for one that only draws.

    Raises
    ------
    InputError
        If a class is neither of a known class set nor a localization.
    """
    if not metadata.classes:
        return CLASS_SETS["all"]
    for known in CLASS_SETS.values():
        if known.slugs == tuple(metadata.classes):
            return replace(known, multi_label=metadata.multi_label)
    if unknown := [slug for slug in metadata.classes if slug not in LOCALIZATIONS]:
        raise InputError(
            f"Class '{unknown[0]}' of model '{metadata.name}' is no localization, so no protein can be known "
            "to be in it; export the model with classes of the vocabulary."
        )
    return ClassSet(metadata.name, {slug: (slug,) for slug in metadata.classes}, metadata.multi_label)


def read_proteins(path: Path) -> pl.DataFrame:
    """Read a table of proteins: ``protein_id``, ``sequence``, ``localizations``; all text.

    Raises
    ------
    InputError
        If it is missing, cannot be read or lacks a column.
    """
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        else:
            separator = "\t" if ".tsv" in path.suffixes else ","
            table = pl.read_csv(path, separator=separator, infer_schema=False)
    except FileNotFoundError:
        raise InputError(f"Table '{path}' was not found; give a table of proteins.") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputError(f"Table '{path}' cannot be read ({error}); give Parquet, CSV or TSV.") from None
    return checked_proteins(table, path)


def checked_proteins(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Hold a table of proteins against the columns that are needed, and make it text."""
    for column in ("protein_id", "sequence", "localizations"):
        if column not in table.columns:
            raise InputError(
                f"Table '{path}' has no column '{column}'; 'deepgps data annotate' writes such tables."
            )
    wanted = ("protein_id", "sequence", "localizations", "accession", "cluster", "split")
    chosen = table.select(pl.col(c).cast(pl.String) for c in wanted if c in table.columns)
    return chosen.unique("protein_id", keep="first", maintain_order=True)


class ProteinCheck:
    """Turns rows of a table of proteins into subjects, or into the reason why not.

    Parameters
    ----------
    classes
        The model's class set.
    predictor
        The model, which may lack the structure of a protein.
    """

    def __init__(self, classes: ClassSet, predictor: Predictor) -> None:
        self.classes, self.predictor = classes, predictor

    def __call__(self, row: Mapping[str, str | None]) -> Subject | str:
        """Check one row."""
        name, sequence = str(row["protein_id"]), clean_sequence(row["sequence"] or "")
        if refusal := check_sequence(name, sequence):
            return refusal
        named = self.named(row["localizations"])
        if isinstance(named, str):
            return f"Protein '{name}' {named}"
        protein = Protein(name, sequence, accession=row.get("accession") or None)
        admitted = next(self.predictor.reject_unusable([protein]))
        if isinstance(admitted, Rejection):
            return admitted.reason
        return Subject(protein, named, row.get("cluster"))

    def named(self, localizations: str | None) -> tuple[str, ...] | str:
        """Classes of localizations joined by ``|``, or why they cannot be used."""
        places = [place for place in (localizations or "").split("|") if place]
        if not places:
            return "has no localization; it cannot be judged."
        if unknown := [place for place in places if place not in LOCALIZATIONS]:
            return f"has the unknown localization '{unknown[0]}'; correct it."
        found = self.classes.of(places)
        if not found:
            return f"is in none of the model's classes ({', '.join(places)})."
        if not self.classes.multi_label and len(found) > 1:
            return f"is in several of the model's classes ({', '.join(sorted(found))}), which names one."
        return tuple(slug for slug in self.classes.slugs if slug in found)


def check_all(
    rows: Sequence[Mapping[str, str | None]], crops: Mapping[str, int], check: ProteinCheck
) -> tuple[dict[str, Subject], list[LeftOut]]:
    """Check the rows of a table of proteins; ``crops`` says how many each has."""
    usable, left_out = {}, []
    for row in rows:
        found, name = check(row), str(row["protein_id"])
        if isinstance(found, str):
            left_out.append(LeftOut(name, crops.get(name, 0), found))
        else:
            usable[name] = found
    return usable, left_out
