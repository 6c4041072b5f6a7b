"""Which localizations OpenCell's proteins have, by the paper's grade rule; and sequences for any proteins."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deepgps.datasets.annotation.proteins import (
    AnnotatedProtein,
    AnnotationProblem,
    AnnotationResult,
    read_cluster,
    read_rows,
    split_cell,
    split_problems,
    unknown_localization,
    vocabulary_order,
)
from deepgps.localization import OPENCELL_CATEGORIES, major_localizations
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.protein import Protein
from deepgps.proteins.reading import read_protein_file

OPENCELL_CELL_LINE = "HEK293T"
_GRADES = tuple(f"annotations_grade_{grade}" for grade in (3, 2, 1))


def annotate_opencell(table: Path, library: Path | None = None) -> AnnotationResult:
    """Apply the grade rule to OpenCell's table of annotations.

    Parameters
    ----------
    table
        CSV with ``target_name``, ``ensg_id`` and ``annotations_grade_3``, ``_2``, ``_1`` (categories joined
        by ``;``); ``uniprot_id``, ``sequence`` and ``cluster`` are taken where present.
    library
        The library's metadata, with ``ensg_id`` and ``uniprot_id``, for accessions the table lacks.

    Raises
    ------
    InputError
        If a file cannot be read or lacks one of the columns.
    """
    accessions = _library(library) if library else {}
    rows = read_rows(table, ("target_name", "ensg_id", *_GRADES))
    return split_problems(
        _opencell(row, number, table.name, accessions) for number, row in enumerate(rows, 1)
    )


def _library(path: Path) -> Mapping[str, str]:
    return {row["ensg_id"]: row["uniprot_id"] for row in read_rows(path, ("ensg_id", "uniprot_id"))}


def _opencell(
    row: Mapping[str, str], number: int, source: str, accessions: Mapping[str, str]
) -> AnnotatedProtein | AnnotationProblem:
    gene = row["ensg_id"]
    if not gene:
        return AnnotationProblem(
            f"row {number}", source, True, f"Row {number} has no 'ensg_id'; add the gene's id."
        )
    grades = [split_cell(row[column]) for column in _GRADES]
    major = major_localizations(grades[0], grades[1])
    if unknown := [name for name in major if name not in OPENCELL_CATEGORIES]:
        return unknown_localization(gene, source, unknown[0])
    if not major:
        return AnnotationProblem(
            gene, source, True, f"Gene '{gene}' has no annotation of grade 3 or 2; it cannot be labelled."
        )
    places = vocabulary_order(major)
    return AnnotatedProtein(
        protein_id=gene,
        gene_symbol=row["target_name"] or None,
        accession=row.get("uniprot_id") or accessions.get(gene) or None,
        localizations=places,
        single_localized=len(places) == 1,
        single_class=places[0] if len(places) == 1 else None,
        source="opencell",
        cell_line=OPENCELL_CELL_LINE,
        sequence=row.get("sequence") or None,
        cluster=read_cluster(row),
    )


def add_sequences(annotated: AnnotationResult, files: Sequence[Path] = ()) -> AnnotationResult:
    """Give each protein its sequence: its own, or that of its accession or gene id in the files.

    Parameters
    ----------
    annotated
        Proteins, perhaps with sequences as the table writes them.
    files
        FASTA, CSV or TSV of proteins, by UniProt accession or Ensembl gene id.

    Returns
    -------
    Annotated
        The same proteins; one without a usable sequence keeps None and has a problem that says so.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    known = {key: protein.sequence for path in files for protein, key in _keyed(path)}
    found = AnnotationResult(problems=list(annotated.problems))
    for protein in annotated.proteins:
        raw = protein.sequence or known.get(protein.accession or "") or known.get(protein.protein_id) or ""
        sequence = clean_sequence(raw)
        wrong = check_sequence(protein.protein_id, sequence) if sequence else None
        if wrong or not sequence:
            reason = wrong or f"Gene '{protein.protein_id}' has no sequence; give it with --sequences."
            found.problems.append(AnnotationProblem(protein.protein_id, protein.source, False, reason))
        found.proteins.append(replace(protein, sequence=None if wrong else sequence or None))
    return found


def _keyed(path: Path) -> Iterator[tuple[Protein, str]]:
    for protein in read_protein_file(path):
        if isinstance(protein, Protein):
            yield from ((protein, key) for key in (protein.accession, protein.id) if key)


def drop_longer(annotated: AnnotationResult, max_length: int) -> AnnotationResult:
    """Leave out what has more than ``max_length`` residues, with a problem for each."""
    found = AnnotationResult(problems=list(annotated.problems))
    for protein in annotated.proteins:
        length = len(protein.sequence or "")
        if length <= max_length:
            found.proteins.append(protein)
            continue
        reason = f"Gene '{protein.protein_id}' has {length:,} residues, more than {max_length:,}."
        found.problems.append(AnnotationProblem(protein.protein_id, protein.source, True, reason))
    return found
