"""The installed models and the default nuclei, as the site offers them."""

import io
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from deepgps.arrays import Floats
from deepgps.bundle import (
    DEFAULT_MODEL,
    METADATA_FILE,
    Bundle,
    BundleMetadata,
    CropSpec,
    find_bundle,
    installed_bundles,
    open_bundle,
    with_class_set,
)
from deepgps.errors import BundleError, InputError
from deepgps.images.cell import Cell
from deepgps.localization import display_name
from deepgps.prediction import Predictor
from deepgps.proteins.embedding import encoders_folder
from deepgps.results.labelled_images import stretch
from opengps.database import Job
from opengps.errors import ErrorDetail, not_found
from opengps.schemas import ModelInfo


def models() -> dict[str, Bundle]:
    """Return the models by name: each installed one, and each of its class sets as ``NAME:SET``.

    Damaged bundles are left out.
    """
    found: dict[str, Bundle] = {}
    for name, path in installed_bundles().items():
        try:
            found |= _with_class_sets(name, path, _modified(path))
        except (BundleError, OSError):
            continue
    return found


def _modified(path: Path) -> int:
    file = path / METADATA_FILE if path.is_dir() else path
    return file.stat().st_mtime_ns


@lru_cache(maxsize=64)
def _with_class_sets(name: str, path: Path, modified: int) -> Mapping[str, Bundle]:
    # Verifying reads every byte: once per version of a bundle is enough.
    bundle = open_bundle(path)
    class_sets = {f"{name}:{each}": with_class_set(bundle, each) for each in bundle.metadata.class_sets}
    return {name: bundle, **class_sets}


def get_model(name: str, field: str) -> Bundle:
    """Return a model by its name.

    Raises
    ------
    RequestError
        404 if it is not installed.
    """
    bundle = models().get(name)
    if bundle is None:
        raise not_found(f"Model '{name[:80]}' is not installed.", field)
    return bundle


def crop_of(model: str) -> CropSpec | None:
    """Return the crops of a model; None if no model is named.

    Raises
    ------
    RequestError
        404 if the model is not installed.
    """
    return get_model(model, "model").metadata.crop if model else None


def available_model(name: str = "") -> str | None:
    """Return this model if it can be used here, else the default model, else any; None if there is none."""
    available = [each for each, bundle in models().items() if unavailable_reason(bundle) is None]
    return next((each for each in (name, DEFAULT_MODEL, *available) if each in available), None)


def check_model(name: str) -> ErrorDetail | None:
    """Return the error if a request cannot use a model."""
    installed = models()
    if name not in installed:
        known = ", ".join(installed) or "none"
        message = f"Model '{name[:80]}' is not installed; installed: {known}."
        return ErrorDetail(code="unknown_model", message=message, field="model")
    if reason := unavailable_reason(installed[name]):
        message = f"Model '{name}' {reason}; choose another."
        return ErrorDetail(code="model_unavailable", message=message, field="model")
    return None


def unavailable_reason(bundle: Bundle) -> str | None:
    """Return why a model cannot be used on this site; None if it can."""
    encoder = bundle.metadata.encoder
    if encoder.structure_points is not None:
        return "needs protein structures, which this site does not accept"
    if encoder.kind == "esm2" and not (encoders_folder() / encoder.name).is_dir():
        return f"needs the language model '{encoder.name}', which is not prepared on this site"
    return None


def model_info(name: str, bundle: Bundle) -> ModelInfo:
    """Return what the API says of a model."""
    metadata = bundle.metadata
    return ModelInfo(
        name=name,
        version=metadata.version,
        sha256=bundle.sha256,
        predicts=describe_classes(metadata),
        classes=list(metadata.classes),
        multi_label=metadata.multi_label,
        cell_line=metadata.cell_line,
        calibration=metadata.calibration,
        licence=metadata.licence,
        crop_px=metadata.crop.size_px,
        pixel_size_um=metadata.crop.pixel_size_um,
        metrics=dict(metadata.metrics),
        training_data=dict(metadata.training_data),
        unavailable_reason=unavailable_reason(bundle),
    )


_FEW_CLASSES = 4


def describe_classes(metadata: BundleMetadata) -> str:
    """Describe in a phrase what a model predicts."""
    names, count = [display_name(slug) for slug in metadata.classes], len(metadata.classes)
    if not names:
        return "an image, no label"
    if count > _FEW_CLASSES:
        number = "several" if metadata.multi_label else "one"
        return f"{count} localizations, {number} per protein"
    joined = " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{joined}, or several of them" if metadata.multi_label and count > 1 else joined


def load_predictor(name: str) -> Predictor:
    """Load an installed model by its name; its class sets share one."""
    model, colon, class_set = name.rpartition(":")
    if not colon or name in installed_bundles():
        return _load(name)
    return _load(model).with_class_set(class_set)


@lru_cache(maxsize=2)
def _load(name: str) -> Predictor:
    # One core is left for the pages.
    return Predictor.load(find_bundle(name), threads=max(1, (os.cpu_count() or 1) - 1))


def job_predictor(job: Job) -> Predictor:
    """Load the model of a job, to draw as the job says.

    Raises
    ------
    InputError
        If the model was replaced after the job was sent.
    """
    predictor = load_predictor(job.model)
    if predictor.bundle.sha256 != job.model_sha256:
        _load.cache_clear()
        predictor = load_predictor(job.model)
    if predictor.bundle.sha256 != job.model_sha256:
        raise InputError(f"Model '{job.model}' was replaced after this job was sent; send it again.")
    if job.seed:
        predictor = predictor.with_seed(job.seed)
    return predictor.with_mean_images() if job.mean else predictor


@lru_cache(maxsize=256)
def default_cell(name: str, crop: CropSpec | None) -> Cell:
    """Return a default nucleus at the size and scale of a model's crops, or at its own if that is None."""
    cell = Cell.load(name)
    if crop is None:
        return cell
    return cell.resampled(size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)


@lru_cache(maxsize=256)
def default_cell_png(name: str, crop: CropSpec | None) -> bytes:
    """Encode the image of `default_cell`, stretched for display."""
    return grey_png(default_cell(name, crop).nucleus)


def grey_png(pixels: Floats) -> bytes:
    """Encode an image, (H, W) in [0, 1], as a grey PNG, stretched for display."""
    return encode_png(Image.fromarray((stretch(pixels) * 255).astype(np.uint8)))


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    # A third of the time of the default level 6 for 5 % more bytes: a page of results has fifty images.
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
