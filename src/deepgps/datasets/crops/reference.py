"""Images of proteins of known localization, as crops: what the generator of ``deepgps-mini`` learns from.

A *field* here is a nucleus image with one or more protein images of the same cells. Where the protein of a
field is unknown, its localizations are known. Each source is a folder with an ``index.csv``.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

import deepgps
from deepgps.arrays import Bytes, Floats
from deepgps.datasets.crops.cutting import cut_field, normalise_field
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.datasets.crops.store import write_crops
from deepgps.errors import InputError
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import HPA_TO_LOCALIZATIONS, major_localizations

U2OS_CELL_UM = 0.2
HPA_FIELD_UM = 0.08
OPENCELL_UM = 0.206349
OPENCELL_GALLERY_UM = OPENCELL_UM * 600 / 348
# Median equivalent diameters of segmented nuclei, for images whose scale is not stated.
HEK293T_NUCLEUS_UM = 12.5
HUMAN_NUCLEUS_UM = 15.0
HELD_OUT_FRACTION = 5


@dataclass(frozen=True, slots=True)
class ProteinImage:
    """A protein channel of a field: (H, W) raw intensities, where it shows, and what it is where known."""

    pixels: Floats = field(repr=False)
    localizations: tuple[str, ...]
    accession: str = ""


@dataclass(frozen=True, slots=True)
class ImageField:
    """A nucleus image with protein images of the same cells.

    Attributes
    ----------
    name
        Unique within the source.
    source
        Folder it came from.
    group
        What must not be split: the mosaic, the protein, the field.
    nucleus
        (H, W) raw intensities.
    proteins
        The protein images, each (H, W).
    pixel_size_um
        Edge of a pixel in micrometres.
    cell_line
        The cells, as the source names them.
    """

    name: str
    source: str
    group: str
    nucleus: Floats = field(repr=False)
    proteins: tuple[ProteinImage, ...]
    pixel_size_um: float
    cell_line: str


def reference_fields(images: Path) -> Iterator[ImageField]:
    """All fields of the reference images, source by source.

    Raises
    ------
    InputError
        If a source has no ``index.csv``.
    """
    yield from u2os_cells(images / "hpa_u2os_cells")
    yield from hpa_fields(images / "hpa_fields")
    yield from opencell_tiles(images / "opencell_tiles")
    yield from hpa_dictionary(images / "hpa_dictionary")


def u2os_cells(folder: Path) -> Iterator[ImageField]:
    """Single U-2 OS cells out of 3 x 3 mosaics of 512-px tiles; red and yellow are TUBA1A and CALR."""
    mosaics: dict[str, list[Floats]] = {}
    for row in _rows(folder):
        name = row["mosaic"]
        if name not in mosaics:
            mosaics = {name: [_grey(folder / f"{name}_{c}.jpg") for c in ("blue", "green", "red", "yellow")]}
        y, x = int(row["row"]) * 512, int(row["col"]) * 512
        blue, green, red, yellow = (channel[y : y + 512, x : x + 512] for channel in mosaics[name])
        proteins = (
            ProteinImage(green, _hpa(row["main_location"])),
            ProteinImage(red, ("cytoskeleton",), "Q71U36"),
            ProteinImage(yellow, ("er",), "P27797"),
        )
        cell = f"{name}_{row['row']}{row['col']}"
        yield ImageField(cell, folder.name, name, blue, proteins, U2OS_CELL_UM, row["cell_line"])


def hpa_fields(folder: Path) -> Iterator[ImageField]:
    """Whole HPA fields; green is the named protein, red the microtubules."""
    for row in _rows(folder):
        blue, green, red = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("blue", "green", "red"))
        proteins = (
            ProteinImage(green, _hpa(row["locations"]), row["accession"]),
            ProteinImage(red, ("cytoskeleton",), "Q71U36"),
        )
        group = f"{row['gene_symbol']} {row['cell_line']}"
        yield ImageField(row["field"], folder.name, group, blue, proteins, HPA_FIELD_UM, row["cell_line"])


def opencell_tiles(folder: Path) -> Iterator[ImageField]:
    """OpenCell tiles in HEK293T; a thumbnail's scale follows from its nuclei, its scale bar is removed."""
    for row in _rows(folder):
        if not row["grades_3_2_1"] or "UI widgets" in row["remark"]:
            continue
        nucleus, protein = (_grey(folder / f"{row['tile']}_{c}.png") for c in ("nucleus", "protein"))
        grades = [tuple(filter(None, part.split(";"))) for part in row["grades_3_2_1"].split("|")]
        proteins = (
            ProteinImage(remove_scale_bar(protein), major_localizations(*grades[:2]), row["accession"]),
        )
        nucleus = remove_scale_bar(nucleus)
        whole = row["tile"].startswith("gallery")
        size = OPENCELL_GALLERY_UM if whole else estimate_pixel_size(nucleus, HEK293T_NUCLEUS_UM)
        yield ImageField(
            row["tile"], folder.name, row["gene_symbol"], nucleus, proteins, size, row["cell_line"]
        )


def hpa_dictionary(folder: Path) -> Iterator[ImageField]:
    """Textbook fields of each HPA localization; the scale follows from the nuclei."""
    for row in _rows(folder):
        nucleus, protein = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("nucleus", "protein"))
        proteins = (ProteinImage(remove_scale_bar(protein), _hpa(row["locations"])),)
        nucleus = remove_scale_bar(nucleus)
        size = estimate_pixel_size(nucleus, HUMAN_NUCLEUS_UM)
        yield ImageField(row["field"], folder.name, row["field"], nucleus, proteins, size, row["cell_line"])


def estimate_pixel_size(nucleus: Floats, diameter_um: float) -> float:
    """Guess the pixel size from the median nucleus, taken to be ``diameter_um`` across.

    The image (H, W) is segmented as if its nuclei were 1/8 of its edge, and again as if they were as large as
    found then. Without nuclei the answer is the first guess.
    """
    normalised = percentile_normalise(nucleus)
    size = 8 * diameter_um / float(min(nucleus.shape))
    for _ in range(2):
        areas = np.bincount(OtsuWatershed()(normalised, size).ravel())[1:]
        if areas.size:
            size = diameter_um / float(np.sqrt(4 / np.pi * np.median(areas[areas >= 0.3 * areas.max()])))
    return size


def remove_scale_bar(pixels: Floats) -> Floats:
    """Paint over a drawn scale bar, a flat bright strip in the lowest fifth of an image (H, W)."""
    cleaned = pixels.copy()
    for window in _scale_bars(pixels):
        cleaned[window] = np.percentile(pixels[window], 10)
    return cleaned


def _scale_bars(pixels: Floats) -> Iterator[tuple[slice, slice]]:
    """Find scale bars, with a border that takes in their blur."""
    # A blurred bar shows at the lower level alone, one that touches bright structures at the higher.
    for level in (0.97, 0.9):
        labels, _ = ndimage.label(pixels >= level * pixels.max())
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            low, flat = rows.start > 0.8 * pixels.shape[0], width >= 4 * height and width > 12
            if low and flat and (labels[rows, columns] == index).mean() > 0.85:
                yield (
                    slice(max(rows.start - 4, 0), rows.stop + 4),
                    slice(max(columns.start - 4, 0), columns.stop + 4),
                )


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    index = folder / "index.csv"
    if not index.exists():
        raise InputError(f"Image source '{folder}' has no index.csv; give the folder that holds all sources.")
    with index.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _grey(path: Path) -> Floats:
    """Read an image as grey; a colour-coded channel is its brightest colour."""
    pixels = np.asarray(Image.open(path))
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(-1)
    return pixels.astype(np.float32)


def _hpa(locations: str) -> tuple[str, ...]:
    """Map HPA location names, joined by ``;``, onto localizations; one without a mapping is left out."""
    known = {name.lower(): value for name, value in HPA_TO_LOCALIZATIONS.items()}
    names = [part.strip().lower() for part in locations.split(";")]
    return tuple(dict.fromkeys(slug for name in names for slug in known.get(name, ())))


# Small fields are widened by their mirror image, or hardly a crop would fit inside them.
MIRRORED = ("opencell_tiles", "hpa_dictionary")


def prepare_reference_crops(images: Path, folder: Path, *, size_px: int, pixel_size_um: float) -> None:
    """Cut all reference fields into crops and write them to a crop store.

    Raises
    ------
    InputError
        If a source is missing, or no crop can be cut from any.
    """
    rows: list[dict[str, Any]] = []

    def pairs() -> Iterator[Bytes]:
        for image in reference_fields(images):
            for pair, row in crop_reference_field(image, size_px, pixel_size_um):
                rows.append(row)
                yield pair
        if not rows:
            raise InputError(f"No crop could be cut from the images in '{images}'; are there nuclei in them?")

    manifest = {"deepgps": deepgps.__version__, "size_px": size_px, "pixel_size_um": pixel_size_um}
    write_crops(folder, pairs(), _with_splits(rows), manifest)


def _with_splits(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Add the split, once all rows are there."""
    splits = split_groups(rows)
    yield from ({**row, "split": splits[row["source"], row["group"]]} for row in rows)


def crop_reference_field(
    image: ImageField, size_px: int, pixel_size_um: float
) -> Iterator[tuple[Bytes, dict[str, Any]]]:
    """Cut one field: a pair (2, S, S) uint8 for each nucleus and protein image, with its row."""
    settings = PrepareSettings(
        size_px=size_px,
        pixel_size_um=pixel_size_um,
        border="mirror" if image.source in MIRRORED else "drop",
        empty_protein="drop",
    )
    known = [protein for protein in image.proteins if protein.localizations]
    images = [protein.pixels for protein in known]
    ready = normalise_field(image.nucleus, images, image.pixel_size_um, settings, OtsuWatershed())
    for pair in cut_field(ready, settings):
        protein = known[pair.protein]
        yield pair.pixels, _row(image, pair.cell, protein.localizations, protein.accession)


def _row(image: ImageField, cell: int, localizations: tuple[str, ...], accession: str) -> dict[str, Any]:
    return {
        "source": image.source,
        "field": image.name,
        "group": image.group,
        "cell": f"{image.source}/{image.name}/{cell}",
        "localizations": "|".join(localizations),
        "accession": accession,
        "cell_line": image.cell_line,
    }


def split_groups(rows: list[dict[str, Any]]) -> Mapping[tuple[str, str], str]:
    """Hold out one group in five of each source and localization, in the order of a hash.

    A group of several localizations, such as a mosaic, counts as its first crop's.
    The textbook fields of ``hpa_dictionary`` all train: a localization has too few of them to hold one out.
    """
    named: dict[tuple[str, str], str] = {}
    for row in rows:
        named.setdefault((row["source"], row["group"]), row["localizations"])
    strata: dict[tuple[str, str], list[str]] = {}
    for (source, group), localizations in named.items():
        strata.setdefault((source, localizations), []).append(group)
    splits = {}
    for (source, _), groups in strata.items():
        ordered = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
        held_out = 0 if source == "hpa_dictionary" else round(len(ordered) / HELD_OUT_FRACTION)
        splits.update(
            {(source, group): "test" if i < held_out else "train" for i, group in enumerate(ordered)}
        )
    return splits
