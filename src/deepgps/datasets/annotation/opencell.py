"""Annotate proteins from OpenCell by the grade rule of the paper; add sequences to annotated proteins."""

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
    """Annotate the proteins of OpenCell's table by the grade rule of the paper.

    Parameters
    ----------
    table
        CSV with ``target_name``, ``ensg_id`` and ``annotations_grade_3``, ``_2``, ``_1`` (categories joined
        by ``;``); ``uniprot_id``, ``sequence`` and ``cluster`` are used if present.
    library
        Library metadata, with ``ensg_id`` and ``uniprot_id``, for accessions that the table lacks.

    Returns
    -------
    AnnotationResult
        The annotated proteins, and the rows that could not be used.

    Raises
    ------
    InputError
        If a file cannot be read or lacks one of the columns.
    """
    accessions = _library_accessions(library) if library else {}
    rows = read_rows(table, ("target_name", "ensg_id", *_GRADES))
    return split_problems(
        _annotate(row, number, table.name, accessions) for number, row in enumerate(rows, 1)
    )


def _library_accessions(path: Path) -> Mapping[str, str]:
    return {row["ensg_id"]: row["uniprot_id"] for row in read_rows(path, ("ensg_id", "uniprot_id"))}


def _annotate(
    row: Mapping[str, str], number: int, source: str, accessions: Mapping[str, str]
) -> AnnotatedProtein | AnnotationProblem:
    gene = row["ensg_id"]
    if not gene:
        return AnnotationProblem(
            f"row {number}", source, True, f"Row {number} has no 'ensg_id'; add the gene id."
        )
    grades = [split_cell(row[column]) for column in _GRADES]
    major = major_localizations(grades[0], grades[1])
    if unknown := [name for name in major if name not in OPENCELL_CATEGORIES]:
        return unknown_localization(gene, source, unknown[0])
    if not major:
        return AnnotationProblem(
            gene, source, True, f"Gene '{gene}' has no annotation of grade 3 or 2; it cannot be labelled."
        )
    localizations = vocabulary_order(major)
    return AnnotatedProtein(
        protein_id=gene,
        gene_symbol=row["target_name"] or None,
        accession=row.get("uniprot_id") or accessions.get(gene) or None,
        localizations=localizations,
        single_localized=len(localizations) == 1,
        single_class=localizations[0] if len(localizations) == 1 else None,
        source="opencell",
        cell_line=OPENCELL_CELL_LINE,
        sequence=row.get("sequence") or None,
        cluster=read_cluster(row),
    )


def add_sequences(annotated: AnnotationResult, files: Sequence[Path] = ()) -> AnnotationResult:
    """Add the sequence of each protein: from its table, or by accession or gene id from the files.

    Parameters
    ----------
    annotated
        Proteins, with or without sequences.
    files
        FASTA, CSV or TSV files of proteins, by UniProt accession or Ensembl gene id.

    Returns
    -------
    AnnotationResult
        The same proteins; one without a usable sequence has None and a problem.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    sequences = {key: protein.sequence for path in files for protein, key in _by_id(path)}
    result = AnnotationResult(problems=list(annotated.problems))
    for protein in annotated.proteins:
        raw = (
            protein.sequence
            or sequences.get(protein.accession or "")
            or sequences.get(protein.protein_id)
            or ""
        )
        sequence = clean_sequence(raw)
        error = check_sequence(protein.protein_id, sequence) if sequence else None
        if error or not sequence:
            reason = error or f"Gene '{protein.protein_id}' has no sequence; give it with --sequences."
            result.problems.append(AnnotationProblem(protein.protein_id, protein.source, False, reason))
        result.proteins.append(replace(protein, sequence=None if error else sequence or None))
    return result


def _by_id(path: Path) -> Iterator[tuple[Protein, str]]:
    for protein in read_protein_file(path):
        if isinstance(protein, Protein):
            yield from ((protein, key) for key in (protein.accession, protein.id) if key)


def drop_longer(annotated: AnnotationResult, max_length: int) -> AnnotationResult:
    """Leave out proteins of more than `max_length` residues, with a problem for each."""
    result = AnnotationResult(problems=list(annotated.problems))
    for protein in annotated.proteins:
        length = len(protein.sequence or "")
        if length <= max_length:
            result.proteins.append(protein)
            continue
        reason = f"Gene '{protein.protein_id}' has {length:,} residues, more than {max_length:,}."
        result.problems.append(AnnotationProblem(protein.protein_id, protein.source, True, reason))
    return result
