"""A worker's part: a submitted image beside what the model draws of its protein in the same nucleus."""

import time
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select, update

from deepgps.arrays import Floats
from deepgps.bundle import CropSpec
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.prediction import Prediction
from deepgps.proteins.check import check_sequence
from deepgps.proteins.protein import Protein
from deepgps.proteins.uniprot import fetch_protein
from opengps.catalogue import preferred
from opengps.database import Sessions
from opengps.settings import Settings
from opengps.shelf import shelf_of
from opengps.submissions.reading import CROPPED
from opengps.submissions.store import Kept, image_key, read_array, write_array
from opengps.submissions.tables import ImagePair, Submission
from opengps.turns import load_model

_DIGITS = 4


def _waiting(settings: Settings) -> ColumnElement[bool]:
    open_still = ImagePair.comparison.is_(None) & ImagePair.problem.is_(None)
    return open_still & (ImagePair.attempts < settings.max_attempts) & (ImagePair.held_until < time.time())


def is_comparison_due(sessions: Sessions, settings: Settings) -> bool:
    """Whether any image waits to be compared."""
    with sessions() as session:
        return session.scalar(select(ImagePair.number).where(_waiting(settings)).limit(1)) is not None


def compare_next(sessions: Sessions, settings: Settings) -> bool:
    """Compare the image that has waited longest.

    Returns
    -------
    bool
        Whether there was one.
    """
    waiting = _waiting(settings)
    first = select(ImagePair.number).where(waiting).order_by(ImagePair.attempts, ImagePair.number).limit(1)
    held = {"held_until": time.time() + settings.lease_s, "attempts": ImagePair.attempts + 1}
    taken = update(ImagePair).where(ImagePair.number == first.scalar_subquery(), waiting).values(held)
    with sessions.begin() as session:
        image_pair = session.scalars(taken.returning(ImagePair)).one_or_none()
        submission = None if image_pair is None else session.get(Submission, image_pair.submission_id)
    if image_pair is None or submission is None:
        return False
    if not _keep(sessions, image_pair, **_compared(settings, image_pair, submission.model)):
        # It was deleted in the meantime: nothing of it stays.
        shelf_of(settings).remove(image_key(image_pair, Kept.DRAWN))
    return True


def _keep(sessions: Sessions, image_pair: ImagePair, **values: Any) -> bool:
    """Add to an image; return whether it is still there."""
    with sessions.begin() as session:
        done = session.execute(update(ImagePair).where(ImagePair.number == image_pair.number).values(values))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _compared(settings: Settings, image_pair: ImagePair, model: str) -> dict[str, Any]:
    """Find what a comparison adds to the database."""
    found: dict[str, Any] = {}
    try:
        protein = _protein(settings, image_pair)
        found = {
            "sequence": protein.sequence,
            "gene_symbol": protein.gene_symbol,
            "accession": protein.accession,
        }
        return {**found, "comparison": _compare(settings, image_pair, protein, model)}
    except DeepGPSError as error:
        return {**found, "problem": str(error).replace("give a FASTA file", "send it with its sequence")}
    except OSError as error:
        # Deleted while it was compared, or a full disk: it is tried again.
        return {**found, "held_until": time.time() + settings.lease_s, "problem": _gone(error)}


def _gone(error: OSError) -> str | None:
    return "Its files are gone; send it again." if isinstance(error, FileNotFoundError) else None


def _protein(settings: Settings, image_pair: ImagePair) -> Protein:
    """Tell the protein, looked up where its sequence is not known."""
    name = image_pair.protein_id
    if image_pair.sequence is not None:
        return Protein(name, image_pair.sequence, image_pair.gene_symbol, image_pair.accession)
    cache = settings.data / "cache"
    found = fetch_protein(name, cache_dir=cache, offline=not settings.lookups, base_url=settings.uniprot_url)
    if len(found.sequence) > settings.max_residues:
        most = settings.max_residues
        raise InputError(f"Protein '{name}' has more than {most:,} residues, the most taken here.")
    if reason := check_sequence(name, found.sequence):
        raise InputError(reason)
    return found


def _model(wanted: str) -> str:
    """Choose the model that draws: the one asked for, else the default one, or any that can be used here."""
    if (name := preferred(wanted)) is None:
        raise InputError("No model is installed on this site, so that nothing can be compared.")
    return name


def _compare(settings: Settings, image_pair: ImagePair, protein: Protein, model: str) -> dict[str, Any]:
    crop = read_array(settings, image_pair, Kept.CROPS)[image_pair.shown] / np.float32(255)
    predictor = load_model(_model(model))
    cell, real = (_fitted(pixels, predictor.bundle.metadata.crop) for pixels in crop)
    prediction = next(predictor.predict([protein], [cell]))
    assert prediction.image is not None
    shown = np.stack([cell.nucleus, real.nucleus, prediction.image])
    write_array(settings, image_pair, Kept.DRAWN, np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8))
    return _figures(prediction, cell, real.nucleus, prediction.image)


def _fitted(pixels: Floats, crop: CropSpec) -> Cell:
    whole = Cell("submitted", np.asarray(pixels, np.float32), CROPPED.pixel_size_um, "submitted")
    return whole.resampled(size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)


def _figures(prediction: Prediction, cell: Cell, real: Floats, drawn: Floats) -> dict[str, Any]:
    mask = (OtsuWatershed()(cell.nucleus, cell.pixel_size_um) > 0)[None]
    pair = real[None], drawn[None]
    figures = {
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
        **{name: _number(float(values[0])) for name, values in figures.items()},
    }


def _number(value: float) -> float | None:
    return round(value, _DIGITS) if np.isfinite(value) else None
