r"""Pack the images of a data folder, and train the networks that draw, on a CPU or a GPU.

Packing needs the data, training the packed file alone (under 60 MiB), so that it can be done on another
machine; a second call goes on from the last checkpoint.

    python experiments/deepgps-mini/images/train_images.py pack --data ../shared/data/images --out runs/images
    python experiments/deepgps-mini/images/train_images.py structure --out runs/images --minutes 9
    python experiments/deepgps-mini/images/train_images.py grain --out runs/images --images 64000

In the folder are then ``structure.npz`` and ``grain.npz`` (packed), ``structure.safetensors`` and
``grain.safetensors`` (weights), and ``structure/`` and ``grain/`` (checkpoints, metrics, sample sheets). Put
them into ``images/`` of a run folder, and `deepgps train mini --resume` takes them as they are.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepgps.training.log import HISTORY
from deepgps.training.mini.image_pack import CHANNELS, ImagePack
from deepgps.training.mini.images import (
    GRAIN_STAGE,
    STRUCTURE_STAGE,
    GrainTask,
    StructureTask,
    fit_stage,
    write_network,
)
from deepgps.training.mini.train import IMAGE_WEIGHTS, PACKED, pack_reference
from deepgps.training.recipe import MiniRecipe, StageSettings, load_recipe

STAGES = {STRUCTURE_STAGE: StructureTask, GRAIN_STAGE: GrainTask}
MINUTES_LEFT = 0.93
"""Share of the minutes that training may take; the rest is for measures, sample sheets and weights."""


def pack(images: Path, folder: Path, recipe: MiniRecipe) -> None:
    """Pack the images of both stages, and write a contact sheet of each."""
    for stage, file in PACKED.items():
        pack_reference(stage, images, folder / file, recipe.class_set, recipe.crop.pixel_size_um)
        packed = ImagePack.load(folder / file)
        contact_sheet(packed).save(folder / f"{stage}_packed.png")
        size = (folder / file).stat().st_size / 2**20
        cells = len(packed.arrays["cells"])
        print(f"{stage}: {len(packed.arrays['offset'])} fields, {cells} cells, {size:.1f} MiB")


def contact_sheet(packed: ImagePack, size: int = 96, columns: int = 12) -> Image.Image:
    """Show a few cells of each source: a row a source and split, the channels below each other."""
    rng, lines = np.random.default_rng(0), []
    fields = packed.arrays["cells"][:, 0]
    sources, splits = packed.arrays["source"][fields], packed.arrays["split"][fields]
    for source in np.unique(sources):
        for split in np.unique(splits):
            members = np.flatnonzero((sources == source) & (splits == split))
            if len(members):
                chosen = rng.choice(members, min(columns, len(members)), replace=False)
                shown = [np.vstack(list(packed.window(int(cell), size))) for cell in chosen]
                shown += [np.zeros((len(CHANNELS) * size, size), np.float32)] * (columns - len(shown))
                lines.append(np.hstack(shown))
    return Image.fromarray(np.round(np.vstack(lines) * 255).astype(np.uint8))


def epochs_in(minutes: float, fit: Callable[[int], object], done: int) -> int:
    """Train until two more epochs are finished, and return how many there can be in so many minutes."""
    began = time.monotonic()
    fit(done + 1)  # which a killed run had begun, perhaps
    second = time.monotonic()
    fit(done + 2)
    now = time.monotonic()
    left = MINUTES_LEFT * 60 * minutes - (now - began)
    return done + 2 + max(0, int(left / (now - second)))


def finished_epochs(folder: Path) -> int:
    """Return how many epochs a stage has finished in earlier calls."""
    history = folder / HISTORY
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def main() -> None:
    """Read the options, and pack or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["pack", STRUCTURE_STAGE, GRAIN_STAGE])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/images"), help="to pack")
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--recipe", default="mini")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, help="train on so many images in all")
    length.add_argument("--minutes", type=float, help="train for about so long")
    parser.add_argument("--threads", type=int, default=1, help="more than one is slow beside other work")
    parser.add_argument("--workers", type=int, default=8 if torch.cuda.is_available() else 0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe)
    assert isinstance(recipe, MiniRecipe)
    if options.what == "pack":
        pack(options.data, options.out, recipe)
        return
    stage, images = options.what, recipe.images
    settings: StageSettings = images.structure if stage == STRUCTURE_STAGE else images.grain
    settings = settings.model_copy(update={"workers": options.workers})
    packed, kind = ImagePack.load(options.out / PACKED[stage]), STAGES[stage]

    def fit(epochs: int, cool_down: float = 0) -> torch.nn.Module:
        changed = settings.model_copy(update={"max_epochs": epochs, "cool_down": cool_down})
        return fit_stage(kind(packed, changed, images.source_shares.model_dump()), options.out / stage)

    epochs = settings.max_epochs
    if options.images:
        epochs = -(-options.images // (settings.batches * settings.batch_size))
    if options.minutes:
        epochs = epochs_in(options.minutes, fit, finished_epochs(options.out / stage))
    write_network(fit(epochs, settings.cool_down), options.out / IMAGE_WEIGHTS[stage])


if __name__ == "__main__":
    main()
