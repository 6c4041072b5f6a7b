"""``deepgps atlas``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.cli.predict import Drawing, load_cells, protein_sources
from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.prediction import Predictor
    from deepgps.proteins.protein import Protein

HUMAN = "human"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasDrawing:
    """What to draw, and into which nuclei.

    Parameters
    ----------
    nucleus
        Images to draw into (TIFF, OME-TIFF, PNG), or names from ``deepgps nuclei list``; a default nucleus if
        none is given.
    images
        Draw images; without them the atlas is built many times faster, and they can be added later.
    mean
        Draw the mean of all possible images instead of one of them.
    seed
        Which of the possible images to draw.
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
    mean: Annotated[bool, Parameter(negative=())] = False
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0
    pixel_size_um: float | Literal["auto"] | None = None
    channel: int | None = None
    image_checks: Annotated[bool, Parameter(negative="--no-image-checks")] = True


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasComputing:
    """How to read proteins and to compute.

    Parameters
    ----------
    importance
        Also measure which residues each prediction depends on; takes many times longer.
    workers
        Local processes to predict in.
    scheduler
        Address of a Dask scheduler whose workers predict instead (extra ``scale``).
    threads
        Threads of each process; by default all cores are shared.
    structures
        Folder of AlphaFold structures (PDB, mmCIF), for models that use them; needs the extra ``train``.
    offline
        Never use the network; find accessions and gene symbols in the cache and among the known proteins.
    """

    importance: Annotated[bool, Parameter(negative=())] = False
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 1
    scheduler: str | None = None
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None
    structures: Path | None = None
    offline: Annotated[bool, Parameter(negative=())] = False


def atlas(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Path,
    title: str = "Protein atlas",
    model: str = "deepgps-mini",
    drawing: AtlasDrawing = AtlasDrawing(),
    computing: AtlasComputing = AtlasComputing(),
) -> int:
    """Build an atlas: a static website of many proteins, to search, browse and host anywhere.

    Parameters
    ----------
    inputs
        FASTA, CSV or TSV files (gzip too), - for stdin, UniProt accessions, human gene symbols, the word
        ``human`` for all human proteins that the model knows, or ``example``.
    out
        Folder of the site.
    title
        Title of the site.
    model
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    """
    from deepgps.atlas import build_atlas
    from deepgps.cli.console import RecordProgress, count_records, exit_code, print_files
    from deepgps.prediction import Predictor
    from deepgps.proteins.reading import read_proteins
    from deepgps.results.run import input_fingerprints

    sources = protein_sources(inputs, "atlas")
    predictor = Predictor.load(
        model,
        threads=computing.threads,
        structures=computing.structures,
        mean=drawing.mean,
        seed=drawing.seed,
    )
    human = sources == [HUMAN] and not Path(HUMAN).exists()
    proteins = (
        _human_proteins(predictor)
        if human
        else read_proteins(sources, offline=computing.offline, known=predictor.known)
    )
    cells = load_cells(predictor, _drawing(drawing)) or [predictor.load_cell()] if drawing.images else []
    with RecordProgress(
        "predicting", None if human else count_records(sources, None), unit="proteins"
    ) as progress:

        def count_page(_: str, total: int) -> None:
            progress.begin("writing pages", total)
            progress.advance()

        summary = build_atlas(
            predictor,
            proteins,
            out,
            cells=cells,
            inputs=[(HUMAN, None)] if human else input_fingerprints(sources, None, computing.structures),
            title=title,
            importance=computing.importance,
            workers=computing.workers,
            scheduler=computing.scheduler,
            on_protein=progress.count,
            on_rejection=progress.reject,
            on_page=count_page,
        )
    progress.print_rejected()
    print(
        f"{summary.proteins:,} proteins ({summary.predicted:,} predicted, {summary.drawn:,} images drawn, "
        f"{summary.written:,} pages written by this run), {summary.rejected:,} rejected"
    )
    for name, extra in summary.left_out:
        print(f"not written: tables/{name} (pip install 'deepgps[{extra}]')")
    print_files([out / "index.html", out / "tables", out / "manifest.json"])
    return exit_code(summary.proteins, summary.rejected)


def _drawing(chosen: AtlasDrawing) -> Drawing:
    return Drawing(
        nucleus=chosen.nucleus,
        mean=chosen.mean,
        seed=chosen.seed,
        pixel_size_um=chosen.pixel_size_um,
        channel=chosen.channel,
        image_checks=chosen.image_checks,
    )


def _human_proteins(predictor: "Predictor") -> "Iterator[Protein]":
    """Yield the human proteins that a model knows."""
    from deepgps.proteins.protein import Protein

    if predictor.known is None:
        name = predictor.bundle.metadata.name
        raise InputError(
            f"Model '{name}' has no index of known proteins; give a FASTA file instead of 'human'."
        )

    def found() -> "Iterator[Protein]":
        known = predictor.known
        for each in known or ():
            sequence = known.sequence(each.accession) if known and each.human else None
            if sequence is not None:
                yield Protein(each.accession, sequence, each.gene_symbol, each.accession)

    return found()
