"""A worker's part: a submitted picture beside what the model draws of its protein in the same nucleus."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, select, update

from deepgps.bundle import CropSpec
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.likeness import intranuclear, pearson, psnr, ssim
from deepgps.images.nuclei import fit_nucleus
from deepgps.images.nucleus import Nucleus
from deepgps.images.segment import OtsuWatershed
from deepgps.prediction import Prediction
from deepgps.proteins.check import check_sequence
from deepgps.proteins.lookup import resolve
from deepgps.proteins.protein import Protein
from deepgps.web.catalogue import preferred
from deepgps.web.database import Sessions
from deepgps.web.settings import Settings
from deepgps.web.shelf import shelf_of
from deepgps.web.submissions.reading import CROPPED
from deepgps.web.submissions.store import Kept, picture_key, read_array, write_array
from deepgps.web.submissions.tables import Picture, Submission
from deepgps.web.turns import load_model

Floats = NDArray[np.float32]
_DIGITS = 4


def _waiting(settings: Settings) -> ColumnElement[bool]:
    open_still = Picture.comparison.is_(None) & Picture.problem.is_(None)
    return open_still & (Picture.attempts < settings.max_attempts) & (Picture.held_until < time.time())


def is_comparison_due(sessions: Sessions, settings: Settings) -> bool:
    """Whether any picture waits to be compared."""
    with sessions() as session:
        return session.scalar(select(Picture.number).where(_waiting(settings)).limit(1)) is not None


def compare_next(sessions: Sessions, settings: Settings) -> bool:
    """Compare the picture that has waited longest.

    Returns
    -------
    bool
        Whether there was one.
    """
    waiting = _waiting(settings)
    first = select(Picture.number).where(waiting).order_by(Picture.attempts, Picture.number).limit(1)
    held = {"held_until": time.time() + settings.lease_s, "attempts": Picture.attempts + 1}
    taken = update(Picture).where(Picture.number == first.scalar_subquery(), waiting).values(held)
    with sessions.begin() as session:
        picture = session.scalars(taken.returning(Picture)).one_or_none()
        submission = None if picture is None else session.get(Submission, picture.submission_id)
    if picture is None or submission is None:
        return False
    if not _keep(sessions, picture, **_compared(settings, picture, submission.model)):
        # It was deleted in the meantime: nothing of it stays.
        shelf_of(settings).remove(picture_key(picture, Kept.DRAWN))
    return True


def _keep(sessions: Sessions, picture: Picture, **values: Any) -> bool:
    """Add to a picture; return whether it is still there."""
    with sessions.begin() as session:
        done = session.execute(update(Picture).where(Picture.number == picture.number).values(values))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _compared(settings: Settings, picture: Picture, model: str) -> dict[str, Any]:
    """Find what a comparison adds to the database."""
    found: dict[str, Any] = {}
    try:
        protein = _protein(settings, picture)
        found = {
            "sequence": protein.sequence,
            "gene_symbol": protein.gene_symbol,
            "accession": protein.accession,
        }
        return {**found, "comparison": _compare(settings, picture, protein, model)}
    except DeepGPSError as error:
        return {**found, "problem": str(error).replace("give a FASTA file", "send it with its sequence")}
    except OSError as error:
        # Deleted while it was compared, or a full disk: it is tried again.
        return {**found, "held_until": time.time() + settings.lease_s, "problem": _gone(error)}


def _gone(error: OSError) -> str | None:
    return "Its files are gone; send it again." if isinstance(error, FileNotFoundError) else None


def _protein(settings: Settings, picture: Picture) -> Protein:
    """Tell the protein, looked up where its sequence is not known."""
    name = picture.protein_id
    if picture.sequence is not None:
        return Protein(name, picture.sequence, picture.gene_symbol, picture.accession)
    cache = settings.data / "cache"
    found = resolve(name, cache_dir=cache, offline=not settings.lookups, base_url=settings.uniprot_url)
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


def _compare(settings: Settings, picture: Picture, protein: Protein, model: str) -> dict[str, Any]:
    crop = read_array(settings, picture, Kept.CROPS)[picture.shown] / np.float32(255)
    predictor = load_model(_model(model))
    nucleus, real = (_fitted(pixels, predictor.bundle.metadata.crop) for pixels in crop)
    prediction = next(predictor.predict([protein], [nucleus]))
    assert prediction.image is not None
    shown = np.stack([nucleus.pixels, real.pixels, prediction.image])
    write_array(settings, picture, Kept.DRAWN, np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8))
    return _figures(prediction, nucleus, real.pixels, prediction.image)


def _fitted(pixels: Floats, crop: CropSpec) -> Nucleus:
    whole = Nucleus("submitted", np.asarray(pixels, np.float32), CROPPED.pixel_size_um, "submitted")
    return fit_nucleus(whole, crop_px=crop.size_px, pixel_size_um=crop.pixel_size_um)


def _figures(prediction: Prediction, nucleus: Nucleus, real: Floats, drawn: Floats) -> dict[str, Any]:
    mask = (OtsuWatershed()(nucleus.pixels, nucleus.pixel_size_um) > 0)[None]
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
