"""What a worker does for a submitted image: compare it with what the model draws in the same nucleus."""

import time
from typing import Any

import numpy as np
from sqlalchemy import func, select, update

from deepgps.arrays import Floats
from deepgps.bundle import CropSpec
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.prediction import Prediction
from deepgps.proteins.protein import Protein
from opengps.database import ImagePair, ServedVisitor, Submission
from opengps.models import available_model, load_predictor
from opengps.site import Site
from opengps.submissions.cropping import CROP_SETTINGS
from opengps.submissions.store import ImageFile, image_key, read_array, write_array
from opengps.uniprot import look_up

_DIGITS = 4
_GAVE_UP = "It could not be compared; the operator finds the reason in the worker's log."


def compare_next(site: Site) -> bool:
    """Compare the image that has waited longest; return whether there was one."""
    image = _lease_image(site)
    if image is None:
        return False
    with site.sessions() as session:
        submission = session.get(Submission, image.submission_id)
    if submission is not None and not _save(site, image, **_compare(site, image, submission.model)):
        # It was deleted in the meantime.
        site.storage.remove(image_key(image, ImageFile.COMPARISON))
    return True


def _lease_image(site: Site) -> ImagePair | None:
    now = time.time()
    waiting = ImagePair.lease_expires_at < now
    # Round robin by visitor, as in the queue of jobs.
    chosen = (
        select(ImagePair.number)
        .join(Submission)
        .outerjoin(ServedVisitor, ServedVisitor.visitor == Submission.visitor)
    )
    order = (ImagePair.attempts, func.coalesce(ServedVisitor.served_at, 0.0), ImagePair.number)
    first = chosen.where(waiting).order_by(*order).limit(1)
    with site.sessions() as session:
        # An idle worker only reads: writing would lock SQLite.
        if session.scalar(first) is None:
            return None
    leased = {"lease_expires_at": now + site.settings.lease_s, "attempts": ImagePair.attempts + 1}
    statement = update(ImagePair).where(ImagePair.number == first.scalar_subquery(), waiting).values(leased)
    with site.sessions.begin() as session:
        image = session.scalars(statement.returning(ImagePair)).one_or_none()
        sender = session.get(Submission, image.submission_id) if image is not None else None
        if sender is not None and sender.visitor is not None:
            session.merge(ServedVisitor(visitor=sender.visitor, served_at=now))
    if image is not None and image.attempts > site.settings.max_attempts:
        _save(site, image, problem=_GAVE_UP, lease_expires_at=None)
        return _lease_image(site)
    return image


def _save(site: Site, image: ImagePair, **values: Any) -> bool:
    """Save columns of an image; return whether it still exists."""
    with site.sessions.begin() as session:
        done = session.execute(update(ImagePair).where(ImagePair.number == image.number).values(values))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _compare(site: Site, image: ImagePair, model: str) -> dict[str, Any]:
    """Return the columns that a comparison fills in."""
    values: dict[str, Any] = {"lease_expires_at": None}
    try:
        protein = _protein(site, image)
        values |= {
            "sequence": protein.sequence,
            "gene_symbol": protein.gene_symbol,
            "accession": protein.accession,
        }
        return {**values, "comparison": _draw_and_measure(site, image, protein, model)}
    except FileNotFoundError:
        return {**values, "problem": "Its files are missing; send it again."}
    except DeepGPSError as error:
        return {**values, "problem": str(error).replace("give a FASTA file", "send it with its sequence")}
    except OSError:
        # A full disk: it is tried again.
        return {**values, "lease_expires_at": time.time() + site.settings.lease_s}


def _protein(site: Site, image: ImagePair) -> Protein:
    name = image.protein_id
    if image.sequence is None:
        return look_up(site.settings, name)
    return Protein(name, image.sequence, image.gene_symbol, image.accession)


def _draw_and_measure(site: Site, image: ImagePair, protein: Protein, model: str) -> dict[str, Any]:
    name = available_model(model)
    if name is None:
        raise InputError("No model is installed on this site, so nothing can be compared.")
    predictor = load_predictor(name)
    pixels = read_array(site, image, ImageFile.CROPS)[image.central_crop] / np.float32(255)
    cell, real = (_fitted(channel, predictor.bundle.metadata.crop) for channel in pixels)
    prediction = next(predictor.predict([protein], [cell]))
    assert prediction.image is not None
    stack = np.stack([cell.nucleus, real.nucleus, prediction.image])
    content = np.rint(np.clip(stack, 0, 1) * 255).astype(np.uint8)
    write_array(site, image, ImageFile.COMPARISON, content)
    return _measures(prediction, cell, real.nucleus, prediction.image)


def _fitted(pixels: Floats, crop: CropSpec) -> Cell:
    whole = Cell("submitted", np.asarray(pixels, np.float32), CROP_SETTINGS.pixel_size_um, "submitted")
    return whole.resampled(size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)


def _measures(prediction: Prediction, cell: Cell, real: Floats, drawn: Floats) -> dict[str, Any]:
    mask = (OtsuWatershed()(cell.nucleus, cell.pixel_size_um) > 0)[None]
    pair = real[None], drawn[None]
    measures = {
        "psnr": psnr(*pair),
        "ssim": ssim(*pair),
        "r": pearson(*pair),
        "intranuclear_real": intranuclear(pair[0], mask),
        "intranuclear_drawn": intranuclear(pair[1], mask),
    }
    return {
        "model": prediction.model,
        "version": prediction.version,
        "localizations": list(prediction.localizations),
        **{name: _rounded(float(values[0])) for name, values in measures.items()},
    }


def _rounded(value: float) -> float | None:
    return round(value, _DIGITS) if np.isfinite(value) else None
