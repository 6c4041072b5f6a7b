"""``deepgps data``: annotate, split, records."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from deepgps.datasets.annotation.proteins import AnnotationResult

MAX_PROBLEMS = 5

_Sequences = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())]
_MaxLength = Annotated[int | None, Parameter(validator=Number(gte=1))]


def annotate_opencell_command(
    table: Path,
    *,
    out: Path,
    library: Path | None = None,
    sequences: _Sequences = None,
    max_length: _MaxLength = None,
) -> None:
    """Label OpenCell's proteins by its graded annotations.

    Parameters
    ----------
    table
        OpenCell's table of annotations, CSV, plain or gzip.
    out
        The table of proteins to write, Parquet.
    library
        OpenCell's library metadata, for UniProt accessions; ``library.csv`` beside the table, if it exists.
    sequences
        FASTA, CSV or TSV of the proteins, by accession or Ensembl gene id; ``sequences.fasta`` beside the
        table, if it exists.
    max_length
        Leave out proteins of more residues; the paper's limit is 2700.
    """
    from deepgps.datasets.annotation.opencell import add_sequences, annotate_opencell
    from deepgps.datasets.annotation.report import opencell_report

    libraries = [library] if library else _next_to(table, "library.csv")
    sequences = sequences or _next_to(table, "sequences.fasta")
    found = add_sequences(annotate_opencell(table, *libraries), sequences)
    _write_report(found, out, max_length, [table, *libraries, *sequences], opencell_report(found.proteins))


def annotate_hpa_command(
    tables: list[Path],
    /,
    *,
    out: Path,
    cell_line: str = "U-2 OS",
    sequences: _Sequences = None,
    max_length: _MaxLength = None,
) -> None:
    """Label the Human Protein Atlas's proteins, by cell line where its XMLs are given.

    Parameters
    ----------
    tables
        The gene table (TSV, CSV, gzip or ZIP), per-gene XMLs, and folders of them.
    out
        The table of proteins to write, Parquet.
    cell_line
        The cell line whose labels to take from the XMLs.
    sequences
        FASTA, CSV or TSV of the proteins, by accession or Ensembl gene id; ``sequences.fasta`` beside the
        table, if it exists.
    max_length
        Leave out proteins of more residues; the paper's limit is 2700.
    """
    from deepgps.datasets.annotation.hpa import annotate_hpa
    from deepgps.datasets.annotation.opencell import add_sequences
    from deepgps.datasets.annotation.report import hpa_report

    sequences = sequences or _next_to(tables[0], "sequences.fasta")
    found = add_sequences(annotate_hpa(tables, cell_line), sequences)
    _write_report(found, out, max_length, [*tables, *sequences], hpa_report(found.proteins))
    if any(protein.cell_line is None for protein in found.proteins):
        print("Labels of the gene table are for all cell lines together; the XMLs have labels per cell line.")


def _next_to(table: Path, name: str) -> list[Path]:
    """Find a file in the folder of a table, if it exists."""
    path = table.with_name(name)
    return [path] if path.is_file() else []


def _write_report(
    found: "AnnotationResult",
    out: Path,
    max_length: int | None,
    inputs: Sequence[Path],
    report: Iterable[str],
) -> None:
    """Filter and write proteins; print counts and problems."""
    from deepgps.datasets.annotation.opencell import drop_longer
    from deepgps.datasets.annotation.proteins import write_annotations
    from deepgps.files import hash_files

    kept = drop_longer(found, max_length) if max_length is not None else found
    problems = write_annotations(kept, out, hash_files(inputs))
    print("\n".join(report))
    left_out = [each for each in kept.problems if each.left_out]
    without = sum(protein.sequence is None for protein in kept.proteins)
    for problem in left_out[:MAX_PROBLEMS]:
        print(problem.reason)
    print(
        f"{len(kept.proteins):,} proteins in {out} ({without:,} without a sequence), "
        f"{len(left_out):,} left out; {len(kept.problems):,} problems are listed in {problems}."
    )


def split(
    source: Path,
    *,
    out: Path,
    by: Literal["protein", "cluster"] = "protein",
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
) -> None:
    """Split proteins into train, validation and test.

    Parameters
    ----------
    source
        ``proteins.parquet``, or the folder of a crop store.
    out
        The split to write, CSV of two columns.
    by
        What must not be in two parts: proteins, or whole homology clusters.
    seed
        Seed of the split.
    """
    from deepgps.datasets.splits import read_proteins_to_split, split_proteins, split_report, write_split

    table = read_proteins_to_split(source)
    found = split_proteins(table, by, seed)
    manifest = write_split(found, out, source, {"by": by, "seed": seed})
    print("\n".join(split_report(found, table)))
    if found.left_out:
        print(f"{len(found.left_out):,} proteins without a homology cluster are in no part.")
    if nameless := table["protein_id"].null_count():
        print(f"{nameless:,} rows without a 'protein_id' are in no part.")
    print(f"{len(found.parts):,} proteins in {out}; details are in {manifest}.")


def records_command(manifest: Path, *, out: Path = Path("records.json"), prefix: str | None = None) -> None:
    """Turn a manifest into the records that ``deepgps predict --records`` takes.

    Parameters
    ----------
    manifest
        TSV or CSV with ``prediction_id``, ``nucleus_image`` and ``fasta_file`` or ``aa_sequence_fasta_path``;
        optionally ``microtubules_image``, ``er_image``, ``cell_line`` and ``pixel_size_um``.
    out
        The records file to write.
    prefix
        What to put before relative paths, such as ``gs://bucket/folder``; by default the folder of the
        manifest.
    """
    import json

    from deepgps.files import atomic_path
    from deepgps.results.cell_records import records_of_manifest

    records = records_of_manifest(manifest, prefix)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as draft:
        draft.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(records):,} records\n{out}")
