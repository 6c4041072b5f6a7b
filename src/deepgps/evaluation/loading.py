"""From the files a user names to what a model is evaluated on."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from deepgps.arrays import Ints, Strings
from deepgps.datasets.crops.reading import CropStore, open_crops
from deepgps.datasets.crops.shown import PROTEINS, read_shown
from deepgps.datasets.splits.files import read_split
from deepgps.errors import InputError
from deepgps.evaluation.subjects import (
    MANY,
    LeftOut,
    ProteinCheck,
    Subjects,
    check_all,
    checked_proteins,
    model_classes,
    read_proteins,
)
from deepgps.prediction import Predictor

SPLIT = "split.csv"
_NO_ROWS = np.zeros(0, np.int64)
_NO_NAMES = np.zeros(0, np.str_)


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Where the data are.

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
        """The files that decide what is evaluated, crops aside."""
        own = [self.data / name for name in ("manifest.json", "index.parquet", PROTEINS, SPLIT)]
        named = own if self.data.is_dir() else [self.data]
        return [path for path in (*named, self.split_file, self.proteins) if path and path.is_file()]


def load_subjects(files: DataFiles, predictor: Predictor) -> Subjects:
    """Read what a model is evaluated on.

    Raises
    ------
    InputError
        If a file is missing or is not what it should be, there is no split, or nothing is left to evaluate.
    """
    check = ProteinCheck(model_classes(predictor.bundle.metadata), predictor)
    found = _of_store(files, check) if files.data.is_dir() else _of_table(files, check)
    if not found.subjects:
        why = Counter(each.reason for each in found.left_out).most_common(1)
        reason = f": {why[0][0]}" if why else f": no protein has the split '{files.split}'."
        raise InputError(f"Nothing of '{files.data}' can be evaluated{reason}")
    if found.store is not None:
        _check_crops(found.store, predictor)
    return found


def _check_crops(store: CropStore, predictor: Predictor) -> None:
    """Refuse crops that are not of the size that the model draws."""
    size, wanted = store.crops.shape[-1], predictor.bundle.metadata.crop.size_px
    if size != wanted:
        raise InputError(
            f"The crops of the store are {size} px wide, the model draws {wanted} px; prepare them with "
            f"--size-px {wanted}."
        )


def _of_table(files: DataFiles, check: ProteinCheck) -> Subjects:
    table, notes = read_proteins(files.data), []
    if files.split_file is not None:
        parts = read_split(files.split_file)
        table = table.filter(pl.col("protein_id").replace_strict(parts, default="") == files.split)
    elif "split" in table.columns:
        table = table.filter(pl.col("split") == files.split)
    else:
        notes.append("The table has no split: all its proteins are evaluated on.")
    usable, left_out = check_all(table.to_dicts(), {}, check)
    return Subjects(
        tuple(usable.values()),
        None,
        *(_NO_ROWS,) * 3,
        _NO_NAMES,
        _NO_ROWS,
        _NO_NAMES,
        tuple(left_out),
        tuple(notes),
    )


def _of_store(files: DataFiles, check: ProteinCheck) -> Subjects:
    store = open_crops(files.data)
    proteins = (
        checked_proteins(read_shown(files.data), files.data / PROTEINS)
        if files.proteins is None
        else read_proteins(files.proteins)
    )
    index = _indexed(store, files)
    chosen = index.filter(pl.col("split") == files.split)
    counts = dict(chosen.group_by("protein").len().iter_rows())
    known = proteins.filter(pl.col("protein_id").is_in(list(counts)))
    usable, left_out = check_all(known.to_dicts(), counts, check)
    left_out += _without_protein(chosen, set(known["protein_id"]))
    chosen, shown, unshown = _shown(chosen, check)
    left_out += unshown
    numbers = {name: number for number, name in enumerate(usable)}
    keep = chosen["protein"].is_in(list(usable)).to_numpy()
    rows = chosen.filter(keep)
    training = index.filter((pl.col("split") == "train") & (files.split != "train"))
    training, training_shown, _ = _shown(training, check)
    return Subjects(
        subjects=tuple(usable.values()),
        store=store,
        rows=rows["row"].to_numpy().astype(np.int64),
        owner=np.array([numbers[name] for name in rows["protein"]], np.int64),
        groups=_codes(rows["unit"]),
        shown=shown[keep],
        training=training["row"].to_numpy().astype(np.int64),
        training_shown=training_shown,
        left_out=tuple(left_out),
        notes=_store_notes(rows, training, proteins, store),
    )


def _indexed(store: CropStore, files: DataFiles) -> pl.DataFrame:
    """Row, protein, split, localizations, unit of resampling, and whether the protein stands in."""
    index = store.index.with_row_index("row")
    named = "protein_id" if "protein_id" in index.columns else "accession"
    protein, stand_ins = pl.col(named).cast(pl.String).fill_null(""), "stand_in" in index.columns
    index = index.with_columns(
        protein.alias("protein"),
        (pl.col("stand_in") if stand_ins else pl.lit(value=False)).alias("stand_in"),
        (pl.col("group") if stand_ins else protein).alias("unit"),
    )
    return index.select("row", "protein", "localizations", "stand_in", "field", "unit", _split(index, files))


def _split(index: pl.DataFrame, files: DataFiles) -> pl.Series:
    own = files.data / SPLIT
    if (path := files.split_file or (own if own.exists() else None)) is not None:
        parts = read_split(path)
        return index["protein"].replace_strict(parts, default="", return_dtype=pl.String).alias("split")
    if "split" not in index.columns or index["split"].null_count() == len(index):
        raise InputError(
            f"Crop store '{files.data}' has no split; make one with 'deepgps data split' as "
            f"'{own}', or give --split-file."
        )
    return index["split"].fill_null("").alias("split")


def _without_protein(chosen: pl.DataFrame, known: set[str]) -> list[LeftOut]:
    missing = chosen.filter(~pl.col("protein").is_in(list(known))).group_by("protein").len()
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


def _shown(rows: pl.DataFrame, check: ProteinCheck) -> tuple[pl.DataFrame, Strings, list[LeftOut]]:
    """Classes that crops show, where they are the model's; and what is left out for they are not."""
    names, reasons = {}, {}
    for (places,) in rows.select("localizations").unique().iter_rows():
        named = check.named(places)
        if isinstance(named, str):
            reasons[places] = named
        else:
            names[places] = MANY.join(named)
    usable = rows["localizations"].is_in(list(names), nulls_equal=True)
    left = rows.filter(~usable).group_by("localizations").len()
    left_out = [LeftOut("crops", n, f"What they show {reasons[places]}") for places, n in left.iter_rows()]
    kept = rows.filter(usable)
    return kept, np.array([names[places] for places in kept["localizations"]], np.str_), left_out


def _codes(units: pl.Series) -> Ints:
    return np.unique(units.to_numpy().astype(str), return_inverse=True)[1].astype(np.int64)


def _store_notes(
    rows: pl.DataFrame, training: pl.DataFrame, proteins: pl.DataFrame, store: CropStore
) -> tuple[str, ...]:
    notes = []
    if stand_ins := int(rows["stand_in"].sum()):
        notes.append(
            f"{stand_ins:,} of {len(rows):,} crops show a protein that is not known: each was drawn with "
            "another protein of its localization, chosen by chance. What is measured on them is whether a "
            "image is true to the localization, not to the protein. Intervals are over groups of crops."
        )
    known = rows.filter(~pl.col("stand_in"))
    if shared := len(set(known["protein"]) & set(training["protein"])):
        notes.append(
            f"{shared:,} of the {known['protein'].n_unique():,} proteins evaluated on have other crops in "
            "the split 'train' of this store: the images of these proteins may have been learned from."
        )
    if fields := len(set(rows["field"]) & set(training["field"])):
        notes.append(f"{fields:,} fields have crops on both sides of the split.")
    if "cluster" in proteins.columns:
        of = dict(proteins.select("protein_id", "cluster").drop_nulls().iter_rows())
        trained = {of.get(name) for name in training["protein"].unique()} - {None}
        near = sum(of.get(name) in trained for name in known["protein"].unique())
        if near:
            notes.append(
                f"{near:,} of the {known['protein'].n_unique():,} proteins evaluated on have a homolog (of "
                "their cluster) in the split 'train'."
            )
    return tuple(notes)
