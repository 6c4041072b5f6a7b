"""A model like the bundled one, fine-tuned: its generator on a lab's own crops, its label half as it is.

A crop is drawn from the localizations that the table of proteins gives its protein.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

import deepgps
from deepgps.arrays import Floats, Ints
from deepgps.datasets.crops.store import MANIFEST, CropStore, open_crops, read_store_proteins
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.localization import ClassSet, class_set
from deepgps.models.deepgps import MiniGenerator
from deepgps.training.claim import claim, write_json
from deepgps.training.finetune.base import AT_ONCE, SEEN, Base, not_its_network
from deepgps.training.finetune.label_half import ABOUT, write_label_half
from deepgps.training.finetune.unfold import load_weights
from deepgps.training.joint.folder import inputs_of
from deepgps.training.joint.inputs.data import check_crops, read_parts
from deepgps.training.joint.inputs.selection import classify
from deepgps.training.joint.settings import SplitSettings
from deepgps.training.mini.batches import sure
from deepgps.training.mini.images import build_generator, fit_images
from deepgps.training.mini.run import GENERATOR
from deepgps.training.mini.settings import MiniRecipe
from deepgps.training.origin import write_origin

AFTER, ERROR = "validation.json", "validation_mse"
JUDGED = 512
"""Crops of the validation part, at most, by which before and after are compared."""


@dataclass(frozen=True, slots=True)
class TableTokens:
    """Probabilities of a crop's protein, from its localizations.

    Attributes
    ----------
    classes
        The class set.
    """

    classes: ClassSet

    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats:
        """Probabilities (K,), surer or less sure by chance, for predicted ones are either."""
        logits = np.log(1 / sure(self.classes, localizations) - 1) * -rng.uniform(0.6, 1.6)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def finetune_mini(
    base: Base, recipe: MiniRecipe, store: Path, run: Path, *, resume: bool, split: Path | None
) -> None:
    """Fine-tune the generator of a model like the bundled one into a run that can be exported.

    Raises
    ------
    InputError
        If the crops are of another size or scale, none of them can be used, or the folder holds another run.
    """
    crops, left_out = lab_crops(recipe, store, split)
    made_of = {**inputs_of(store, crops, split, None), "fine-tuned from": base.fingerprint}
    claim(run, recipe, made_of, resume=resume)
    (run / "images").mkdir(exist_ok=True)
    with atomic_path(run / "left_out.csv") as draft:
        pl.DataFrame(sorted(left_out.items()), ["protein_id", "reason"], orient="row").write_csv(draft)
    if not (run / "labels" / ABOUT).exists():
        write_label_half(base, recipe.labels, run / "labels")
    if not (run / "images" / GENERATOR).exists():
        tokens = TableTokens(class_set(recipe.class_set))
        generator = _begun(base, recipe, crops, tokens)
        write_origin(run, base.name, base.fingerprint, {ERROR: image_error(generator, crops, tokens)})
        # Every crop counts the same, whatever the sources are called.
        shares = dict.fromkeys(crops.index["source"].unique().to_list(), 1.0)
        alike = {"source_shares": shares}
        grain = recipe.images.grain.model_copy(update=alike)
        settings = recipe.images.model_copy(update={**alike, "grain": grain})
        tuned = fit_images(crops, tokens, settings, run / "images", generator.train())
        write_json(run / AFTER, {ERROR: image_error(tuned, crops, tokens)})
        weights = {name: value.contiguous() for name, value in tuned.state_dict().items()}
        with atomic_path(run / "images" / GENERATOR) as draft:
            save_file(weights, draft)
    made = {"deepgps": deepgps.__version__, "torch": torch.__version__, "inputs": made_of}
    write_json(run / MANIFEST, made)


def lab_crops(recipe: MiniRecipe, store: Path, split: Path | None) -> tuple[CropStore, dict[str, str]]:
    """Open a crop store with its split in the index; proteins that are not used are in no part.

    Returns
    -------
    CropStore, dict
        The store, and the proteins left out, each with a sentence that says why.

    Raises
    ------
    InputError
        If the crops are of another size or scale, or nothing is left to train or to validate on.
    """
    opened, classes = open_crops(store), class_set(recipe.class_set)
    check_crops(store, recipe.crop, f"model '{recipe.name}'")
    parts = read_parts(SplitSettings(), store, split)
    left_out = {}
    for row in read_store_proteins(store).to_dicts():
        reason = classify(row, classes).reason
        if reason := reason or (None if row["protein_id"] in parts else "It is in no part of the split."):
            left_out[row["protein_id"]] = reason
    used = {id: part for id, part in parts.items() if id not in left_out}
    part = pl.col("protein_id").replace_strict(used, default=None, return_dtype=pl.String)
    crops = CropStore(opened.crops, opened.index.with_columns(part.alias("split")))
    for name in ("train", "validation"):
        if not len(crops.rows(split=name)):
            raise InputError(
                f"No crop in '{store}' that can be used is in the part '{name}'; give another --split, or "
                "more proteins."
            )
    return crops, left_out


def image_error(generator: MiniGenerator, crops: CropStore, tokens: TableTokens) -> float:
    """Mean squared error of the images of crops that validate."""
    rows = crops.rows(split="validation")
    rows = rows[np.linspace(0, len(rows) - 1, min(JUDGED, len(rows))).astype(np.int64)]
    errors = [
        torch.nn.functional.mse_loss(drawn, protein).item() * len(drawn)
        for drawn, protein in _drawn(generator.eval(), crops, tokens, rows)
    ]
    return sum(errors) / len(rows)


def _begun(base: Base, recipe: MiniRecipe, crops: CropStore, tokens: TableTokens) -> MiniGenerator:
    """Build the generator and give it the weights that it starts from."""
    generator = build_generator(len(tokens.classes.slugs), recipe.images)
    rows = crops.rows(split="train")
    rows = rows[np.linspace(0, len(rows) - 1, min(SEEN, len(rows))).astype(np.int64)]
    try:
        load_weights(generator, base.weights, lambda: list(_drawn(generator, crops, tokens, rows)))
    except RuntimeError as error:
        raise InputError(not_its_network(base, error)) from None
    return generator


def _drawn(
    generator: MiniGenerator, crops: CropStore, tokens: TableTokens, rows: Ints
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw crops some at a time, smoothly: drawn and real, (B, 1, S, S) each."""
    places = crops.index["localizations"].to_list()
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        pairs = torch.from_numpy(crops.images(some))
        known = torch.from_numpy(np.stack([sure(tokens.classes, places[row]) for row in some]))
        with torch.no_grad():
            yield generator.describe(pairs[:, :1], known)[0], pairs[:, 1:]
