"""What a recipe trains on: crops, the proteins they show, their classes, and the part each is in."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from deepgps.arrays import Floats, Ints
from deepgps.bundle import CropSpec
from deepgps.datasets.annotation.proteins import cell_line_key
from deepgps.datasets.crops.store import MANIFEST, CropStore, open_crops, read_store_proteins
from deepgps.datasets.splits import PARTS, read_proteins_to_split, read_split, split_proteins
from deepgps.errors import InputError
from deepgps.images.processing import HIGH, LOW
from deepgps.localization import class_set
from deepgps.proteins.structures import read_structures, sample_points
from deepgps.training.joint.inputs.selection import Row, judge
from deepgps.training.joint.settings import JointRecipe, SplitSettings

SPLIT = "split.csv"
# Pixel sizes that differ by less are the same, written with fewer digits.
SAME_SCALE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The proteins of a crop store that a recipe trains on, P of them, and their crops.

    Attributes
    ----------
    store
        The crops, N of them.
    protein_ids, sequences, accessions
        P of each; None where a recipe needs no sequence, or an accession is not known.
    targets
        (P, K) float32, 1 for the classes of each protein and 0 otherwise; one 1 a row in a set of one class a
        protein.
    classes
        The K classes, also where the recipe predicts none.
    rows
        Numbers of the crops of each part, ``train``, ``validation`` and ``test``; (n,) int64, ascending.
    protein_of_row
        (N,) int64: the protein that a crop shows, from 0 to P; -1 where the crop is not used.
    left_out
        The other proteins of the store, each with a sentence that says why.
    split
        Part by protein, of these P.
    points
        (P, n, 6) float32, the proteins' structures as `deepgps.proteins.structures` gives them; None where
        the recipe looks at none.
    """

    store: CropStore
    protein_ids: tuple[str, ...]
    sequences: tuple[str | None, ...]
    accessions: tuple[str | None, ...]
    targets: Floats
    classes: tuple[str, ...]
    rows: Mapping[str, Ints]
    protein_of_row: Ints
    left_out: tuple[tuple[str, str], ...]
    split: Mapping[str, str]
    points: Floats | None = None


def load_training_data(
    recipe: JointRecipe, store: Path, *, split: Path | None = None, structures: Path | None = None
) -> TrainingData:
    """Choose the proteins and crops of a store that a recipe trains on.

    Parameters
    ----------
    recipe
        The recipe.
    store
        The crop store, with its proteins.
    split
        The split; ``split.csv`` in the store where it is not given, and else one that the recipe makes, the
        same as ``deepgps data split`` makes of the store.
    structures
        Folder of structures, for recipes that look at them.

    Raises
    ------
    InputError
        If the store is not complete or its crops are of another size or scale, the split cannot be read, the
        structures are missing or not asked for, or nothing is left to train or to validate on.
    """
    _check_structures(recipe, structures)
    opened = open_crops(store)
    proteins = _proteins(read_store_proteins(store), opened.index)
    check_crops(store, recipe.crop, f"recipe '{recipe.name}'")
    parts, lines = read_parts(recipe.split, store, split), _cell_lines(opened.index)
    judged = [(row, judge(row, recipe, lines[row["protein_id"]], parts)) for row in proteins]
    reasons = {row["protein_id"]: verdict.reason for row, verdict in judged if verdict.reason}
    points: dict[str, Floats] = {}
    if structures is not None:
        points, missing = _points([row for row, verdict in judged if not verdict.reason], recipe, structures)
        reasons |= missing
    kept = [(row, verdict.classes) for row, verdict in judged if row["protein_id"] not in reasons]
    if not kept:
        why = next((f" ('{id}': {reason})" for id, reason in reasons.items()), "")
        raise InputError(f"No protein of crop store '{store}' can be used by recipe '{recipe.name}'{why}.")
    left_out = tuple(
        (row["protein_id"], reasons[row["protein_id"]]) for row in proteins if row["protein_id"] in reasons
    )
    data = _gathered(recipe, opened, kept, parts, left_out, points)
    _check_parts(data, recipe, store)
    return data


def check_crops(store: Path, wanted: CropSpec, whose: str) -> None:
    """See that a store's crops are of the size and scale that somebody takes, and normalised as a user's are.

    Raises
    ------
    InputError
        If they are not.
    """
    manifest = json.loads((store / MANIFEST).read_text(encoding="utf-8"))
    size, um = manifest.get("size_px"), manifest.get("pixel_size_um")
    if size != wanted.size_px or abs(um / wanted.pixel_size_um - 1) > SAME_SCALE:
        raise InputError(
            f"Crop store '{store}' has crops of {size} px of {um:g} µm, and {whose} takes "
            f"{wanted.size_px} px of {wanted.pixel_size_um:g} µm; prepare it with --size-px {wanted.size_px} "
            f"--pixel-size-um {wanted.pixel_size_um:g}."
        )
    settings = manifest.get("inputs", {}).get("settings", {})
    found = (settings.get("low", LOW), settings.get("high", HIGH))
    if found != (LOW, HIGH):
        raise InputError(
            f"Crop store '{store}' is normalised by the percentiles {found[0]:g} and {found[1]:g}, and "
            f"nucleus images to predict with by {LOW:g} and {HIGH:g}; prepare it with --low {LOW:g} "
            f"--high {HIGH:g}."
        )


def read_parts(settings: SplitSettings, store: Path, given: Path | None) -> Mapping[str, str]:
    """Read the split that is given, or else the store's own; or else make one.

    Returns
    -------
    Mapping
        Part by protein.

    Raises
    ------
    InputError
        If it cannot be read, or made.
    """
    if given is not None or (store / SPLIT).exists():
        return read_split(given or store / SPLIT)
    return split_proteins(read_proteins_to_split(store), settings.by, settings.seed).parts


def _check_structures(recipe: JointRecipe, structures: Path | None) -> None:
    wanted = "structure" in recipe.protein.inputs
    if wanted and structures is None:
        raise InputError(f"Recipe '{recipe.name}' looks at structures; give their folder with --structures.")
    if structures is not None and not wanted:
        raise InputError(f"Recipe '{recipe.name}' looks at no structures; leave --structures out.")


def _proteins(shown: pl.DataFrame, index: pl.DataFrame) -> Sequence[Row]:
    """Row by row; an accession that only the list of fields knew is in the index."""
    listed = index.select("protein_id", pl.col("accession").alias("listed")).unique("protein_id")
    known = pl.col("accession") if "accession" in shown.columns else pl.lit(None, pl.String)
    accession = pl.coalesce(known.replace("", None), pl.col("listed").replace("", None)).alias("accession")
    rows = shown.join(listed, "protein_id", how="left", maintain_order="left").with_columns(accession)
    return rows.drop("listed").to_dicts()


def _cell_lines(index: pl.DataFrame) -> Mapping[str, set[str]]:
    """Collect the cells that each protein is shown in."""
    lines: defaultdict[str, set[str]] = defaultdict(set)
    for protein, line in index.select("protein_id", "cell_line").unique().iter_rows():
        lines[protein].add(line or "unnamed cells")
    return lines


def _points(
    proteins: Sequence[Row], recipe: JointRecipe, folder: Path
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Sample the structures of proteins; those that cannot be had, each with the reason."""
    accessions = {row["protein_id"]: row.get("accession") for row in proteins}
    found, missing = read_structures(folder, dict.fromkeys(filter(None, accessions.values())))
    points, reasons = {}, {}
    for id, accession in accessions.items():
        if not accession:
            reasons[id] = "It has no UniProt accession, by which structures are found."
        elif accession in missing:
            reasons[id] = missing[accession]
        else:
            cloud = found[accession].points
            points[id] = sample_points(cloud, recipe.protein.structure_points, recipe.training.seed)
    return points, reasons


def _gathered(
    recipe: JointRecipe,
    store: CropStore,
    kept: Sequence[tuple[Row, frozenset[str]]],
    parts: Mapping[str, str],
    left_out: tuple[tuple[str, str], ...],
    points: Mapping[str, Floats],
) -> TrainingData:
    ids = tuple(row["protein_id"] for row, _ in kept)
    slugs = class_set(recipe.class_set).slugs
    numbers = {id: number for number, id in enumerate(ids)}
    wanted = recipe.cell_line and cell_line_key(recipe.cell_line)
    protein_of_row = np.array(
        [
            numbers.get(id, -1) if wanted is None or cell_line_key(line or "") == wanted else -1
            for id, line in store.index.select("protein_id", "cell_line").iter_rows()
        ],
        np.int64,
    )
    part_of_row = np.array([*(parts[id] for id in ids), ""])[protein_of_row]
    return TrainingData(
        store=store,
        protein_ids=ids,
        sequences=tuple(row.get("sequence") for row, _ in kept),
        accessions=tuple(row.get("accession") for row, _ in kept),
        targets=np.array([[slug in classes for slug in slugs] for _, classes in kept], np.float32),
        classes=slugs,
        rows={part: np.flatnonzero(part_of_row == part) for part in PARTS},
        protein_of_row=protein_of_row,
        left_out=left_out,
        split={id: parts[id] for id in ids},
        points=np.stack([points[id] for id in ids]) if points else None,
    )


def _check_parts(data: TrainingData, recipe: JointRecipe, store: Path) -> None:
    """See that there is something to train on, of every class of a single-label set, and to validate."""
    for part in PARTS[:2]:
        if not len(data.rows[part]):
            raise InputError(
                f"None of the {len(data.protein_ids):,} proteins of crop store '{store}' that recipe "
                f"'{recipe.name}' can use is in the part '{part}'; give another --split, or more proteins."
            )
    trains = [data.split[id] == PARTS[0] for id in data.protein_ids]
    lacking = [slug for slug, n in zip(data.classes, data.targets[trains].sum(0), strict=True) if not n]
    if lacking and not class_set(recipe.class_set).multi_label:
        raise InputError(
            f"No protein of the class '{lacking[0]}' in crop store '{store}' is there to train recipe "
            f"'{recipe.name}'; give another --split, or a recipe of other classes."
        )
