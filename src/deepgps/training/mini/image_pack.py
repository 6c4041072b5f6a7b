"""The image pack: fields of one pixel size in one array, with a table of their labels and cells.

Training cuts, turns and scales its own crops out of whole fields. Every channel is 8 bit; a field has a
nucleus and some of the other `CHANNELS`. The crops of a crop store are fields of their own.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepgps.arrays import Bytes, Floats, Ints
from deepgps.datasets.crops.reference import DOMAINS, ImageField, reference_fields
from deepgps.datasets.crops.store import CropStore
from deepgps.errors import InputError
from deepgps.evaluation.images.structure import measured
from deepgps.files import atomic_path
from deepgps.images.processing import halved, percentile_normalise, resample
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import WORDS, ClassSet, localizations_of

CHANNELS = ("nucleus", "protein", "microtubules", "er")
NUCLEUS, PROTEIN, MICROTUBULES, ER = range(len(CHANNELS))
LANDMARKS: Mapping[int, tuple[str, str]] = {MICROTUBULES: ("cytoskeleton", "Microtubules"), ER: ("er", "er")}
"""Class and word of the landmark channels, which also serve as images of TUBA1A and CALR."""
UNKNOWN_DOMAIN = -1
"""Domain of crops whose cells or microscope are none of `DOMAINS`."""
TEST_GROUPS: Mapping[str, tuple[str, ...]] = {
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

All but the figures are the test groups of `deepgps.datasets.crops.reference.split_groups`. Of the figures no
localization loses more than half of its crops.
"""
NEGATIVE = -0.4
"""Correlation of nucleus and protein detail inside nuclei below which a nucleus image of an OpenCell tile
carries the negative of the protein. Of the 120 OpenCell crops, whose channels are separate, the lowest is
-0.38 and the median 0."""
NUCLEOLAR = {"nucleolus_gc", "nucleolus_fc_dfc"}
"""Words of proteins that are truly where DNA is not."""
SEEN_BY: Mapping[str, tuple[str, float]] = {
    "centrosome": ("brightest 1 %", 0.1),
    "golgi": ("brightest 1 %", 0.1),
    "nuclear_membrane": ("rim ratio", 1.5),
}
"""By which measure of `deepgps.evaluation.images.structure` an image shows an annotation word, and from which
value on, as the median of its cells."""
SEEN_UM = 39.6
"""Edge of the square around a cell in which that is measured."""
GRAIN_FIELD_PX = 420
"""Edge of the middle of a large field that shows its grain."""
GRAIN_CELLS = 4
"""Of the masked cells, one in so many shows its grain."""


@dataclass(frozen=True, slots=True, eq=False)
class ImagePack:
    """Fields in memory, and their examples: a cell, and the channel that serves as its protein image.

    Attributes
    ----------
    arrays
        ``pixels`` (n,) uint8, the fields one after the other, an absent channel left out; per field (F,)
        ``offset`` into it, ``shape`` (F, 2), ``present`` (F, 4) of `CHANNELS`, ``classes`` (F, K) and
        ``words`` (F, W) float32, ``label_weight``, ``domain``, ``masked``, ``name``, ``source``, ``group``,
        ``split``;
        per cell ``cells`` (C, 3): field, row, column; the names ``class_names``, ``word_names`` and
        ``domain_names``, and ``pixel_size_um``.
    examples
        (N, 2): cell and channel.
    """

    arrays: Mapping[str, NDArray[Any]]
    examples: Ints

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "ImagePack":
        """Return the pack of these arrays."""
        present = arrays["present"][arrays["cells"][:, 0]]
        examples = [
            (cell, channel)
            for channel in (PROTEIN, MICROTUBULES, ER)
            for cell in np.flatnonzero(present[:, channel])
        ]
        return cls(arrays, np.array(examples, np.int64).reshape(-1, 2))

    @classmethod
    def load(cls, path: Path) -> "ImagePack":
        """Read a pack.

        Returns
        -------
        ImagePack
            The pack.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        try:
            with np.load(path) as file:
                return cls.of({name: file[name] for name in file.files})
        except (OSError, ValueError, KeyError, EOFError):
            raise InputError(
                f"Image pack '{path}' cannot be read; delete it and pack the images again."
            ) from None

    def save(self, path: Path) -> None:
        """Write the pack, compressed, completely or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as draft:
            draft.write_bytes(buffer.getvalue())

    def fields(self, examples: Ints) -> Ints:
        """Return the fields of examples given by number."""
        return np.asarray(self.arrays["cells"][self.examples[examples, 0], 0], np.int64)

    def rows(self, split: str) -> Ints:
        """Return the numbers of the examples of a split."""
        return np.flatnonzero(self.arrays["split"][self.fields(np.arange(len(self.examples)))] == split)

    def labels(self, example: int) -> tuple[Floats, Floats, float]:
        """Return classes (K,) and words (W,) of an example, and how far they are to be trusted."""
        cell, channel = (int(n) for n in self.examples[example])
        if channel in LANDMARKS:
            return (*self.landmark_labels(channel), 1.0)
        number = self.arrays["cells"][cell, 0]
        weight = float(self.arrays["label_weight"][number])
        return self.arrays["classes"][number], self.arrays["words"][number], weight

    def landmark_labels(self, channel: int) -> tuple[Floats, Floats]:
        """Return classes (K,) and words (W,) of a landmark channel."""
        slug, word = LANDMARKS[channel]
        classes, words = self.arrays["class_names"] == slug, self.arrays["word_names"] == word
        return classes.astype(np.float32), words.astype(np.float32)

    def channels(self, cell: int) -> Bytes:
        """Return the present channels (n, H, W) of a cell's field, in the order of `CHANNELS`."""
        number = self.arrays["cells"][cell, 0]
        height, width = (int(n) for n in self.arrays["shape"][number])
        count, start = int(self.arrays["present"][number].sum()), int(self.arrays["offset"][number])
        found = self.arrays["pixels"][start : start + count * height * width]
        return np.asarray(found).reshape(count, height, width)

    def window(self, cell: int, size: int, shift: tuple[int, int] = (0, 0)) -> Floats:
        """Cut a square around a cell.

        Parameters
        ----------
        cell
            Number of the cell.
        size
            Edge in pixels.
        shift
            Rows and columns by which the middle is moved off the cell's.

        Returns
        -------
        Floats
            (4, size, size) in [0, 1]. Beyond its border a field is mirrored, and a masked cell empty; a
            channel that is absent is 0.
        """
        number, row, column = (int(n) for n in self.arrays["cells"][cell])
        stack = self.channels(cell)
        places, inside = [], []
        for at, length, moved in zip((row, column), stack.shape[1:], shift, strict=True):
            place = np.arange(size) + at - size // 2 + moved
            inside.append((place >= 0) & (place < length))
            period = max(2 * (length - 1), 1)
            place = place % period
            places.append(np.where(place < length, place, period - place))
        square = np.zeros((len(CHANNELS), size, size), np.float32)
        present = np.flatnonzero(self.arrays["present"][number])
        square[present] = stack[:, places[0]][:, :, places[1]] / np.float32(255)
        if self.arrays["masked"][number]:
            square *= inside[0][:, None] & inside[1][None]
        return square


# ---- the reference images ----


def reference_pack(images: Path, classes: ClassSet, um: float, *, grain: bool = False) -> ImagePack:
    """Pack the reference images.

    Parameters
    ----------
    images
        Folder of the sources.
    classes
        The class set of the labels.
    um
        Pixel size in micrometres.
    grain
        Whether to take only what shows the grain: sources that are not coarser than that, of the masked cells
        every fourth, and of large fields the middle.

    Returns
    -------
    ImagePack
        The pack.

    Raises
    ------
    InputError
        If a source is missing, or there is no nucleus in any.
    """
    fields = _training_fields(images)
    packed = pack_fields(_grain_fields(fields, um) if grain else fields, classes, um)
    return without_unseen_words(packed, classes)


def _training_fields(images: Path) -> Iterator[ImageField]:
    """Read the reference fields; of one antibody and cell line the first, for the second adds little."""
    seen: set[tuple[str, str]] = set()
    for each in reference_fields(images):
        view = (each.group, each.name.partition("_")[0])
        if each.source == "hpa_fields":
            if view in seen:
                continue
            seen.add(view)
        yield without_negative(each) if each.source == "opencell_tiles" else each


def without_negative(tile: ImageField) -> ImageField:
    """Return a tile with silhouettes for its nuclei if these carry the negative of its protein."""
    (protein,), size = tile.proteins, tile.pixel_size_um
    if NUCLEOLAR & set(protein.words):
        return tile
    if detail_correlation(tile.nucleus, protein.pixels, size) >= NEGATIVE:
        return tile
    return replace(tile, nucleus=silhouettes(tile.nucleus, size))


def detail_correlation(nucleus: Floats, protein: Floats, um: float) -> float:
    """Correlate what is finer than 1.2 um of two images (H, W), at 0.41 um and well inside the nuclei."""
    to_um = 0.412698
    pair = [normalised(pixels, um, to_um) for pixels in (nucleus, protein)]
    inside = ndimage.binary_erosion(OtsuWatershed()(pair[0], to_um) > 0, iterations=3)
    fine = [pixels - ndimage.gaussian_filter(pixels, 3) for pixels in pair]
    return float(np.corrcoef(fine[0][inside], fine[1][inside])[0, 1]) if inside.sum() > 50 else 0.0


def silhouettes(nucleus: Floats, um: float) -> Floats:
    """Fill every nucleus of (H, W) with its mean, so that nothing but outlines and brightness is left."""
    scaled = percentile_normalise(nucleus)
    labels = OtsuWatershed()(scaled, um)
    means = ndimage.mean(scaled, labels, np.arange(labels.max() + 1))
    means[0] = 0
    return np.asarray(ndimage.gaussian_filter(means.astype(np.float32)[labels], 0.5 / um), np.float32)


def without_unseen_words(pack: ImagePack, classes: ClassSet) -> ImagePack:
    """Return a pack whose OpenCell fields have lost the words of `SEEN_BY` that their images do not show.

    An annotation is of the protein in all cells: tiles of centrosomal proteins are a haze of cytosol.

    Returns
    -------
    ImagePack
        The pack with other labels.
    """
    arrays = {
        **pack.arrays,
        **{name: pack.arrays[name].copy() for name in ("classes", "words", "label_weight")},
    }
    um, names = float(arrays["pixel_size_um"]), arrays["word_names"]
    for number, source in enumerate(arrays["source"]):
        words = set(names[arrays["words"][number] > 0].tolist())
        if not source.startswith("opencell") or not words & SEEN_BY.keys():
            continue
        cells = np.flatnonzero(arrays["cells"][:, 0] == number)
        pairs = (pack.window(int(cell), round(SEEN_UM / um))[[PROTEIN, NUCLEUS]] for cell in cells)
        found = [measured(protein, nucleus, um) for protein, nucleus in pairs]
        for word in words & SEEN_BY.keys():
            measure, least = SEEN_BY[word]
            if found and np.nanmedian([each[measure] for each in found]) < least:
                words.remove(word)
        named = classes.of(localizations_of(sorted(words)))
        arrays["words"][number] = np.isin(names, list(words))
        arrays["classes"][number] = np.isin(arrays["class_names"], list(named))
        arrays["label_weight"][number] *= bool(words)
    return ImagePack.of(arrays)


def _grain_fields(fields: Iterable[ImageField], um: float) -> Iterator[ImageField]:
    edge = GRAIN_FIELD_PX * um
    for number, each in enumerate(fields):
        if each.pixel_size_um > 1.1 * um or (each.source == "hpa_u2os_cells" and number % GRAIN_CELLS):
            continue
        if each.masked:
            yield each
            continue
        half = round(edge / each.pixel_size_um / 2)
        middle = tuple(slice(max(n // 2 - half, 0), n // 2 + half) for n in each.nucleus.shape)
        proteins = tuple(replace(one, pixels=one.pixels[middle]) for one in each.proteins)
        yield replace(each, nucleus=each.nucleus[middle], proteins=proteins)


def pack_fields(fields: Iterable[ImageField], classes: ClassSet, um: float) -> ImagePack:
    """Resample, normalise and pack fields.

    Parameters
    ----------
    fields
        The fields.
    classes
        The class set of the labels.
    um
        Pixel size in micrometres.

    Returns
    -------
    ImagePack
        The pack.

    Raises
    ------
    InputError
        If there is no nucleus in any field.
    """
    columns: dict[str, list[Any]] = {}
    pixels: list[Bytes] = []
    cells: list[NDArray[np.int32]] = []
    offset = 0
    for number, each in enumerate(fields):
        images = {"nucleus": each.nucleus} | {one.channel: one.pixels for one in each.proteins}
        stack = {
            name: normalised(images[name], each.pixel_size_um, um) for name in CHANNELS if name in images
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
        row = {"offset": offset, "shape": found.shape[1:], "present": [name in stack for name in CHANNELS]}
        for key, value in (row | _described(each, classes)).items():
            columns.setdefault(key, []).append(value)
        offset += found.size
    if not sum(map(len, cells)):
        raise InputError("No nucleus was found in any image; check the images and their pixel sizes.")
    arrays = {key: np.array(values) for key, values in columns.items()}
    arrays |= {"pixels": np.concatenate(pixels), "cells": np.concatenate(cells)}
    return ImagePack.of(_complete(arrays, classes, um))


def _described(each: ImageField, classes: ClassSet) -> dict[str, Any]:
    protein = next((one for one in each.proteins if one.channel == "protein"), None)
    words = protein.words if protein else ()
    named = classes.of(protein.localizations) if protein else frozenset()
    return {
        "classes": [slug in named for slug in classes.slugs],
        "words": [word in words for word in WORDS],
        "label_weight": protein.label_weight if protein and words else 0.0,
        "domain": each.domain,
        "masked": each.masked,
        "name": each.name,
        "source": each.source,
        "group": each.group,
        "split": "test" if each.group in TEST_GROUPS.get(each.source, ()) else "train",
    }


def _complete(arrays: dict[str, NDArray[Any]], classes: ClassSet, um: float) -> dict[str, NDArray[Any]]:
    """Add the names, and make labels float32."""
    labels = {key: arrays[key].astype(np.float32) for key in ("classes", "words", "label_weight")}
    names = {"class_names": classes.slugs, "word_names": WORDS, "domain_names": DOMAINS}
    return {
        **arrays,
        **labels,
        **{name: np.array(each) for name, each in names.items()},
        "pixel_size_um": np.array(um),
    }


def normalised(pixels: Floats, from_um: float, to_um: float) -> Floats:
    """Bring a channel to a pixel size and to [0, 1], by percentiles of the field.

    Of a field that is halved to the pixel size, percentiles are those before.

    Returns
    -------
    Floats
        (H', W').
    """
    if from_um < 0.3 and to_um > 0.4:
        return halved(percentile_normalise(resample(pixels, from_um, to_um / 2)))
    return percentile_normalise(resample(pixels, from_um, to_um))


def cell_centres(nucleus: Floats, um: float, *, whole: bool) -> NDArray[np.int32]:
    """Return the centres (n, 2) of nuclei; of those at the border of the field only if not `whole`."""
    labels = OtsuWatershed()(nucleus, um)
    centres = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = all(span.start > 0 and span.stop < n for span, n in zip(box, labels.shape, strict=True))
        if inside or not whole:
            rows, columns = np.nonzero(labels[box] == number)
            centres.append((box[0].start + rows.mean(), box[1].start + columns.mean()))
    return np.round(np.array(centres).reshape(-1, 2)).astype(np.int32)


def _trimmed(
    stack: dict[str, Floats], centres: NDArray[np.int32]
) -> tuple[dict[str, Floats], NDArray[np.int32]]:
    """Cut the empty margin off a masked cell."""
    bright = np.max(np.stack(list(stack.values())), axis=0) > 0.04
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    top, left = max(rows[0] - 4, 0), max(columns[0] - 4, 0)
    cut = {name: each[top : rows[-1] + 5, left : columns[-1] + 5] for name, each in stack.items()}
    return cut, (centres - [top, left]).astype(np.int32)


# ---- a crop store ----

_CHUNK = 256


def store_pack(store: CropStore, classes: ClassSet, um: float, *, grain: bool = False) -> ImagePack:
    """Return a crop store as a pack: each crop is a field with a nucleus in its middle, of unknown domain.

    Parameters
    ----------
    store
        The crops, of pixel size `um`.
    classes
        The class set of the labels.
    um
        Pixel size of the crops in micrometres.
    grain
        Whether to keep their pixels as they are, without a copy; otherwise they are halved.

    Returns
    -------
    ImagePack
        The pack.
    """
    if grain:
        pixels: Bytes = store.crops
    else:
        chunks = (store.crops[first : first + _CHUNK] for first in range(0, len(store.crops), _CHUNK))
        pixels = np.concatenate(
            [np.round(halved(np.asarray(chunk, np.float32))).astype(np.uint8) for chunk in chunks]
        )
    count, _, height, width = pixels.shape
    localizations = [set(filter(None, each.split("|"))) for each in store.index["localizations"]]
    named = [classes.of(each) for each in localizations]
    arrays = {
        "pixels": pixels.reshape(-1),
        "offset": np.arange(count) * (2 * height * width),
        "shape": np.full((count, 2), (height, width)),
        "present": np.tile([True, True, False, False], (count, 1)),
        "classes": np.array([[slug in each for slug in classes.slugs] for each in named]),
        "words": np.array([[word in each for word in WORDS] for each in localizations]),
        "label_weight": np.array([float(bool(each)) for each in localizations]),
        "domain": np.full(count, UNKNOWN_DOMAIN),
        "masked": np.zeros(count, bool),
        "name": np.array(store.index["cell"].to_list()).astype(str),
        "source": np.array(store.index["source"].to_list()).astype(str),
        "group": np.array(store.index["field"].to_list()).astype(str),
        "split": np.array([split or "" for split in store.index["split"]]),
        "cells": np.column_stack(
            [np.arange(count), np.full(count, height // 2), np.full(count, width // 2)]
        ).astype(np.int32),
    }
    return ImagePack.of(_complete(arrays, classes, 2 * um if not grain else um))
