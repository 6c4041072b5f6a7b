"""Analyses: found, listed and read."""

from typing import Any

from sqlalchemy import select

from deepgps.results.records import sequence_sha256
from opengps.analyses.schemas import (
    AnalysisStatus,
    Comparison,
    ComparisonStatus,
    Explanation,
    ExplanationStatus,
)
from opengps.database import Analysis, InputRecord, Job, Result, iso_time
from opengps.errors import not_found
from opengps.schemas import API
from opengps.site import Site
from opengps.storage import job_key

EXPLANATION, VARIANTS = "explanation", "variants"
"""Kinds of analyses."""
RECORD, PICTURE, HEAT_MAP, TABLE = "record.json", "picture.svg", "scan.svg", "variants.csv"
"""Names of their files, beside one image for each variant."""
UNCHANGED = "unchanged.png"
"""Name of the image of the unchanged protein."""


def analysis_key(analysis: Analysis) -> str:
    """Return the key of an analysis's files."""
    return f"{job_key(analysis.job_id)}/analyses/{analysis.id}"


def find_analyses(site: Site, job_id: str, result: int, kind: str) -> list[Analysis]:
    """Return the analyses of a result, the newest first."""
    chosen = select(Analysis).filter_by(job_id=job_id, result=result, kind=kind)
    with site.sessions() as session:
        return list(session.scalars(chosen.order_by(Analysis.id.desc())))


def get_explanation(site: Site, job: Job, result: int) -> Analysis:
    """Return the explanation of a result.

    Raises
    ------
    RequestError
        404 if nobody has asked for it.
    """
    found = find_analyses(site, job.id, result, EXPLANATION)
    if not found:
        raise not_found(f"Result {result} is not explained yet; send POST to this address.", "number")
    return found[0]


def get_comparison(site: Site, job: Job, result: int, number: int) -> Analysis:
    """Return one comparison of variants of a result.

    Raises
    ------
    RequestError
        404 if it does not exist.
    """
    chosen = select(Analysis).filter_by(id=number, job_id=job.id, result=result, kind=VARIANTS)
    with site.sessions() as session:
        found = session.scalars(chosen).one_or_none()
    if found is None:
        raise not_found(f"Result {result} has no comparison {number} of variants.", "comparison")
    return found


def protein_of(site: Site, job: Job, result: Result) -> InputRecord:
    """Return the input record of a result, whose id other proteins of the job may have, too.

    Raises
    ------
    RequestError
        404 if it does not exist.
    """
    chosen = select(InputRecord).where(
        InputRecord.job_id == job.id,
        InputRecord.protein_id == result.protein_id,
        InputRecord.sequence.is_not(None),
    )
    with site.sessions() as session:
        for record in session.scalars(chosen.order_by(InputRecord.number)):
            if sequence_sha256(record.sequence or "") == result.record["sequence_sha256"]:
                return record
    raise not_found("The sequence of this result is not stored any more; send it again.", "number")


def explanation_status(site: Site, analysis: Analysis) -> ExplanationStatus:
    """Return what the API says of an explanation."""
    address = f"/predictions/{analysis.job_id}/results/{analysis.result}/explanation"
    finished = analysis.status == "finished"
    found = Explanation.model_validate_json(_record(site, analysis)) if finished else None
    links = _links(site, address, (PICTURE,) if found else ())
    return ExplanationStatus(**_status(analysis), links=links, explanation=found)


def comparison_status(site: Site, analysis: Analysis) -> ComparisonStatus:
    """Return what the API says of a comparison."""
    finished = analysis.status == "finished"
    found = Comparison.model_validate_json(_record(site, analysis)) if finished else None
    names = [TABLE, found.heat_map] if found else []
    links = _links(site, comparison_path(analysis), tuple(filter(None, names)))
    return ComparisonStatus(**_status(analysis), links=links, comparison=found)


def comparison_summary(site: Site, analysis: Analysis) -> AnalysisStatus:
    """Return what the API says of a comparison in a list."""
    return AnalysisStatus(**_status(analysis), links=_links(site, comparison_path(analysis), ()))


def comparison_path(analysis: Analysis) -> str:
    """Return the path of the page of a comparison."""
    return f"/predictions/{analysis.job_id}/results/{analysis.result}/variants/{analysis.id}"


def _record(site: Site, analysis: Analysis) -> bytes:
    return site.storage.read(f"{analysis_key(analysis)}/{RECORD}")


def _status(analysis: Analysis) -> dict[str, Any]:
    return {
        "number": analysis.id,
        "status": analysis.status,
        "changes": analysis.changes,
        "scan": analysis.scan,
        "created_at": iso_time(analysis.created_at),
        "finished_at": None if analysis.finished_at is None else iso_time(analysis.finished_at),
        "error": analysis.error,
    }


def _links(site: Site, path: str, files: tuple[str, ...]) -> dict[str, str]:
    root = site.settings.root_path
    links = {"self": f"{root}{API}{path}", "page": f"{root}{path}"}
    return links | {name: f"{root}{API}{path}/{name}" for name in files}
