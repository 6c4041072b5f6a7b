"""The page of a comparison: what differs, how far that is to be believed, and the images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from deepgps.comparison.differences import CONTROL_SHARE, Row, Totals, totals, verdict
from deepgps.comparison.sides import Side, frame_note
from deepgps.comparison.table import shared_classes, warnings, yes_no
from deepgps.files.atomic import replacing
from deepgps.results.folder import REPORT_FILE
from deepgps.results.image_files import IMAGES
from deepgps.results.page import embedded, page_head, text
from deepgps.results.report import FOLDED_FROM, MAX_CARDS, MAX_ROWS

# Of 17 classes most are improbable for any protein.
_SHOWN_FROM = 0.05


def write_page(folder: Path, rows: Sequence[Row], sides: Sequence[Side], nuclei: Sequence[str]) -> Path:
    """Write ``report.html``, images embedded.

    Parameters
    ----------
    folder
        The comparison's folder, its images drawn.
    rows
        All proteins, most different first; `MAX_CARDS` of them are shown in full, `MAX_ROWS` listed.
    sides
        The models.
    nuclei
        Names of the nuclei: the one compared in first, the control last.
    """
    sums = [totals(rows, sides, other) for other in range(1, len(sides))]
    bounds = [each.bound for each in sums]
    target = folder / REPORT_FILE
    with replacing(target) as draft, draft.open("w", encoding="utf-8", errors="replace") as page:
        page.write(page_head(f"deepGPS: {' and '.join(side.name for side in sides)}"))
        page.write(f'<p class="facts">{len(rows):,} proteins, drawn into {text(nuclei[0])}</p>\n')
        page.write(_notes(sums, sides, nuclei))
        page.write(_models(sides) + _sums(sums))
        page.write(_differences(rows, sides, bounds))
        shown = f"the {MAX_CARDS} most different" if len(rows) > MAX_CARDS else "most different first"
        page.write(f'<section id="details">\n<h2>In detail, {shown}</h2>\n')
        for number, row in enumerate(rows[:MAX_CARDS]):
            page.write(_card(number, row, sides, folder / IMAGES))
        page.write("</section>\n</main>\n</body>\n</html>\n")
    return target


def _notes(sums: Sequence[Totals], sides: Sequence[Side], nuclei: Sequence[str]) -> str:
    said = [verdict(each, sides[0].name) for each in sums] + [frame_note(sides[0], side) for side in sides]
    notes = "".join(f'<p class="note"><strong>{text(each)}.</strong></p>\n' for each in said if each)
    control = " and ".join(nuclei[-2:])
    return (
        f"{notes}<p>Every model drew every protein into the same nucleus. The intranuclear fraction is the "
        "share of the drawn protein that lies inside the nuclei; the <em>control</em> is how far it moves "
        f"within one model from one default nucleus to another ({text(control)}). A difference counts as "
        "beyond the control where it is larger than that of the protein itself and than "
        f"{CONTROL_SHARE:.0%} of all controls.</p>\n"
        "<p>Labels do not depend on the nucleus, so the control says nothing of them. Models differ also by "
        "the tags or antibodies, microscopes, annotations and chance of their training; to see how much that "
        "is, compare two models of the <em>same</em> cells in the same way. Images in the same nucleus are "
        "alike for its sake alone: a high Pearson r is no sign of the same place.</p>\n"
    )


def _models(sides: Sequence[Side]) -> str:
    rows = [
        [
            f'<a href="models/{text(side.stem)}/report.html">{text(side.name)}</a>',
            text(side.version),
            text(side.cell_line),
            text(_classes(side)),
            f"{side.size_px} px of {side.pixel_size_um:.3g} µm",
        ]
        for side in sides
    ]
    return _table(("Model", "Version", "Cells", "Names", "Crops"), rows)


def _classes(side: Side) -> str:
    if not side.classes:
        return "nothing: it draws only"
    return f"{'several' if side.multi_label else 'one'} of {len(side.classes)} classes"


def _sums(sums: Sequence[Totals]) -> str:
    head = (
        *("Beside the first", "Labels agree", "Probability differs by", "Intranuclear fraction differs by"),
        *("The control", "Beyond the control"),
    )
    rows = [
        [
            text(each.name),
            f"{each.agreeing:,} of {each.decided:,}" if each.decided else "not comparable",
            _number(each.probability),
            _number(each.fraction),
            f"{_number(each.control)}; bound {_number(each.bound)}" if each.control is not None else "",
            f"{each.beyond:,} of {each.measured:,}",
        ]
        for each in sums
    ]
    return f"<h2>All proteins together</h2>\n{_table(head, rows)}<p>Differences are means, unsigned.</p>\n"


def _differences(rows: Sequence[Row], sides: Sequence[Side], bounds: Sequence[float | None]) -> str:
    listed = rows[:MAX_ROWS]
    head = ("Protein", *(side.name for side in sides), "Agree", "Largest difference", "Beyond the control")
    lines = []
    for number, row in enumerate(listed):
        name = text(row.records[0]["protein_id"])
        beyond = [row.beyond(other, bound) for other, bound in enumerate(bounds, 1)]
        lines.append(
            [
                f'<a href="#p{number}">{name}</a>' if number < MAX_CARDS else name,
                *(_answer(row, number) for number in range(len(sides))),
                yes_no(row.agree(sides)),
                _number(row.largest()),
                ", ".join(yes_no(each) for each in beyond),
            ]
        )
    opened = " open" if len(rows) < FOLDED_FROM else ""
    return (
        f"<details{opened}>\n<summary>Table of {len(listed):,} of {len(rows):,} proteins</summary>\n"
        f"{_table(head, lines)}</details>\n"
    )


def _answer(row: Row, number: int) -> str:
    record = row.records[number]
    places = text(", ".join(record["localizations"]) or "no label")
    fraction = _number(record["intranuclear_fraction"])
    return f"{places}<br>{fraction} in nuclei" if fraction else places


def _card(number: int, row: Row, sides: Sequence[Side], images: Path) -> str:
    name = row.records[0]["protein_id"]
    alt = f"Nucleus and what each model draws into it: {name}"
    listed = "".join(f"<li>{text(warning)}</li>" for warning in warnings(row))
    listed = f'<ul class="warnings">{listed}</ul>\n' if listed else ""
    return (
        f'<article id="p{number}">\n<h3>{text(name)}</h3>\n{embedded(images / f"{row.image}.png", alt)}'
        f"{_values(row, sides)}{listed}</article>\n"
    )


def _values(row: Row, sides: Sequence[Side]) -> str:
    others = range(1, len(sides))
    head = ("", *(side.name for side in sides), *(f"{side.name}, difference" for side in sides[1:]))
    differences = [row.probability_differences(other) for other in others]
    chances = [record["probabilities"] for record in row.records]
    lines = [
        [
            text(slug),
            *(_number(each.get(slug)) for each in chances),
            *(_signed(each.get(slug)) for each in differences),
        ]
        for slug in shared_classes(sides)
        if max(each.get(slug, 0.0) for each in chances) >= _SHOWN_FROM
    ]
    fractions = [_number(record["intranuclear_fraction"]) for record in row.records]
    moved = [_signed(row.fraction_difference(other)) for other in others]
    lines += [
        ["intranuclear fraction", *fractions, *moved],
        ["its control", *(_number(each) for each in row.controls), *("" for _ in others)],
        ["Pearson r of the images", "", *(_number(each) for each in row.likeness), *("" for _ in others)],
    ]
    return _table(head, lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{text(each)}</th>" for each in head)
    lines = "".join(f"<tr>{''.join(f'<td>{value}</td>' for value in row)}</tr>\n" for row in rows)
    body = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}</tbody>"
    return f'<div class="wide"><table>\n{body}\n</table></div>\n'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
