r"""Pack the real images into one file that the image generator trains on.

Every source is brought to one pixel size and to 8 bit, channel by channel: nucleus, protein, microtubules
and ER, the last two where the source has them. Fields stay whole, so that training can cut, turn and scale
its crops; a table lists the cells.

    python experiments/deepgps-mini/images/pack.py --data ../shared/data/images \
        --out runs/images/coarse.npz --sheet runs/images/coarse.png

With ``--fine``, pixels are half as large, for the stage that adds grain: sources that are coarser than that
are left out, of the masked cells every fourth is taken, and of large fields the middle.
"""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepgps.datasets.crops.reference import estimate_pixel_size, remove_scale_bar
from deepgps.images.processing import percentile_normalise, resample
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import HPA_TO_LOCALIZATIONS, OPENCELL_CATEGORIES, class_set

Floats = NDArray[np.float32]

CHANNELS = ("nucleus", "protein", "microtubules", "er")
DOMAINS = ("HEK293T live confocal", "U-2 OS immunofluorescence", "other")
FINE_UM = 0.206349
COARSE_UM = 2 * FINE_UM
SAME_WORD = {
    "Nucleoplasm": "nucleoplasm",
    "Nucleoli": "nucleolus_gc",
    "Nucleoli fibrillar center": "nucleolus_fc_dfc",
    "Nuclear membrane": "nuclear_membrane",
    "Cytosol": "cytoplasmic",
    "Plasma membrane": "membrane",
    "Cell Junctions": "cell_contact",
    "Focal adhesion sites": "focal_adhesions",
    "Vesicles": "vesicles",
    "Centrosome": "centrosome",
    "Mitochondria": "mitochondria",
    "Golgi apparatus": "golgi",
    "Endoplasmic reticulum": "er",
}
"""Words of the HPA that mean what one of OpenCell's does."""
WORDS = (*OPENCELL_CATEGORIES, *(word for word in HPA_TO_LOCALIZATIONS if word not in SAME_WORD))
TEST_GROUPS = {
    "hpa_u2os_cells": (
        *(f"comb1_mixed_img{n}" for n in (8, 18, 20, 21, 22, 23, 25, 161, 175, 182, 184)),
        *(f"comb2_mixed_img{n}" for n in (227, 229)),
        *(f"comb3_mixed_img{n}" for n in (281, 301)),
        *(f"comb4_mixed_img{n}" for n in (305, 389, 391)),
    ),
    "hpa_fields": ("CCNB1 U-2 OS", "DAXX U-2 OS", "TRAP1 MCF7"),
    "opencell_tiles": ("ACTB", "ANAPC16", "CEP131", "CKAP2L", "MAP4"),
    "opencell_crops": ("883d381517", "38e4caee62", "81cc9f8743"),
}
"""What is held out of each source: mosaics, protein and cell line, proteins, figures.

All but the figures are the test groups of the first deepgps-mini, one in five of each localization in the
order of a hash. Of the figures no localization loses more than half of its crops.
"""
NEGATIVE = -0.4
"""Correlation of nucleus and protein detail inside nuclei below which a nucleus image of an OpenCell tile
carries the negative of the protein. Of the 120 OpenCell crops, whose channels are separate, the lowest is
-0.38 and the median 0."""
NUCLEOLAR = {"nucleolus_gc", "nucleolus_fc_dfc"}
"""Words of proteins that are truly where DNA is not."""


@dataclass(frozen=True, slots=True)
class Field:
    """One image with its channels, raw, and what is known of its protein.

    Attributes
    ----------
    name, source, group
        Its own name, the folder it is from, and what must not be split between training and test.
    channels
        (H, W) raw intensities by name of `CHANNELS`.
    words
        Annotation words of the protein; none where nothing is known.
    pixel_size_um
        Edge of a pixel in micrometres.
    domain
        Index into `DOMAINS`.
    label_weight
        How far the words are to be trusted, 0 to 1.
    masked
        Whether everything but one cell is 0.
    """

    name: str
    source: str
    group: str
    channels: dict[str, Floats] = field(repr=False)
    words: tuple[str, ...]
    pixel_size_um: float
    domain: int
    label_weight: float = 1.0
    masked: bool = False


def all_fields(images: Path) -> Iterator[Field]:
    """Read the fields of every source."""
    yield from _u2os_cells(images / "hpa_u2os_cells")
    yield from _hpa_fields(images / "hpa_fields")
    yield from _hpa_dictionary(images / "hpa_dictionary")
    yield from _hpa_landmark_fields(images / "hpa_landmark_fields")
    yield from _opencell_crops(images / "opencell_crops")
    yield from _opencell_tiles(images / "opencell_tiles")
    yield from _other_pairs(images / "other_pairs")


def _u2os_cells(folder: Path) -> Iterator[Field]:
    colours = dict(zip(CHANNELS, ("blue", "green", "red", "yellow"), strict=True))
    mosaics: dict[str, dict[str, Floats]] = {}
    for row in _rows(folder):
        name = row["mosaic"]
        if name not in mosaics:
            mosaics = {name: {c: _grey(folder / f"{name}_{v}.jpg") for c, v in colours.items()}}
        y, x = int(row["row"]) * 512, int(row["col"]) * 512
        tile = {channel: pixels[y : y + 512, x : x + 512] for channel, pixels in mosaics[name].items()}
        words = _hpa_words(row["main_location"])
        cell = f"{name}_{row['row']}{row['col']}"
        yield Field(cell, folder.name, name, tile, words, 0.2, 1, masked=True)


def _hpa_fields(folder: Path) -> Iterator[Field]:
    seen: set[tuple[str, str]] = set()
    for row in _rows(folder):
        # Two images of each antibody and cell line: the second adds little and the file has a limit.
        first = (row["antibody"], row["cell_line"]) not in seen
        seen.add((row["antibody"], row["cell_line"]))
        if not first:
            continue
        colours = dict(zip(CHANNELS[:3], ("blue", "green", "red"), strict=True))
        channels = {name: _grey(folder / f"{row['field']}_{colour}.jpg") for name, colour in colours.items()}
        words = _hpa_words(row["locations"])
        domain = 1 if row["cell_line"] == "U-2 OS" else 2
        group = f"{row['gene_symbol']} {row['cell_line']}"
        yield Field(row["field"], folder.name, group, channels, words, 0.08, domain)


def _hpa_dictionary(folder: Path) -> Iterator[Field]:
    for row in _rows(folder):
        nucleus, protein = (
            remove_scale_bar(_grey(folder / f"{row['field']}_{channel}.jpg"))
            for channel in ("nucleus", "protein")
        )
        size = estimate_pixel_size(nucleus, 15.0)
        channels = {"nucleus": nucleus, "protein": protein}
        yield Field(row["field"], folder.name, row["field"], channels, _hpa_words(row["locations"]), size, 2)


def _hpa_landmark_fields(folder: Path) -> Iterator[Field]:
    fields: dict[str, list[dict[str, str]]] = {}
    for row in _rows(folder):
        fields.setdefault(row["field"], []).append(row)
    for name, rows in fields.items():
        channels = {"nucleus": _grey(folder / rows[0]["nucleus"])}
        words: tuple[str, ...] = ()
        for row in rows:
            channel = {"TUBA1A": "microtubules", "CALR": "er"}.get(row["gene_symbol"], "protein")
            channels[channel] = _grey(folder / row["protein"])
            if channel == "protein":
                words = _hpa_words(row["localizations"])
        size = float(rows[0]["pixel_size_um"])
        masked = name.startswith("cell_")
        yield Field(name, folder.name, name, channels, words, size, 2, masked=masked)


def _opencell_crops(folder: Path) -> Iterator[Field]:
    for row in _rows(folder):
        # The outermost pixels are those of the figure's redrawing.
        channels = {channel: _grey(folder / row[channel])[1:-1, 1:-1] for channel in ("nucleus", "protein")}
        words = tuple(filter(None, row["localizations"].split(";")))
        yield Field(row["pair"], folder.name, row["figure"], channels, words, COARSE_UM, 0, label_weight=0.6)


def _opencell_tiles(folder: Path) -> Iterator[Field]:
    for row in _rows(folder):
        if not row["grades_3_2_1"] or "UI widgets" in row["remark"]:
            continue
        nucleus, protein = (
            remove_scale_bar(_grey(folder / f"{row['tile']}_{channel}.png"))
            for channel in ("nucleus", "protein")
        )
        grades = [tuple(filter(None, part.split(";"))) for part in row["grades_3_2_1"].split("|")]
        words = grades[0] or grades[1]
        gallery = row["tile"].startswith("gallery")
        size = FINE_UM * 600 / 348 if gallery else estimate_pixel_size(nucleus, 12.5)
        if not NUCLEOLAR & set(words) and detail_correlation(nucleus, protein, size) < NEGATIVE:
            print(f"{row['tile']}: its nuclei carry the negative of the protein; silhouettes instead")
            nucleus = silhouettes(nucleus, size)
        channels = {"nucleus": nucleus, "protein": protein}
        yield Field(row["tile"], folder.name, row["gene_symbol"], channels, words, size, 0)


def _other_pairs(folder: Path) -> Iterator[Field]:
    for row in _rows(folder):
        name = row["pair"]
        if "unknown" in name:
            continue
        path = next(folder.glob(f"{name}_nucleus.*"))
        nucleus, protein = (_grey(path), _grey(path.with_name(path.name.replace("_nucleus", "_protein"))))
        channel = {"TUBA1A": "microtubules", "CALR": "er"}.get(row["gene_symbol"], "protein")
        words = _hpa_words(row["locations"]) if channel == "protein" else ()
        size = 0.08 if name.startswith("hpa_prbio") else estimate_pixel_size(nucleus, 15.0)
        yield Field(name, folder.name, name, {"nucleus": nucleus, channel: protein}, words, size, 2)


def detail_correlation(nucleus: Floats, protein: Floats, um: float) -> float:
    """Correlate what is finer than 1.2 um of two images (H, W), at 0.41 um and well inside the nuclei."""
    pair = [ready(pixels, um, COARSE_UM) for pixels in (nucleus, protein)]
    inside = ndimage.binary_erosion(OtsuWatershed()(pair[0], COARSE_UM) > 0, iterations=3)
    fine = [pixels - ndimage.gaussian_filter(pixels, 3) for pixels in pair]
    return float(np.corrcoef(fine[0][inside], fine[1][inside])[0, 1]) if inside.sum() > 50 else 0.0


def silhouettes(nucleus: Floats, um: float) -> Floats:
    """Fill every nucleus of (H, W) with its mean, so that nothing but outlines and brightness is left."""
    normalised = percentile_normalise(nucleus)
    labels = OtsuWatershed()(normalised, um)
    means = ndimage.mean(normalised, labels, np.arange(labels.max() + 1))
    means[0] = 0
    return np.asarray(ndimage.gaussian_filter(means.astype(np.float32)[labels], 0.5 / um), np.float32)


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _grey(path: Path) -> Floats:
    """Read an image as grey; a colour-coded channel is its brightest colour."""
    pixels = np.asarray(Image.open(path))
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(-1)
    return pixels.astype(np.float32)


def _hpa_words(names: str) -> tuple[str, ...]:
    """Translate names of the HPA, joined by ``;``, to `WORDS`; those it has no name for are left out."""
    known = {name.lower(): name for name in HPA_TO_LOCALIZATIONS} | {
        "vesicles and punctate cytosolic patterns": "Vesicles"
    }
    found = (known.get(name.strip().lower()) for name in names.split(";"))
    return tuple(dict.fromkeys(SAME_WORD.get(name, name) for name in found if name))


def _localizations(words: tuple[str, ...]) -> tuple[str, ...]:
    """Map `WORDS` to localizations."""
    return tuple(dict.fromkeys(place for word in words for place in HPA_TO_LOCALIZATIONS.get(word, (word,))))


def ready(pixels: Floats, from_um: float, to_um: float) -> Floats:
    """Bring a channel to the pixel size and to [0, 1], by percentiles of the field at the fine pixel size."""
    if from_um < 0.3 and to_um > 0.4:
        fine = percentile_normalise(resample(pixels, from_um, to_um / 2))
        height, width = (n // 2 for n in fine.shape)
        halved = fine[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
        return np.asarray(halved, np.float32)
    return percentile_normalise(resample(pixels, from_um, to_um))


def cell_centres(nucleus: Floats, um: float, whole: bool) -> NDArray[np.int32]:
    """Centres (n, 2) of the nuclei, of one at the border of the field only if `whole` is false."""
    labels = OtsuWatershed()(nucleus, um)
    centres = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = all(span.start > 0 and span.stop < n for span, n in zip(box, labels.shape, strict=True))
        if inside or not whole:
            rows, columns = np.nonzero(labels[box] == number)
            centres.append((box[0].start + rows.mean(), box[1].start + columns.mean()))
    return np.round(np.array(centres).reshape(-1, 2)).astype(np.int32)


def fine_fields(images: Path) -> Iterator[Field]:
    """Those of `all_fields` that show the grain, fewer and smaller ones."""
    edge = 420 * FINE_UM
    for number, each in enumerate(all_fields(images)):
        if each.pixel_size_um > 1.1 * FINE_UM or (each.source == "hpa_u2os_cells" and number % 4):
            continue
        if each.masked:
            yield each
            continue
        height, width = each.channels["nucleus"].shape
        half = round(edge / each.pixel_size_um / 2)
        middle = tuple(slice(max(n // 2 - half, 0), n // 2 + half) for n in (height, width))
        yield replace(each, channels={name: pixels[middle] for name, pixels in each.channels.items()})


def pack(fields: Iterable[Field], um: float) -> dict[str, NDArray[np.generic]]:
    """Resample and normalise fields.

    Returns
    -------
    dict
        ``pixels`` (n,) uint8, the fields one after the other; per field (F,) ``offset`` into it, ``shape``
        (F, 2), ``present`` (F, 4) of `CHANNELS`, ``classes`` (F, K) and ``words`` (F, W) float32,
        ``label_weight``, ``domain``, ``masked``, ``name``, ``source``, ``group``, ``split``; per cell
        ``cells`` (C, 3): field, row, column. An absent channel takes no pixels.
    """
    classes = class_set("mini")
    columns: dict[str, list[object]] = {}
    pixels: list[NDArray[np.uint8]] = []
    cells: list[NDArray[np.int32]] = []
    offset = 0
    for number, each in enumerate(fields):
        stack = {
            name: ready(each.channels[name], each.pixel_size_um, um)
            for name in CHANNELS
            if name in each.channels
        }
        if each.source == "opencell_crops":
            centres = np.array([[n // 2 for n in stack["nucleus"].shape]], np.int32)
        else:
            centres = cell_centres(stack["nucleus"], um, whole=not each.masked)
        if each.masked and len(centres):
            stack, centres = _trimmed(stack, centres)
        found = np.round(np.stack(list(stack.values())) * 255).astype(np.uint8)
        pixels.append(found.ravel())
        cells.append(np.column_stack([np.full(len(centres), number), centres]).astype(np.int32))
        named = classes.of(_localizations(each.words))
        row = {
            "offset": offset,
            "shape": found.shape[1:],
            "present": [name in stack for name in CHANNELS],
            "classes": [slug in named for slug in classes.slugs],
            "words": [word in each.words for word in WORDS],
            "label_weight": each.label_weight if each.words else 0.0,
            "domain": each.domain,
            "masked": each.masked,
            "name": each.name,
            "source": each.source,
            "group": each.group,
            "split": "test" if each.group in TEST_GROUPS.get(each.source, ()) else "train",
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
        offset += found.size
    arrays = {key: np.array(values) for key, values in columns.items()}
    for key in ("classes", "words", "label_weight"):
        arrays[key] = arrays[key].astype(np.float32)
    arrays |= {
        "pixels": np.concatenate(pixels),
        "cells": np.concatenate(cells),
        "pixel_size_um": np.array(um),
        "class_names": np.array(classes.slugs),
        "word_names": np.array(WORDS),
        "domain_names": np.array(DOMAINS),
        "channel_names": np.array(CHANNELS),
    }
    return arrays


def _trimmed(
    stack: dict[str, Floats], centres: NDArray[np.int32]
) -> tuple[dict[str, Floats], NDArray[np.int32]]:
    """Cut the empty margin off a masked cell."""
    bright = np.max(np.stack(list(stack.values())), axis=0) > 0.04
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    top, left = max(rows[0] - 4, 0), max(columns[0] - 4, 0)
    cut = {name: each[top : rows[-1] + 5, left : columns[-1] + 5] for name, each in stack.items()}
    return cut, (centres - [top, left]).astype(np.int32)


def contact_sheet(
    arrays: dict[str, NDArray[np.generic]], path: Path, size: int = 96, columns: int = 12
) -> None:
    """Write an image of a few cells of each source: one row a source and split, its channels side by side."""
    rng = np.random.default_rng(0)
    sources, splits, cells = arrays["source"], arrays["split"], arrays["cells"]
    lines = []
    for source in dict.fromkeys(sources):
        for split in ("train", "test"):
            members = np.flatnonzero((sources[cells[:, 0]] == source) & (splits[cells[:, 0]] == split))
            if len(members):
                chosen = rng.choice(members, min(columns, len(members)), replace=False)
                shown = [np.vstack(list(window(arrays, int(cell), size))) for cell in chosen]
                shown += [np.zeros_like(shown[0])] * (columns - len(shown))
                lines.append(np.hstack(shown))
    Image.fromarray(np.vstack(lines)).save(path)


def window(arrays: dict[str, NDArray[np.generic]], cell: int, size: int) -> NDArray[np.uint8]:
    """Cut (4, size, size) around a cell; what is absent or outside of the field is 0."""
    number, row, column = (int(n) for n in arrays["cells"][cell])
    height, width = (int(n) for n in arrays["shape"][number])
    present, start = arrays["present"][number], int(arrays["offset"][number])
    found = arrays["pixels"][start : start + int(present.sum()) * height * width]
    found = np.pad(found.reshape(-1, height, width), ((0, 0), (size, size), (size, size)))
    top, left = row + size - size // 2, column + size - size // 2
    square = np.zeros((len(CHANNELS), size, size), np.uint8)
    square[np.flatnonzero(present)] = found[:, top : top + size, left : left + size]
    return square


def main() -> None:
    """Pack, write and tell what is in the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/images"))
    parser.add_argument("--out", type=Path, default=Path("runs/images/coarse.npz"))
    parser.add_argument("--sheet", type=Path, help="write a contact sheet, too")
    parser.add_argument("--fine", action="store_true", help="half the pixel size, for the second stage")
    options = parser.parse_args()
    fields, um = (fine_fields, FINE_UM) if options.fine else (all_fields, COARSE_UM)
    arrays = pack(fields(options.data), um)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    draft = options.out.with_suffix(".part")
    draft.write_bytes(buffer.getvalue())
    draft.replace(options.out)
    print(
        f"{len(arrays['offset'])} fields, {len(arrays['cells'])} cells, "
        f"{arrays['pixels'].size / 2**20:.0f} MiB of pixels, "
        f"{options.out.stat().st_size / 2**20:.1f} MiB packed"
    )
    counts: Counter[tuple[str, str, str]] = Counter()
    for number, _, _ in arrays["cells"]:
        named = "|".join(arrays["class_names"][arrays["classes"][number] > 0]) or "-"
        counts[arrays["source"][number], arrays["split"][number], named] += 1
    for (source, split, named), count in sorted(counts.items()):
        print(f"{count:5d} {split:5s} {source:20s} {named}")
    for source in dict.fromkeys(arrays["source"]):
        held_out = (arrays["source"] == source) & (arrays["split"] == "test")
        print(source, "holds out", ", ".join(sorted(set(arrays["group"][held_out]))) or "nothing")
    if options.sheet:
        contact_sheet(arrays, options.sheet)


if __name__ == "__main__":
    main()
