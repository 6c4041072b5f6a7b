"""Read the reference images, of proteins of known localization, and cut them into crops.

A *field* here is a nucleus image with one or more protein images of the same cells. A protein image has
annotation words, but not always an accession. Each source is a folder with an ``index.csv``.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

import deepgps
from deepgps.arrays import Bytes, Floats
from deepgps.datasets.crops.cutting import cut_field, normalise_field
from deepgps.datasets.crops.settings import PrepareSettings, Source
from deepgps.datasets.crops.store import write_crops
from deepgps.errors import InputError
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import HPA_TO_WORDS, localizations_of, major_localizations

U2OS_CELL_UM = 0.2
HPA_FIELD_UM = 0.08
OPENCELL_GALLERY_UM = OPENCELL_PIXEL_SIZE_UM * 600 / 348
OPENCELL_CROP_UM = 2 * OPENCELL_PIXEL_SIZE_UM
# Median equivalent diameters of segmented nuclei, for images of unknown pixel size.
HEK293T_NUCLEUS_UM = 12.5
HUMAN_NUCLEUS_UM = 15.0
GROUPS_PER_TEST_GROUP = 5
DOMAINS = ("HEK293T", "U-2 OS", "other")
"""How cells were imaged: HEK293T live (OpenCell); U-2 OS and other lines of the HPA by immunofluorescence."""
HEK293T, U2OS, OTHER = range(len(DOMAINS))
JUDGED_BY_EYE = 0.6
"""How far localizations are to be trusted that were judged by eye."""


@dataclass(frozen=True, slots=True)
class ProteinImage:
    """A protein channel of a field.

    Attributes
    ----------
    pixels
        (H, W) raw intensities.
    words
        Annotation words (`deepgps.localization.WORDS`); none where nothing is known.
    accession
        UniProt accession, or an empty string.
    channel
        ``protein``, or the landmark that it shows: ``microtubules`` or ``er``.
    label_weight
        How far the words are to be trusted, 0 to 1.
    """

    pixels: Floats = field(repr=False)
    words: tuple[str, ...]
    accession: str = ""
    channel: str = "protein"
    label_weight: float = 1.0

    @property
    def localizations(self) -> tuple[str, ...]:
        """The localizations that the words stand for."""
        return localizations_of(self.words)


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
    domain
        Index into `DOMAINS`.
    masked
        Whether everything but one cell is 0.
    """

    name: str
    source: str
    group: str
    nucleus: Floats = field(repr=False)
    proteins: tuple[ProteinImage, ...]
    pixel_size_um: float
    cell_line: str
    domain: int = OTHER
    masked: bool = False


def reference_fields(images: Path, sources: Sequence[Source] | None = None) -> Iterator[ImageField]:
    """Yield the fields of the reference images, source by source.

    Parameters
    ----------
    images
        Folder of the sources.
    sources
        Names of the sources; all by default.

    Yields
    ------
    ImageField
        A field of a source.

    Raises
    ------
    InputError
        If a source has no ``index.csv``.
    """
    for source in READERS if sources is None else sources:
        yield from READERS[source](images / source)


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
            ProteinImage(green, _hpa_words(row["main_location"])),
            _tubulin(red),
            _calreticulin(yellow),
        )
        cell, line = f"{name}_{row['row']}{row['col']}", row["cell_line"]
        yield ImageField(cell, folder.name, name, blue, proteins, U2OS_CELL_UM, line, U2OS, masked=True)


def hpa_fields(folder: Path) -> Iterator[ImageField]:
    """Yield whole HPA fields; green is the named protein, red the microtubules."""
    for row in _rows(folder):
        blue, green, red = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("blue", "green", "red"))
        proteins = (ProteinImage(green, _hpa_words(row["locations"]), row["accession"]), _tubulin(red))
        line = row["cell_line"]
        group = f"{row['gene_symbol']} {line}"
        yield ImageField(row["field"], folder.name, group, blue, proteins, HPA_FIELD_UM, line, U2OS)


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
        gene, line = row["gene_symbol"], row["cell_line"]
        yield ImageField(row["tile"], folder.name, gene, nucleus, proteins, size, line, HEK293T)


def hpa_dictionary(folder: Path) -> Iterator[ImageField]:
    """Yield example fields of each HPA localization, with an estimated pixel size."""
    for row in _rows(folder):
        nucleus, protein = (_grey(folder / f"{row['field']}_{c}.jpg") for c in ("nucleus", "protein"))
        proteins = (ProteinImage(remove_scale_bar(protein), _hpa_words(row["locations"])),)
        nucleus = remove_scale_bar(nucleus)
        size = estimate_pixel_size(nucleus, HUMAN_NUCLEUS_UM)
        name, line = row["field"], row["cell_line"]
        yield ImageField(name, folder.name, name, nucleus, proteins, size, line, U2OS)


def hpa_landmark_fields(folder: Path) -> Iterator[ImageField]:
    """Yield HPA fields and cells with microtubules, ER and often a protein, one row of the index for each."""
    fields: dict[str, list[dict[str, str]]] = {}
    for row in _rows(folder):
        fields.setdefault(row["field"], []).append(row)
    for name, rows in fields.items():
        proteins = tuple(
            _landmark_or_protein(row["gene_symbol"], _grey(folder / row["protein"]), row["localizations"])
            for row in rows
        )
        nucleus, first = _grey(folder / rows[0]["nucleus"]), rows[0]
        size, line = float(first["pixel_size_um"]), first["cell_line"]
        masked = name.startswith("cell_")
        yield ImageField(name, folder.name, name, nucleus, proteins, size, line, U2OS, masked=masked)


def opencell_crops(folder: Path) -> Iterator[ImageField]:
    """Yield OpenCell crops in HEK293T from figures; localizations were judged by eye, or are not known."""
    for row in _rows(folder):
        # The outermost pixels are those of the figure's redrawing.
        nucleus, protein = (_grey(folder / row[channel])[1:-1, 1:-1] for channel in ("nucleus", "protein"))
        words = tuple(filter(None, row["localizations"].split(";")))
        proteins = (ProteinImage(protein, words, label_weight=JUDGED_BY_EYE),)
        figure, line = row["figure"], row["cell_line"]
        yield ImageField(row["pair"], folder.name, figure, nucleus, proteins, OPENCELL_CROP_UM, line, HEK293T)


def other_pairs(folder: Path) -> Iterator[ImageField]:
    """Yield single pairs of several sources; those of unknown content are left out."""
    for row in _rows(folder):
        name = row["pair"]
        if "unknown" in name:
            continue
        path = next(folder.glob(f"{name}_nucleus.*"))
        nucleus, protein = _grey(path), _grey(path.with_name(path.name.replace("_nucleus", "_protein")))
        proteins = (_landmark_or_protein(row["gene_symbol"], protein, row["locations"]),)
        whole = name.startswith("hpa_prbio")
        size = HPA_FIELD_UM if whole else estimate_pixel_size(nucleus, HUMAN_NUCLEUS_UM)
        yield ImageField(name, folder.name, name, nucleus, proteins, size, row["cell_line"])


READERS: Mapping[Source, Callable[[Path], Iterator[ImageField]]] = {
    "hpa_u2os_cells": u2os_cells,
    "hpa_fields": hpa_fields,
    "hpa_dictionary": hpa_dictionary,
    "hpa_landmark_fields": hpa_landmark_fields,
    "opencell_crops": opencell_crops,
    "opencell_tiles": opencell_tiles,
    "other_pairs": other_pairs,
}
"""The reader of each source."""


def _landmark_or_protein(gene_symbol: str, pixels: Floats, locations: str) -> ProteinImage:
    landmarks = {"TUBA1A": _tubulin, "CALR": _calreticulin}
    if gene_symbol in landmarks:
        return landmarks[gene_symbol](pixels)
    return ProteinImage(pixels, _hpa_words(locations))


def _tubulin(pixels: Floats) -> ProteinImage:
    return ProteinImage(pixels, ("Microtubules",), "Q71U36", "microtubules")


def _calreticulin(pixels: Floats) -> ProteinImage:
    return ProteinImage(pixels, ("er",), "P27797", "er")


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


def _hpa_words(locations: str) -> tuple[str, ...]:
    """Map HPA location names, joined by ``;``, to annotation words; skip names without one."""
    known = {name.lower(): word for name, word in HPA_TO_WORDS.items()}
    names = [part.strip().lower() for part in locations.split(";")]
    return tuple(dict.fromkeys(known[name] for name in names if name in known))


CROPPED: Sequence[Source] = ("hpa_u2os_cells", "hpa_fields", "opencell_tiles", "hpa_dictionary")
"""The sources that are cut into crops."""
# These fields are small: without mirroring, hardly a crop would fit.
MIRRORED_SOURCES = ("opencell_tiles", "hpa_dictionary")


def prepare_reference_crops(images: Path, folder: Path, *, size_px: int, pixel_size_um: float) -> None:
    """Cut the reference fields of `CROPPED` into crops and write them to a crop store.

    Raises
    ------
    InputError
        If a source is missing, or no field gives a crop.
    """
    rows: list[dict[str, Any]] = []

    def pairs() -> Iterator[Bytes]:
        for image in reference_fields(images, CROPPED):
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
