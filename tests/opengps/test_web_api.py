import csv
import io
import json
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image
from visitor import ADDRESS, API, SEQUENCE, error_of, fasta, visit

from deepgps.bundle import DEFAULT_MODEL
from deepgps.prediction import Predictor
from opengps.database import Usage
from opengps.downloads import escape_formula

ON_SERVICES_TOO = True

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def job(visitor):
    return visitor.predict(fasta(3), nuclei=["hek-1", "u2os-1"])


def test_a_prediction_from_sending_to_deleting(visitor):
    answer = visitor.send(fasta(3))
    assert answer.status_code == 202
    address = answer.headers["location"]
    assert address == f"{API}/predictions/{answer.json()['id']}"
    assert answer.json()["status"] == "queued"
    assert answer.json()["queue_position"] == 1
    visitor.work()
    status = visitor.client.get(address).json()
    assert (status["status"], status["predicted"], status["rejected"]) == ("finished", 3, 0)
    assert visitor.client.get(status["links"]["page"]).status_code == 200
    found = visitor.client.get(status["links"]["results"]).json()
    assert [row["protein_id"] for row in found["results"]] == ["p0", "p1", "p2"]
    links = found["results"][0]["links"]
    assert visitor.client.get(links.pop("explanation")).status_code == 404  # until it is asked for
    assert all(visitor.client.get(link).status_code == 200 for link in links.values())
    assert visitor.client.delete(address).status_code == 204
    error_of(visitor.client.get(address), 404)
    assert not visitor.job_folder(status["id"]).exists()


def test_ids_are_random(visitor):
    ids = {visitor.send().json()["id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(len(each) == 22 for each in ids)


def test_rows_are_those_of_the_command_line(visitor, tiny_bundle, tmp_path):
    from deepgps.prediction import Predictor
    from deepgps.proteins.protein import Protein
    from deepgps.results.predict import predict_to_folder
    from deepgps.results.records import read_records

    job = visitor.predict()
    predict_to_folder(Predictor(tiny_bundle, threads=1), [Protein("one", SEQUENCE)], tmp_path / "cli")
    (expected,) = read_records(tmp_path / "cli" / "results.jsonl")
    (row,) = visitor.rows(job)["results"]
    assert {name: row[name] for name in expected} == expected


def test_results_are_sorted_filtered_and_paged(visitor, job):
    found = visitor.rows(job, sort="confidence", order="desc", limit=2)
    assert found["total"] == 6
    everything = [row["confidence"] for row in visitor.rows(job)["results"]]
    assert [row["confidence"] for row in found["results"]] == sorted(everything, reverse=True)[:2]
    named = visitor.rows(job)["results"][0]["localizations"][0]
    assert all(named in row["localizations"] for row in visitor.rows(job, localization=named)["results"])
    assert visitor.rows(job, localization=named[:-1])["total"] == 0
    assert [row["number"] for row in visitor.rows(job, offset=4)["results"]] == [4, 5]


def test_tables_contain_all_results(visitor, job):
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        answer = visitor.client.get(f"{API}/predictions/{job}/results.{kind}")
        rows = list(csv.DictReader(io.StringIO(answer.text), delimiter=delimiter))
        assert [row["Protein_ID"] for row in rows] == ["p0", "p0", "p1", "p1", "p2", "p2"]
        assert answer.headers["content-disposition"].startswith("attachment")
    assert len(visitor.client.get(f"{API}/predictions/{job}/results.json").json()) == 6


def test_the_zip_contains_tables_images_report_and_run_record(visitor, job):
    whole = zipfile.ZipFile(io.BytesIO(visitor.client.get(f"{API}/predictions/{job}/results.zip").content))
    assert whole.testzip() is None
    names = set(whole.namelist())
    tables = {"results.csv", "results.tsv", "results.jsonl", "rejected.csv", "report.html", "run.json"}
    assert tables <= names
    assert len(names - tables) == 12
    assert json.loads(whole.read("run.json"))["model"]["name"] == "tiny"
    images = zipfile.ZipFile(io.BytesIO(visitor.client.get(f"/predictions/{job}/images.zip").content))
    assert set(images.namelist()) == names - tables
    stack = tifffile.imread(io.BytesIO(images.read("images/p0__hek-1.ome.tif")))
    assert stack.shape == (2, 208, 208)


def test_a_mean_image_is_the_mean_image_of_the_model(visitor, tiny_bundle):
    both = [visitor.predict(mean=mean) for mean in (False, True)]
    assert [visitor.status(each)["mean"] for each in both] == [False, True]
    found = []
    for each in both:
        content = visitor.client.get(f"{API}/predictions/{each}/results/0/image.ome.tif").content
        found.append(tifffile.imread(io.BytesIO(content))[1] / 65535)
    for mean, pixels in zip((False, True), found, strict=True):
        prediction = Predictor(tiny_bundle, mean=mean).predict_one(SEQUENCE)
        assert np.abs(pixels - prediction.image).max() < 1e-4
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_layers_are_images(visitor, job):
    for layer in ("nucleus", "protein", "overlay", "nucleus-blue", "protein-yellow"):
        answer = visitor.client.get(f"{API}/predictions/{job}/results/1/{layer}.png")
        assert Image.open(io.BytesIO(answer.content)).size == (208, 208)
    error_of(visitor.client.get(f"{API}/predictions/{job}/results/1/secret.png"), 404)
    error_of(visitor.client.get(f"{API}/predictions/{job}/results/99/nucleus.png"), 404)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)"])
def test_a_table_contains_no_formula(visitor, name):
    job = visitor.predict(f'id,sequence\n"{name}",{SEQUENCE}\n"{name}x",MK1\n')
    for table in ("results.csv", "rejected.csv"):
        text = visitor.client.get(f"{API}/predictions/{job}/{table}").text
        assert all(
            cell[:1] not in "=+-@\t" or not cell for row in csv.reader(io.StringIO(text)) for cell in row
        )
    assert visitor.rows(job)["results"][0]["protein_id"] == name


def test_a_number_is_not_escaped():
    assert escape_formula("0.5") == "0.5"


def test_a_running_prediction_shows_its_results(visitor):
    job = visitor.send(fasta(40)).json()["id"]
    visitor.chunk()
    status = visitor.status(job)
    assert (status["status"], status["predicted"]) == ("running", 8)
    assert visitor.rows(job)["total"] == 8
    assert visitor.client.get(f"{API}/predictions/{job}/results.zip").status_code == 200


def test_cancelling_keeps_results_and_works_once(visitor):
    job = visitor.send(fasta(40)).json()["id"]
    visitor.chunk()
    answer = visitor.client.post(f"{API}/predictions/{job}/cancel")
    assert answer.json()["status"] == "cancelled"
    assert visitor.rows(job)["total"] == 8
    assert error_of(visitor.client.post(f"{API}/predictions/{job}/cancel"), 409)["code"] == "already_finished"


def test_missing_things_are_404(visitor, job):
    for address in (
        *("/predictions/none", "/predictions/none/results.csv", "/models/none", "/nuclei/none", "/nothing"),
        *(f"/predictions/{job}/results/99", "/predictions/%00", "/nuclei/none/image.png"),
    ):
        assert error_of(visitor.client.get(f"{API}{address}"), 404)["code"] == "not_found"


def test_unsupported_methods_are_405(visitor):
    answer = visitor.client.put(f"{API}/models")
    error_of(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_other_media_types_are_415(visitor):
    answer = visitor.client.post(f"{API}/predictions", content="x", headers={"Content-Type": "text/plain"})
    assert error_of(answer, 415)["field"] == "Content-Type"
    error_of(visitor.client.post(f"{API}/predictions"), 415)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", None),
        ("[]", None),
        ('{"proteins": 5}', "proteins"),
        ('{"proteins": "x", "colour": "red"}', "colour"),
        ('{"proteins": "x", "channel": -1}', "channel"),
        ('{"proteins": "x", "pixel_size_um": 0}', "pixel_size_um"),
        ('{"proteins": "x", "pixel_size_um": "guess"}', "pixel_size_um"),
    ],
)
def test_invalid_json_is_422(visitor, body, field):
    answer = visitor.client.post(f"{API}/predictions", content=body, headers=JSON)
    assert error_of(answer, 422)["field"] == field


def test_a_number_that_cannot_be_read_is_named(visitor, job):
    assert error_of(visitor.client.get(f"{API}/predictions/{job}/results/one"), 422)["field"] == "number"


def test_all_errors_are_reported_at_once(visitor):
    answer = visitor.client.post(f"{API}/predictions", json={"model": "x", "proteins": "", "nuclei": ["y"]})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == ["model", "proteins", "nuclei"]


@pytest.mark.parametrize("query", [{"sort": "colour"}, {"limit": 0}, {"offset": -1}, {"confidence": 2}])
def test_invalid_queries_are_422(visitor, job, query):
    answer = visitor.client.get(f"{API}/predictions/{job}/results", params=query)
    assert error_of(answer, 422)["field"] == next(iter(query))


def test_one_job_too_many_is_429_with_the_wait(tmp_path, visitor):
    visitor = visit(tmp_path / "few", jobs_per_hour=2)
    assert [visitor.send().status_code for _ in range(2)] == [202, 202]
    answer = visitor.send()
    assert error_of(answer, 429)["code"] == "too_many_jobs"
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    with visitor.site.sessions.begin() as session:
        (visitor_hash,) = {each.visitor for each in session.query(Usage)}
        assert len(visitor_hash) == 24 and ADDRESS not in visitor_hash
        session.query(Usage).update({Usage.created_at: Usage.created_at - 3601})
    assert visitor.send().status_code == 202


def test_proteins_by_the_hour_and_open_jobs_are_limited(tmp_path, visitor):
    few = visit(tmp_path / "few", proteins_per_hour=5)
    assert few.send(fasta(3)).status_code == 202
    assert error_of(few.send(fasta(3)), 429)["code"] == "too_many_proteins_per_hour"
    few.work()
    full = visit(tmp_path / "full", max_open_jobs=1)
    assert full.send().status_code == 202
    assert error_of(full.send(), 429)["code"] == "server_busy"
    full.work()
    assert full.send().status_code == 202


def test_models_and_nuclei_are_listed(visitor):
    names = [model["name"] for model in visitor.client.get(f"{API}/models").json()]
    assert {"tiny", DEFAULT_MODEL, f"{DEFAULT_MODEL}:single-2"} <= set(names)
    assert visitor.client.get(f"{API}/models/tiny").json()["classes"][0] == "nucleoplasm"
    nuclei = visitor.client.get(f"{API}/nuclei").json()
    assert nuclei[0]["name"] == "hek-1"
    assert Image.open(io.BytesIO(visitor.client.get(nuclei[0]["image"]).content)).size == (208, 208)


def test_the_site_shows_its_limits(visitor):
    service = visitor.client.get(API).json()
    assert service["limits"]["max_proteins"] == visitor.site.settings.max_proteins
    assert all(link.startswith(API) for link in service["links"].values())


def test_health(visitor):
    assert visitor.client.get("/health").json()["status"] == "ok"
