r"""Draw twelve textbook proteins into three nuclei of HEK293T and U-2 OS each, as one image.

    python experiments/deepgps-mini/images/contact_sheet.py --data runs/images/structure.npz \
        --checkpoint runs/images/structure/checkpoints/last.ckpt --out runs/images/sheet.png

A line of the sheet is a held-out nucleus, then each protein drawn into it. With ``--real``, a line of real
images of the same localizations stands above those of each cell line (held out where there are any, else
trained on: marked ``t``); such a sheet must not be published.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import LINES, OTHER_LINES, held_out_nuclei
from PIL import Image, ImageDraw
from real_images import SIZE, crops, single_class

from deepgps.arrays import Bytes, Floats
from deepgps.training.mini.image_pack import ImagePack
from models import Bundled, Checkpoint, Model, Wanted, sure, worded

NUCLEI = 3
HEAD = 14
"""Height of a line of text in pixels."""


class Textbook(NamedTuple):
    """A protein whose localization is in every textbook."""

    gene_symbol: str
    slug: str
    words: tuple[str, ...]


TEXTBOOK = (
    Textbook("H2BC21", "nucleoplasm", ("chromatin",)),
    Textbook("NPM1", "nucleolus", ("nucleolus_gc",)),
    Textbook("LMNB1", "nuclear_membrane", ("nuclear_membrane",)),
    Textbook("GAPDH", "cytoplasmic", ("cytoplasmic",)),
    Textbook("TUBA1A", "cytoskeleton", ("Microtubules",)),
    Textbook("PCNT", "centrosome", ("centrosome",)),
    Textbook("EGFR", "membrane", ("membrane",)),
    Textbook("CANX", "er", ("er",)),
    Textbook("GOLGA2", "golgi", ("golgi",)),
    Textbook("RAB5A", "vesicles", ("vesicles",)),
    Textbook("TOMM20", "mitochondria", ("mitochondria",)),
    Textbook("ALB", "extracellular", ()),
)


def contact_sheet(model: Model, pack: ImagePack, *, real: bool = False, seed: int = 0) -> Bytes:
    """Draw the sheet (H, W), 8 bit."""
    heads = ["nucleus", *(each.gene_symbol for each in TEXTBOOK)]
    lines = [_text(heads)]
    for line in LINES:
        if real:
            lines += _real_line(pack, line)
        rows = held_out_nuclei(pack, line, NUCLEI)
        _, nuclei = crops(pack, rows)
        count = len(TEXTBOOK)
        wanted = Wanted(
            rows.repeat(count),
            np.tile(np.stack([sure(pack, [each.slug]) for each in TEXTBOOK]), (len(rows), 1)),
            np.tile(np.stack([worded(pack, each.words) for each in TEXTBOOK]), (len(rows), 1)),
            seed + np.arange(len(rows) * count),
        )
        drawn = model.draw(wanted).reshape(len(rows), count, SIZE, SIZE)
        lines.append(_text([line]))
        lines += [_line([nucleus, *images]) for nucleus, images in zip(nuclei, drawn, strict=True)]
    return np.concatenate(lines)


def _real_line(pack: ImagePack, line: str) -> list[Bytes]:
    """A real image of each localization, and what they are."""
    domain, _ = LINES[line]
    images, names = [np.zeros((SIZE, SIZE), np.float32)], ["real"]
    found = {split: single_class(pack, split) for split in ("test", "train")}
    for each in TEXTBOOK:
        image, name = np.zeros((SIZE, SIZE), np.float32), "none"
        for split, where in (("test", domain), ("train", domain), ("train", OTHER_LINES)):
            rows, slugs = found[split]
            rows = rows[(slugs == each.slug) & (pack.arrays["domain"][pack.fields(rows)] == where)]
            if len(rows):
                image = crops(pack, rows[len(rows) // 2 :][:1])[0][0]
                name = {"test": "held out", "train": "t" if where == domain else "t, other"}[split]
                break
        images.append(image)
        names.append(name)
    return [_text(names), _line(images)]


def _line(images: list[Floats]) -> Bytes:
    return np.round(np.concatenate(images, axis=1) * 255).astype(np.uint8)


def _text(words: list[str]) -> Bytes:
    image = Image.new("L", ((len(TEXTBOOK) + 1) * SIZE, HEAD))
    pen = ImageDraw.Draw(image)
    for number, word in enumerate(words):
        pen.text((number * SIZE + 3, 1), word, fill=255)
    return np.asarray(image)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/images/structure.npz"))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--real", action="store_true", help="with real images: not to be published")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("runs/images/sheet.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    pack = ImagePack.load(options.data)
    model: Model = (
        Checkpoint(options.checkpoint, pack, steps=options.steps, guidance=options.guidance)
        if options.checkpoint
        else Bundled(options.bundle, pack)
    )
    Image.fromarray(contact_sheet(model, pack, real=options.real)).save(options.out)


if __name__ == "__main__":
    main()
