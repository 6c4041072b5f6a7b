"""``deepgps predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.images.nucleus import Nucleus
    from deepgps.predict import Predictor

# The word for the proteins that come with deepGPS.
EXAMPLE = "example"


def predict(
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    sequence: str | None = None,
    nucleus: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    model: str = "deepgps-mini",
    out: Path = Path("deepgps-results"),
    format: Literal["csv", "tsv", "json"] = "csv",
    images: Annotated[bool, Parameter(negative="--no-images")] = True,
    pixel_size_um: float | None = None,
    channel: int | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    offline: Annotated[bool, Parameter(negative=())] = False,
    threads: int | None = None,
) -> int:
    """Predict where proteins go: labels with probabilities, and pictures drawn into a nucleus.

    The same command again continues what an earlier one left unfinished.

    Parameters
    ----------
    inputs
        FASTA, CSV or TSV files (gzip too), - for stdin, UniProt accessions, human gene symbols, or the word
        ``example`` for the six proteins that come with deepGPS.
    sequence
        A bare sequence.
    nucleus
        Images to draw into (TIFF, OME-TIFF, PNG), or names from ``deepgps nuclei list``.
    model
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    out
        Folder for the results.
    format
        Format of the table; json is JSON Lines, ``results.jsonl``.
    images
        Draw pictures; without them only labels are predicted, many times faster.
    pixel_size_um
        Edge of a pixel of the nucleus images in micrometres, where they do not say it themselves.
    channel
        Channel of the nucleus in images of several, counted from 0; guessed if not given.
    overwrite
        Remove earlier results from the folder and start anew.
    offline
        Never use the network; accessions and symbols are then found in the cache only.
    threads
        Threads to compute with; all cores by default.
    """
    from deepgps.cli.progress import Console, record_count
    from deepgps.predict import Predictor
    from deepgps.proteins.inputs import proteins_from
    from deepgps.results.inputs import fingerprints
    from deepgps.results.save import save

    _check_usage(inputs, images=images, nucleus=nucleus, threads=threads)
    given = [str(_example()) if each == EXAMPLE and not Path(each).exists() else each for each in inputs]
    proteins = proteins_from(given, sequence=sequence, offline=offline)
    predictor = Predictor.load(model, threads=threads)
    nuclei = _nuclei(predictor, nucleus, pixel_size_um, channel) if images else None
    with Console(record_count(given, sequence)) as console:
        summary = save(
            predictor,
            proteins,
            out,
            nuclei=nuclei,
            images=images,
            table=format,
            inputs=fingerprints(given, sequence),
            overwrite=overwrite,
            on_protein=console.advance,
            on_rejection=console.reject,
        )
    console.summarise(summary)
    return 2 if summary.rejected else 0


def _check_usage(
    inputs: tuple[str, ...], *, images: bool, nucleus: list[str] | None, threads: int | None
) -> None:
    # The parser lets "-" through as an input, and with it every option that it does not know.
    for unknown in (each for each in inputs if each.startswith("-") and each != "-"):
        raise InputError(f"Option '{unknown}' is unknown; see deepgps predict --help.")
    if nucleus and not images:
        raise InputError("--no-images draws nothing, so --nucleus says nothing; leave one of them out.")
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}; give 1 or more.")


def _example() -> Path:
    import deepgps.examples

    return Path(deepgps.examples.__path__[0]) / "proteins.fasta"


def _nuclei(
    predictor: "Predictor", chosen: list[str] | None, pixel_size_um: float | None, channel: int | None
) -> "list[Nucleus] | None":
    """Load the nuclei by file or by name; two of the same name are told apart by a number."""
    from dataclasses import replace

    if chosen is None:
        return None
    loaded: dict[str, Nucleus] = {}
    for each in chosen:
        nucleus = _nucleus(predictor, each, pixel_size_um, channel)
        names = (nucleus.name, *(f"{nucleus.name}-{number}" for number in range(2, len(chosen) + 2)))
        name = next(name for name in names if name not in loaded)
        loaded[name] = replace(nucleus, name=name)
    return list(loaded.values())


def _nucleus(
    predictor: "Predictor", chosen: str, pixel_size_um: float | None, channel: int | None
) -> "Nucleus":
    from deepgps.images.defaults import DEFAULT_NAMES, default_nucleus
    from deepgps.images.nuclei import load_nucleus

    crop = predictor.bundle.metadata.crop
    if chosen in DEFAULT_NAMES and not Path(chosen).exists():
        return default_nucleus(chosen)
    if not Path(chosen).exists():
        raise InputError(f"Nucleus '{chosen}' is neither a file nor one of {', '.join(DEFAULT_NAMES)}.")
    return load_nucleus(
        Path(chosen),
        crop_px=crop.size_px,
        pixel_size_um=crop.pixel_size_um,
        channel=channel,
        image_pixel_size_um=pixel_size_um,
    )
