"""``deepgps evaluate``, ``deepgps evaluate cross``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from deepgps.evaluation.dataset import DatasetFiles
    from deepgps.prediction import Predictor

_Some = Annotated[int, Parameter(validator=Number(gte=2, lte=50))]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What to evaluate on, and how the model draws.

    Parameters
    ----------
    data
        A crop store, for labels and images; or a table of proteins (Parquet, CSV), for labels.
    split
        The part of the data to evaluate on.
    split_file
        Split by protein, as ``deepgps data split`` writes it; by default the store's own.
    proteins
        Table of the proteins that the crops show; by default the store's own.
    structures
        Folder of AlphaFold structures (PDB, mmCIF), for models that look at them.
    mean
        Evaluate mean images, as ``deepgps predict --mean`` draws them.
    threads
        Threads to compute with; all cores by default.
    """

    data: Path
    split: str = "test"
    split_file: Path | None = None
    proteins: Path | None = None
    structures: Path | None = None
    mean: Annotated[bool, Parameter(negative=())] = False
    threads: Annotated[int | None, Parameter(validator=Number(gte=1))] = None

    def files(self) -> "DatasetFiles":
        """The data."""
        from deepgps.evaluation.dataset import DatasetFiles

        return DatasetFiles(self.data, self.split, self.split_file, self.proteins)

    def predictor(self, bundle: str) -> "Predictor":
        """The model."""
        from deepgps.prediction import Predictor

        return Predictor.load(bundle, threads=self.threads, structures=self.structures, mean=self.mean)


def evaluate(
    bundle: str,
    /,
    *,
    given: Given,
    out: Path = Path("deepgps-evaluation"),
    seed: int = 0,
) -> None:
    """Evaluate a model: labels and images, beside what costs nothing, with intervals and a report.

    Parameters
    ----------
    bundle
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    out
        Folder for the results.
    seed
        Seed of the bootstrap, of the wrong proteins and of the galleries.
    """
    from deepgps.evaluation.evaluate import METRICS, REPORT
    from deepgps.evaluation.evaluate import evaluate as run

    predictor = given.predictor(bundle)
    with _progress() as on_progress:
        done = run(
            predictor,
            given.data,
            out,
            split=given.split,
            split_file=given.split_file,
            proteins=given.proteins,
            seed=seed,
            on_progress=on_progress,
        )
    for note in done.notes:
        print(f"Beware: {note}")
    left = done.dataset.left_out
    crops = sum(each.crops for each in left)
    print(f"{done.about['proteins']:,} proteins, {done.about['crops']:,} crops evaluated")
    if left:
        print(f"{len(left):,} entries with {crops:,} crops left out; see {out / 'left_out.csv'}")
    for path in (out / METRICS, out / REPORT):
        print(path)


def cross(
    bundle: str,
    /,
    *,
    given: Given,
    nuclei: _Some = 8,
    sequences: _Some = 8,
    out: Path = Path("deepgps-cross"),
    seed: int = 0,
) -> None:
    """Draw each of some proteins into each of some nuclei, to see whether nucleus or sequence decides.

    Parameters
    ----------
    bundle
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    nuclei
        Number of nuclei: the rows.
    sequences
        Number of proteins: the columns.
    out
        Folder for the results.
    seed
        Seed of the choice of both.
    """
    from deepgps.evaluation.cross import cross_assay, write_cross

    predictor = given.predictor(bundle)
    with _progress() as on_progress:
        assay = cross_assay(
            predictor,
            given.files(),
            nuclei=nuclei,
            sequences=sequences,
            seed=seed,
            on_progress=on_progress,
        )
    for name, shares in assay.shares().items():
        said = ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
        print(f"{name}: {said}")
    for path in write_cross(assay, out):
        print(path)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage, with the time left, where stderr is a terminal; and a word when it is cut short."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from deepgps.errors import InputError

    terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
    tasks, kept = {}, False

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal kept
        kept = kept or stage == "crops"
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    try:
        with bar:
            yield on_progress
    except BaseException as error:
        if kept and not isinstance(error, InputError):
            terminal.print("The crops that are measured are kept: the same command continues.")
        raise
