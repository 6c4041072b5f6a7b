"""``deepgps explain`` and ``deepgps variants``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.cli.predict import protein_sources
from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.explain.changes import Variant
    from deepgps.proteins.protein import Protein
    from deepgps.results.explanations import ExplanationSummary

MAX_PRINTED = 12


def explain(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    sequence: str | None = None,
    model: str = "deepgps-mini",
    structures: Path | None = None,
    out: Path = Path("deepgps-explanations"),
    offline: Annotated[bool, Parameter(negative=())] = False,
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> int:
    """Explain where proteins were predicted: important residues and sorting signals.

    Parameters
    ----------
    inputs
        FASTA, CSV or TSV files (gzip too), - for stdin, UniProt accessions, human gene symbols, or the word
        ``example`` for the six proteins that come with deepGPS.
    sequence
        A bare sequence.
    model
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    structures
        Folder of AlphaFold structures (PDB, mmCIF), for models that use them; needs the extra ``train``.
    out
        Folder for the results.
    offline
        Never use the network; look up accessions and symbols in the cache only.
    threads
        Threads to compute with; all cores by default.
    """
    from deepgps.cli.console import RecordProgress, count_records, exit_code
    from deepgps.prediction import Predictor
    from deepgps.proteins.reading import read_proteins
    from deepgps.results.explanations import explain_to_folder

    sources = protein_sources(inputs, "explain")
    proteins = read_proteins(sources, sequence=sequence, offline=offline)
    predictor = Predictor.load(model, threads=threads, structures=structures)
    with RecordProgress("explaining", count_records(sources, sequence), unit="proteins") as progress:
        summary = explain_to_folder(
            predictor,
            predictor.reject_unusable(proteins),
            out,
            on_protein=progress.count,
            on_rejection=progress.reject,
        )
    progress.print_rejected()
    _print(("Protein", "Localizations", "Signals"), summary, "explained")
    return exit_code(summary.done, summary.rejected)


def variants(
    *given: Annotated[str, Parameter(allow_leading_hyphen=True)],
    sequence: str | None = None,
    scan: str | None = None,
    isoforms: Path | None = None,
    table: Path | None = None,
    nucleus: str | None = None,
    images: Annotated[bool, Parameter(negative="--no-images")] = True,
    seed: int = 0,
    model: str = "deepgps-mini",
    out: Path = Path("deepgps-variants"),
    offline: Annotated[bool, Parameter(negative=())] = False,
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
) -> int:
    """Compare changed sequences with the unchanged one.

    Parameters
    ----------
    given
        The protein (a file with one, a UniProt accession or a gene symbol), then changes: ``R389Q``,
        ``p.Arg389Gly``, ``R389*``, ``G607_S656del``, ``1-30del``, fusions such as ``n+NLS`` and ``c+KDEL``;
        several at once are joined by commas.
    sequence
        The unchanged sequence, instead of the protein.
    scan
        A region, as ``10-60``, of which every substitution is made.
    isoforms
        A FASTA file of further sequences to compare with.
    table
        A table of substitutions: ``wild_type``, ``position``, ``mutant`` and ``sequence``; others are kept.
    nucleus
        An image to draw into, or a name from ``deepgps nuclei list``.
    images
        Draw images; a scan and a table draw none.
    seed
        Chooses the image: the same for the unchanged sequence and its variants.
    model
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    out
        Folder for the results.
    offline
        Never use the network; look up accessions and symbols in the cache only.
    threads
        Threads to compute with; all cores by default.
    """
    from deepgps.cli.console import exit_code
    from deepgps.explain.changes import parse_variant
    from deepgps.prediction import Predictor
    from deepgps.results.explanations import variant_table_to_folder, variants_to_folder

    words = protein_sources(given, "variants")
    if table is not None:
        if scan or isoforms or sequence or nucleus:
            raise InputError(
                "--table holds the variants; leave --scan, --isoforms, --sequence and --nucleus out."
            )
        predictor = Predictor.load(model, threads=threads)
        named = _proteins(words, None, offline=offline) if words else []
        summary = variant_table_to_folder(predictor, table, out, named)
        _print(("Variant", "Moves", "What changes"), summary, "compared")
        return exit_code(summary.done, summary.rejected)
    sources, changes = (words[:1], words[1:]) if sequence is None else ([], words)
    proteins = _proteins(sources, sequence, offline=offline)
    if len(proteins) != 1:
        raise InputError(f"{len(proteins)} proteins were given; give one, or a table with --table.")
    [protein] = proteins
    chosen = [
        *(parse_variant(change, protein.sequence) for change in changes),
        *_scanned(scan, protein),
        *_isoforms(isoforms),
    ]
    if not chosen:
        raise InputError("There is no change; give one such as R389Q, or --scan, --isoforms or --table.")
    predictor = Predictor.load(model, threads=threads, seed=seed)
    cell = None if nucleus is None else predictor.load_cell(nucleus)
    drawn = images and scan is None
    summary = variants_to_folder(predictor, protein, chosen, out, cell=cell, images=drawn)
    _print(("Change", "Moves", "What changes"), summary, "compared")
    return 0


def _proteins(sources: list[str], sequence: str | None, *, offline: bool) -> "list[Protein]":
    """Read proteins; one that cannot be used is an error."""
    from deepgps.proteins.protein import Rejection
    from deepgps.proteins.reading import read_proteins

    proteins = []
    for each in read_proteins(sources, sequence=sequence, offline=offline):
        if isinstance(each, Rejection):
            raise InputError(each.reason)
        proteins.append(each)
    return proteins


def _scanned(region: str | None, protein: "Protein") -> "list[Variant]":
    from deepgps.explain.changes import parse_region, scan

    return [] if region is None else list(scan(protein.sequence, *parse_region(region)))


def _isoforms(path: Path | None) -> "list[Variant]":
    from deepgps.explain.changes import Variant

    found = [] if path is None else _proteins([str(path)], None, offline=True)
    return [Variant(each.id, each.sequence) for each in found]


def _print(header: tuple[str, ...], summary: "ExplanationSummary", done: str) -> None:
    from deepgps.cli.console import print_files, print_table

    print_table(header, summary.lines[:MAX_PRINTED])
    if len(summary.lines) > MAX_PRINTED:
        print("…")
    print(f"{summary.done:,} {done}, {summary.rejected:,} rejected")
    print_files(summary.files)
