"""Explanations and comparisons of variants: the numbers of command and Python, and limits that hold."""

import csv
import io
import re
import time

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from test_web_landmarks import drawer, drawn  # noqa: F401 - a fixture
from visitor import API, SEQUENCE, Page, error_of, text_of, visit

from deepgps.cli.app import run
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.explanations import LIMITS
from known_proteins import CALR, NPM1
from opengps.analyses import computing
from opengps.database import Analysis, Job
from opengps.jobs import job_cells

CHANGES = ["414-417del", "p.Leu9Arg", "E18*", "n+NLS"]


@pytest.fixture
def job(visitor):
    return visitor.predict(f">CALR\n{CALR}\n")


def at(job_id, what, number=0):
    return f"{API}/predictions/{job_id}/results/{number}/{what}"


def explained(visitor, job_id, number=0):
    answer = visitor.client.post(at(job_id, "explanation", number))
    assert answer.status_code == 202, answer.text
    visitor.analyse()
    return visitor.client.get(at(job_id, "explanation", number)).json()


def compared(visitor, job_id, **fields):
    answer = visitor.client.post(at(job_id, "variants"), json=fields)
    assert answer.status_code == 202, answer.text
    visitor.analyse()
    return visitor.client.get(answer.json()["links"]["self"]).json()


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def by_command(tmp_path, tiny_bundle, *arguments):
    (tmp_path / "CALR.fasta").write_text(f">CALR\n{CALR}\n")
    command, *options = arguments
    options += ["--model", tiny_bundle.path, "--out", tmp_path / "out"]
    assert run(list(map(str, [command, tmp_path / "CALR.fasta", *options]))) == 0
    return tmp_path / "out"


def test_an_explanation_is_that_of_command_and_python(visitor, job, tmp_path, tiny_bundle):
    status = explained(visitor, job)
    assert (status["status"], status["error"]) == ("finished", None)
    found, expected = status["explanation"], Predictor(tiny_bundle).explain(Protein("CALR", CALR))
    assert found["sentence"] == expected.sentence()
    assert found["localizations"] == list(expected.localizations)
    assert found["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
    assert list(found["importance"].values()) == pytest.approx(expected.importance, abs=1e-6)
    assert list(found["noise_floor"].values()) == pytest.approx(expected.floor.tolist(), abs=1e-6)
    assert (found["window"], found["length"]) == (expected.width, len(CALR))
    folder = by_command(tmp_path, tiny_bundle, "explain")
    signals = table((folder / "signals.csv").read_text())
    assert {row["signal"] for row in signals} >= {"SP", "ER"}
    shown = [(each["signal"], str(each["start"]), str(each["end"])) for each in found["signals"]]
    assert shown == [(row["signal"], row["start"], row["end"]) for row in signals]
    written = [float(row["importance"]) for row in table((folder / "importance.csv").read_text())]
    assert written == pytest.approx([each for row in found["importance"].values() for each in row], abs=1e-4)
    picture = visitor.client.get(status["links"]["picture.svg"])
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.text == (folder / "pictures/CALR.svg").read_text()


def test_a_comparison_is_that_of_command_and_python(visitor, job, tmp_path, tiny_bundle):
    status = compared(visitor, job, changes=CHANGES)
    found, expected = status["comparison"], Predictor(tiny_bundle).variants(Protein("CALR", CALR), CHANGES)
    assert [each["change"] for each in found["variants"]] == [e.variant.name for e in expected.ranked()]
    for row, effect in zip(found["variants"], expected.ranked(), strict=True):
        assert list(row["changes"].values()) == pytest.approx(effect.change.tolist(), abs=1e-6)
        assert row["moves"] == pytest.approx(effect.moves, abs=1e-6)
        assert row["image_change"] == pytest.approx(effect.image_change, abs=1e-5)
    by_change = {each["change"]: each for each in found["variants"]}
    (lost,) = by_change["414-417del"]["signals_lost"]
    assert (lost["signal"], lost["start"], lost["end"]) == ("ER", 414, 417)
    assert "destroys the ER retention signal 414-417" in by_change["414-417del"]["text"]
    assert found["image_noise_floor"] == pytest.approx(expected.image_floor, abs=1e-5)
    folder = by_command(tmp_path, tiny_bundle, "variants", *CHANGES)
    downloaded = visitor.client.get(status["links"]["variants.csv"])
    assert downloaded.text == (folder / "variants.csv").read_text()


def test_images_are_drawn_beside_the_unchanged_protein(visitor, job):
    status = compared(visitor, job, changes=CHANGES[:2])
    address = status["links"]["self"]
    names = ["unchanged.png", *(each["image"] for each in status["comparison"]["variants"])]
    images = [
        np.asarray(Image.open(io.BytesIO(visitor.client.get(f"{address}/{name}").content))) for name in names
    ]
    assert {image.shape for image in images} == {(208, 208)}
    assert all(not np.array_equal(images[0], image) for image in images[1:])
    error_of(visitor.client.get(f"{address}/7.png"), 404)
    error_of(visitor.client.get(f"{address}/record.png"), 404)
    error_of(visitor.client.get(f"{address}/{'1' * 300}.png"), 404)


def test_variants_are_drawn_into_the_cell_and_with_the_seed_of_the_result(drawer, tiny_flow_bundle):  # noqa: F811
    job_id = drawn(drawer, seed="5")
    found = compared(drawer, job_id, changes=["K2R", "n+NLS"])["comparison"]
    with drawer.site.sessions() as session:
        (cell,) = job_cells(drawer.site, session.get(Job, job_id), tiny_flow_bundle.metadata.crop)
    assert set(cell.landmarks) == {"microtubules", "er"}
    expected = Predictor(tiny_flow_bundle, seed=5).variants(SEQUENCE, ["K2R", "n+NLS"], cell)
    changes = [each.image_change for each in expected.ranked()]
    assert [each["image_change"] for each in found["variants"]] == pytest.approx(changes, abs=1e-4)
    assert max(changes) > 0


def test_the_bundled_model_shows_relatives(visitor):
    job_id = visitor.predict(f">NPM1\n{NPM1}\n", model="deepgps-mini", images=False)
    found = explained(visitor, job_id)["explanation"]
    assert found["evidence"]
    assert {each["signal"] for each in found["signals"]} & {"NLS", "NES"}
    page = visitor.page(f"/predictions/{job_id}/results/0/explanation")
    assert found["sentence"] in text_of(page).replace("&#39;", "'")


def test_a_scan_has_a_heat_map_and_no_images(visitor, job):
    status = compared(visitor, job, scan="5-6")
    found = status["comparison"]
    assert len(found["variants"]) == 38
    assert (found["image"], found["heat_map"]) == (None, "scan.svg")
    assert visitor.client.get(status["links"]["scan.svg"]).text.startswith("<svg")
    page = visitor.page(f"/predictions/{job}/results/0/variants/{status['number']}")
    assert "scan.svg" in page
    assert page.count('<th scope="row">') >= 38


def test_pages_from_the_result_to_its_explanation(visitor, job):
    place = f"/predictions/{job}/results/0"
    assert f'action="{place}/explanation"' in visitor.page(place)
    visitor.page(f"{place}/explanation", status=404)
    answer = visitor.client.post(f"{place}/explanation", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{place}/explanation")
    waiting = visitor.page(f"{place}/explanation")
    assert 'data-live="yes"' in waiting
    visitor.analyse()
    page = visitor.page(f"{place}/explanation")
    assert 'data-live="no"' in page
    assert f'src="{place}/explanation/picture.svg"' in page
    text = text_of(page)
    assert "signal peptide SP 1–17" in text
    assert "without the protein's own record" in text
    links = visitor.rows(job)["results"][0]["links"]
    assert links["explanation"] == f"{API}{place}/explanation"


def test_pages_from_the_form_to_the_comparison(visitor, job):
    place = f"/predictions/{job}/results/0/variants"
    form = {"changes": "p.Leu9Arg\r\n 414-417del", "scan": ""}
    answer = visitor.client.post(place, data=form, follow_redirects=False)
    assert answer.status_code == 303
    visitor.analyse()
    page = visitor.page(answer.headers["location"])
    sources = [each["src"] for each in Page(page).all("img")]
    assert sum(source.endswith("unchanged.png") for source in sources) == 2
    assert "<figcaption>Unchanged: " in page
    assert "p.Leu9Arg" in page
    text = text_of(page).replace("&#39;", "'")
    assert LIMITS in text
    assert "scores single substitutions" in text
    earlier = visitor.page(place)
    assert answer.headers["location"] in earlier
    (listed,) = visitor.client.get(f"{API}{place}").json()
    assert (listed["changes"], listed["status"]) == (["p.Leu9Arg", "414-417del"], "finished")
    none = visitor.client.post(place, data={**form, "images": "false"}, follow_redirects=False)
    visitor.analyse()
    assert visitor.client.get(f"{API}{none.headers['location']}").json()["comparison"]["image"] is None


@pytest.mark.parametrize(
    ("sent", "code", "field", "message"),
    [
        (
            {"changes": ["A9R"]},
            "invalid_change",
            "changes",
            "expects A at residue 9, where the",
        ),
        ({"changes": ["rubbish"]}, "invalid_change", "changes", "cannot be read"),
        ({"changes": ["L900R"]}, "invalid_change", "changes", "residue 900 of a sequence of 417"),
        ({"changes": ["c+" + "A" * 2000]}, "invalid_change", "changes", "write at most 1,000"),
        ({}, "no_changes", "changes", "There is no change"),
        ({"scan": "x"}, "invalid_region", "scan", "cannot be read"),
        ({"scan": "400-500"}, "invalid_region", "scan", "is not in the sequence of 417"),
        ({"scan": "9" * 30 + "-1"}, "invalid_region", "scan", "cannot be read"),
        ({"scan": "1-60"}, "too_many_variants", "scan", "1,140 variants; the limit is 1,000"),
        ({"changes": ["L9R"] * 21}, "too_many_images", "images", "the limit is 20"),
        ({"changes": ["L9R"] * 1001}, "too_many_variants", "changes", "1,001 variants"),
        ({"changes": "L9R"}, "validation_error", "changes", "valid array"),
        ({"changes": ["L9R"], "colour": 1}, "validation_error", "colour", "not permitted"),
    ],
)
def test_a_request_that_cannot_be_used_is_a_sentence(visitor, job, sent, code, field, message):
    error = error_of(visitor.client.post(at(job, "variants"), json=sent), 422)
    assert (error["code"], error["field"]) == (code, field)
    assert message in error["message"]
    assert visitor.client.get(at(job, "variants")).json() == []


def test_the_form_shows_what_is_wrong_beside_the_field(visitor, job):
    place = f"/predictions/{job}/results/0/variants"
    answer = visitor.client.post(place, data={"changes": "A9R <b>", "images": "false"})
    assert answer.status_code == 422
    assert re.search(r'id="changes-problems">\s*<li>Change &#39;A9R&#39; expects', answer.text)
    assert "A9R &lt;b&gt;</textarea>" in answer.text
    file = visitor.client.post(place, data={"changes": "L9R"}, files={"file": ("a.txt", b"x")})
    assert file.status_code == 422
    assert error_of(visitor.client.post(at(job, "variants"), content=b"x"), 415)["field"] == "Content-Type"


def test_limits_of_length_hold(tmp_path, visitor):
    small = visit(tmp_path / "small", max_explained_residues=400, max_total_residues=3000)
    job_id = small.predict(f">CALR\n{CALR}\n>short\n{CALR[:300]}\n")
    for what in ("explanation", "variants"):
        error = error_of(small.client.post(at(job_id, what), json={"changes": ["L9R"]}), 422)
        assert error["code"] == "too_many_residues"
        assert "has 417 residues; the limit to explain or compare is 400" in error["message"]
    few = small.client.post(at(job_id, "variants", 1), json={"changes": ["L9R"] * 11, "images": False})
    assert error_of(few, 422)["code"] == "too_many_variants"
    longer = [f"c+{'A' * 900}", f"c+{'A' * 900}", f"c+{'G' * 900}"]
    error = error_of(small.client.post(at(job_id, "variants", 1), json={"changes": longer}), 422)
    assert "3,600 residues in all; the limit is 3,000" in error["message"]


def test_quotas_count_analyses(tmp_path, visitor):
    small = visit(tmp_path / "small", jobs_per_hour=3, proteins_per_hour=10)
    job_id = small.predict(f">CALR\n{CALR}\n")
    assert small.client.post(at(job_id, "explanation")).status_code == 202
    assert small.client.post(at(job_id, "explanation")).status_code == 202, "the same one"
    many = {"changes": ["L9R"] * 12}
    refused = small.client.post(at(job_id, "variants"), json=many)
    assert error_of(refused, 429)["code"] == "too_many_proteins_per_hour"
    assert small.client.post(at(job_id, "variants"), json={"changes": ["L9R"]}).status_code == 202
    refused = small.client.post(at(job_id, "variants"), json={"changes": ["L9R"]})
    assert error_of(refused, 429)["code"] == "too_many_jobs"
    busy = visit(tmp_path / "small", max_open_jobs=1)
    refused = busy.client.post(at(job_id, "variants"), json={"changes": ["L9R"]})
    assert error_of(refused, 429)["code"] == "server_busy"


def test_only_results_that_exist_are_explained(visitor, job):
    for what in ("explanation", "variants"):
        for method in ("GET", "POST"):
            answer = visitor.client.request(method, at(job, what, 5), json={"changes": ["L9R"]})
            error_of(answer, 404)
    error_of(visitor.client.get(at(job, "explanation")), 404)
    error_of(visitor.client.get(at(job, "variants/1")), 404)
    other = visitor.predict()
    number = compared(visitor, job, changes=["L9R"])["number"]
    error_of(visitor.client.get(at(other, f"variants/{number}")), 404)


def test_analyses_are_deleted_with_their_job(visitor, job):
    explained(visitor, job)
    compared(visitor, job, changes=["L9R"])
    assert list(visitor.job_folder(job).glob("analyses/*/record.json"))
    visitor.client.delete(f"{API}/predictions/{job}")
    assert not visitor.job_folder(job).exists()
    with visitor.site.sessions() as session:
        assert session.scalars(select(Analysis)).all() == []


def test_a_job_that_is_deleted_while_it_is_explained_leaves_no_files(visitor, job, monkeypatch):
    visitor.client.post(at(job, "explanation"))
    compute = computing._compute

    def deleted(site, analysis):
        files = compute(site, analysis)
        visitor.client.delete(f"{API}/predictions/{job}")
        return files

    monkeypatch.setattr(computing, "_compute", deleted)
    visitor.analyse()
    assert not list(visitor.job_folder(job).rglob("*.json"))


class KilledError(BaseException):
    """The worker is killed."""


def test_an_analysis_whose_workers_die_is_given_up(visitor, job, monkeypatch):
    visitor.client.post(at(job, "explanation"))

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(computing, "_compute", killed)
    for _ in range(visitor.site.settings.max_attempts):
        with pytest.raises(KilledError):
            computing.analyse_next(visitor.site)
        assert not computing.analyse_next(visitor.site), "until its lease expires"
        with visitor.site.sessions.begin() as session:
            session.scalars(select(Analysis)).one().lease_expires_at = time.time() - 1
    assert not computing.analyse_next(visitor.site)
    status = visitor.client.get(at(job, "explanation")).json()
    assert status["status"] == "failed"
    assert "could not be computed" in status["error"]
    assert "could not be computed" in visitor.page(f"/predictions/{job}/results/0/explanation")
    # It may be asked for again.
    assert visitor.client.post(at(job, "explanation")).json()["status"] == "queued"


def test_analyses_are_counted(visitor, job):
    visitor.client.post(at(job, "explanation"))
    assert 'opengps_analyses{status="queued"} 1' in visitor.client.get("/metrics").text
    visitor.analyse()
    assert 'opengps_analyses{status="finished"} 1' in visitor.client.get("/metrics").text
