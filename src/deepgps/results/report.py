"""The report: one HTML page with everything in it, to read, print and send on."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from deepgps.files.atomic import replacing
from deepgps.results.page import embedded, page_head, text
from deepgps.results.records import read_records
from deepgps.results.run import read_run
from deepgps.results.table import Evidence, Record

# A page of 10,000 rows opens in any browser; one of 10,000 images in none.
MAX_CARDS = 100
MAX_ROWS = 10_000
# Rows from which the table starts folded, so that the first image is in sight.
FOLDED_FROM = 20

_UNLABELLED = (
    '<p class="note">This model draws images and predicts no label: it does not say in words where a '
    "protein goes, nor how sure that is.</p>\n"
)
_STORED = '<p class="note">The images are in <code>images.zarr</code>, and not on this page.</p>\n'


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the ``results.jsonl`` and ``run.json`` of a folder.

    The first `MAX_CARDS` rows are shown in full, images embedded; the first `MAX_ROWS` are listed; the page
    says so where there are more. Nothing is loaded from elsewhere.
    """
    target = folder / "report.html"
    records = folder / "results.jsonl"
    run = read_run(folder) or {}
    stored = _stored(run)
    rows = sum(1 for _ in read_records(records))
    unlabelled = any(not record["probabilities"] for record in islice(read_records(records), 1))
    with replacing(target) as draft, draft.open("w", encoding="utf-8", errors="replace") as page:
        page.write(_head(run, rows, image_format=(folder / "images").is_dir()))
        page.write(_STORED if stored else "")
        page.write(_UNLABELLED if unlabelled else "")
        _write_table(page, records, rows)
        page.write('<section id="details">\n<h2>In detail</h2>\n')
        for number, record in enumerate(islice(read_records(records), MAX_CARDS)):
            page.write(_card(number, record, None if stored else folder / "images"))
        page.write("</section>\n</main>\n</body>\n</html>\n")
    return target


def _head(run: dict[str, Any], rows: int, *, image_format: bool) -> str:
    model = run.get("model", {})
    proteins = run.get("proteins", {})
    facts = [
        f"Model {text(model.get('name', ''))} {text(model.get('version', ''))}",
        f"{proteins.get('predicted', 0):,} proteins predicted, {proteins.get('rejected', 0):,} rejected",
        text(run.get("started", "")),
    ]
    limits, mean = _limits(rows, image_format=image_format), run.get("options", {}).get("mean")
    kind = ", each the mean of all images that could be: smooth, as no single cell is" if mean else ""
    where = "images.zarr" if _stored(run) else "images/*.ome.tif"
    return (
        f"{page_head('deepGPS: where the proteins go')}"
        f'<p class="facts">{" · ".join(fact for fact in facts if fact)}</p>\n{limits}'
        f"<p>The images are predictions{kind}, drawn into the nucleus shown and stretched for display; the "
        f"intensities to measure are in <code>{where}</code>. The intranuclear fraction is the share "
        "of the drawn protein that lies inside the nuclei. Confidence is the calibrated probability of the "
        "first localization; where no class is probable enough the protein is <em>unclear</em>.</p>\n"
    )


def _stored(run: dict[str, Any]) -> bool:
    """Whether the images are in a Zarr store."""
    return bool(run.get("options", {}).get("image_format") == "zarr")


def _limits(rows: int, *, image_format: bool) -> str:
    if rows <= MAX_CARDS:
        return ""
    listed = f"the first {MAX_ROWS:,} are listed" if rows > MAX_ROWS else "all are listed"
    where = ', <a href="images/">images/</a>' if image_format else ""
    return (
        f'<p class="note">Of {rows:,} rows {listed} and the first {MAX_CARDS} are shown in full; the rest is '
        f'in <a href="results.jsonl">results.jsonl</a>{where} and the table beside it.</p>\n'
    )


def _write_table(page: TextIO, records: Path, rows: int) -> None:
    opened = " open" if rows < FOLDED_FROM else ""
    page.write(
        f"<details{opened}>\n<summary>Table of {min(rows, MAX_ROWS):,} rows</summary>\n"
        '<div class="wide"><table>\n<thead><tr><th>Protein</th><th>Localizations</th><th>Confidence</th>'
        "<th>Intranuclear fraction</th><th>Nucleus</th><th>Warnings</th></tr></thead>\n<tbody>\n"
    )
    for number, record in enumerate(islice(read_records(records), MAX_ROWS)):
        page.write(_row(number, record))
    page.write("</tbody>\n</table></div>\n</details>\n")


def _row(number: int, record: Record) -> str:
    name = text(record["protein_id"])
    values = [
        f'<a href="#p{number}">{name}</a>' if number < MAX_CARDS else name,
        text(", ".join(record["localizations"])),
        "" if record["confidence"] is None else f"{record['confidence']:.2f}",
        _fraction(record),
        text(record["nucleus"] or ""),
        text("; ".join(record["warnings"])),
    ]
    return f"<tr>{''.join(f'<td>{value}</td>' for value in values)}</tr>\n"


def _card(number: int, record: Record, images: Path | None) -> str:
    places = text(", ".join(record["localizations"]) or "no label")
    fraction = _fraction(record)
    facts = [f"{record['length']:,} residues", f"intranuclear fraction {fraction}" if fraction else ""]
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in record["warnings"])
    listed = f'<ul class="warnings">{warnings}</ul>\n' if warnings else ""
    return (
        f'<article id="p{number}">\n<h3>{text(record["protein_id"])}</h3>\n'
        f'<p><strong>{places}</strong> <span class="facts">{" · ".join(f for f in facts if f)}</span></p>\n'
        f"{_image(record, images)}"
        f'<div class="columns">\n{_bars(record)}{_evidence(record["evidence"])}</div>\n'
        f"{listed}</article>\n"
    )


def _image(record: Record, images: Path | None) -> str:
    if not record["images"] or images is None:
        return ""
    # The name may have been edited: only a file in the folder itself is ever embedded.
    path = images / Path(f"{record['images']}.png").name
    alt = f"Nucleus, predicted protein and overlay: {record['protein_id']}"
    return embedded(path, alt)


def _bars(record: Record) -> str:
    if not record["probabilities"]:
        return ""
    named = set(record["localizations"])
    ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])
    lines = "".join(
        f'<div class="bar{" named" if slug in named else ""}"><span>{text(slug)}</span>'
        f'<i style="--p:{100 * probability:.1f}%"></i><b>{probability:.2f}</b></div>\n'
        for slug, probability in ranked
    )
    return f'<div class="bars">\n<h4>Probability</h4>\n{lines}</div>\n'


def _evidence(evidence: list[Evidence]) -> str:
    if not evidence:
        return ""
    lines = "\n".join(_evidence_lines(evidence))
    return (
        '<div class="evidence">\n<h4>Most similar annotated proteins</h4>\n<table>\n<thead><tr>'
        "<th>Accession</th><th>Localizations</th><th>Similarity</th></tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody>\n</table>\n</div>\n"
    )


def _evidence_lines(evidence: list[Evidence]) -> Iterator[str]:
    for near in evidence:
        places = text(", ".join(near["localizations"]) or "unknown")
        yield (
            f"<tr><td>{text(near['accession'])}</td><td>{places}</td><td>{near['similarity']:.2f}</td></tr>"
        )


def _fraction(record: Record) -> str:
    fraction = record["intranuclear_fraction"]
    return "" if fraction is None else f"{fraction:.2f}"
