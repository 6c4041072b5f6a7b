"""What a model of the paper is trained on: crops, the proteins they show, their classes, split and batches.

The crops of every step, their order and their orientation depend on the seed, the epoch and the place in the
epoch alone. A batch is computed in equal parts, one after the other, and a part in equal slices, one in each
process, so one process and several see the same crops in the same step.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepgps.arrays import Floats, Ints
from deepgps.bundle import CropSpec
from deepgps.datasets.annotation.proteins import cell_line_key
from deepgps.datasets.crops.store import CROPS_MANIFEST, CropStore, open_crops, read_store_proteins
from deepgps.datasets.splits import PARTS, SPLIT_FILE, read_proteins_to_split, read_split, split_proteins
from deepgps.errors import InputError
from deepgps.images.processing import HIGH, LOW
from deepgps.localization import ClassSet, class_set
from deepgps.proteins.check import check_sequence
from deepgps.proteins.structures import read_structures, sample_points
from deepgps.training.recipe import JointRecipe, SplitSettings, TrainingSettings

# Pixel sizes that differ by less are the same, written with fewer digits.
SAME_SCALE = 1e-3
ORIENTATIONS = 8
"""Four quarter turns, each as it is and mirrored."""


ProteinRow = Mapping[str, Any]
"""A protein by the columns of ``proteins.parquet``."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The P proteins of a crop store that a recipe uses, and their crops.

    Attributes
    ----------
    store
        N crops.
    protein_ids, sequences, accessions
        P of each; None where a recipe needs no sequence, or an accession is unknown.
    targets
        (P, K) float32: 1 for the classes of a protein, else 0; one 1 a row in a single-label set.
    classes
        The K classes, also for a recipe without a classifier.
    rows
        Numbers of the crops in ``train``, ``validation`` and ``test``: (n,) int64, ascending. Validation and
        test are the same where a recipe validates on the test part.
    protein_of_row
        (N,) int64: number of the protein that a crop shows, -1 for an unused crop.
    left_out
        The other proteins of the store, each with the reason.
    split
        Part of each of the P proteins.
    points
        (P, n, 6) float32 structures as of `deepgps.proteins.structures`; None if the recipe uses none.
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
    recipe: JointRecipe,
    store: Path,
    *,
    split: Path | None = None,
    structures: Path | None = None,
    every_class: bool = True,
) -> TrainingData:
    """Select the proteins and crops of a store that a recipe uses.

    Parameters
    ----------
    recipe
        The recipe.
    store
        The crop store, with its proteins.
    split
        The split; by default ``split.csv`` in the store, or else the one that ``deepgps data split`` makes.
    structures
        Folder of structures, for recipes that use them.
    every_class
        Whether each class of a single-label recipe needs a protein to train on; a trained network keeps what
        it knows of the others.

    Returns
    -------
    TrainingData
        The selected proteins and crops.

    Raises
    ------
    InputError
        If the store is incomplete or its crops have another size or scale, the split cannot be read,
        structures are missing or not used, or nothing is left to train or validate on.
    """
    _check_structures(recipe, structures)
    opened = open_crops(store)
    proteins = _protein_rows(read_store_proteins(store), opened.index)
    check_crops(store, recipe.crop, f"recipe '{recipe.name}'")
    parts, lines = read_parts(recipe.split, store, split), _cell_lines(opened.index)
    selected = [(row, select(row, recipe, lines[row["protein_id"]], parts)) for row in proteins]
    reasons = {row["protein_id"]: found.reason for row, found in selected if found.reason}
    points: dict[str, Floats] = {}
    if structures is not None:
        points, missing = _points([row for row, found in selected if not found.reason], recipe, structures)
        reasons |= missing
    kept = [(row, found.classes) for row, found in selected if row["protein_id"] not in reasons]
    if not kept:
        why = next((f" ('{id}': {reason})" for id, reason in reasons.items()), "")
        raise InputError(f"No protein of crop store '{store}' can be used by recipe '{recipe.name}'{why}.")
    left_out = tuple(
        (row["protein_id"], reasons[row["protein_id"]]) for row in proteins if row["protein_id"] in reasons
    )
    data = _training_data(recipe, opened, kept, parts, left_out, points)
    _check_parts(data, recipe, store, every_class)
    return data


# ---- which proteins are used ----


class Selection(NamedTuple):
    """The classes of a protein, or the reason why it is left out."""

    classes: frozenset[str]
    reason: str | None = None


def select(
    protein: ProteinRow, recipe: JointRecipe, cell_lines: Iterable[str], parts: Mapping[str, str]
) -> Selection:
    """Decide whether a recipe uses a protein.

    Parameters
    ----------
    protein
        Its row of the table.
    recipe
        The recipe.
    cell_lines
        Cell lines of its crops.
    parts
        The split: part by protein.

    Returns
    -------
    Selection
        The classes, or why the protein is left out.
    """
    checks: tuple[Callable[[], str | None], ...] = (
        lambda: _other_cells(recipe.cell_line, cell_lines),
        lambda: _no_sequence(protein) if "sequence" in recipe.protein.inputs else None,
        lambda: None if protein["protein_id"] in parts else "It is in no part of the split.",
    )
    found = classes_of(protein, class_set(recipe.class_set))
    reason = found.reason or next(filter(None, (check() for check in checks)), None)
    return Selection(frozenset(), reason) if reason else found


def classes_of(protein: ProteinRow, classes: ClassSet) -> Selection:
    """Return the classes of a protein.

    A single-label set takes single-localized proteins only; where the table has a column for the set, such as
    ``single_2``, that column decides.

    Returns
    -------
    Selection
        The classes, or why there are none.
    """
    localizations = tuple(filter(None, (protein["localizations"] or "").split("|")))
    named = ", ".join(localizations)
    found = classes.of(localizations)
    if not classes.multi_label:
        if len(localizations) > 1 or protein.get("single_localized") is False:
            return Selection(frozenset(), f"It is multi-localized ({named}), and '{classes.name}' takes one.")
        column = classes.name.replace("-", "_")
        found &= {protein.get(column)} if column in protein else found
    return Selection(found, None if found else f"It is in no class of '{classes.name}' ({named}).")


def _other_cells(cell_line: str | None, found: Iterable[str]) -> str | None:
    if cell_line is None or any(cell_line_key(each) == cell_line_key(cell_line) for each in found):
        return None
    return f"Its crops are of other cells than {cell_line} ({', '.join(sorted(set(found)))})."


def _no_sequence(protein: ProteinRow) -> str | None:
    if not (sequence := protein.get("sequence")):
        return "It has no sequence."
    return check_sequence(protein["protein_id"], sequence)


# ---- reading and checking a store ----


def check_crops(store: Path, crop: CropSpec, user: str) -> None:
    """Check that the crops of a store have a size, a scale and the normalisation used for prediction.

    Parameters
    ----------
    store
        The crop store.
    crop
        The required size and scale.
    user
        What requires it, for errors.

    Raises
    ------
    InputError
        If they have not.
    """
    manifest = json.loads((store / CROPS_MANIFEST).read_text(encoding="utf-8"))
    size, um = manifest.get("size_px"), manifest.get("pixel_size_um")
    if size != crop.size_px or abs(um / crop.pixel_size_um - 1) > SAME_SCALE:
        raise InputError(
            f"Crop store '{store}' has crops of {size} px of {um:g} µm, and {user} takes "
            f"{crop.size_px} px of {crop.pixel_size_um:g} µm; prepare it with --size-px {crop.size_px} "
            f"--pixel-size-um {crop.pixel_size_um:g}."
        )
    settings = manifest.get("inputs", {}).get("settings", {})
    low, high = settings.get("low", LOW), settings.get("high", HIGH)
    if (low, high) != (LOW, HIGH):
        raise InputError(
            f"Crop store '{store}' is normalised by the percentiles {low:g} and {high:g}, and "
            f"nucleus images to predict with by {LOW:g} and {HIGH:g}; prepare it with --low {LOW:g} "
            f"--high {HIGH:g}."
        )


def read_parts(settings: SplitSettings, store: Path, split: Path | None) -> Mapping[str, str]:
    """Read a split, or the store's own, or else make one.

    Returns
    -------
    Mapping
        Part by protein; ``train`` in place of ``validation`` where the test part validates.

    Raises
    ------
    InputError
        If it cannot be read or made.
    """
    if split is not None or (store / SPLIT_FILE).exists():
        parts: Mapping[str, str] = read_split(split or store / SPLIT_FILE)
    else:
        parts = split_proteins(read_proteins_to_split(store), settings.by, 0).parts
    if settings.validate_on == "test":
        return {id: "train" if part == "validation" else part for id, part in parts.items()}
    return parts


def _check_structures(recipe: JointRecipe, structures: Path | None) -> None:
    used = "structure" in recipe.protein.inputs
    if used and structures is None:
        raise InputError(f"Recipe '{recipe.name}' uses structures; give their folder with --structures.")
    if structures is not None and not used:
        raise InputError(f"Recipe '{recipe.name}' uses no structures; leave --structures out.")


def _protein_rows(proteins: pl.DataFrame, index: pl.DataFrame) -> Sequence[ProteinRow]:
    """Return the proteins row by row; accessions known from the list of fields only are in the index."""
    listed = index.select("protein_id", pl.col("accession").alias("listed")).unique("protein_id")
    known = pl.col("accession") if "accession" in proteins.columns else pl.lit(None, pl.String)
    accession = pl.coalesce(known.replace("", None), pl.col("listed").replace("", None)).alias("accession")
    rows = proteins.join(listed, "protein_id", how="left", maintain_order="left").with_columns(accession)
    return rows.drop("listed").to_dicts()


def _cell_lines(index: pl.DataFrame) -> Mapping[str, set[str]]:
    lines: defaultdict[str, set[str]] = defaultdict(set)
    for protein, line in index.select("protein_id", "cell_line").unique().iter_rows():
        lines[protein].add(line or "unnamed cells")
    return lines


def _points(
    proteins: Sequence[ProteinRow], recipe: JointRecipe, folder: Path
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Sample the structures of proteins; return them, and the reasons for those that are missing."""
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


def _training_data(
    recipe: JointRecipe,
    store: CropStore,
    kept: Sequence[tuple[ProteinRow, frozenset[str]]],
    parts: Mapping[str, str],
    left_out: tuple[tuple[str, str], ...],
    points: Mapping[str, Floats],
) -> TrainingData:
    ids = tuple(row["protein_id"] for row, _ in kept)
    slugs = class_set(recipe.class_set).slugs
    numbers = {id: number for number, id in enumerate(ids)}
    cells = recipe.cell_line and cell_line_key(recipe.cell_line)
    protein_of_row = np.array(
        [
            numbers.get(id, -1) if cells is None or cell_line_key(line or "") == cells else -1
            for id, line in store.index.select("protein_id", "cell_line").iter_rows()
        ],
        np.int64,
    )
    part_of_row = np.array([*(parts[id] for id in ids), ""])[protein_of_row]
    rows = {part: np.flatnonzero(part_of_row == part) for part in PARTS}
    if recipe.split.validate_on == "test":
        rows["validation"] = rows["test"]
    return TrainingData(
        store=store,
        protein_ids=ids,
        sequences=tuple(row.get("sequence") for row, _ in kept),
        accessions=tuple(row.get("accession") for row, _ in kept),
        targets=np.array([[slug in classes for slug in slugs] for _, classes in kept], np.float32),
        classes=slugs,
        rows=rows,
        protein_of_row=protein_of_row,
        left_out=left_out,
        split={id: parts[id] for id in ids},
        points=np.stack([points[id] for id in ids]) if points else None,
    )


def _check_parts(data: TrainingData, recipe: JointRecipe, store: Path, every_class: bool) -> None:
    """Check that both parts have crops, and, if asked, each single-label class training proteins."""
    for part in (PARTS[0], recipe.split.validate_on):
        if not len(data.rows[part]):
            raise InputError(
                f"None of the {len(data.protein_ids):,} proteins of crop store '{store}' that recipe "
                f"'{recipe.name}' can use is in the part '{part}'; give another --split, or more proteins."
            )
    trains = [data.split[id] == PARTS[0] for id in data.protein_ids]
    lacking = [slug for slug, n in zip(data.classes, data.targets[trains].sum(0), strict=True) if not n]
    if lacking and every_class and not class_set(recipe.class_set).multi_label:
        raise InputError(
            f"Crop store '{store}' has no training protein of the class '{lacking[0]}' for recipe "
            f"'{recipe.name}'; give another --split, or a recipe of other classes."
        )


# ---- batches ----


class ProteinTensors(Protocol):
    """Looks up the network's inputs of proteins; `deepgps.training.joint.protein_inputs` has it."""

    def batch(self, proteins: Ints) -> Mapping[str, Tensor]:
        """Return the inputs (B, …) of proteins, given by their numbers (B,)."""


class Batch(NamedTuple):
    """Crops and the proteins they show.

    Attributes
    ----------
    pairs
        (B, 2, S, S) uint8, nucleus and protein image.
    protein
        The network's inputs of each protein, by name.
    targets
        (B, K) float32.
    """

    pairs: Tensor
    protein: dict[str, Tensor]
    targets: Tensor


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """The n batches of an epoch.

    Attributes
    ----------
    rows
        (n, B) row numbers of the store.
    orientations
        (n, B) orientation of each crop.
    """

    rows: Ints
    orientations: Ints


def sample_evenly(items: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Draw ``count`` items in random order, each equally often up to one."""
    rounds = -(-count // len(items))
    return np.asarray(rng.permuted(np.tile(items, (rounds, 1)), axis=1).ravel()[:count])


def balanced_rows(rows: Ints, proteins: Ints, targets: Floats, count: int, seed: list[int]) -> Ints:
    """Draw rows: classes equally often, within a class its proteins, within a protein its crops.

    Parameters
    ----------
    rows, proteins
        (n,) row numbers, and the protein of each.
    targets
        (P, K) classes of all proteins.
    count
        How many to draw.
    seed
        Seed of the draw.

    Returns
    -------
    (count,) row numbers.
    """
    rng = np.random.default_rng(seed)
    present = np.unique(proteins)
    members = [present[targets[present, k] > 0] for k in range(targets.shape[1])]
    classes = sample_evenly(np.array([k for k, found in enumerate(members) if len(found)]), count, rng)
    drawn = np.empty(count, np.int64)
    for k in np.unique(classes):
        at = np.flatnonzero(classes == k)
        drawn[at] = sample_evenly(members[k], len(at), rng)
    chosen = np.empty(count, np.int64)
    by_protein, starts = np.argsort(proteins, kind="stable"), np.searchsorted(np.sort(proteins), present)
    rows_of = dict(zip(present, np.split(rows[by_protein], starts[1:]), strict=True))
    for protein in np.unique(drawn):
        at = np.flatnonzero(drawn == protein)
        chosen[at] = sample_evenly(rows_of[protein], len(at), rng)
    return chosen


def epoch_order(data: TrainingData, rows: Ints, epoch: int, settings: TrainingSettings) -> EpochOrder:
    """Return the batches of an epoch: as many whole ones as the rows fill, at least one."""
    size, seed = settings.batch_size, settings.seed
    count = max(len(rows) // size, 1) * size
    if settings.balanced:
        chosen = balanced_rows(rows, data.protein_of_row[rows], data.targets, count, [seed, epoch, 0])
    else:
        chosen = sample_evenly(rows, count, np.random.default_rng([seed, epoch, 0]))
    rng = np.random.default_rng([seed, epoch, 1])
    orientations = rng.integers(ORIENTATIONS if settings.augment else 1, size=count)
    return EpochOrder(chosen.reshape(-1, size), orientations.reshape(-1, size))


class BatchParts(Dataset[Batch]):
    """The parts of an epoch's batches that one process computes.

    Parameters
    ----------
    data, inputs
        The crops, and the network's inputs of their proteins.
    order
        The epoch.
    accumulate
        Parts in which a batch is computed.
    rank, processes
        Number of this process, and of all.
    """

    def __init__(
        self,
        data: TrainingData,
        inputs: ProteinTensors,
        order: EpochOrder,
        accumulate: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.data, self.inputs, self.order = data, inputs, order
        self.accumulate, self.rank, self.processes = accumulate, rank, processes
        self.size = order.rows.shape[1] // (accumulate * processes)

    def __len__(self) -> int:
        return len(self.order.rows) * self.accumulate

    def __getitem__(self, number: int) -> Batch:
        batch, part = divmod(number, self.accumulate)
        start = (part * self.processes + self.rank) * self.size
        mine = slice(start, start + self.size)
        rows, orientations = self.order.rows[batch, mine], self.order.orientations[batch, mine]
        return read_batch(self.data, self.inputs, rows, orientations)


def read_batch(
    data: TrainingData,
    inputs: ProteinTensors,
    rows: Ints,
    orientations: Ints | None = None,
    proteins: Ints | None = None,
) -> Batch:
    """Read the crops of some rows, with the proteins that they show or with others."""
    orientations = np.zeros_like(rows) if orientations is None else orientations
    pairs = [orient(data.store.crops[row], int(how)) for row, how in zip(rows, orientations, strict=True)]
    proteins = data.protein_of_row[rows] if proteins is None else proteins
    targets = torch.from_numpy(data.targets[proteins])
    return Batch(torch.from_numpy(np.stack(pairs)), dict(inputs.batch(proteins)), targets)


def orient(pair: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate and flip a pair (2, S, S), nucleus and protein together.

    Parameters
    ----------
    pair
        Nucleus and protein image.
    orientation
        Quarter turns, 0 to 3; 4 more for mirrored.

    Returns
    -------
    (2, S, S), a view of the same pixels.
    """
    turned = np.rot90(pair, orientation % 4, (1, 2))
    return turned[:, :, ::-1] if orientation >= 4 else turned
