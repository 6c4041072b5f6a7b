"""Explanations and comparisons of variants on disk: tables, pictures and a report."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Bytes, Floats
from deepgps.errors import InputError
from deepgps.explain.changes import Variant, parse_variant
from deepgps.explain.explanation import Explanation
from deepgps.explain.variants import VariantComparison, VariantEffect, summary
from deepgps.files import UniqueNames, atomic_path, safe_file_name
from deepgps.images.cell import Cell
from deepgps.images.write import png
from deepgps.prediction import Predictor
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.protein import Protein, Rejection
from deepgps.reporting.images import image_uri
from deepgps.reporting.pages import write_page
from deepgps.reporting.tracks import explanation_picture, scan_picture
from deepgps.tables import Table, TableRow, read_table, text_lines

SIGNAL_COLUMNS = ("protein_id", "signal", "start", "end", "score")
IMPORTANCE_COLUMNS = ("protein_id", "position", "residue", "localization", "importance", "noise_floor")
VARIANT_COLUMNS = (
    *("localizations_wild_type", "localizations", "largest_change_class", "largest_change", "noise_floor"),
    *("signals_lost", "signals_gained", "image_change", "image_noise_floor", "moves", "problem"),
)
MAX_CARDS = 50
MAX_RANKED = 200
LIMITS = (
    "The score 'moves' is a logistic regression of BLOSUM62, disorder and strand propensity. On 489 variants "
    "of 64 genes (VarChAMP), in folds by gene, its AUROC for variants that change the cells' picture is "
    "0.63 (95 % interval 0.54 to 0.73), 0.04 above minus BLOSUM62 (-0.04 to 0.16): it cannot be said to be "
    "better. The largest change of a predicted probability has 0.56 (0.45 to 0.69). Trust a change of a "
    "signal more than a change of a probability, and neither without an experiment."
)
"""What comparisons of variants can and cannot tell."""


@dataclass(frozen=True, slots=True)
class ExplanationSummary:
    """What a call wrote.

    Attributes
    ----------
    done, rejected
        Proteins or variants with results, and records that could not be used.
    files
        What was written, the best to open first.
    lines
        A line to print for each of the first results.
    """

    done: int
    rejected: int
    files: tuple[Path, ...]
    lines: tuple[tuple[str, ...], ...]


def explain_to_folder(
    predictor: Predictor,
    proteins: Iterable[Protein | Rejection],
    out: Path,
    *,
    on_protein: Callable[[str], None] | None = None,
    on_rejection: Callable[[Rejection], None] | None = None,
) -> ExplanationSummary:
    """Explain proteins and write ``signals.csv``, ``importance.csv``, ``pictures/`` and ``report.html``.

    Parameters
    ----------
    predictor
        The model.
    proteins
        Proteins, and records that could not be read.
    out
        The folder; files of an earlier call are replaced.
    on_protein, on_rejection
        Called with the id of each explained protein, and with each rejection.

    Returns
    -------
    ExplanationSummary
        Counts and files.

    Raises
    ------
    OSError
        If the disk is full or not writable.
    """
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    signals, values = out / "signals.csv", out / "importance.csv"
    names, lines, cards, rejections = UniqueNames(), list[tuple[str, ...]](), list[dict[str, Any]](), 0
    done = 0
    with (
        _csv_rows(signals, SIGNAL_COLUMNS) as write_signal,
        _csv_rows(values, IMPORTANCE_COLUMNS) as write_value,
        _csv_rows(out / "rejected.csv", ("id", "source", "reason")) as write_rejection,
    ):
        for each in proteins:
            explanation = _explained(predictor, each)
            if isinstance(explanation, Rejection):
                rejections += 1
                write_rejection((explanation.id, explanation.source, explanation.reason))
                if on_rejection:
                    on_rejection(explanation)
                continue
            done += 1
            for row in _signal_rows(explanation):
                write_signal(row)
            for row in _importance_rows(explanation):
                write_value(row)
            picture = explanation_picture(explanation)
            file = names.add(safe_file_name(explanation.protein.id))
            (pictures / f"{file}.svg").write_text(picture.svg(), encoding="utf-8")
            picture.png().save(pictures / f"{file}.png")
            if len(cards) < MAX_CARDS:
                found = ", ".join(map(str, explanation.signals))
                lines.append((explanation.protein.id, ", ".join(explanation.localizations), found))
                cards.append({"explanation": explanation, "picture": picture.svg()})
            if on_protein:
                on_protein(explanation.protein.id)
    metadata = predictor.bundle.metadata
    report = write_page(
        out / "report.html",
        "explanation.html",
        title="deepGPS: why there",
        facts=[
            f"Model {metadata.name} {metadata.version}",
            f"{done:,} proteins explained, {rejections:,} rejected",
        ],
        cards=cards,
        more=max(0, done - MAX_CARDS),
    )
    return ExplanationSummary(done, rejections, (report, signals, values, pictures), tuple(lines))


def _explained(predictor: Predictor, record: Protein | Rejection) -> Explanation | Rejection:
    if isinstance(record, Rejection):
        return record
    try:
        return predictor.explain(record)
    except InputError as error:
        return Rejection(record.id, "", str(error))


def _signal_rows(explanation: Explanation) -> Iterator[tuple[object, ...]]:
    for each in explanation.signals:
        yield explanation.protein.id, each.kind, each.start, each.end, f"{each.score:.3f}"


def _importance_rows(explanation: Explanation) -> Iterator[tuple[object, ...]]:
    for slug, row, floor in zip(
        explanation.localizations, explanation.importance, explanation.floor, strict=True
    ):
        for place, (residue, value) in enumerate(zip(explanation.protein.sequence, row, strict=True)):
            yield explanation.protein.id, place + 1, residue, slug, f"{value:.4f}", f"{floor:.4f}"


def variants_to_folder(
    predictor: Predictor,
    protein: Protein,
    variants: Sequence[Variant],
    out: Path,
    *,
    cell: Cell | None = None,
    images: bool = True,
) -> ExplanationSummary:
    """Compare variants of one protein and write ``variants.csv``, ``images/``, and ``report.html``.

    A comparison of substitutions alone, such as a scan, gets a heat map ``scan.svg`` and ``scan.png``.

    Parameters
    ----------
    predictor
        The model.
    protein
        The unchanged protein.
    variants
        Its variants.
    out
        The folder; files of an earlier call are replaced.
    cell
        The cell to draw into; a default cell if None.
    images
        Whether to draw images.

    Returns
    -------
    ExplanationSummary
        Counts and files.

    Raises
    ------
    InputError
        If the variants cannot be compared, see `Predictor.variants`.
    """
    compared = predictor.variants(protein, variants, cell, images=images)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "variants.csv"
    write_variants(table, compared)
    files = [table]
    scan = None
    if len(variants) > 1 and all(each.substitution for each in variants):
        picture = scan_picture(compared)
        scan = picture.svg()
        (out / "scan.svg").write_text(scan, encoding="utf-8")
        picture.png().save(out / "scan.png")
        files.append(out / "scan.svg")
    pixels = _write_images(compared, out / "images") if images else {}
    report = write_page(
        out / "report.html",
        "variants.html",
        title=f"deepGPS: variants of {protein.id}",
        facts=_facts(predictor, f"{len(variants):,} variants"),
        limits=LIMITS,
        scan=scan,
        original=pixels.get(""),
        compared=compared,
        rows=[_report_row(compared, each, pixels) for each in compared.ranked()[:MAX_RANKED]],
        more=max(0, len(variants) - MAX_RANKED),
    )
    lines = [
        (each.variant.name, "" if each.moves is None else f"{each.moves:.2f}", summary(compared, each))
        for each in compared.ranked()
    ]
    return ExplanationSummary(len(variants), 0, (report, *files), tuple(lines))


def write_variants(path: Path, compared: VariantComparison) -> None:
    """Write ``variants.csv`` of one protein, the strongest change first.

    Parameters
    ----------
    path
        The file to write.
    compared
        The comparison.
    """
    columns = [*VARIANT_COLUMNS, *_class_columns(compared.classes)]
    with _csv_rows(path, ("protein_id", "change", *columns)) as write:
        for effect in compared.ranked():
            row = _effect_row(compared, effect)
            write((compared.name, effect.variant.name, *_cells(row, columns)))


def variant_table_to_folder(
    predictor: Predictor, table: Path, out: Path, proteins: Iterable[Protein] = ()
) -> ExplanationSummary:
    """Compare the substitutions of a table, without images, and write ``variants.csv`` and ``report.html``.

    Parameters
    ----------
    predictor
        The model.
    table
        CSV or TSV with a row for each substitution: ``wild_type``, ``position`` and ``mutant`` (or ``ref``,
        ``pos`` and ``alt``), or a ``change`` as of `parse_variant`; and ``sequence``, or ``protein_id`` (or
        ``chrom``) of one of the proteins. Other columns are kept.
    out
        The folder; files of an earlier call are replaced.
    proteins
        Proteins that rows name.

    Returns
    -------
    ExplanationSummary
        Counts and files; a row that cannot be used keeps its place, with its problem.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    read, rows = _read_variants(table)
    known = {each.id: each.sequence for each in proteins}
    results: list[Mapping[str, str]] = [{} for _ in rows]
    by_sequence: dict[str, list[tuple[int, Variant]]] = {}
    for number, row in enumerate(rows):
        try:
            sequence, variant = _table_variant(row, known)
        except InputError as error:
            results[number] = {"problem": str(error)}
            continue
        by_sequence.setdefault(sequence, []).append((number, variant))
    ranked: list[tuple[VariantComparison, VariantEffect, int]] = []
    for sequence, numbered in by_sequence.items():
        name = _label(rows[numbered[0][0]].cells)
        compared = predictor.variants(
            Protein(name, sequence), [variant for _, variant in numbered], images=False
        )
        for (number, _), effect in zip(numbered, compared.effects, strict=True):
            results[number] = _effect_row(compared, effect)
            ranked.append((compared, effect, number))
    out.mkdir(parents=True, exist_ok=True)
    computed = (*VARIANT_COLUMNS, *_class_columns(predictor.classes))
    added = [each for each in computed if each not in read.columns]
    with _csv_rows(out / "variants.csv", (*read.header, *added)) as write:
        for row, result in zip(rows, results, strict=True):
            write((*(row.cells.get(name, "") for name in read.columns), *_cells(result, added)))
    ranked.sort(key=lambda each: -(each[1].moves or 0))
    rejected = sum("problem" in each and bool(each["problem"]) for each in results)
    report = write_page(
        out / "report.html",
        "variants.html",
        title=f"deepGPS: variants of {table.name}",
        facts=_facts(predictor, f"{len(ranked):,} variants, {rejected:,} that could not be used"),
        limits=LIMITS,
        scan=None,
        original=None,
        compared=None,
        rows=[_report_row(compared, effect, {}) for compared, effect, _ in ranked[:MAX_RANKED]],
        more=max(0, len(ranked) - MAX_RANKED),
    )
    lines = [
        (f"{compared.name} {effect.variant.name}", f"{effect.moves or 0:.2f}", summary(compared, effect))
        for compared, effect, _ in ranked
    ]
    return ExplanationSummary(len(ranked), rejected, (report, out / "variants.csv"), tuple(lines))


_ALIASES = {"ref": "wild_type", "pos": "position", "alt": "mutant", "chrom": "protein_id"}


def _read_variants(path: Path) -> tuple[Table, list[TableRow]]:
    """Read a table of variants; lines that begin with ``##`` are left out, as in VCF."""
    lines = (line.removeprefix("#") for line in text_lines(str(path)) if not line.startswith("##"))
    table = read_table(lines, name=str(path), names=_ALIASES)
    if not ("change" in table.columns or {"wild_type", "position", "mutant"} <= set(table.columns)):
        raise InputError(
            f"Table '{path}' has the columns {', '.join(table.header)}; it needs wild_type, position and "
            "mutant, or change."
        )
    return table, list(table.rows)


def _table_variant(row: TableRow, known: Mapping[str, str]) -> tuple[str, Variant]:
    if row.problem:
        raise InputError(row.problem)
    values = row.cells
    sequence = clean_sequence(values.get("sequence", "")) or known.get(values.get("protein_id", ""), "")
    if not sequence:
        raise InputError("The row has no sequence, and names no protein that was given.")
    if problem := check_sequence(_label(values), sequence):
        raise InputError(problem)
    text = values.get("change") or f"{values['wild_type']}{values['position']}{values['mutant']}"
    return sequence, parse_variant(text, sequence)


def _label(values: Mapping[str, str]) -> str:
    """Return a name of the protein of a row."""
    names = (values.get(name) for name in ("protein_id", "gene_symbol", "gene", "accession", "id"))
    return next(filter(None, names), "protein")


def _class_columns(classes: Sequence[str]) -> list[str]:
    return [f"change_{slug}" for slug in classes]


def _effect_row(compared: VariantComparison, effect: VariantEffect) -> dict[str, str]:
    row = {
        "localizations_wild_type": "|".join(compared.localizations),
        "localizations": "|".join(effect.localizations),
        "signals_lost": "|".join(map(str, effect.lost)),
        "signals_gained": "|".join(map(str, effect.gained)),
        "image_change": _number(effect.image_change),
        "image_noise_floor": _number(compared.image_floor),
        "moves": _number(effect.moves),
    }
    if compared.classes:
        row |= {
            "largest_change_class": compared.classes[effect.largest],
            "largest_change": _number(effect.change[effect.largest]),
            "noise_floor": _number(compared.floor[effect.largest]),
        }
    return row | {
        name: _number(value)
        for name, value in zip(_class_columns(compared.classes), effect.change, strict=True)
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{float(value):.4f}"


def _cells(row: Mapping[str, str], columns: Iterable[str]) -> list[str]:
    return [row.get(name, "") for name in columns]


def _facts(predictor: Predictor, count: str) -> list[str]:
    metadata = predictor.bundle.metadata
    return [f"Model {metadata.name} {metadata.version}", count]


def _report_row(
    compared: VariantComparison, effect: VariantEffect, images: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "protein": compared.name,
        "change": effect.variant.name,
        "moves": effect.moves,
        "text": summary(compared, effect),
        "largest": compared.classes[effect.largest] if compared.classes else "",
        "size": float(effect.change[effect.largest]) if compared.classes else None,
        "floor": float(compared.floor[effect.largest]) if compared.classes else None,
        "image_change": effect.image_change,
        "image": images.get(effect.variant.name),
    }


def _write_images(compared: VariantComparison, folder: Path) -> dict[str, str]:
    """Write the images, and return them as data URIs by change; that of the unchanged protein as ``''``."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    names, uris = UniqueNames(), {}
    images = [("", compared.image), *((each.variant.name, each.image) for each in compared.effects)]
    for name, image in images:
        if image is None:
            continue
        pixels = _pixels(image)
        (folder / f"{names.add(safe_file_name(name or 'unchanged'))}.png").write_bytes(png(pixels))
        uris[name] = image_uri(Image.fromarray(pixels[..., 0]))
    return uris


def _pixels(image: Floats) -> Bytes:
    grey = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@contextmanager
def _csv_rows(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[object]], object]]:
    """Return a function that writes a row of a CSV file, which is there once it is whole."""
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(header)
        yield write
