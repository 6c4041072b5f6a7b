"""What a worker does for an analysis: it explains a prediction, or compares variants of its protein."""

import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from sqlalchemy import func, select, update

from deepgps.arrays import Floats
from deepgps.errors import DeepGPSError
from deepgps.explain import explanation as explanations
from deepgps.explain.signals import Signal
from deepgps.explain.variants import VariantComparison, VariantEffect, summary
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.reporting.tracks import explanation_picture, scan_picture
from deepgps.results.explanations import LIMITS, write_variants
from opengps.analyses.requests import read_variants
from opengps.analyses.schemas import Comparison, Explanation, SignalRow, VariantRow
from opengps.analyses.store import (
    EXPLANATION,
    HEAT_MAP,
    PICTURE,
    RECORD,
    TABLE,
    UNCHANGED,
    analysis_key,
    protein_of,
)
from opengps.database import OPEN_STATUSES, Analysis, InputRecord, Job, Result, ServedVisitor
from opengps.downloads import escape_formula
from opengps.errors import RequestError
from opengps.jobs import job_cells
from opengps.models import job_predictor
from opengps.schemas import EvidenceRow
from opengps.site import Site

_DIGITS = 6
_GAVE_UP = "It could not be computed; the operator finds the reason in the worker's log."
_NOT_WRITTEN = "The results could not be written; ask for it again later."


def analyse_next(site: Site) -> bool:
    """Compute the next analysis; return whether there was one."""
    analysis = _lease(site)
    if analysis is None:
        return False
    final = analysis.attempts >= site.settings.max_attempts
    try:
        files = _compute(site, analysis)
        site.storage.write({f"{analysis_key(analysis)}/{name}": each for name, each in files.items()})
    except (DeepGPSError, RequestError) as error:
        _save(site, analysis, status="failed", error=str(error))
    except OSError:
        # A full disk may have space again later.
        _fail(site, analysis, _NOT_WRITTEN, final=final)
    except Exception:
        _fail(site, analysis, _GAVE_UP, final=final)
        logging.getLogger("opengps").exception("An analysis failed.")
    else:
        if not _save(site, analysis, status="finished"):
            # Its job was deleted in the meantime.
            site.storage.remove(analysis_key(analysis))
    return True


def _fail(site: Site, analysis: Analysis, error: str, *, final: bool) -> None:
    """Try an analysis again when its lease expires, or give it up."""
    if final:
        _save(site, analysis, status="failed", error=error)


def _lease(site: Site) -> Analysis | None:
    """Lease the analysis whose visitor has waited longest, as the queue of jobs does."""
    now = time.time()
    waiting = Analysis.status.in_(OPEN_STATUSES) & (Analysis.lease_expires_at < now)
    served = func.coalesce(ServedVisitor.served_at, 0.0)
    chosen = select(Analysis.id).outerjoin(ServedVisitor, ServedVisitor.visitor == Analysis.visitor)
    first = chosen.where(waiting).order_by(Analysis.attempts, served, Analysis.id).limit(1)
    with site.sessions() as session:
        # An idle worker only reads: writing would lock SQLite.
        if session.scalar(first) is None:
            return None
    leased = {
        "status": "running",
        "lease_expires_at": now + site.settings.lease_s,
        "attempts": Analysis.attempts + 1,
    }
    statement = update(Analysis).where(Analysis.id == first.scalar_subquery(), waiting).values(leased)
    with site.sessions.begin() as session:
        analysis = session.scalars(statement.returning(Analysis)).one_or_none()
        if analysis is not None:
            session.merge(ServedVisitor(visitor=analysis.visitor, served_at=now))
    if analysis is not None and analysis.attempts > site.settings.max_attempts:
        # Its workers were killed.
        _save(site, analysis, status="failed", error=_GAVE_UP)
        return _lease(site)
    return analysis


def _save(site: Site, analysis: Analysis, *, status: str, error: str | None = None) -> bool:
    """Finish an analysis; return whether it still exists."""
    values = {"status": status, "error": error, "finished_at": time.time()}
    with site.sessions.begin() as session:
        done = session.execute(update(Analysis).where(Analysis.id == analysis.id).values(values))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def _compute(site: Site, analysis: Analysis) -> Mapping[str, bytes]:
    """Return the files of an analysis by name."""
    with site.sessions() as session:
        job = session.get(Job, analysis.job_id)
        result = session.get(Result, (analysis.job_id, analysis.result))
    if job is None or result is None:
        return {}
    record, predictor = protein_of(site, job, result), job_predictor(job)
    protein = _protein(record)
    if analysis.kind == EXPLANATION:
        explanation = predictor.explain(protein)
        picture = explanation_picture(explanation).svg().encode()
        return {RECORD: explanation_record(explanation).model_dump_json().encode(), PICTURE: picture}
    return _compare(site, analysis, job, result, predictor, protein)


def _compare(
    site: Site, analysis: Analysis, job: Job, result: Result, predictor: Predictor, protein: Protein
) -> Mapping[str, bytes]:
    variants = read_variants(protein.sequence, analysis.changes, analysis.scan, site.settings)
    cells = job_cells(site, job, predictor.bundle.metadata.crop) if analysis.images else []
    cell = next((each for each in cells if each.name == result.nucleus), None)
    compared = predictor.variants(protein, variants, cell, images=cell is not None)
    files = {TABLE: _table(compared)}
    if analysis.scan:
        files[HEAT_MAP] = scan_picture(compared).svg().encode()
    if compared.image is not None:
        images = [compared.image, *(each.image for each in compared.effects if each.image is not None)]
        names = [UNCHANGED, *map(_image_name, range(len(compared.effects)))]
        files |= dict(zip(names, _stretched_alike(images), strict=True))
    metadata = predictor.bundle.metadata
    record = comparison_record(compared, metadata.name, metadata.version, scanned=bool(analysis.scan))
    return {**files, RECORD: record.model_dump_json().encode()}


def _protein(record: InputRecord) -> Protein:
    return Protein(record.protein_id, record.sequence or "", record.gene_symbol, record.accession)


def _table(compared: VariantComparison) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / TABLE
        write_variants(path, replace(compared, name=escape_formula(compared.name)))
        return path.read_bytes()


def _image_name(number: int) -> str:
    return f"{number}.png"


def _stretched_alike(images: Sequence[Floats]) -> list[bytes]:
    """Encode images (H, W) as grey PNGs; the 99.9th percentile of the first is white in all of them."""
    top = max(float(np.percentile(images[0], 99.9)), 1e-6)
    encoded = []
    for pixels in images:
        buffer = io.BytesIO()
        Image.fromarray((np.clip(pixels / top, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def explanation_record(found: explanations.Explanation) -> Explanation:
    """Return what the API says of an explanation."""
    sequence, names = found.protein.sequence, found.localizations
    return Explanation(
        protein_id=found.protein.id,
        length=len(sequence),
        sentence=found.sentence(),
        localizations=list(names),
        probabilities=_by_name(found.probabilities, found.probabilities.values()),
        signals=_signals(found.signals),
        importance={name: _rounded(row) for name, row in zip(names, found.importance, strict=True)},
        noise_floor=_by_name(names, found.floor),
        window=found.width,
        evidence=[
            EvidenceRow(
                accession=each.accession,
                localizations=list(each.localizations),
                similarity=round(float(each.similarity), 4),
            )
            for each in found.evidence
        ],
        model=found.model,
        version=found.version,
    )


def comparison_record(compared: VariantComparison, model: str, version: str, *, scanned: bool) -> Comparison:
    """Return what the API says of a comparison."""
    numbers = {id(effect): number for number, effect in enumerate(compared.effects)}
    return Comparison(
        protein_id=compared.name,
        length=len(compared.sequence),
        limits=LIMITS,
        localizations=list(compared.localizations),
        probabilities=_by_name(compared.classes, compared.probabilities),
        signals=_signals(compared.signals),
        noise_floor=_by_name(compared.classes, compared.floor),
        image=None if compared.image is None else UNCHANGED,
        image_noise_floor=_number(compared.image_floor),
        variants=[_variant_row(compared, each, numbers[id(each)]) for each in compared.ranked()],
        heat_map=HEAT_MAP if scanned else None,
        model=model,
        version=version,
    )


def _variant_row(compared: VariantComparison, effect: VariantEffect, number: int) -> VariantRow:
    return VariantRow(
        change=effect.variant.name,
        text=summary(compared, effect),
        localizations=list(effect.localizations),
        probabilities=_by_name(compared.classes, effect.probabilities),
        changes=_by_name(compared.classes, effect.change),
        signals_lost=_signals(effect.lost),
        signals_gained=_signals(effect.gained),
        moves=_number(effect.moves),
        image_change=_number(effect.image_change),
        image=None if effect.image is None else _image_name(number),
    )


def _signals(signals: Sequence[Signal]) -> list[SignalRow]:
    return [
        SignalRow(
            signal=each.kind,
            name=each.name,
            start=each.start,
            end=each.end,
            score=round(float(each.score), _DIGITS),
            known_from=each.known_from,
        )
        for each in signals
    ]


def _by_name(names: Iterable[str], values: Iterable[float] | Floats) -> dict[str, float]:
    return dict(zip(names, _rounded(values), strict=True))


def _rounded(values: Iterable[float] | Floats) -> list[float]:
    return [round(float(each), _DIGITS) for each in values]


def _number(value: float | None) -> float | None:
    return None if value is None else round(float(value), _DIGITS)
