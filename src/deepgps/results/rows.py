"""Proteins to rows of results: predicted, drawn, and encoded for whoever writes them."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deepgps.arrays import Bytes, Floats
from deepgps.images.cell import Cell
from deepgps.prediction import Prediction, Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.table import ImageFormat, Record, record_of

Content = tuple[bytes, bytes] | Bytes

FULL_SCALE = 255
"""The uint8 value that stands for 1.0 in images of a Zarr store."""
ENCODERS = 2
# Images waiting to be encoded: enough to keep the threads busy, few enough to stay small in memory.
WAITING = 16


class Row(NamedTuple):
    """One protein in one nucleus, not yet on disk.

    Attributes
    ----------
    record
        What is said of it; its images have no name yet.
    content
        The PNG and the OME-TIFF, or the image (H, W) for a Zarr store; None without images.
    """

    record: Record
    content: Content | None = None


def rows(
    predictor: Predictor,
    proteins: Iterable[Protein],
    cells: Sequence[Cell],
    *,
    images: bool,
    image_format: ImageFormat,
) -> Generator[Row, None, None]:
    """Predict proteins as they come and encode their images beside, in order.

    Parameters
    ----------
    predictor, proteins, cells, images
        As of `Predictor.predict`.
    images
        What to encode them for.
    """
    predictions = predictor.predict(proteins, cells, images=images)
    if not images:
        return (Row(record_of(prediction)) for prediction in predictions)
    if image_format == "zarr":
        return (Row(record_of(each), as_bytes(each.image)) for each in predictions if each.image is not None)
    return _with_files(predictions)


def as_bytes(pixels: Floats) -> Bytes:
    """Turn pixels in [0, 1] into uint8, in which `FULL_SCALE` stands for 1."""
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * FULL_SCALE), np.uint8)


def _with_files(predictions: Iterable[Prediction]) -> Generator[Row, None, None]:
    from deepgps.results.images import image_files

    waiting: deque[tuple[Record, Future[tuple[bytes, bytes]]]] = deque()
    pool = ThreadPoolExecutor(ENCODERS)
    try:
        for prediction in predictions:
            waiting.append((record_of(prediction), pool.submit(image_files, prediction)))
            if len(waiting) > WAITING:
                yield _encoded(*waiting.popleft())
        while waiting:
            yield _encoded(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _encoded(record: Record, files: Future[tuple[bytes, bytes]]) -> Row:
    return Row(record, files.result())
