"""What tests of several rooms share."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from deepgps.bundle import Bundle, open_bundle, write_bundle
from deepgps.images.cell import Cell
from deepgps.localization import CLASS_SETS

# Tests compute little at a time: a second thread would cost more than it gives. Read when torch starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Graphs are held against modules, so that they are computed in single precision wherever tests run.
os.environ.setdefault("DEEPGPS_RUNTIME", "cpu")

# However slow and busy the machine is: no test is timed.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

TINY_TOKENS, TINY_WIDTH, TINY_SIZE = 4, 8, 208


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; a test that asks for it is skipped, and says so, where it is absent."""
    root = Path(__file__).parents[1]
    path = Path(os.environ.get("DEEPGPS_SHARED_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real data not found at '{path}'; set DEEPGPS_SHARED_DATA to run this test")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leave the cache of whoever runs the tests alone."""
    os.environ["DEEPGPS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle with tiny random graphs, without an index of neighbours."""
    from deepgps.proteins.features import feature_names

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    dimension = len(feature_names())
    files = {
        "encoder.onnx": _encoder(dimension, len(CLASS_SETS["mini"].slugs)),
        "generator.onnx": tiny_generator(),
        "CARD.md": b"# tiny\n\nRandom weights, for tests.\n",
    }
    return write_bundle(folder, _metadata(dimension), files)


@pytest.fixture(scope="session")
def tiny_flow_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that draws by flow matching, with small random networks."""
    import torch

    from deepgps.models.flow_matching import FlowMatchingUNet
    from deepgps.training.graphs import flow_matching_graph

    metadata = tiny_bundle.metadata
    words, domains = ("nuclear_punctae", "Aggresome"), ("HEK293T", "U-2 OS")
    torch.manual_seed(0)
    graphs = {}
    conditions = len(metadata.classes) + 1 + len(words) + 1 + len(domains)
    for name, images, size in (("generator.onnx", 3, TINY_SIZE // 2), ("grain.onnx", 2, TINY_SIZE)):
        network = FlowMatchingUNet(images, conditions, (8, 16), embedding=16, attention=0)
        for weight in network.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.1)
        graphs[name] = flow_matching_graph(network, size)
    flow = {
        "classes": metadata.classes,
        "words": words,
        "domains": domains,
        "landmarks": ("microtubules", "er"),
        "steps": 3,
        "grain_steps": 2,
    }
    classes = len(metadata.classes)
    files = {
        "encoder.onnx": _encoder(metadata.encoder.dimension, classes, (1, classes)),
        "CARD.md": tiny_bundle.read("CARD.md"),
        **graphs,
    }
    fields = metadata.model_dump(exclude={"schema_version", "files"})
    fields |= {"flow_matching": flow, "crop": {"size_px": TINY_SIZE, "pixel_size_um": 0.206}}
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny-flow", fields, files)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run, ``run``, of a tiny model, beside its ``recipe.yaml`` and made-up ``data``."""
    from deepgps.cli.app import run
    from image_sources import RECIPE, write_data

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "recipe.yaml").write_text(RECIPE)
    data, out = write_data(folder / "data"), folder / "run"
    assert run(["train", str(folder / "recipe.yaml"), "--data", str(data), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def tiny_export(tiny_run: Path) -> Bundle:
    """The bundle of `tiny_run`, with one measured figure."""
    from deepgps.cli.app import run

    bundle, metrics = tiny_run.parent / "bundle", tiny_run.parent / "metrics.json"
    metrics.write_text('{"made-up accuracy": {"value": 0.71, "low": 0.625, "high": 0.75, "n": 1234}}')
    assert run(["export", str(tiny_run), "--to", str(bundle), "--metrics", str(metrics)]) == 0
    return open_bundle(bundle)


@pytest.fixture(scope="session")
def tiny_esm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ESM2 of random weights: 24 dimensions, at most 60 residues at once."""
    from tiny_models import write_tiny_esm2

    return write_tiny_esm2(tmp_path_factory.mktemp("encoders") / "tiny_esm2")


@pytest.fixture(scope="session")
def joint_export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Bundle]]:
    """Model and bundle of a joint run of random weights, by its name in `joint_runs.VARIANTS`."""
    from deepgps.training.export import export_run
    from joint_runs import SPECS, VARIANTS, write_run

    @cache
    def exported(name: str) -> tuple[Any, Bundle]:
        recipe, spec = VARIANTS[name]
        folder = tmp_path_factory.mktemp("joint")
        model = write_run(folder / "run", recipe, SPECS[spec])
        return model, export_run(folder / "run", folder / "bundle")

    return exported


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what says so a second time, on PostgreSQL."""
    if "visitor" in metafunc.fixturenames and getattr(metafunc.module, "ON_SERVICES_TOO", False):
        places = ["sqlite", pytest.param("services", marks=pytest.mark.services)]
        metafunc.parametrize("visitor", places, indirect=True)


@pytest.fixture
def visitor(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A visitor of a website with the model ``tiny``; the test computes its jobs."""
    from visitor import visit

    monkeypatch.setenv("DEEPGPS_MODELS", str(tiny_bundle.path.parent))
    if getattr(request, "param", "sqlite") == "services":
        services = request.getfixturevalue("services")
        monkeypatch.setenv("OPENGPS_DATABASE_URL", services.database())
    found = visit(tmp_path / "site")
    yield found
    found.site.sessions.kw["bind"].dispose()


@pytest.fixture(scope="session")
def services() -> Iterator[Any]:
    """PostgreSQL and an S3 server, for tests marked ``services``."""
    from services import running

    with running() as found:
        yield found


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Bundle) -> Iterator[Any]:
    """A running website with a worker; it has deepgps-mini, and ``tiny`` with other crops."""
    from browsing import serving

    models = tmp_path_factory.mktemp("models")
    fields = tiny_bundle.metadata.model_dump(mode="json", exclude={"schema_version", "files"})
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
    write_bundle(models / "tiny", {**fields, "crop": {"size_px": TINY_SIZE, "pixel_size_um": 0.4}}, files)
    with serving(tmp_path_factory.mktemp("served"), models) as site:
        yield site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; not for the whole session, as its loop would be in the way of others."""
    from browsing import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def window(served: Any, chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open windows on the served website; none of its pages may complain."""
    from browsing import Window

    opened = []

    def open_window(**options: Any) -> Any:
        opened.append(Window(chromium, served, **options))
        return opened[-1]

    yield open_window
    for each in opened:
        each.context.close()
        assert each.errors == []


@pytest.fixture
def drawn_nucleus() -> Cell:
    """A round nucleus, brighter than its surroundings."""
    return round_nucleus("round")


def replace_index(store: Path, index: Any) -> None:
    """Write another index into a crop store, with its hash in the manifest."""
    from deepgps.datasets.crops.store import CROPS_INDEX, CROPS_MANIFEST, HASHES
    from deepgps.files import hash_file

    index.write_parquet(store / CROPS_INDEX)
    manifest = json.loads((store / CROPS_MANIFEST).read_text())
    manifest[HASHES][CROPS_INDEX] = hash_file(store / CROPS_INDEX)
    (store / CROPS_MANIFEST).write_text(json.dumps(manifest))


def round_nucleus(name: str, radius_px: float = 45) -> Cell:
    y, x = np.mgrid[:TINY_SIZE, :TINY_SIZE] - TINY_SIZE / 2
    pixels = (0.05 + 0.75 * (np.hypot(y, x) < radius_px)).astype(np.float32)
    return Cell(name, pixels, 0.206, "drawn")


def _metadata(dimension: int) -> Mapping[str, Any]:
    from deepgps.proteins.features import FEATURES_NAME

    mini = CLASS_SETS["mini"]
    return {
        "name": "tiny",
        "version": "0.0.1",
        "classes": mini.slugs,
        "multi_label": mini.multi_label,
        "thresholds": [0.5] * len(mini.slugs),
        "cell_line": "none",
        "encoder": {
            "kind": "features",
            "name": FEATURES_NAME,
            "dimension": dimension,
            "max_length": 2000,
        },
        "crop": {"size_px": TINY_SIZE, "pixel_size_um": 0.206},
        "normalisation": {"low": 3.0, "high": 99.8},
        "calibration": "none: random weights",
        "metrics": {"nothing": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}},
        "training_data": {"nothing": "random weights"},
        "licence": "BSD-3-Clause",
    }


def _encoder(dimension: int, classes: int, latent: tuple[int, int] = (TINY_TOKENS, TINY_WIDTH)) -> bytes:
    """Features (B, F) to logits (B, K) by one random layer, and to a latent (B, T, D) by another."""
    from onnx import TensorProto, helper, numpy_helper

    rng, (tokens, width) = np.random.default_rng(0), latent
    weights = {
        "to_logits": rng.normal(0, 0.5, (dimension, classes)),
        "to_latent": rng.normal(0, 0.5, (dimension, tokens * width)),
    }
    nodes = [
        helper.make_node("Tanh", ["features"], ["bounded"]),
        helper.make_node("MatMul", ["bounded", "to_logits"], ["logits"]),
        helper.make_node("MatMul", ["bounded", "to_latent"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["latent"]),
    ]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    shape = numpy_helper.from_array(np.array([-1, tokens, width], np.int64), "shape")
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", dimension])]
    outputs = [
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["B", tokens, width]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", classes]),
    ]
    return _model(helper.make_graph(nodes, "encoder", inputs, outputs, [*constants, shape]))


def tiny_generator(*, pair_by_pair: bool = False) -> bytes:
    """Image = sigmoid(nucleus + mean of the latent): (N, 1, H, W), (B, T, D), (B,) to (B, 1, H, W).

    The mean image is half as bright. ``pair_by_pair`` is how it was before graphs were told which nucleus:
    as many nuclei as proteins, and no mean image.
    """
    from onnx import TensorProto, helper, numpy_helper

    chosen = helper.make_node("Gather", ["nucleus", "which"], ["chosen"], axis=0)
    if pair_by_pair:
        chosen = helper.make_node("Identity", ["nucleus"], ["chosen"])
    nodes = [
        chosen,
        helper.make_node("ReduceMean", ["latent", "axes"], ["middle"], keepdims=1),
        helper.make_node("Unsqueeze", ["middle", "last"], ["level"]),
        helper.make_node("Add", ["chosen", "level"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["image"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array([3], np.int64), "last"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]
    square = [1, TINY_SIZE, TINY_SIZE]
    inputs = [
        helper.make_tensor_value_info("nucleus", TensorProto.FLOAT, ["N", *square]),
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["B", TINY_TOKENS, TINY_WIDTH]),
    ]
    outputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", *square])]
    if not pair_by_pair:
        inputs.append(helper.make_tensor_value_info("which", TensorProto.INT64, ["B"]))
        nodes.append(helper.make_node("Mul", ["image", "half"], ["mean"]))
        outputs.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", *square]))
    return _model(helper.make_graph(nodes, "generator", inputs, outputs, constants))


def _model(graph: Any) -> bytes:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content
