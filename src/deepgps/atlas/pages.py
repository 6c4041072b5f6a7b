"""The site of an atlas: protein pages, lists, findings, and the index that the search loads.

Pages are read without JavaScript. Scripts are files of the site, so that a strict content security policy
holds; the index is scripts, too, because a page opened from a folder may not fetch data.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.atlas import findings
from deepgps.atlas.entries import AGREEMENTS, Entry
from deepgps.atlas.store import AtlasStore, StoredFile, key_of
from deepgps.explain.explanation import Explanation
from deepgps.explain.signals import SIGNALS, Signal
from deepgps.files import atomic_path, write_csv
from deepgps.images.cell import Cell
from deepgps.localization import display_name
from deepgps.prediction import Predictor
from deepgps.proteins.names import is_accession
from deepgps.proteins.protein import Protein
from deepgps.reporting.pages import environment, source_link
from deepgps.reporting.tracks import explanation_picture

PACKAGE = Path(__file__).parent
SHARD = 500
"""Proteins in a file of the index."""
NAMES_PER_PAGE = 500
LISTED = 500
"""Rows of a page of findings; the tables hold all."""
SHOWN_FROM = 0.01
"""Probability from which a protein's page shows a class; its JSON and the tables hold all."""
_PAGES_AT_ONCE = 200
_MAP_SCALE = 9999


def write_site(
    site: Path,
    entries: Sequence[Entry],
    store: AtlasStore,
    predictor: Predictor,
    *,
    cells: Mapping[str, Cell],
    manifest: Mapping[str, Any],
    on_page: Callable[[str, int], None],
) -> int:
    """Write all files of the site but its images and the tables of all proteins.

    Parameters
    ----------
    site
        The folder.
    entries
        All proteins, in the order of the input.
    store
        Their answers; it notes the pages that are written.
    predictor
        The model.
    cells
        The cells that were drawn into, by the name that their images have.
    manifest
        What the atlas was made from.
    on_page
        Called with the id of each protein whose page is there, and the number of all.

    Returns
    -------
    int
        Protein pages that were written; the others were up to date.
    """
    _write_assets(site, cells)
    _write_index(site, entries, predictor.classes, cells)
    _write_findings(site, entries, predictor, manifest)
    _write_names(site, entries, manifest)
    _write(site / "index.html", "index.html", manifest, count=len(entries), nuclei=list(cells))
    tables = [(path.name, path.stat().st_size) for path in sorted((site / "tables").iterdir())]
    about = {
        "tables": tables,
        "nuclei": list(cells),
        "training_data": predictor.bundle.metadata.training_data,
    }
    _write(site / "about.html", "about.html", manifest, metadata=predictor.bundle.metadata, **about)
    return _write_proteins(site, entries, store, predictor, cells, manifest, on_page)


def _render(template: str, manifest: Mapping[str, Any], root: str, **context: Any) -> str:
    page = environment(PACKAGE / "templates").get_template(template)
    return page.render(manifest=manifest, root=root, page=template.removesuffix(".html"), **context)


def _write(path: Path, template: str, manifest: Mapping[str, Any], **context: Any) -> None:
    _write_text(path, _render(template, manifest, "", **context))


def _write_text(path: Path, text: str) -> None:
    # A letter that UTF-8 cannot hold, half of a pair, may stand in an id.
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="replace")


def _write_assets(site: Path, cells: Mapping[str, Cell]) -> None:
    folder = site / "assets"
    folder.mkdir(exist_ok=True)
    for file in sorted((PACKAGE / "static").iterdir()):
        with atomic_path(folder / file.name) as draft:
            draft.write_bytes(file.read_bytes())
    from deepgps.results.labelled_images import grey_image, stretch

    for name, cell in cells.items():
        with atomic_path(folder / f"nucleus-{name}.webp") as draft:
            grey_image(stretch(cell.nucleus)).save(draft, "WEBP", quality=80)


# --- the index


def _write_index(
    site: Path, entries: Sequence[Entry], classes: Sequence[str], cells: Mapping[str, Cell]
) -> None:
    folder = site / "index"
    folder.mkdir(exist_ok=True)
    order = sorted(
        range(len(entries)), key=lambda place: (entries[place].name.upper(), entries[place].protein_id)
    )
    places = findings.map_positions(entries)
    words = {
        word: number for number, word in enumerate(dict.fromkeys(w for each in entries for w in each.words))
    }
    kinds = [kind for kind in SIGNALS if any(kind in each.signals for each in entries)]
    slugs = [*classes, "unclear"]
    shards = -(-len(entries) // SHARD)
    about = {
        "count": len(entries),
        "shards": shards,
        "classes": [display_name(slug) for slug in slugs],
        "agreements": AGREEMENTS,
        "signals": [[kind, SIGNALS[kind]] for kind in kinds],
        "words": list(words),
        "image": next(iter(cells), None),
    }
    _write_text(folder / "about.js", f"deepgpsAtlas.start({_json(about)});\n")
    for number in range(shards):
        rows = [
            _index_row(entries[place], places[place].tolist(), slugs, words, kinds)
            for place in order[number * SHARD : (number + 1) * SHARD]
        ]
        _write_text(folder / f"{number}.js", f"deepgpsAtlas.add({number}, {_json(rows)});\n")
    number = shards
    while (path := folder / f"{number}.js").exists():
        path.unlink()
        number += 1


def _index_row(
    entry: Entry,
    place: Sequence[float],
    slugs: Sequence[str],
    words: Mapping[str, int],
    kinds: Sequence[str],
) -> list[Any]:
    """Return what the search knows of a protein; `assets/atlas.js` reads it in this order."""
    return [
        entry.name,
        entry.protein_id if entry.protein_id != entry.name else "",
        entry.accession if entry.accession and entry.accession != entry.protein_id else "",
        " ".join(entry.synonyms),
        entry.stem.removeprefix("p/"),
        entry.length,
        *([slugs.index(slug) for slug in own] for own in (entry.overall, entry.known, entry.predicted)),
        None if entry.confidence is None else round(100 * entry.confidence),
        None if entry.predicted_confidence is None else round(100 * entry.predicted_confidence),
        AGREEMENTS.index(entry.agreement),
        int(entry.sources_differ),
        [kinds.index(kind) for kind in entry.signals],
        [words[word] for word in entry.words],
        *(round(_MAP_SCALE * value) for value in place),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


# --- lists and findings


def _write_names(site: Path, entries: Sequence[Entry], manifest: Mapping[str, Any]) -> None:
    order = sorted(entries, key=lambda each: (each.name.upper(), each.protein_id))
    pages = [order[start : start + NAMES_PER_PAGE] for start in range(0, len(order), NAMES_PER_PAGE)]
    spans = [(f"names-{number}.html", page[0].name, page[-1].name) for number, page in enumerate(pages, 1)]
    _write(site / "names.html", "names.html", manifest, spans=spans, entries=(), span=None)
    for span, page in zip(spans, pages, strict=True):
        _write(site / span[0], "names.html", manifest, spans=(), entries=page, span=span)
    number = len(pages) + 1
    while (path := site / f"names-{number}.html").exists():
        path.unlink()
        number += 1


def _write_findings(
    site: Path, entries: Sequence[Entry], predictor: Predictor, manifest: Mapping[str, Any]
) -> None:
    rates = {own: findings.hit_rates(entries, predictor.classes, has_relative=own) for own in (True, False)}
    found: dict[str, Sequence[Any]] = {
        "disagreements": findings.disagreements(entries, predictor.classes),
        "sources": findings.source_conflicts(entries, predictor.overall),
        "candidates": [
            (each, findings.rate_of(each.predicted_confidence or 0, rates[each.has_relative]))
            for each in findings.candidates(entries)
        ],
        "relatives": findings.differing_pairs(entries),
    }
    for name, rows in found.items():
        _write(
            site / f"{name}.html", f"{name}.html", manifest, rows=rows[:LISTED], total=len(rows), rates=rates
        )
        header, lines = _FINDING_TABLES[name]
        write_csv(site / "tables" / f"{name}.csv", header, map(lines, rows))


def _disagreement_line(row: findings.Disagreement) -> list[object]:
    each = row.entry
    sources = ", ".join(said.source for said in each.said)
    named = ("|".join(each.predicted), "|".join(each.known), sources)
    return [
        each.protein_id,
        each.gene_symbol or "",
        *named,
        _rounded(each.predicted_confidence),
        _rounded(row.score),
    ]


def _conflict_line(row: findings.SourceConflict) -> list[object]:
    sides = [
        part
        for side in (row.one, row.other)
        for part in (side.source, side.reliability, "|".join(side.classes))
    ]
    predicted = "|".join(row.entry.predicted)
    return [
        row.entry.protein_id,
        row.entry.gene_symbol or "",
        *sides,
        predicted,
        row.backed,
        _rounded(row.score),
    ]


def _candidate_line(row: tuple[Entry, findings.HitRate]) -> list[object]:
    each, rate = row
    measured = (_rounded(rate.rate), _rounded(rate.low), _rounded(rate.high), rate.count)
    named = ("|".join(each.predicted), _rounded(each.predicted_confidence))
    return [each.protein_id, each.gene_symbol or "", *named, *measured]


def _pair_line(row: findings.DifferingPair) -> list[object]:
    ids = (row.kind, row.one.protein_id, row.other.protein_id)
    named = ("|".join(row.one.overall), "|".join(row.other.overall))
    return [*ids, *named, _rounded(row.similarity), _rounded(row.distance)]


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


_FINDING_TABLES: Mapping[str, tuple[Sequence[str], Callable[[Any], list[object]]]] = {
    "disagreements": (
        ("Protein_ID", "Gene", "Predicted", "Known", "Sources", "Predicted_Confidence", "Score"),
        _disagreement_line,
    ),
    "sources": (
        (
            *(
                "Protein_ID",
                "Gene",
                "Source_1",
                "Reliability_1",
                "Says_1",
                "Source_2",
                "Reliability_2",
                "Says_2",
            ),
            *("Predicted", "Prediction_Agrees_With", "Score"),
        ),
        _conflict_line,
    ),
    "candidates": (
        ("Protein_ID", "Gene", "Predicted", "Predicted_Confidence", "Hit_Rate", "Low", "High", "Measured_On"),
        _candidate_line,
    ),
    "relatives": (
        ("Kind", "Protein_ID_1", "Protein_ID_2", "Overall_1", "Overall_2", "Similarity", "Distance"),
        _pair_line,
    ),
}


# --- the pages of proteins


def _write_proteins(
    site: Path,
    entries: Sequence[Entry],
    store: AtlasStore,
    predictor: Predictor,
    cells: Mapping[str, Cell],
    manifest: Mapping[str, Any],
    on_page: Callable[[str, int], None],
) -> int:
    by_accession = {each.accession: each for each in reversed(entries) if each.accession}
    files, templates, written = store.files(), _template_hash(), list[StoredFile]()
    shown = {key: manifest[key] for key in ("title", "deepgps", "model", "mean")}
    count = 0
    for entry in entries:
        images = [(name, files[f"{entry.stem}.{name}.webp"]) for name in cells]
        near = {
            accession: by_accession[accession].stem
            for accession, _ in entry.relatives
            if accession in by_accession
        }
        drawn = [[name, image.key, image.fraction] for name, image in images]
        key = key_of(templates, json.dumps(shown), entry.key, entry.stem, drawn, sorted(near.items()))
        path = f"{entry.stem}.html"
        found = files.get(path)
        if found is None or found.key != key or not (site / path).exists():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            content = store.answer(entry.key)
            _write_text(site / path, _protein_page(entry, content, drawn, near, predictor, shown))
            document = {
                **content,
                "images": [{"nucleus": name, "intranuclear_fraction": f} for name, _, f in drawn],
            }
            _write_text(site / f"{entry.stem}.json", _json(document) + "\n")
            written += [StoredFile(path, key), StoredFile(f"{entry.stem}.json", key)]
            count += 1
        if len(written) >= _PAGES_AT_ONCE:
            store.add(files=written)
            written.clear()
        on_page(entry.protein_id, len(entries))
    store.add(files=written)
    return count


def _template_hash() -> str:
    """Hash the templates that a protein's page is made of."""
    digest = hashlib.sha256()
    for name in ("base.html", "macros.html", "protein.html"):
        digest.update((PACKAGE / "templates" / name).read_bytes())
    return digest.hexdigest()


def _protein_page(
    entry: Entry,
    content: Mapping[str, Any],
    images: Sequence[Sequence[Any]],
    near: Mapping[str, str],
    predictor: Predictor,
    manifest: Mapping[str, Any],
) -> str:
    record, metadata = content["record"], predictor.bundle.metadata
    known = record["known"]
    explanation = _explanation(content)
    return _render(
        "protein.html",
        manifest,
        "../../",
        entry=entry,
        record=record,
        shown_from=SHOWN_FROM,
        file=entry.stem.rpartition("/")[2],
        images=images,
        synonyms=content["synonyms"],
        importance=content["importance"],
        signals=explanation.signals,
        track=explanation_picture(explanation).svg(),
        thresholds=dict(zip(metadata.classes, metadata.thresholds, strict=True))
        if metadata.multi_label
        else {},
        links={each["source"]: source_link(each["source"], known) for each in known["statements"]}
        if known
        else {},
        near=near,
        uniprot=entry.accession if entry.accession and is_accession(entry.accession) else None,
    )


def _explanation(content: Mapping[str, Any]) -> Explanation:
    """Return the stored signals and importance as an explanation, to draw them as a track."""
    record, measured = content["record"], content["importance"]
    length = record["length"]
    values = np.array(measured["values"] if measured else [], np.float32).reshape(-1, length)
    return Explanation(
        protein=Protein(record["protein_id"], content["sequence"]),
        localizations=(measured["localization"],) if measured else (),
        probabilities=record["predicted"],
        importance=values,
        floor=np.array([measured["floor"]] if measured else [], np.float32),
        width=0,
        signals=tuple(Signal(*each) for each in content["signals"]),
        evidence=(),
        shared=np.zeros((0, length), np.bool_),
        model=record["model"],
        version=record["version"],
    )
