"""Explanations and comparisons that visitors ask for: checked, and added to the queue of analyses."""

import time
from collections.abc import Sequence

from sqlalchemy import update

from deepgps.errors import InputError
from deepgps.explain.changes import Variant, parse_region, parse_variant, scan
from opengps.analyses.schemas import VariantsRequest
from opengps.analyses.store import EXPLANATION, VARIANTS, find_analyses, protein_of
from opengps.database import Analysis, InputRecord, Job, Result, Usage
from opengps.errors import request_error
from opengps.quotas import check_disk, check_job_quota, lock_quotas
from opengps.settings import Settings
from opengps.site import Site

_MAX_CHANGE = 1_000
_SUBSTITUTIONS = 19
# What the files of an analysis take at most: numbers and a picture; a row of each variant, and its image.
_EXPLANATION_BYTES, _VARIANT_BYTES, _IMAGE_BYTES = 1_000_000, 5_000, 100_000


def request_explanation(site: Site, visitor: str, job: Job, result: Result) -> Analysis:
    """Add the explanation of a result to the queue; return it if somebody has asked for it already.

    Raises
    ------
    RequestError
        If the model has no classes or the protein is too long, or a quota is exceeded.
    """
    for earlier in find_analyses(site, job.id, result.number, EXPLANATION):
        if earlier.status != "failed":
            return earlier
    if not job.classes:
        message = f"Model '{job.model}' predicts no labels, so that there is none to explain."
        raise request_error(422, "model_without_classes", message, "number")
    _check_length(protein_of(site, job, result), site.settings)
    analysis = _analysis(job, result, visitor, EXPLANATION)
    return _add(site, analysis, proteins=1, disk_bytes=_EXPLANATION_BYTES)


def request_variants(
    site: Site, visitor: str, job: Job, result: Result, request: VariantsRequest
) -> Analysis:
    """Add a comparison of variants of a result's protein to the queue.

    Raises
    ------
    RequestError
        If a change cannot be read or does not fit the protein, there are none or too many, the protein is too
        long, or a quota is exceeded.
    """
    protein, region = protein_of(site, job, result), request.scan.strip()
    _check_length(protein, site.settings)
    variants = read_variants(protein.sequence or "", request.changes, region, site.settings)
    analysis = _analysis(job, result, visitor, VARIANTS)
    analysis.changes, analysis.scan = request.changes, region
    analysis.images = job.images and request.images and not region
    limit = site.settings.max_variant_images
    if analysis.images and len(variants) > limit:
        message = (
            f"{len(variants):,} variants are too many to draw; the limit is {limit:,}. Send fewer, or draw "
            "no images."
        )
        raise request_error(422, "too_many_images", message, "images")
    size = _VARIANT_BYTES + (_IMAGE_BYTES if analysis.images else 0)
    count = len(variants) + 1
    return _add(site, analysis, proteins=count, disk_bytes=size * count)


def read_variants(sequence: str, changes: Sequence[str], region: str, settings: Settings) -> list[Variant]:
    """Apply changes to a sequence, and make every substitution of a region.

    Parameters
    ----------
    sequence
        The unchanged sequence.
    changes
        Changes, as of `parse_variant`.
    region
        First and last residue, as ``10-60``; empty for none.
    settings
        The limits.

    Returns
    -------
    list of Variant
        Those of the changes, then those of the region.

    Raises
    ------
    RequestError
        If a change or the region cannot be used, or there are no variants or too many.
    """
    first, last = _region(region, sequence)
    count = len(changes) + _SUBSTITUTIONS * (last - first + 1)
    if not count:
        message = "There is no change; write one such as R389Q, or a region to scan."
        raise request_error(422, "no_changes", message, "changes")
    if count > settings.max_variants:
        message = f"These are {count:,} variants; the limit is {settings.max_variants:,} at once. Send fewer."
        raise request_error(422, "too_many_variants", message, "scan" if region else "changes")
    _check_residues(count * len(sequence), settings)
    found = [_variant(change, sequence) for change in changes]
    # Insertions and fusions make them longer.
    _check_residues(sum(len(each.sequence) for each in found), settings)
    return [*found, *(scan(sequence, first, last) if region else ())]


def _region(region: str, sequence: str) -> tuple[int, int]:
    """Return the first and last residue of a region; an empty one if there is none."""
    if not region:
        return 1, 0
    try:
        first, last = parse_region(region)
        next(scan(sequence, first, last))
    except InputError as error:
        raise request_error(422, "invalid_region", str(error), "scan") from None
    return first, last


def _variant(change: str, sequence: str) -> Variant:
    if len(change) > _MAX_CHANGE:
        message = f"Change '{change[:20]}…' has {len(change):,} letters; write at most {_MAX_CHANGE:,}."
        raise request_error(422, "invalid_change", message, "changes")
    try:
        return parse_variant(change, sequence)
    except InputError as error:
        raise request_error(422, "invalid_change", str(error), "changes") from None


def _check_length(protein: InputRecord, settings: Settings) -> None:
    length, limit = len(protein.sequence or ""), settings.max_explained_residues
    if length > limit:
        message = (
            f"Sequence '{protein.protein_id}' has {length:,} residues; the limit to explain or compare is "
            f"{limit:,}. Send one domain of it."
        )
        raise request_error(422, "too_many_residues", message, "number")


def _check_residues(residues: int, settings: Settings) -> None:
    if residues > settings.max_total_residues:
        limit = settings.max_total_residues
        message = f"The variants have {residues:,} residues in all; the limit is {limit:,}. Send fewer."
        raise request_error(422, "too_many_variants", message, "changes")


def _analysis(job: Job, result: Result, visitor: str, kind: str) -> Analysis:
    return Analysis(
        job_id=job.id,
        result=result.number,
        kind=kind,
        changes=[],
        scan="",
        images=False,
        status="queued",
        visitor=visitor,
        created_at=time.time(),
    )


def _add(site: Site, analysis: Analysis, *, proteins: int, disk_bytes: int) -> Analysis:
    """Add an analysis in the transaction that counts the quotas, as `create_job` does."""
    with site.sessions.begin() as session:
        lock_quotas(session)
        session.add(analysis)
        session.add(Usage(visitor=analysis.visitor, created_at=analysis.created_at, proteins=proteins))
        reserved = update(Job).where(Job.id == analysis.job_id)
        session.execute(reserved.values(disk_bytes=Job.disk_bytes + disk_bytes))
        session.flush()
        check_job_quota(session, site.settings, analysis.visitor)
        check_disk(session, site, analysis.visitor)
    return analysis
