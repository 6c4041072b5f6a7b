"""From fields to crops: normalise, resample, segment, cut around every nucleus, split by group."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import deepgps
from deepgps.datasets.crops import write_crops
from deepgps.datasets.pictures import HELD_OUT_FRACTION, PictureField, reference_fields
from deepgps.errors import InputError
from deepgps.images.crop import nucleus_crops
from deepgps.images.normalise import percentile_normalise
from deepgps.images.resample import resample
from deepgps.images.segment import OtsuWatershed

MIN_PROTEIN_MEAN = 0.004
# Small fields are widened by their mirror image, or hardly a crop would fit inside them.
MIRRORED = ("opencell_tiles", "hpa_dictionary")


def prepare_pictures(images: Path, folder: Path, *, size_px: int, pixel_size_um: float) -> None:
    """Cut all reference fields into crops and write them to a crop store.

    Raises
    ------
    InputError
        If a source is missing, or no crop can be cut from any.
    """
    pairs, rows = [], []
    for picture in reference_fields(images):
        for pair, row in crop_field(picture, size_px, pixel_size_um):
            pairs.append(pair)
            rows.append(row)
    if not rows:
        raise InputError(f"No crop could be cut from the pictures in '{images}'; are there nuclei in them?")
    splits = split_groups(rows)
    rows = [{**row, "split": splits[row["source"], row["group"]]} for row in rows]
    manifest = {"deepgps": deepgps.__version__, "size_px": size_px, "pixel_size_um": pixel_size_um}
    write_crops(folder, pairs, rows, manifest)


def crop_field(
    picture: PictureField, size_px: int, pixel_size_um: float
) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Cut one field: a pair (2, S, S) uint8 for each nucleus and protein image, with its row."""

    def ready(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return percentile_normalise(resample(pixels, picture.pixel_size_um, pixel_size_um))

    margin = size_px // 2 if picture.source in MIRRORED else 0

    def widened(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(ready(pixels), margin, "reflect")

    nucleus = widened(picture.nucleus)
    labels = OtsuWatershed()(nucleus, pixel_size_um)
    proteins = [widened(protein.pixels) for protein in picture.proteins]
    for number, crop in enumerate(nucleus_crops(nucleus, labels, size_px)):
        if _touches_padding(labels == crop.label, margin):
            continue
        top, left = crop.row - size_px // 2, crop.col - size_px // 2
        window = (slice(top, top + size_px), slice(left, left + size_px))
        for source, pixels in zip(picture.proteins, proteins, strict=True):
            if not source.localizations or pixels[window].mean() < MIN_PROTEIN_MEAN:
                continue
            pair = np.stack([nucleus[window], pixels[window]])
            yield (
                np.round(pair * 255).astype(np.uint8),
                _row(picture, number, source.localizations, source.accession),
            )


def _touches_padding(nucleus: NDArray[np.bool_], margin: int) -> bool:
    """Whether a nucleus reaches into the mirror image, where it would meet itself."""
    inner = slice(margin, -margin or None)
    return bool(nucleus[inner, inner].sum() < nucleus.sum())


def _row(picture: PictureField, cell: int, localizations: tuple[str, ...], accession: str) -> dict[str, Any]:
    return {
        "source": picture.source,
        "field": picture.name,
        "group": picture.group,
        "cell": f"{picture.source}/{picture.name}/{cell}",
        "localizations": "|".join(localizations),
        "accession": accession,
        "cell_line": picture.cell_line,
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
