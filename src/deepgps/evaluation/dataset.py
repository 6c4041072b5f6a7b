"""The dataset to evaluate on: proteins with localizations and, from a crop store, their crops."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from deepgps.arrays import Ints, Strings
from deepgps.bundle import BundleMetadata
from deepgps.datasets.crops.store import PROTEINS, CropStore, open_crops, read_store_proteins
from deepgps.datasets.splits import SPLIT_FILE, read_split
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, LOCALIZATIONS, ClassSet, localization_slug
from deepgps.prediction import Predictor
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.protein import Protein, Rejection
from deepgps.tables import read_table, strict_rows

SEPARATOR = "|"
"""Between the names of several classes."""


class LeftOut(NamedTuple):
    """Something that could not be used: a protein or a crop, how many crops it stands for, and why."""

    what: str
    crops: int
    reason: str


@dataclass(frozen=True, slots=True)
class EvaluatedProtein:
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
        return SEPARATOR.join(self.classes)


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """The files of a dataset.

    Attributes
    ----------
    data
        A crop store, or a table of proteins.
    split
        The part to evaluate on.
    split_file
        Split by protein; by default the store's own.
    proteins
        Table of proteins; by default the store's own.
    """

    data: Path
    split: str = "test"
    split_file: Path | None = None
    proteins: Path | None = None

    def inputs(self) -> list[Path]:
        """Return the files that decide what is evaluated, crops aside."""
        own = [self.data / name for name in ("manifest.json", "index.parquet", PROTEINS, SPLIT_FILE)]
        data = own if self.data.is_dir() else [self.data]
        return [path for path in (*data, self.split_file, self.proteins) if path and path.is_file()]


@dataclass(frozen=True, eq=False)
class EvaluationDataset:
    """Everything that a model is evaluated on.

    Attributes
    ----------
    proteins
        P proteins.
    store
        The crop store; None if only labels are measured.
    rows, protein_of
        (N,) rows of the store to evaluate on, and the number of each one's protein.
    groups
        (N,) what the bootstrap draws, a number a group: the store's ``group`` where its proteins stand in
        for unknown ones, else the protein.
    crop_classes
        (N,) classes that the crops show, as `EvaluatedProtein.class_name`.
    training_rows, training_classes
        (T,) rows of the store with the split ``train``, and what they show.
    left_out
        What could not be used.
    notes
        What a reader must know of these data.
    """

    proteins: tuple[EvaluatedProtein, ...]
    store: CropStore | None
    rows: Ints
    protein_of: Ints
    groups: Ints
    crop_classes: Strings
    training_rows: Ints
    training_classes: Strings
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @cached_property
    def crops_of(self) -> Ints:
        """(P,) how many crops each protein has."""
        return np.bincount(self.protein_of, minlength=len(self.proteins))


def load_dataset(files: DatasetFiles, predictor: Predictor) -> EvaluationDataset:
    """Read what a model is evaluated on.

    Returns
    -------
    EvaluationDataset
        The proteins, and the crops where there are images.

    Raises
    ------
    InputError
        If a file is missing or is not what it should be, there is no split, or nothing is left to evaluate.
    """
    reader = ProteinReader(model_classes(predictor.bundle.metadata), predictor)
    dataset = _from_store(files, reader) if files.data.is_dir() else _from_table(files, reader)
    if not dataset.proteins:
        reasons = Counter(each.reason for each in dataset.left_out).most_common(1)
        reason = f": {reasons[0][0]}" if reasons else f": no protein has the split '{files.split}'."
        raise InputError(f"Nothing of '{files.data}' can be evaluated{reason}")
    if dataset.store is not None:
        size, expected = dataset.store.crops.shape[-1], predictor.bundle.metadata.crop.size_px
        if size != expected:
            raise InputError(
                f"The crops of the store are {size} px wide, the model draws {expected} px; prepare them "
                f"with --size-px {expected}."
            )
    return dataset


def model_classes(metadata: BundleMetadata) -> ClassSet:
    """Return the class set of a model, by its classes; the 17 localizations for one that only draws.

    Returns
    -------
    ClassSet
        The classes, in the order of the logits.

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


# ---- tables of proteins ----


def text_frame(path: Path) -> pl.DataFrame:
    """Read a table with `deepgps.tables.read_table`; all cells are text, empty ones null."""
    table = read_table(path)
    rows = [row.cells for row in strict_rows(table, path)]
    columns = {name: [row[name] or None for row in rows] for name in table.columns}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def read_protein_table(path: Path) -> pl.DataFrame:
    """Read a table of proteins: ``protein_id``, ``sequence``, ``localizations``; all text.

    Returns
    -------
    polars.DataFrame
        The table, with those columns at least.

    Raises
    ------
    InputError
        If it is missing, cannot be read or lacks a column.
    """
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else text_frame(path)
    except FileNotFoundError:
        raise InputError(f"Table '{path}' was not found; give a table of proteins.") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"Table '{path}' cannot be read ({error}); give Parquet, CSV or TSV.") from None
    return _checked_table(table, path)


def _checked_table(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    for column in ("protein_id", "sequence", "localizations"):
        if column not in table.columns:
            raise InputError(
                f"Table '{path}' has no column '{column}'; 'deepgps data annotate' writes such tables."
            )
    columns = ("protein_id", "sequence", "localizations", "accession", "cluster", "split")
    chosen = table.select(pl.col(name).cast(pl.String) for name in columns if name in table.columns)
    return chosen.unique("protein_id", keep="first", maintain_order=True)


class ProteinReader:
    """Reads rows of a table of proteins.

    Parameters
    ----------
    classes
        The model's class set.
    predictor
        The model, which may lack the structure of a protein.
    """

    def __init__(self, classes: ClassSet, predictor: Predictor) -> None:
        self.classes, self.predictor = classes, predictor

    def read(self, row: Mapping[str, str | None]) -> EvaluatedProtein | str:
        """Return the protein of a row, or why it cannot be used."""
        name, sequence = str(row["protein_id"]), clean_sequence(row["sequence"] or "")
        if refusal := check_sequence(name, sequence):
            return refusal
        classes = self.classes_of(row["localizations"])
        if isinstance(classes, str):
            return f"Protein '{name}' {classes}"
        protein = Protein(name, sequence, accession=row.get("accession") or None)
        accepted = next(self.predictor.reject_unusable([protein]))
        if isinstance(accepted, Rejection):
            return accepted.reason
        return EvaluatedProtein(protein, classes, row.get("cluster"))

    def read_all(
        self, rows: Sequence[Mapping[str, str | None]], crops: Mapping[str, int]
    ) -> tuple[dict[str, EvaluatedProtein], list[LeftOut]]:
        """Return the usable proteins by id, and the others; ``crops`` holds how many crops each has."""
        usable, left_out = {}, []
        for row in rows:
            found, name = self.read(row), str(row["protein_id"])
            if isinstance(found, str):
                left_out.append(LeftOut(name, crops.get(name, 0), found))
            else:
                usable[name] = found
        return usable, left_out

    def classes_of(self, localizations: str | None) -> tuple[str, ...] | str:
        """Return the classes of localizations joined by ``|``, or why they cannot be used."""
        names = [name for name in (localizations or "").split("|") if name]
        places = [localization_slug(name) or name for name in names]
        if not places:
            return "has no localization; it cannot be judged."
        if unknown := [place for place in places if place not in LOCALIZATIONS]:
            return f"has the unknown localization '{unknown[0]}'; correct it."
        found = self.classes.of(places)
        if not found:
            return f"is in none of the model's classes ({', '.join(places)})."
        if not self.classes.multi_label and len(found) > 1:
            classes = ", ".join(sorted(found))
            return f"is in several of the model's classes ({classes}), which predicts one."
        return tuple(slug for slug in self.classes.slugs if slug in found)


def _from_table(files: DatasetFiles, reader: ProteinReader) -> EvaluationDataset:
    table, notes = read_protein_table(files.data), []
    if files.split_file is not None:
        parts = read_split(files.split_file)
        table = table.filter(pl.col("protein_id").replace_strict(parts, default="") == files.split)
    elif "split" in table.columns:
        table = table.filter(pl.col("split") == files.split)
    else:
        notes.append("The table has no split: all its proteins are evaluated on.")
    usable, left_out = reader.read_all(table.to_dicts(), {})
    no_rows, no_names = np.zeros(0, np.int64), np.zeros(0, np.str_)
    return EvaluationDataset(
        proteins=tuple(usable.values()),
        store=None,
        rows=no_rows,
        protein_of=no_rows,
        groups=no_rows,
        crop_classes=no_names,
        training_rows=no_rows,
        training_classes=no_names,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


# ---- crop stores ----


def _from_store(files: DatasetFiles, reader: ProteinReader) -> EvaluationDataset:
    store = open_crops(files.data)
    proteins = (
        _checked_table(read_store_proteins(files.data), files.data / PROTEINS)
        if files.proteins is None
        else read_protein_table(files.proteins)
    )
    index = _index(store, files)
    crops = index.filter(pl.col("split") == files.split)
    counts = dict(crops.group_by("protein").len().iter_rows())
    known = proteins.filter(pl.col("protein_id").is_in(list(counts)))
    usable, left_out = reader.read_all(known.to_dicts(), counts)
    left_out += _crops_without_protein(crops, set(known["protein_id"]))
    crops, crop_classes, unusable = _with_classes(crops, reader)
    numbers = {name: number for number, name in enumerate(usable)}
    keep = crops["protein"].is_in(list(usable)).to_numpy()
    crops = crops.filter(keep)
    training = index.filter((pl.col("split") == "train") & (files.split != "train"))
    training, training_classes, _ = _with_classes(training, reader)
    return EvaluationDataset(
        proteins=tuple(usable.values()),
        store=store,
        rows=crops["row"].to_numpy().astype(np.int64),
        protein_of=np.array([numbers[name] for name in crops["protein"]], np.int64),
        groups=np.unique(crops["group"].to_numpy().astype(str), return_inverse=True)[1].astype(np.int64),
        crop_classes=crop_classes[keep],
        training_rows=training["row"].to_numpy().astype(np.int64),
        training_classes=training_classes,
        left_out=(*left_out, *unusable),
        notes=_store_notes(crops, training, proteins),
    )


def _index(store: CropStore, files: DatasetFiles) -> pl.DataFrame:
    """Row, protein, split, localizations, field, bootstrap group, and whether the protein stands in."""
    index = store.index
    protein = pl.col("protein_id" if "protein_id" in index.columns else "accession")
    protein, stand_ins = protein.cast(pl.String).fill_null(""), "stand_in" in index.columns
    # A prepared store has a column `row` of its own, the crop's place in its field.
    table = index.select(
        pl.int_range(pl.len()).alias("row"),
        protein.alias("protein"),
        "localizations",
        (pl.col("stand_in") if stand_ins else pl.lit(value=False)).alias("stand_in"),
        "field",
        (pl.col("group") if stand_ins else protein).alias("group"),
    )
    return table.with_columns(_split(index, table["protein"], files))


def _split(index: pl.DataFrame, protein: pl.Series, files: DatasetFiles) -> pl.Series:
    own = files.data / SPLIT_FILE
    if (path := files.split_file or (own if own.exists() else None)) is not None:
        parts = read_split(path)
        return protein.replace_strict(parts, default="", return_dtype=pl.String).alias("split")
    if "split" not in index.columns or index["split"].null_count() == len(index):
        raise InputError(
            f"Crop store '{files.data}' has no split; make one with 'deepgps data split' as "
            f"'{own}', or give --split-file."
        )
    return index["split"].fill_null("").alias("split")


def _crops_without_protein(crops: pl.DataFrame, known: set[str]) -> list[LeftOut]:
    missing = crops.filter(~pl.col("protein").is_in(list(known))).group_by("protein").len()
    return [
        LeftOut(
            name or "crops without a protein",
            count,
            f"Protein '{name}' is not in the table of proteins; add it, with its sequence."
            if name
            else "The protein that these crops show is not known; a sequence is needed to draw them.",
        )
        for name, count in missing.sort("protein").iter_rows()
    ]


def _with_classes(crops: pl.DataFrame, reader: ProteinReader) -> tuple[pl.DataFrame, Strings, list[LeftOut]]:
    """Crops that show classes of the model, these classes, and the crops that do not."""
    names, reasons = {}, {}
    for (places,) in crops.select("localizations").unique().iter_rows():
        classes = reader.classes_of(places)
        if isinstance(classes, str):
            reasons[places] = classes
        else:
            names[places] = SEPARATOR.join(classes)
    usable = crops["localizations"].is_in(list(names), nulls_equal=True)
    others = crops.filter(~usable).group_by("localizations").len()
    left_out = [LeftOut("crops", n, f"What they show {reasons[places]}") for places, n in others.iter_rows()]
    kept = crops.filter(usable)
    return kept, np.array([names[places] for places in kept["localizations"]], np.str_), left_out


def _store_notes(crops: pl.DataFrame, training: pl.DataFrame, proteins: pl.DataFrame) -> tuple[str, ...]:
    notes = []
    if stand_ins := int(crops["stand_in"].sum()):
        notes.append(
            f"{stand_ins:,} of {len(crops):,} crops show a protein that is not known: each was drawn with "
            "another protein of its localization, chosen at random. They measure whether an image is true to "
            "the localization, not to the protein. Intervals are over groups of crops."
        )
    known = crops.filter(~pl.col("stand_in"))
    evaluated = known["protein"].n_unique()
    if shared := len(set(known["protein"]) & set(training["protein"])):
        notes.append(
            f"{shared:,} of the {evaluated:,} proteins evaluated on have other crops in the split 'train' of "
            "this store: the model may have been trained on images of these proteins."
        )
    if fields := len(set(crops["field"]) & set(training["field"])):
        notes.append(f"{fields:,} fields have crops in both parts of the split.")
    if "cluster" in proteins.columns:
        cluster_of = dict(proteins.select("protein_id", "cluster").drop_nulls().iter_rows())
        trained = {cluster_of.get(name) for name in training["protein"].unique()} - {None}
        related = sum(cluster_of.get(name) in trained for name in known["protein"].unique())
        if related:
            notes.append(
                f"{related:,} of the {evaluated:,} proteins evaluated on have a homolog (of their cluster) "
                "in the split 'train'."
            )
    return tuple(notes)
