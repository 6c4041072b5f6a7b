"""Answers of an atlas: a record, signals and images of each protein, computed here or on workers."""

import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

import deepgps
from deepgps.errors import DeepGPSError, InputError
from deepgps.explain.signals import find_signals
from deepgps.parallel import WorkerDiedError, cores, parallel_map
from deepgps.prediction import Prediction, Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.records import to_record
from deepgps.results.rows import PredictionTask, chunks, loaded_predictor

WEBP_QUALITY = 50
IMAGE_FORMAT = 1
"""Version of the images; a new one draws all anew."""

_MAX_IMPORTANCE_DIGITS = 2


@dataclass(frozen=True, slots=True)
class AtlasTask:
    """What every worker needs to know.

    Attributes
    ----------
    prediction
        The model and the cells.
    importance
        Whether to measure the importance of residues.
    """

    prediction: PredictionTask
    importance: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A protein to answer.

    Attributes
    ----------
    protein
        The protein.
    cells
        Places, in the task's cells, of those to draw into.
    """

    protein: Protein
    cells: tuple[int, ...]


class Answer(NamedTuple):
    """What was computed for a protein.

    Attributes
    ----------
    content
        Its record, synonyms, sequence, signals and importance, as JSON holds them.
    images
        For each cell that was drawn into, a WebP image and the intranuclear fraction.
    """

    content: dict[str, Any]
    images: tuple[tuple[bytes, float | None], ...]


def answers(
    predictor: Predictor,
    task: AtlasTask,
    requests: Iterable[Request],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> Generator[list[Answer], None, None]:
    """Answer requests, a few at a time, in their order.

    Parameters
    ----------
    predictor
        The model, if this process computes.
    task
        The same model, for workers, and what to compute.
    requests
        Read a few chunks ahead.
    workers
        Local processes.
    scheduler
        Address of a Dask scheduler whose workers compute instead.

    Yields
    ------
    list of Answer
        One for each request of a chunk.

    Raises
    ------
    InputError
        If the scheduler cannot be used.
    DeepGPSError
        If a worker has another version of deepGPS, or dies each time it tries a chunk.
    """
    if workers == 1 and scheduler is None:
        for chunk in _chunks(requests):
            yield _answers(predictor, task, chunk)
        return
    threads = task.prediction.threads or (1 if scheduler else max(1, cores() // workers))
    task = replace(task, prediction=replace(task.prediction, threads=threads))
    results = parallel_map(
        partial(_answer_chunk, task), _chunks(requests), workers=workers, scheduler=scheduler
    )
    with closing(results):  # type: ignore[type-var]  # it is a generator, with workers
        for result in results:
            if isinstance(result, WorkerDiedError):
                raise DeepGPSError(
                    "A worker died each time it tried some proteins; give it more memory, or leave out the "
                    "longest proteins."
                )
            yield result


def _chunks(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Divide requests into chunks that are drawn into the same cells."""
    for cells, some in groupby(requests, key=lambda request: request.cells):
        for chunk in chunks((each.protein for each in some), len(cells)):
            yield [Request(protein, cells) for protein in chunk]


def _answer_chunk(task: AtlasTask, requests: Sequence[Request]) -> list[Answer]:
    """Answer a chunk; runs on a worker."""
    if task.prediction.version != deepgps.__version__:
        raise DeepGPSError(
            f"A worker has deepGPS {deepgps.__version__} and not {task.prediction.version}; install the same "
            "on all."
        )
    return _answers(loaded_predictor(task.prediction), task, requests)


def _answers(predictor: Predictor, task: AtlasTask, requests: Sequence[Request]) -> list[Answer]:
    proteins = [each.protein for each in requests]
    cells = [task.prediction.cells[place] for place in requests[0].cells]
    found = list(predictor.predict(proteins, cells or None, images=bool(cells)))
    each_protein = max(1, len(cells))
    signals = find_signals([each.sequence for each in proteins])
    return [
        Answer(
            {
                **_content(found[number * each_protein]),
                "signals": [
                    [s.kind, s.start, s.end, round(float(s.score), 2), s.known_from] for s in signals[number]
                ],
                "importance": _importance(predictor, protein) if task.importance else None,
            },
            tuple(map(_image, found[number * each_protein : (number + 1) * each_protein])) if cells else (),
        )
        for number, protein in enumerate(proteins)
    ]


def _content(prediction: Prediction) -> dict[str, Any]:
    known = prediction.known
    # What depends on the image stands beside the image: another nucleus may be added later.
    own = prediction.warnings
    if prediction.cell is not None and prediction.cell.warnings:
        own = own[: -len(prediction.cell.warnings)]
    record = to_record(replace(prediction, cell=None, image=None, readouts={}, warnings=own))
    return {
        "record": record,
        "synonyms": list(known.synonyms) if known is not None and known.whole else [],
        "sequence": prediction.protein.sequence,
    }


def _importance(predictor: Predictor, protein: Protein) -> dict[str, Any] | None:
    """Measure the importance of residues for the first localization; None for a protein that is too long."""
    try:
        explanation = predictor.explain(protein)
    except InputError:
        return None
    if not explanation.localizations:
        return None
    return {
        "localization": explanation.localizations[0],
        "values": [round(float(each), _MAX_IMPORTANCE_DIGITS) for each in explanation.importance[0]],
        "floor": round(float(explanation.floor[0]), _MAX_IMPORTANCE_DIGITS),
        "sentence": explanation.sentence(),
    }


def _image(prediction: Prediction) -> tuple[bytes, float | None]:
    """Draw the protein, with a scale bar, and the overlay beside it; encode them as WebP."""
    from PIL import Image, ImageDraw

    from deepgps.results.labelled_images import draw_scale_bar, grey_image, overlay, stretch

    assert prediction.cell is not None and prediction.image is not None
    nucleus, protein = stretch(prediction.cell.nucleus), stretch(prediction.image)
    size = protein.shape[0]
    canvas = Image.new("RGB", (2 * size, size))
    canvas.paste(grey_image(protein), (0, 0))
    canvas.paste(Image.fromarray(overlay(nucleus, protein)), (size, 0))
    draw_scale_bar(ImageDraw.Draw(canvas), size, size, prediction.cell.pixel_size_um, size)
    buffer = io.BytesIO()
    canvas.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    fraction = prediction.readouts["intranuclear_fraction"]
    return buffer.getvalue(), None if np.isnan(fraction) else round(float(fraction), 4)
