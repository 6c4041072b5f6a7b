"""What several models predicted, brought together from their folders, protein by protein."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deepgps.arrays import Floats
from deepgps.comparison.differences import Row
from deepgps.comparison.folder import ComparisonFolder
from deepgps.comparison.sides import Side
from deepgps.files import atomic_path
from deepgps.images.processing import SAME_SIZE
from deepgps.images.write import FULL_SCALE, png
from deepgps.results.folder import RECORDS_FILE
from deepgps.results.image_files import IMAGES
from deepgps.results.names import FileNames
from deepgps.results.records import read_records
from deepgps.results.table import Record


def bring_together(
    folder: ComparisonFolder,
    sides: Sequence[Side],
    nuclei: Sequence[int],
    on_step: Callable[[str], None],
) -> Iterator[Row]:
    """Read back what the models said of each protein, measure what differs, and draw it.

    Parameters
    ----------
    folder, sides
        The comparison, its models' results complete.
    nuclei
        Of each model, how many nuclei it drew into: the one compared in first, the two of the control last.
    on_step
        Called with the id of each protein.
    """
    from deepgps.comparison.image import image as draw_comparison

    names = FileNames()
    streams = [_by_protein(folder.of(side), count) for side, count in zip(sides, nuclei, strict=True)]
    for answers in zip(*streams, strict=True):
        shown = [of_one[0] for of_one in answers]
        pairs = [_images(folder.of(side), each) for side, each in zip(sides, shown, strict=True)]
        row = Row(
            records=tuple(_without_evidence(each) for each in shown),
            controls=tuple(_control(*of_one[-2:]) for of_one in answers),
            likeness=tuple(
                _pearson(pairs[0][1], image[1]) if _same_scale(sides[0], side) else None
                for side, image in zip(sides[1:], pairs[1:], strict=True)
            ),
            image=names.name(shown[0]["protein_id"]),
        )
        with atomic_path(folder.path / IMAGES / f"{row.image}.png") as draft:
            draft.write_bytes(png(np.asarray(draw_comparison(row, sides, pairs))))
        on_step(shown[0]["protein_id"])
        yield row


def _by_protein(folder: Path, nuclei: int) -> Iterator[tuple[Record, ...]]:
    records = read_records(folder / RECORDS_FILE)
    return zip(*[records] * nuclei, strict=True)


def _without_evidence(record: Record) -> Record:
    # All rows are in memory at once, and evidence is most of a record.
    record["evidence"] = []
    return record


def _images(folder: Path, record: Record) -> Floats:
    """Read the nucleus and the protein image of a row, (2, H, W) in [0, 1]."""
    import tifffile

    stored = tifffile.imread(folder / IMAGES / f"{record['images']}.ome.tif")
    return np.asarray(stored / FULL_SCALE, np.float32)


def _control(here: Record, there: Record) -> float | None:
    fractions = here["intranuclear_fraction"], there["intranuclear_fraction"]
    return None if fractions[0] is None or fractions[1] is None else abs(fractions[0] - fractions[1])


def _same_scale(one: Side, other: Side) -> bool:
    near = abs(one.pixel_size_um / other.pixel_size_um - 1) <= SAME_SIZE
    return near and one.size_px == other.size_px


def _pearson(one: Floats, other: Floats) -> float | None:
    if not (one.std() and other.std()):
        return None
    r = float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    return None if math.isnan(r) else r
