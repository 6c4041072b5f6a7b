"""``deepgps evaluate``, ``deepgps evaluate cross``, ``deepgps evaluate images``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.cli.console import ProgressBar

if TYPE_CHECKING:
    from deepgps.evaluation.dataset import DatasetFiles
    from deepgps.prediction import Predictor

_Number = Annotated[int, Parameter(validator=Number(gte=2, lte=50))]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationData:
    """The data, and how the model draws.

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
        Folder of AlphaFold structures (PDB, mmCIF), for models that use them.
    mean
        Evaluate mean images, as ``deepgps predict --mean`` draws them.
    threads
        Threads; all cores by default.
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


def evaluate_command(
    bundle: str,
    /,
    *,
    evaluated: EvaluationData,
    out: Path = Path("deepgps-evaluation"),
    seed: int = 0,
) -> None:
    """Evaluate a model: labels and images, beside trivial baselines, with intervals and a report.

    Parameters
    ----------
    bundle
        Name of an installed model (``deepgps models list``), or a path to a bundle.
    out
        Folder for the results.
    seed
        Seed of the bootstrap, of the wrong proteins and of the galleries.
    """
    from deepgps.evaluation.evaluate import METRICS, REPORT, evaluate

    predictor = evaluated.predictor(bundle)
    with _StageProgress("reading") as progress:
        done = evaluate(
            predictor,
            evaluated.data,
            out,
            split=evaluated.split,
            split_file=evaluated.split_file,
            proteins=evaluated.proteins,
            seed=seed,
            on_progress=progress.update_stage,
        )
    for note in done.notes:
        print(f"Warning: {note}")
    left_out = done.dataset.left_out
    crops = sum(each.crops for each in left_out)
    print(f"{done.about['proteins']:,} proteins, {done.about['crops']:,} crops evaluated")
    if left_out:
        print(f"{len(left_out):,} entries with {crops:,} crops left out; see {out / 'left_out.csv'}")
    for path in (out / METRICS, out / REPORT):
        print(path)


def cross(
    bundle: str,
    /,
    *,
    evaluated: EvaluationData,
    nuclei: _Number = 8,
    sequences: _Number = 8,
    genes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
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
    genes
        Gene symbols of the proteins that are rows and columns, instead of some at random.
    out
        Folder for the results.
    seed
        Seed of the choice of nuclei and proteins.
    """
    from deepgps.evaluation.cross import cross_assay, write_cross

    predictor = evaluated.predictor(bundle)
    with _StageProgress("reading") as progress:
        assay = cross_assay(
            predictor,
            evaluated.files(),
            nuclei=nuclei,
            sequences=sequences,
            genes=genes or (),
            seed=seed,
            on_progress=progress.update_stage,
        )
    for name, shares in assay.shares().items():
        line = ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
        print(f"{name}: {line}")
    for path in write_cross(assay, out):
        print(path)


def images(
    true: Path,
    predicted: Path,
    /,
    *,
    nucleus: Path | None = None,
    labels: Path | None = None,
    pixel_size_um: float | None = None,
    out: Path = Path("deepgps-images"),
    seed: int = 0,
) -> None:
    """Measure the predicted images of any model beside the true ones, paired by name.

    Parameters
    ----------
    true
        Folder of the true images: TIFF, PNG or JPEG, of any depth and scale.
    predicted
        Folder of the predicted images, named as the true ones.
    nucleus
        Folder of the nucleus images, named alike, for the intranuclear fraction and measures of structure.
    labels
        CSV or TSV with ``name`` and ``label``, to read labels back, and optionally ``group``, such as the
        protein, for the bootstrap.
    pixel_size_um
        Pixel size of the true images in micrometres; read from the files by default.
    out
        Folder for the results.
    seed
        Seed of the bootstrap, the controls and the gallery.
    """
    from deepgps.evaluation.images.evaluate_pairs import evaluate_images

    with _StageProgress("reading") as progress:
        done = evaluate_images(
            true,
            predicted,
            out,
            nucleus=nucleus,
            labels=labels,
            pixel_size_um=pixel_size_um,
            seed=seed,
            on_progress=progress.update_stage,
        )
    for note in done.notes:
        print(f"Warning: {note}")
    for name in ("psnr", "ssim", "pearson"):
        values = {kind: done.metrics.get(f"images/{kind}/{name}") for kind in done.measurements.values}
        print(name, *(f"{kind} {each.value:.3f}" for kind, each in values.items() if each), sep="\t")
    for path in done.files:
        print(path)


class _StageProgress(ProgressBar):
    """A progress bar per stage of an evaluation; measured crops are kept."""

    def update_stage(self, stage: str, done: int, total: int) -> None:
        self.resumable = self.resumable or stage == "crops"
        self.begin(stage, total)
        self.update(done)
