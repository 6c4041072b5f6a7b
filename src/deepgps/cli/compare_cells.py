"""``deepgps compare-cells``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deepgps.cli.predict import Predicting, print_warnings, protein_sources

if TYPE_CHECKING:
    from deepgps.comparison.compare import Comparison
    from deepgps.images.cell import Cell
    from deepgps.prediction import Predictor


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """The cell that every model draws into.

    Parameters
    ----------
    nucleus
        Image to draw into (TIFF, OME-TIFF, PNG), or a name from ``deepgps nuclei list``.
    pixel_size_um
        Pixel size of the nucleus image in micrometres; read from the file by default; ``auto`` estimates it
        from the nuclei.
    channel
        Index of the nucleus channel, from 0; guessed by default.
    image_checks
        Check that the image shows a nuclear stain at a plausible scale.
    """

    nucleus: str | None = None
    pixel_size_um: float | Literal["auto"] | None = None
    channel: int | None = None
    image_checks: Annotated[bool, Parameter(negative="--no-image-checks")] = True


def compare_cells_command(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    model: Annotated[list[str], Parameter(negative=())],
    into: ComparedCell = ComparedCell(),
    out: Path = Path("deepgps-comparison"),
    format: Literal["csv", "tsv"] = "csv",
    options: Predicting = Predicting(),
) -> int:
    """Compare the predictions of models of several cell lines for the same proteins.

    Parameters
    ----------
    inputs
        FASTA, CSV or TSV files (gzip too), - for stdin, UniProt accessions, human gene symbols, or the word
        ``example`` for the six proteins that come with deepGPS.
    model
        Name of an installed model, or a path to a bundle; given twice or more. The first is
        the reference.
    out
        Folder for the comparison.
    format
        Format of the table.
    """
    from deepgps.cli.console import RecordProgress, exit_code
    from deepgps.comparison.compare import compare_cells
    from deepgps.proteins.reading import read_proteins
    from deepgps.results.run import input_fingerprints

    sources = protein_sources(inputs, "compare-cells")
    predictors = _load(model, options.threads, options.structures)
    known = next((each.known for each in predictors if each.known is not None), None)
    proteins = read_proteins(sources, sequence=options.sequence, offline=options.offline, known=known)
    cells = _cells(predictors, into)
    with RecordProgress("comparing", unit="steps") as progress:
        comparison = compare_cells(
            predictors,
            proteins,
            out,
            cells=cells,
            table=format,
            inputs=input_fingerprints(sources, options.sequence, options.structures),
            overwrite=options.overwrite,
            on_read=progress.set_total,
            on_step=progress.count,
            on_rejection=progress.reject,
        )
    progress.print_rejected()
    _print_result(comparison)
    return exit_code(len(comparison.proteins), comparison.rejected)


def _load(models: Sequence[str], threads: int | None, structures: Path | None) -> "list[Predictor]":
    """Load models, with structures for those that use them; if none does, all get them and refuse."""
    from deepgps.bundle import open_model
    from deepgps.prediction import Predictor

    bundles = [open_model(each) for each in models]
    with_structures = [bundle for bundle in bundles if bundle.metadata.encoder.structure_points] or bundles
    return [
        Predictor(bundle, threads=threads, structures=structures if bundle in with_structures else None)
        for bundle in bundles
    ]


def _cells(predictors: "Sequence[Predictor]", into: ComparedCell) -> "list[Cell] | None":
    """Read one nucleus at the scale of each model."""
    if into.nucleus is None:
        return None
    cells = [
        predictor.load_cell(
            into.nucleus,
            channel=into.channel,
            image_pixel_size_um=into.pixel_size_um,
            image_checks=into.image_checks,
        )
        for predictor in predictors
    ]
    print_warnings(cells[:1])
    return cells


def _print_result(comparison: "Comparison") -> None:
    """Print the most different proteins, a summary for each model, and the files."""
    from deepgps.cli.console import MAX_PRINTED_ROWS, print_files, print_table, printable, two_digits
    from deepgps.reporting.pages import yes_no

    models, proteins = comparison.models, comparison.proteins
    lines = [
        (
            printable(protein.protein_id),
            *("|".join(record["localizations"]) for record in protein.records),
            *(two_digits(record["intranuclear_fraction"]) for record in protein.records),
            yes_no(protein.all_labels_agree(models)),
        )
        for protein in proteins[:MAX_PRINTED_ROWS]
    ]
    names = [model.name for model in models]
    print_table(("Protein", *names, *(f"In nuclei, {name}" for name in names), "Agree"), lines)
    if len(proteins) > MAX_PRINTED_ROWS:
        print("…")
    for other in range(1, len(models)) if proteins else ():
        for sentence in _summary(comparison, other):
            print(sentence)
    earlier = f" ({comparison.resumed:,} predicted by an earlier run)" if comparison.resumed else ""
    print(f"{len(proteins):,} compared{earlier}, {comparison.rejected:,} rejected")
    print_files(comparison.files)


def _summary(comparison: "Comparison", other: int) -> Iterator[str]:
    """Summarize how a model differs from the first, and whether that exceeds the control."""
    from deepgps.cli.console import two_digits
    from deepgps.comparison.differences import difference_warnings, summarize

    first, model = comparison.models[0], comparison.models[other]
    found = summarize(comparison.proteins, comparison.models, other)
    agree = (
        f"agree for {found.agreeing:,} of {found.comparable:,}" if found.comparable else "cannot be compared"
    )
    yield (
        f"{model.name} and {first.name}: labels {agree}; intranuclear fractions differ by "
        f"{two_digits(found.fraction)} on average, by {two_digits(found.control)} within one model "
        f"between two nuclei (the control); {found.exceeding:,} of {found.measured:,} proteins exceed it"
    )
    yield from difference_warnings(found, first, model)
