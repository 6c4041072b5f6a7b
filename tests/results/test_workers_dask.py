"""The same, on a Dask cluster; its scheduler and workers are threads of the test's own process."""

import pytest

from conftest import round_nucleus
from deepgps.errors import DeepGPSError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results import rows as module
from deepgps.results.predict import predict_to_folder

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

CELLS = (round_nucleus("one"), round_nucleus("two", 30))
PROTEINS = [Protein(f"P{n}", "M" + "ACDEFGHIKLNPQRSTVWY"[n % 19] * (20 + n)) for n in range(12)]


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_RESIDUES", 60)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as made:
        yield made


def files(folder):
    names = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in names
        if path.name not in {"run.json", "report.html", "ro-crate-metadata.json"}
    }


def test_a_cluster_writes_what_one_process_writes(predictor, tmp_path, cluster):
    predict_to_folder(predictor, PROTEINS, tmp_path / "one", cells=CELLS)
    predict_to_folder(
        predictor, PROTEINS, tmp_path / "dask", cells=CELLS, scheduler=cluster.scheduler_address
    )
    assert files(tmp_path / "dask") == files(tmp_path / "one")


def test_a_scheduler_that_is_lost_loses_nothing(predictor, tmp_path, cluster):
    def lose(_):
        cluster.close()

    with pytest.raises(DeepGPSError, match="scheduler was lost"):
        predict_to_folder(
            predictor,
            PROTEINS,
            tmp_path / "a",
            images=False,
            scheduler=cluster.scheduler_address,
            on_protein=lose,
        )
    summary = predict_to_folder(predictor, PROTEINS, tmp_path / "a", images=False)
    assert 0 < summary.resumed < 12
    predict_to_folder(predictor, PROTEINS, tmp_path / "one", images=False)
    assert files(tmp_path / "a") == files(tmp_path / "one")


def test_a_cluster_without_workers_is_refused(predictor, tmp_path):
    options = {"n_workers": 0, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as empty,
        pytest.raises(DeepGPSError, match="has no workers"),
    ):
        predict_to_folder(predictor, PROTEINS, tmp_path, images=False, scheduler=empty.scheduler_address)
