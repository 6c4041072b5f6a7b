r"""Draw twelve textbook proteins into several nuclei of HEK293T and U-2 OS, as one image.

    python experiments/deepgps-mini/images/contact_sheet.py --bundle deepgps-mini --out docs/images/sheet.webp
    python experiments/deepgps-mini/images/contact_sheet.py --bundle deepgps-mini \
        --data runs/images/structure.npz --real --out runs/images/sheet.png

A line of the sheet is a nucleus, then each protein drawn into it: the nuclei that ship or, with ``--data``,
three held-out ones of each cell line, which must not be published. With ``--real``, a line of real images of
the same localizations stands above those of each cell line (held out where there are any, else trained on:
marked ``t``).
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import LINES, OTHER_LINES, held_out_nuclei
from PIL import Image, ImageDraw
from real_images import SIZE, crops, single_class

from deepgps import Predictor
from deepgps.arrays import Bytes, Floats
from deepgps.images.cell import DEFAULT_CELLS, SIZE_PX
from deepgps.training.mini.image_pack import ImagePack
from models import NOT, SURE, Bundled, Checkpoint, Model, Wanted, sure, worded

NUCLEI = 3
DEFAULT_SIZE = SIZE_PX // 2
"""Edge of the images of nuclei that ship."""
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


def _text(words: list[str], width: int = SIZE) -> Bytes:
    image = Image.new("L", ((len(TEXTBOOK) + 1) * width, HEAD))
    pen = ImageDraw.Draw(image)
    for number, word in enumerate(words):
        pen.text((number * width + 3, 1), word, fill=255)
    return np.asarray(image)


def default_sheet(predictor: Predictor) -> Bytes:
    """Draw the sheet (H, W), 8 bit, into the nuclei that ship, at half of their resolution."""
    flow = predictor.bundle.metadata.flow_matching
    assert flow is not None
    heads = ["nucleus", *(each.gene_symbol for each in TEXTBOOK)]
    lines, shown = [_text(heads, DEFAULT_SIZE)], ""
    for name in DEFAULT_CELLS:
        line = "U-2 OS" if name.startswith("u2os") else "HEK293T"
        if line != shown:
            lines.append(_text([line], DEFAULT_SIZE))
            shown = line
        cell = replace(predictor.load_cell(name), cell_line=line)
        latents = [
            np.concatenate(
                [
                    np.where(np.isin(flow.classes, [each.slug]), SURE, NOT),
                    np.isin(flow.words, each.words),
                ]
            ).astype(np.float32)[None]
            for each in TEXTBOOK
        ]
        images = np.stack([cell.nucleus, *predictor.draw([cell] * len(latents), latents)])
        edge = images.shape[-1] // 2
        lines.append(_line(list(images.reshape(-1, edge, 2, edge, 2).mean((2, 4)))))
    return np.concatenate(lines)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="image pack, for held-out nuclei")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--real", action="store_true", help="with real images: not to be published")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("runs/images/sheet.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.data is None:
        Image.fromarray(default_sheet(Predictor.load(options.bundle, threads=1))).save(options.out)
        return
    pack = ImagePack.load(options.data)
    model: Model = (
        Checkpoint(options.checkpoint, pack, steps=options.steps, guidance=options.guidance)
        if options.checkpoint
        else Bundled(options.bundle, pack)
    )
    Image.fromarray(contact_sheet(model, pack, real=options.real)).save(options.out)


if __name__ == "__main__":
    main()
