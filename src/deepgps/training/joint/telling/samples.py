"""The same few validation crops, drawn after every epoch: nucleus, real protein, drawn protein."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepgps.arrays import Floats, Ints
from deepgps.files import atomic_path
from deepgps.results.labelled_images import write_text
from deepgps.training.joint.inputs.batches import Trained, read_batch
from deepgps.training.joint.learning.loop import Fit
from deepgps.training.joint.learning.validate import images

SAMPLES = "samples"
MOST = 6

_GAP, _HEADER, _NAME = 4, 18, 14
_GROUND, _INK = (19, 20, 23), (233, 234, 238)


def sample_rows(data: Trained, rows: Ints, count: int = MOST) -> Ints:
    """Choose rows, always the same: the classes in turn, of different proteins as far as there are."""
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(rows)
    _, first = np.unique(data.protein_of_row[shuffled], return_index=True)
    rest = np.setdiff1d(np.arange(len(shuffled)), first)
    ordered = shuffled[np.concatenate([np.sort(first), rest])]
    kind = data.targets[data.protein_of_row[ordered]].argmax(1)
    turn = np.array([(kind[:place] == each).sum() for place, each in enumerate(kind)])
    return np.asarray(ordered[np.lexsort((kind, turn))][:count])


@torch.no_grad()
def draw_samples(task: Fit, rows: Ints) -> Floats:
    """Draw some rows: (n, 3, S, S) in [0, 1], nucleus, real and drawn protein image."""
    task.model.eval()
    batch = task.fabric.to_device(read_batch(task.data, task.inputs, rows))
    nucleus, real = images(batch)
    drawn = task.model(nucleus, batch.protein).image.float()
    return torch.cat([nucleus, real, drawn], 1).cpu().numpy()


def sample_names(task: Fit, rows: Ints) -> list[str]:
    """Name the protein of each row and its classes."""
    data = task.data
    numbers = data.protein_of_row[rows]
    places = [
        ", ".join(c for c, has in zip(data.classes, data.targets[n], strict=True) if has) for n in numbers
    ]
    return [f"{data.protein_ids[n]}: {place}" for n, place in zip(numbers, places, strict=True)]


def sheet(drawn: Floats, names: list[str]) -> Image.Image:
    """Set samples (n, 3, S, S) side by side, two a row, on the same scale: nothing is stretched."""
    size = max(drawn.shape[-1], 96)
    block = (3 * size + 4 * _GAP, size + _GAP + _NAME)
    across = min(2, len(drawn))
    canvas = Image.new(
        "RGB", (across * block[0], _HEADER + -(-len(drawn) // across) * block[1] + _GAP), _GROUND
    )
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    for number, (panels, name) in enumerate(zip(drawn, names, strict=True)):
        left, top = number % across * block[0] + _GAP, _HEADER + number // across * block[1]
        write_text(pen, (left, top), name, 10, _INK, 3 * size)
        for place, panel in enumerate(panels):
            image = Image.fromarray((np.clip(panel, 0, 1) * 255).astype(np.uint8))
            if image.width < size:
                image = image.resize((size, size), Image.Resampling.NEAREST)
            canvas.paste(image, (left + place * (size + _GAP), top + _NAME))
    for column in range(across):
        for place, label in enumerate(("nucleus", "real", "drawn")):
            write_text(pen, (column * block[0] + _GAP + place * (size + _GAP), 2), label, 11, _INK, size)
    return canvas


def write_sheet(image: Image.Image, run: Path, epoch: int) -> Path:
    """Write the sheet of an epoch, counted from 1, into the run's folder."""
    path = run / SAMPLES / f"epoch-{epoch:04d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        image.save(draft, format="PNG")
    return path
