"""``deepgps predict``."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.images.cell import Cell
    from deepgps.prediction import Predictor

EXAMPLE = "example"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What to draw, and into which nuclei.

    Parameters
    ----------
    nucleus
        Images to draw into (TIFF, OME-TIFF, PNG), or names from ``deepgps nuclei list``.
    images
        Draw images; without them only labels are predicted, many times faster.
    image_format
        How to store images: two files each, or one Zarr store (extra ``scale``).
    mean
        Draw the mean of all possible images instead of one of them: smooth, to measure in.
    seed
        Which of the possible images to draw; the same seed gives the same image.
    samples
        Draw so many of the possible images, at least 4, for an interval of each pixel: further channels
        ``protein_low`` and ``protein_high``, or further TIFFs with ``--records``.
    microtubules
        Images of the microtubules of the same cells, one for each ``--nucleus``, in that order.
    er
        Images of the endoplasmic reticulum, likewise.
    pixel_size_um
        Pixel size of the nucleus images in micrometres; read from the files by default; ``auto`` estimates it
        from the nuclei.
    channel
        Index of the nucleus channel, from 0; guessed by default.
    image_checks
        Check that the images show a nuclear stain at a plausible scale.
    """

    nucleus: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None
    images: Annotated[bool, Parameter(negative="--no-images")] = True
    image_format: Literal["files", "zarr"] = "files"
    mean: Annotated[bool, Parameter(negative=())] = False
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0
    samples: Annotated[int, Parameter(validator=Number(gte=0))] = 0
    microtubules: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None
    er: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None
    pixel_size_um: float | Literal["auto"] | None = None
    channel: int | None = None
    image_checks: Annotated[bool, Parameter(negative="--no-image-checks")] = True


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Predicting:
    """How to read proteins and to compute; options that commands which predict share.

    Parameters
    ----------
    sequence
        A bare sequence.
    structures
        Folder of AlphaFold structures (PDB, mmCIF), for models that use them; needs the extra ``train``.
    overwrite
        Remove earlier results from the folder and start again.
    offline
        Never use the network; find accessions, gene symbols and synonyms in the cache, in the human proteome
        that ``deepgps data fetch human`` fetched, and among the known proteins of a model.
    threads
        Threads of each process; by default all cores are shared.
    """

    sequence: str | None = None
    structures: Path | None = None
    overwrite: Annotated[bool, Parameter(negative=())] = False
    offline: Annotated[bool, Parameter(negative=())] = False
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None


def predict(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    drawing: Drawing = Drawing(),
    model: str = "deepgps-mini",
    out: Annotated[Path, Parameter(allow_leading_hyphen=True)] = Path("deepgps-results"),
    format: Literal["csv", "tsv", "json", "parquet", "xlsx", "h5ad"] = "csv",
    sort: str | None = None,
    top: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    scheduler: str | None = None,
    records: Path | None = None,
    options: Predicting = Predicting(),
) -> int:
    """Predict where proteins go: labels with probabilities, and images drawn into a nucleus.

    Parameters
    ----------
    inputs
        FASTA, CSV or TSV files (gzip too), lists of accessions or gene symbols, - for stdin, UniProt
        accessions, human gene symbols, or the word ``example`` for the six proteins that come with deepGPS.
    model
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    out
        Folder for the results; - prints the table to stdout instead, without images, and nothing else.
    format
        Format of the table; ``json`` is JSON Lines; ``parquet`` needs the extra ``scale``, ``xlsx`` (Excel)
        and ``h5ad`` (AnnData) the extra of that name.
    sort
        What to print first: the highest ``confidence``, ``similarity``, ``intranuclear`` fraction, or
        probability of a class such as ``golgi``. Files keep the order of the input.
    top
        How many rows to print, 12 by default, and all with ``--out -``.
    workers
        Local processes to predict in.
    scheduler
        Address of a Dask scheduler whose workers predict instead (extra ``scale``).
    records
        JSON list of proteins, each with images of its own, ``{prediction_id, nucleus_image,
        microtubules_image, er_image, fasta_file}``, instead of inputs and nuclei: writes
        ``{prediction_id}.tiff`` of the size of the nucleus image, and ``prediction_results.tsv``.
    """
    to_stdout = str(out) == "-"
    # The parser lets "-" through as a folder, and with it every option.
    if str(out).startswith("-") and not to_stdout:
        raise InputError(f"--out '{out}' is an option and no folder; name a folder, or write ./{out}.")
    if records is not None:
        others = {
            "an input": bool(inputs),
            "--workers": workers > 1,
            "--scheduler": bool(scheduler),
            "--format": format != "csv",
            "--sort": sort is not None,
            "--top": top is not None,
            "--out -": to_stdout,
        }
        return _predict_records(records, out, model, drawing, options, others)
    from deepgps.cli.console import RecordProgress, count_records, exit_code, print_summary
    from deepgps.cli.table import check_order, check_streamed, print_rows
    from deepgps.prediction import Predictor
    from deepgps.proteins.reading import read_proteins
    from deepgps.results.predict import predict_to_folder
    from deepgps.results.run import input_fingerprints

    given, drawing = _inputs_after_nuclei(inputs, options.sequence, drawing)
    sources = protein_sources(given, "predict")
    if to_stdout:
        check_streamed(format)
        _check_not_drawn(drawing, "--out - prints the table alone")
        drawing = replace(drawing, images=False)
    predictor = Predictor.load(
        model,
        threads=options.threads,
        structures=options.structures,
        mean=drawing.mean,
        seed=drawing.seed,
        samples=drawing.samples,
    )
    check_order(sort, predictor.classes)
    proteins = read_proteins(
        sources, sequence=options.sequence, offline=options.offline, known=predictor.known
    )
    cells = load_cells(predictor, drawing)
    total = count_records(sources, options.sequence)
    with RecordProgress("predicting", total, unit="proteins") as progress:
        if to_stdout:
            read = progress.count_all(progress.tell_nucleotides(proteins))
            predicted = print_rows(
                predictor, read, format, sort=sort, top=top, workers=workers, scheduler=scheduler
            )
            progress.print_rejected(listed=False)
            return exit_code(predicted, progress.rejected)
        summary = predict_to_folder(
            predictor,
            progress.tell_nucleotides(proteins),
            out,
            cells=cells,
            images=drawing.images,
            image_format=drawing.image_format,
            table=format,
            inputs=input_fingerprints(sources, options.sequence, options.structures),
            overwrite=options.overwrite,
            workers=workers,
            scheduler=scheduler,
            on_protein=progress.count,
            on_rejection=progress.reject,
        )
    progress.print_rejected()
    print_summary(summary, sort=sort, top=top)
    return exit_code(summary.predicted, summary.rejected)


def _predict_records(
    path: Path, out: Path, model: str, drawing: Drawing, options: Predicting, others: Mapping[str, bool]
) -> int:
    from deepgps.cli.console import MAX_MESSAGES, ProgressBar, print_files, printable
    from deepgps.prediction import Predictor
    from deepgps.results.cell_records import predict_cell_records, read_cell_records

    without_effect = {
        **others,
        "--sequence": options.sequence is not None,
        "--nucleus": bool(drawing.nucleus),
        "--microtubules": bool(drawing.microtubules),
        "--er": bool(drawing.er),
        "--channel": drawing.channel is not None,
        "--no-images": not drawing.images,
        "--image-format": drawing.image_format != "files",
    }
    if name := next((name for name, is_given in without_effect.items() if is_given), None):
        raise InputError(f"--records says what to predict, so {name} has no effect; leave it out.")
    asked = read_cell_records(path)
    predictor = Predictor.load(
        model,
        threads=options.threads,
        structures=options.structures,
        mean=drawing.mean,
        seed=drawing.seed,
        samples=drawing.samples,
    )
    failed = 0
    with ProgressBar("drawing", len(asked)) as progress:

        def finish(id: str, problem: str | None) -> None:
            nonlocal failed
            progress.advance()
            if problem is not None:
                failed += 1
                progress.print_some(printable(f"'{id}': {problem}"))

        done = predict_cell_records(
            predictor,
            asked,
            out,
            pixel_size_um=drawing.pixel_size_um,
            image_checks=drawing.image_checks,
            overwrite=options.overwrite,
            on_record=finish,
        )
        if failed > MAX_MESSAGES:
            progress.print(f"{failed - MAX_MESSAGES:,} more records failed; see {done.table}.")
    earlier = f" ({done.resumed:,} by an earlier run)" if done.resumed else ""
    print(f"{done.predicted:,} predicted{earlier}, {done.failed:,} failed")
    print_files([done.table, out])
    # Also if all failed: the table says so of each.
    return 3 if done.failed else 0


def _inputs_after_nuclei(
    inputs: Sequence[str], sequence: str | None, drawing: Drawing
) -> tuple[Sequence[str], Drawing]:
    """Take proteins that were written after ``--nucleus`` for proteins."""
    nuclei = drawing.nucleus or []
    if inputs or sequence is not None or len(nuclei) < 2:
        return inputs, drawing
    from deepgps.images.cell import DEFAULT_CELLS
    from deepgps.images.decode import is_image

    last = len(nuclei)
    while last > 1 and nuclei[last - 1] not in DEFAULT_CELLS and not is_image(Path(nuclei[last - 1])):
        last -= 1
    return nuclei[last:], replace(drawing, nucleus=nuclei[:last])


def protein_sources(inputs: Sequence[str], command: str) -> list[str]:
    """Replace the word ``example`` by the file of example proteins, and refuse unknown options."""
    # The parser lets "-" through as an input, and with it every option that it does not know.
    for unknown in (each for each in inputs if each.startswith("-") and each != "-"):
        raise InputError(f"Option '{unknown}' is unknown; see deepgps {command} --help.")
    return [str(_example()) if each == EXAMPLE and not Path(each).exists() else each for each in inputs]


def _example() -> Path:
    import deepgps.examples

    return Path(deepgps.examples.__path__[0]) / "proteins.fasta"


def load_cells(predictor: "Predictor", drawing: Drawing) -> "list[Cell] | None":
    """Load the cells to draw into, with unique names."""
    from deepgps.images.cell import with_unique_name

    if not drawing.images:
        _check_not_drawn(drawing, "--no-images draws nothing")
    nuclei = drawing.nucleus or []
    landmarks = {
        "microtubules": _one_per_nucleus("--microtubules", drawing.microtubules, nuclei),
        "er": _one_per_nucleus("--er", drawing.er, nuclei),
    }
    cells: list[Cell] = []
    for number, chosen in enumerate(nuclei):
        cell = predictor.load_cell(
            chosen,
            channel=drawing.channel,
            image_pixel_size_um=drawing.pixel_size_um,
            microtubules=landmarks["microtubules"][number],
            er=landmarks["er"][number],
            image_checks=drawing.image_checks,
        )
        cells.append(with_unique_name(cell, cells))
    print_warnings(cells)
    return cells or None


def _check_not_drawn(drawing: Drawing, reason: str) -> None:
    """Refuse options of images where none are drawn."""
    for option, is_set in (
        ("--nucleus", drawing.nucleus),
        ("--image-format", drawing.image_format != "files"),
        ("--mean", drawing.mean),
        ("--seed", drawing.seed),
        ("--samples", drawing.samples),
        ("--microtubules", drawing.microtubules),
        ("--er", drawing.er),
    ):
        if is_set:
            raise InputError(f"{reason}, so {option} has no effect; leave one of them out.")


def _one_per_nucleus(option: str, files: Sequence[str] | None, nuclei: Sequence[str]) -> Sequence[str | None]:
    """Return the files of an option, as many as there are nuclei; None for each if it is not used."""
    if files is None:
        return [None] * len(nuclei)
    if len(files) != len(nuclei):
        raise InputError(
            f"{option} gives {len(files)} images and --nucleus {len(nuclei)}; give one for each nucleus, in "
            "the same order."
        )
    return files


def print_warnings(cells: "Sequence[Cell]") -> None:
    """Print what the user should know about the nucleus images before anything is drawn into them."""
    from deepgps.cli.console import printable

    for warning in dict.fromkeys(warning for cell in cells for warning in cell.warnings):
        print(f"deepgps: {printable(warning)}", file=sys.stderr)
