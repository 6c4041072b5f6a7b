"""From the reference images to the crops that ``deepgps-mini`` learns from."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import deepgps
from deepgps.arrays import Bytes
from deepgps.datasets.crops.cut import cut_field, ready_field
from deepgps.datasets.crops.images import HELD_OUT_FRACTION, ImageField, reference_fields
from deepgps.datasets.crops.reading import write_crops
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.errors import InputError
from deepgps.images.segmentation import OtsuWatershed

# Small fields are widened by their mirror image, or hardly a crop would fit inside them.
MIRRORED = ("opencell_tiles", "hpa_dictionary")


def prepare_images(images: Path, folder: Path, *, size_px: int, pixel_size_um: float) -> None:
    """Cut all reference fields into crops and write them to a crop store.

    Raises
    ------
    InputError
        If a source is missing, or no crop can be cut from any.
    """
    rows: list[dict[str, Any]] = []

    def pairs() -> Iterator[Bytes]:
        for image in reference_fields(images):
            for pair, row in crop_field(image, size_px, pixel_size_um):
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


def crop_field(
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
    ready = ready_field(image.nucleus, images, image.pixel_size_um, settings, OtsuWatershed())
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
