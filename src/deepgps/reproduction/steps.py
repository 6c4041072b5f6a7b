"""The steps of a reproduction, each kept once it is done.

A step is a function of the package, called as the command of its name calls it. Each goes on where it was
stopped, and ``reproduction.json`` lists those that are done: the same call continues a killed reproduction.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

import deepgps
from deepgps.datasets.annotation.hpa import annotate_hpa
from deepgps.datasets.annotation.opencell import add_sequences, annotate_opencell, drop_longer
from deepgps.datasets.annotation.proteins import AnnotationResult, write_annotations
from deepgps.datasets.crops.prepare import prepare_fields
from deepgps.datasets.crops.store import open_crops
from deepgps.datasets.fetch.download import Client
from deepgps.datasets.fetch.folder import ACCESSION, FetchSummary, read_ids
from deepgps.datasets.fetch.hpa import fetch_hpa
from deepgps.datasets.fetch.opencell import fetch_opencell
from deepgps.datasets.fetch.proteins import fetch_sequences, fetch_structures
from deepgps.datasets.splits import SPLIT_FILE, read_proteins_to_split, split_proteins, write_split
from deepgps.errors import DeepGPSError, InputError
from deepgps.evaluation.cross import cross_assay, genes_shown, write_cross
from deepgps.evaluation.dataset import DatasetFiles, load_dataset
from deepgps.evaluation.evaluate import Evaluation, evaluate
from deepgps.files import atomic_path, hash_files
from deepgps.prediction import Predictor
from deepgps.proteins.features import FEATURES_NAME
from deepgps.proteins.protein import Protein
from deepgps.reproduction import published
from deepgps.reproduction.report import write_reproduction_report
from deepgps.training.embedding import EmbeddingOptions, embed_proteins, proteins_to_embed
from deepgps.training.encoders import prepare_encoder
from deepgps.training.export import export_run
from deepgps.training.joint.train import train_joint
from deepgps.training.recipe import JointRecipe, load_recipe

RECORD, RESULTS, REPORT = "reproduction.json", "results.json", "report.html"
CROSS_SIZE = 4
"""Nuclei and proteins of a cross-assay without the paper's."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the paper.

    Attributes
    ----------
    name
        Its recipe, and the name of its folders.
    source
        Its dataset: ``opencell`` or ``hpa``.
    exact
        Settings that make the recipe ``paper-exact`` this model.
    structures
        Whether it reads structures.
    """

    name: str
    source: str
    exact: tuple[str, ...] = ()
    structures: bool = False


MODELS = (
    Model("single-2", "opencell"),
    Model("single-4", "opencell", ("class_set=single-4",)),
    Model("all", "opencell", ("class_set=all", "losses.label=0")),
    Model("u2os-single-2", "hpa", ("cell_line=U-2 OS",)),
    Model("single-2-structure", "opencell", ("protein.inputs=[structure]",), structures=True),
    Model("single-2-both", "opencell", ("protein.inputs=[sequence, structure]",), structures=True),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is reproduced.

    Attributes
    ----------
    proteins
        Most proteins of each dataset; empty for all.
    encoder
        Encoder of the sequences.
    settings
        Changed settings of all recipes.
    folded
        Further ones of recipes that are not ``paper-exact``.
    """

    proteins: dict[str, int]
    encoder: str
    settings: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()


SCALES = {
    "small": Scale(
        {"opencell": 60, "hpa": 40},
        FEATURES_NAME,
        (
            "model.widths=[16, 32, 64]",
            "model.latent_dim=32",
            "training.max_epochs=3",
            "training.batch_size=16",
            "protein.structure_points=64",
        ),
        ("model.fold=4",),
    ),
    "paper": Scale({}, "esm2_t33_650M_UR50D"),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Base addresses of the servers."""

    opencell_bucket: str
    opencell_portal: str
    hpa: str
    hpa_images: str
    alphafold: str
    uniprot: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What is reproduced, and where.

    Attributes
    ----------
    data
        Folder of the sources and crop stores.
    out
        Folder of the runs, models, evaluations and the report.
    sources
        The servers.
    scale
        Name of a `Scale`.
    exact
        Whether models are trained by ``paper-exact`` instead of by the recipes of their names.
    encoder
        Encoder of the sequences; that of the scale if None.
    """

    data: Path
    out: Path
    sources: Sources
    scale: Literal["small", "paper"] = "small"
    exact: bool = False
    encoder: str | None = None

    def recipe(self, model: Model) -> JointRecipe:
        """Return the recipe of a model."""
        scale = SCALES[self.scale]
        settings = [*(model.exact if self.exact else scale.folded), *scale.settings]
        settings.append(f"protein.encoder={self.used_encoder}")
        if self.exact:
            settings.append(f"name=deepgps-{model.name}-exact")
        recipe = load_recipe("paper-exact" if self.exact else model.name, settings)
        assert isinstance(recipe, JointRecipe)
        return recipe

    @property
    def used_encoder(self) -> str:
        """Encoder of the sequences."""
        return self.encoder or SCALES[self.scale].encoder

    def raw(self, source: str) -> Path:
        """Return the folder of a fetched source."""
        return self.data / source

    def store(self, source: str) -> Path:
        """Return the crop store of a source."""
        return self.data / f"{source}-crops"

    def structures(self, model: Model) -> Path | None:
        """Return the folder of structures, for models that read them."""
        return self.raw("opencell") / "structures" if model.structures else None

    def folder(self, kind: str, model: Model) -> Path:
        """Return the folder of a model's ``runs``, ``models`` or ``evaluations``."""
        return self.out / kind / model.name


class Progress(Protocol):
    """Receives the progress; `deepgps.cli.console.ProgressBar` shows it."""

    def begin(self, description: str, total: int | None) -> None:
        """Begin a stage, or return to it."""

    def advance(self, steps: int = 1) -> None:
        """Count parts as done."""

    def update(self, completed: int) -> None:
        """Set the number of parts that are done."""

    def add_bytes(self, count: int) -> None:
        """Count bytes as they arrive."""

    def print(self, message: str) -> None:
        """Print a message."""


@dataclass(slots=True)
class _Record:
    """``reproduction.json``: what is reproduced, and which steps are done."""

    path: Path
    about: dict[str, Any]
    done: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(cls, reproduction: Reproduction) -> "_Record":
        path = reproduction.out / RECORD
        about = {
            "scale": reproduction.scale,
            "exact": reproduction.exact,
            "encoder": reproduction.used_encoder,
            "data": str(reproduction.data.resolve()),
        }
        if not path.exists():
            return cls(path, about)
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, value in about.items():
            if (other := found["about"].get(name)) != value:
                raise InputError(
                    f"'{reproduction.out}' holds a reproduction with {name} '{other}', not '{value}'; give "
                    "another --out."
                )
        return cls(path, about, found["seconds"])

    def finish(self, step: str, seconds: float) -> None:
        self.done[step] = round(self.done.get(step, 0) + seconds, 1)
        content = {"about": self.about, "deepgps": deepgps.__version__, "seconds": self.done}
        with atomic_path(self.path) as draft:
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def reproduce(reproduction: Reproduction, client: Client, progress: Progress) -> Path:
    """Run all steps that are not done, and write the report.

    Parameters
    ----------
    reproduction
        What to reproduce, and where.
    client
        Client of the servers.
    progress
        Receives the progress.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    InputError
        If ``out`` holds another reproduction, or data cannot be used.
    DeepGPSError
        If files could not be fetched; the same call tries them again.
    """
    reproduction.out.mkdir(parents=True, exist_ok=True)
    record = _Record.open(reproduction)
    steps = list(_steps(reproduction, client, progress))
    for number, (name, run) in enumerate(steps, 1):
        if name in record.done:
            continue
        progress.print(f"step {number} of {len(steps)}: {name}")
        started = time.monotonic()
        run()
        record.finish(name, time.monotonic() - started)
    return write_reproduction_report(
        reproduction.out / REPORT, record.about, record.done, _results(reproduction)
    )


def _steps(
    reproduction: Reproduction, client: Client, progress: Progress
) -> Iterator[tuple[str, Callable[[], object]]]:
    for source in ("opencell", "hpa"):
        yield f"fetch {source}", partial(_fetch, reproduction, source, client, progress)
        yield f"annotate {source}", partial(_annotate, reproduction, source)
        yield f"prepare {source}", partial(_prepare, reproduction, source, progress)
        yield f"split {source}", partial(_split, reproduction.store(source))
    yield "embed", partial(_embed, reproduction, progress)
    for model in MODELS:
        yield f"train {model.name}", partial(_train, reproduction, model, progress)
        yield f"export {model.name}", partial(_export, reproduction, model)
        yield f"evaluate {model.name}", partial(_evaluate, reproduction, model, progress)
    yield "cross-assay", partial(_cross, reproduction, progress)


# ---- data ----


def _fetch(reproduction: Reproduction, source: str, client: Client, progress: Progress) -> None:
    folder, at = reproduction.raw(source), reproduction.sources
    limit = SCALES[reproduction.scale].proteins.get(source)
    if source == "opencell":
        portal = at.opencell_portal
        fetched = fetch_opencell(
            folder, client, progress, bucket=at.opencell_bucket, portal=portal, limit=limit
        )
    else:
        fetched = fetch_hpa(
            folder,
            client,
            progress,
            site=at.hpa,
            images=at.hpa_images,
            limit=limit,
            class_set_name="single-2",
        )
    _check(fetched)
    accessions = read_ids(folder / "fields.csv", ACCESSION)
    _check(fetch_sequences(folder, client, progress, accessions, site=at.uniprot))
    if source == "opencell":
        _check(fetch_structures(folder, client, progress, accessions, site=at.alphafold))


def _check(fetched: FetchSummary) -> None:
    if fetched.failed:
        raise DeepGPSError(
            f"{fetched.failed:,} files could not be fetched; the same command tries them again."
        )


def _annotate(reproduction: Reproduction, source: str) -> None:
    folder = reproduction.raw(source)
    if source == "opencell":
        tables = [folder / "annotations.csv", folder / "library.csv"]
        found: AnnotationResult = annotate_opencell(*tables)
    else:
        tables = [folder / "subcellular_location.tsv", folder / "xml"]
        found = annotate_hpa(tables, "U-2 OS")
    inputs = [*tables, folder / "sequences.fasta"]
    kept = drop_longer(add_sequences(found, inputs[-1:]), published.MAX_LENGTH)
    write_annotations(kept, folder / "proteins.parquet", hash_files(inputs))


def _prepare(reproduction: Reproduction, source: str, progress: Progress) -> None:
    folder = reproduction.raw(source)
    progress.begin(f"preparing {source}", None)
    prepare_fields(
        folder / "fields.csv",
        folder / "proteins.parquet",
        reproduction.store(source),
        on_field=lambda *_: progress.advance(),
    )


def _split(store: Path) -> None:
    """Split as the paper, with the proteins of its cross-assay in the test part, as there."""
    found = split_proteins(read_proteins_to_split(store), "protein", 0)
    index = open_crops(store).index
    named = {
        protein
        for protein, gene in index.select("protein_id", "gene_symbol").unique().iter_rows()
        if gene in published.CROSS_ASSAY
    }
    parts = {id: "test" if id in named else part for id, part in found.parts.items()}
    options: dict[str, str | int] = {"by": "protein", "seed": 0, "test": ", ".join(sorted(named))}
    write_split(replace(found, parts=parts), store / SPLIT_FILE, store, options)


def _embed(reproduction: Reproduction, progress: Progress) -> None:
    options = EmbeddingOptions(reproduction.used_encoder)
    for source in ("opencell", "hpa"):
        read = proteins_to_embed([str(reproduction.store(source))])
        proteins = [each for each in read if isinstance(each, Protein)]
        progress.begin(f"embedding {source}", len(proteins))
        table = reproduction.out / f"embeddings-{source}.parquet"
        embed_proteins(proteins, options, table, on_done=lambda _: progress.advance())
    if reproduction.used_encoder != FEATURES_NAME:
        prepare_encoder(reproduction.used_encoder)


# ---- models ----


def _train(reproduction: Reproduction, model: Model, progress: Progress) -> None:
    progress.print(f"{model.name}: see {reproduction.folder('runs', model)}")
    train_joint(
        reproduction.recipe(model),
        reproduction.store(model.source),
        reproduction.folder("runs", model),
        resume=True,
        structures=reproduction.structures(model),
    )


def _export(reproduction: Reproduction, model: Model) -> None:
    export_run(reproduction.folder("runs", model), reproduction.folder("models", model))


def _evaluate(reproduction: Reproduction, model: Model, progress: Progress) -> None:
    def on_progress(stage: str, done: int, total: int) -> None:
        progress.begin(f"{model.name}: {stage}", total)
        progress.update(done)

    folder = reproduction.folder("evaluations", model)
    bundle = str(reproduction.folder("models", model))
    predictor = Predictor.load(bundle, structures=reproduction.structures(model))
    done = evaluate(predictor, reproduction.store(model.source), folder, on_progress=on_progress)
    with atomic_path(folder / RESULTS) as draft:
        draft.write_text(json.dumps(_summary(done)) + "\n", encoding="utf-8")


def _summary(done: Evaluation) -> dict[str, Any]:
    """Return what the report shows of an evaluation, for JSON."""
    report = done.labels.report
    summary: dict[str, Any] = {
        "proteins": done.about["proteins"],
        "crops": done.about["crops"],
        "metrics": {name: metric.model_dump() for name, metric in done.metrics().items()},
    }
    if report is None:
        return summary
    by_crop = report.confusion_by_crop
    confusion = {"protein": report.confusion_by_protein.tolist()}
    return summary | {
        "classes": list(report.classes),
        "confusion": confusion | ({} if by_crop is None else {"crop": by_crop.tolist()}),
        "roc": {
            slug: [
                np.asarray(each.false_positive_rate).tolist(),
                np.asarray(each.true_positive_rate).tolist(),
            ]
            for slug, each in report.curves.items()
        },
        "baseline": {
            name: metric.model_dump()
            for name, metric in report.baselines["majority class"].items()
            if np.isfinite(metric.value)
        },
    }


def _cross(reproduction: Reproduction, progress: Progress) -> None:
    """Draw the paper's four proteins into each other's nuclei; where they are missing, as many others."""
    model = MODELS[0]
    predictor = Predictor.load(str(reproduction.folder("models", model)))
    files = DatasetFiles(reproduction.store(model.source), "test")
    dataset = load_dataset(files, predictor)
    shown, size = genes_shown(dataset), min(CROSS_SIZE, len(np.unique(dataset.protein_of)))
    named = [gene for gene in published.CROSS_ASSAY if gene in shown]
    progress.begin("cross-assay", None)
    genes = named if len(named) > 1 else ()
    assay = cross_assay(predictor, files, nuclei=size, sequences=size, genes=genes)
    write_cross(assay, reproduction.out / "cross")


def _results(reproduction: Reproduction) -> dict[str, Any]:
    return {
        model.name: json.loads((reproduction.folder("evaluations", model) / RESULTS).read_text("utf-8"))
        for model in MODELS
    }
