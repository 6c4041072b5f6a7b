"""A finished run is an RO-Crate that the crates' own library reads."""

import json

import pytest
from rocrate.rocrate import ROCrate

from conftest import round_nucleus
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import RECORDS_FILE, REJECTED_FILE, REPORT_FILE, TABLES
from deepgps.results.image_storage import IMAGE_FOLDER, IMAGE_STORE
from deepgps.results.predict import predict_to_folder
from deepgps.results.ro_crate import CONTENTS
from deepgps.results.run import RUN_FILE

RECORDS = [Protein("P1", "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"), Rejection("P2", "a.fasta", "is empty")]


@pytest.fixture(scope="module")
def folder(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    inputs = [("/home/me/secret/a.fasta", "0" * 64), ("P12345", None)]
    predict_to_folder(Predictor(tiny_bundle), RECORDS, folder, cells=[round_nucleus("one")], inputs=inputs)
    return folder


def test_the_crate_lists_every_file_of_the_run(folder):
    crate = ROCrate(folder)
    assert crate.root_dataset["conformsTo"].id == "https://w3id.org/ro/wfrun/process/0.5"
    listed = {each.id for each in crate.data_entities}
    written = {f"{each.name}{'/' if each.is_dir() else ''}" for each in folder.iterdir()}
    assert listed == written - {"ro-crate-metadata.json", ".deepgps.lock"}
    assert int(crate.get("results.csv")["contentSize"]) == (folder / "results.csv").stat().st_size


def test_the_crate_says_what_made_the_files_of_what(folder, tiny_bundle):
    crate, run = ROCrate(folder), json.loads((folder / "run.json").read_text())
    action = crate.get("#run")
    assert action.type == "CreateAction" and action["instrument"]["softwareVersion"] == run["deepgps"]
    assert (action["startTime"], action["endTime"]) == (run["started"], run["finished"])
    used = {each.id: each for each in action["object"]}
    assert used["#model"]["identifier"] == f"sha256:{tiny_bundle.sha256}"
    assert [used[name]["name"] for name in ("#input-1", "#input-2", "#nuclei-1")] == [
        "a.fasta",
        "P12345",
        "one",
    ]
    assert used["#option-seed"]["value"] == "0" and used["#option-format"]["value"] == "csv"
    assert {each.id for each in action["result"]} == {each.id for each in crate.data_entities}
    assert "secret" not in (folder / "ro-crate-metadata.json").read_text()


def test_an_unfinished_run_has_none(tiny_bundle, tmp_path):
    records = [RECORDS[0], Protein("P3", "MKRPAATKKAGQAKKKKLDKNW")]
    predict_to_folder(Predictor(tiny_bundle), records, tmp_path, images=False, limit=1)
    assert not (tmp_path / "ro-crate-metadata.json").exists()
    predict_to_folder(Predictor(tiny_bundle), records, tmp_path, images=False)
    assert (tmp_path / "ro-crate-metadata.json").is_file()


def test_every_file_that_a_run_may_have_is_described():
    written = {RECORDS_FILE, REJECTED_FILE, REPORT_FILE, RUN_FILE, IMAGE_FOLDER, IMAGE_STORE}
    assert set(CONTENTS) == written | set(TABLES)
