"""Cut the reference images, of proteins of known localization, into crops to train ``deepgps-mini``.

A *field* here is a nucleus image with one or more protein images of the same cells. A protein image has
localizations, but not always an accession. Each source is a folder with an ``index.csv``.
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
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import HPA_TO_LOCALIZATIONS, major_localizations

U2OS_CELL_UM = 0.2
HPA_FIELD_UM = 0.08
OPENCELL_GALLERY_UM = OPENCELL_PIXEL_SIZE_UM * 600 / 348
# Median equivalent diameters of segmented nuclei, for images of unknown pixel size.
HEK293T_NUCLEUS_UM = 12.5
HUMAN_NUCLEUS_UM = 15.0
GROUPS_PER_TEST_GROUP = 5


@dataclass(frozen=True, slots=True)
class ProteinImage:
    """A protein channel of a field: (H, W) raw intensities, localizations, and accession if known."""

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
        Name of the folder.
    group
        Fields of one group are in the same split: the mosaic, the protein or the field.
    nucleus
        (H, W) raw intensities.
    proteins
        The protein images, each (H, W).
    pixel_size_um
        Pixel size in micrometres.
    cell_line
        Cell line, as the source spells it.
    """

    name: str
    source: str
    group: str
    nucleus: Floats = field(repr=False)
    proteins: tuple[ProteinImage, ...]
    pixel_size_um: float
    cell_line: str


def reference_fields(images: Path) -> Iterator[ImageField]:
    """Yield all fields of the reference images, source by source.

    Yields
    ------
    ImageField
        A field of a source.

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
    """Yield single U-2 OS cells from 3 x 3 mosaics of 512-px tiles; red is TUBA1A and yellow CALR."""
    mosaics: dict[str, list[Floats]] = {}
    for row in _rows(folder):
        name = row["mosaic"]
        if name not in mosaics:
            mosaics = {name: [_grey(folder / f"{name}_{c}.jpg") for c in ("blue", "green", "red", "yellow")]}
        y, x = int(row["row"]) * 512, int(row["col"]) * 512
        blue, green, red, yellow = (channel[y : y + 512, x : x + 512] for channel in mosaics[name])
        proteins = (
            ProteinImage(green, _hpa_localizations(row["main_location"])),
            ProteinImage(red, ("cytoskeleton",), "Q71U36"),
            ProteinImage(yellow, ("er",), "P27797"),
        )
        cell = f"{name}_{row['row']}{row['col']}"
        yield ImageField(cell, folder.name, name, blue, proteins, U2OS_CELL_UM, row["cell_line"])


def hpa_fields(folder: Path) -> Iterator[ImageField]:
    """Yield whole HPA fields; green is the named protein, red the microtubules."""
    for row in _rows(folder):
        blue, green, red = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("blue", "green", "red"))
        proteins = (
            ProteinImage(green, _hpa_localizations(row["locations"]), row["accession"]),
            ProteinImage(red, ("cytoskeleton",), "Q71U36"),
        )
        group = f"{row['gene_symbol']} {row['cell_line']}"
        yield ImageField(row["field"], folder.name, group, blue, proteins, HPA_FIELD_UM, row["cell_line"])


def opencell_tiles(folder: Path) -> Iterator[ImageField]:
    """Yield OpenCell tiles in HEK293T; estimate the pixel size of thumbnails, and remove their scale bars."""
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
    """Yield example fields of each HPA localization, with an estimated pixel size."""
    for row in _rows(folder):
        nucleus, protein = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("nucleus", "protein"))
        proteins = (ProteinImage(remove_scale_bar(protein), _hpa_localizations(row["locations"])),)
        nucleus = remove_scale_bar(nucleus)
        size = estimate_pixel_size(nucleus, HUMAN_NUCLEUS_UM)
        yield ImageField(row["field"], folder.name, row["field"], nucleus, proteins, size, row["cell_line"])


def estimate_pixel_size(nucleus: Floats, diameter_um: float) -> float:
    """Estimate the pixel size in micrometres from the median diameter of the nuclei.

    Parameters
    ----------
    nucleus
        (H, W) raw intensities. It is segmented twice: first as if nuclei were 1/8 of its shorter side, then
        with the size that this gives. Without nuclei, the first guess is returned.
    diameter_um
        Expected diameter of the nuclei in micrometres.

    Returns
    -------
    float
        Edge of a pixel in micrometres.
    """
    normalised = percentile_normalise(nucleus)
    size = 8 * diameter_um / float(min(nucleus.shape))
    for _ in range(2):
        areas = np.bincount(OtsuWatershed()(normalised, size).ravel())[1:]
        if areas.size:
            size = diameter_um / float(np.sqrt(4 / np.pi * np.median(areas[areas >= 0.3 * areas.max()])))
    return size


def remove_scale_bar(pixels: Floats) -> Floats:
    """Paint over a scale bar: a flat bright strip in the lowest fifth of an image (H, W)."""
    cleaned = pixels.copy()
    for window in _scale_bars(pixels):
        cleaned[window] = np.percentile(pixels[window], 10)
    return cleaned


def _scale_bars(pixels: Floats) -> Iterator[tuple[slice, slice]]:
    """Find scale bars, with a border for their blur."""
    # A blurred bar is found at the lower level only, one that touches bright structures at the higher.
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
        raise InputError(f"Image source '{folder}' has no index.csv; give the folder of all sources.")
    with index.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _grey(path: Path) -> Floats:
    """Read an image as grey; of a colour image, take the brightest colour."""
    pixels = np.asarray(Image.open(path))
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(-1)
    return pixels.astype(np.float32)


def _hpa_localizations(locations: str) -> tuple[str, ...]:
    """Map HPA location names, joined by ``;``, to localizations; skip names without a mapping."""
    known = {name.lower(): value for name, value in HPA_TO_LOCALIZATIONS.items()}
    names = [part.strip().lower() for part in locations.split(";")]
    return tuple(dict.fromkeys(slug for name in names for slug in known.get(name, ())))


# These fields are small: without mirroring, hardly a crop would fit.
MIRRORED_SOURCES = ("opencell_tiles", "hpa_dictionary")


def prepare_reference_crops(images: Path, folder: Path, *, size_px: int, pixel_size_um: float) -> None:
    """Cut all reference fields into crops and write them to a crop store.

    Raises
    ------
    InputError
        If a source is missing, or no field gives a crop.
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
    """Add the split when iterated, after all rows are collected."""
    splits = split_groups(rows)
    yield from ({**row, "split": splits[row["source"], row["group"]]} for row in rows)


def crop_reference_field(
    image: ImageField, size_px: int, pixel_size_um: float
) -> Iterator[tuple[Bytes, dict[str, Any]]]:
    """Yield a pair (2, S, S) uint8 with its row for each nucleus and protein image of a field."""
    settings = PrepareSettings(
        size_px=size_px,
        pixel_size_um=pixel_size_um,
        border="mirror" if image.source in MIRRORED_SOURCES else "drop",
        empty_protein="drop",
    )
    proteins = [protein for protein in image.proteins if protein.localizations]
    images = [protein.pixels for protein in proteins]
    normalised = normalise_field(image.nucleus, images, image.pixel_size_um, settings, OtsuWatershed())
    for pair in cut_field(normalised, settings):
        protein = proteins[pair.protein]
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
    """Return the split of each group: of each source and localization, one group in five is for testing.

    Groups are ordered by a hash. A group of several localizations, such as a mosaic, counts for those of its
    first crop. All of ``hpa_dictionary`` is for training, as it has too few fields per localization.

    Returns
    -------
    dict
        ``train`` or ``test`` by source and group.
    """
    localizations_of: dict[tuple[str, str], str] = {}
    for row in rows:
        localizations_of.setdefault((row["source"], row["group"]), row["localizations"])
    strata: dict[tuple[str, str], list[str]] = {}
    for (source, group), localizations in localizations_of.items():
        strata.setdefault((source, localizations), []).append(group)
    splits = {}
    for (source, _), groups in strata.items():
        ordered = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
        test_groups = 0 if source == "hpa_dictionary" else round(len(ordered) / GROUPS_PER_TEST_GROUP)
        splits.update(
            {(source, group): "test" if i < test_groups else "train" for i, group in enumerate(ordered)}
        )
    return splits
