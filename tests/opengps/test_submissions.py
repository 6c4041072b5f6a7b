import io

import numpy as np
import pytest
import tifffile
from contributor import FIELDS, HEADER, batch, field, packed, pair, submit, submit_files, tiff
from PIL import Image
from visitor import API, error_of, visit

from deepgps.images.similarity import pearson
from opengps.database import ImagePair, Submission
from opengps.submissions.comparison import compare_next
from opengps.submissions.schemas import CONSENT
from opengps.submissions.store import purge_submissions

ON_SERVICES_TOO = True


@pytest.fixture
def sent(visitor):
    """A submission of one image."""
    answer = submit(visitor)
    assert answer.status_code == 201, answer.text
    return answer.json()


def compare(visitor):
    while compare_next(visitor.site):
        pass


def show(visitor, sent):
    return visitor.client.get(f"{API}/submissions/{sent['id']}").json()


def problems(answer, status):
    assert answer.status_code == status, answer.text
    return {each["field"]: (each["code"], each["message"]) for each in answer.json()["errors"]}


def test_a_submission_from_sending_to_deleting(visitor):
    answer = submit(visitor)
    assert answer.status_code == 201
    address = answer.headers["location"]
    assert len(answer.json()["id"]) == 22
    (image_pair,) = visitor.client.get(address).json()["images"]
    assert (image_pair["status"], image_pair["crops"], image_pair["comparison"]) == ("pending", 2, None)
    folder = visitor.submission_folder(answer.json()["id"])
    assert len(list(folder.iterdir())) == 2
    assert visitor.client.delete(address).status_code == 204
    error_of(visitor.client.get(address), 404)
    assert not folder.exists()


def test_images_and_sender_are_stored_as_sent(visitor, sent):
    folder = visitor.submission_folder(sent["id"])
    (image,) = folder.glob("*.ome.tif")
    nucleus, protein = field()
    np.testing.assert_array_equal(tifffile.imread(image), np.stack([nucleus, protein]))
    with visitor.site.sessions() as session:
        (submission,) = session.query(Submission)
        (image_pair,) = session.query(ImagePair)
    assert (submission.contributor, submission.licence, submission.consent) == ("A lab", "CC-BY-4.0", CONSENT)
    assert [each["name"] for each in image_pair.provenance["files"]] == ["n0.tif", "p0.tif"]


def test_the_crops_are_those_of_data_prepare(visitor, sent):
    from deepgps.datasets.crops.cutting import cut_field, normalise_field
    from deepgps.images.segmentation import refined_otsu
    from opengps.submissions.requests import CROP_SETTINGS

    (crops,) = visitor.submission_folder(sent["id"]).glob("*.npy")
    nucleus, protein = (each.astype(np.float32) for each in field())
    ready = normalise_field(nucleus, [protein], 0.2, CROP_SETTINGS, refined_otsu())
    expected = np.stack([each.pixels for each in cut_field(ready, CROP_SETTINGS)])
    np.testing.assert_array_equal(np.load(crops), expected)


def test_a_worker_compares_it_with_the_models_image(visitor, sent):
    compare(visitor)
    (image_pair,) = show(visitor, sent)["images"]
    found = image_pair["comparison"]
    assert image_pair["problem"] is None
    assert found["localizations"]
    folder = visitor.submission_folder(sent["id"])
    (stack,) = (np.load(file) for file in folder.glob("*.comparison.npy"))
    real, drawn = stack[1:].astype(np.float32) / 255
    assert found["r"] == pytest.approx(float(pearson(real[None], drawn[None])[0]), abs=0.01)
    # The drawn ring lies around the nuclei.
    assert found["intranuclear_real"] < 0.1
    for name in ("nucleus.png", "protein.png", "overlay.png", "drawn.png", "drawn-overlay.png"):
        content = visitor.client.get(image_pair["links"][name]).content
        assert Image.open(io.BytesIO(content)).size == (208, 208)
    assert not compare_next(visitor.site)


def test_images_that_are_not_drawn_yet_are_404(visitor, sent):
    here = f"{API}/submissions/{sent['id']}/images/1"
    assert visitor.client.get(f"{here}/protein.png").status_code == 200
    for layer in ("drawn", "secret"):
        error_of(visitor.client.get(f"{here}/{layer}.png"), 404)
    error_of(visitor.client.get(f"{API}/submissions/{sent['id']}/images/7"), 404)
    error_of(visitor.client.get(f"{API}/submissions/none/images/1"), 404)


def test_an_image_of_another_submission_is_not_found(visitor, sent):
    other = submit(visitor, pair(1)).json()
    number = other["images"][0]["number"]
    error_of(visitor.client.delete(f"{API}/submissions/{sent['id']}/images/{number}"), 404)
    assert len(show(visitor, other)["images"]) == 1


def test_a_failed_lookup_is_shown(tmp_path, visitor):
    site = visit(tmp_path / "other", uniprot_url="http://127.0.0.1:9", max_attempts=1)
    sent = submit(site, sequence="").json()
    compare(site)
    (image_pair,) = show(site, sent)["images"]
    assert image_pair["comparison"] is None
    assert "NPM1" in image_pair["problem"]


def test_a_comparison_that_always_fails_is_given_up(visitor, sent, monkeypatch):
    def die(*_):
        raise MemoryError

    monkeypatch.setattr("opengps.submissions.comparison._draw_and_measure", die)
    for _ in range(visitor.site.settings.max_attempts):
        with pytest.raises(MemoryError):
            compare_next(visitor.site)
        # Until its lease expires, no worker tries again.
        assert not compare_next(visitor.site)
        with visitor.site.sessions.begin() as session:
            session.query(ImagePair).update({ImagePair.lease_expires_at: 0.0})
    assert not compare_next(visitor.site)
    assert show(visitor, sent)["images"][0]["problem"].startswith("It could not be compared")


def test_nothing_is_stored_without_consent(visitor):
    for consent in ("", "false"):
        code, _ = problems(submit(visitor, consent=consent), 422)["consent"]
        assert code == "consent_required"
    assert not (visitor.site.settings.data / "submissions").exists()


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"licence": "all rights reserved"}, "licence"),
        ({"contributor": " "}, "contributor"),
        ({"contributor": "a\x00b"}, "contributor"),
        ({"contributor": "a\x9b2Jb"}, "contributor"),
        ({"localizations": "moon"}, "localizations.0"),
        ({"localizations": ""}, "localizations"),
        ({"protein": ""}, "protein"),
        ({"sequence": "MKJ" * 10}, "nucleus_image"),
        ({"pixel_size_um": "nan"}, "pixel_size_um"),
        ({"pixel_size_um": ""}, "nucleus_image"),
        ({"nucleus_channel": "3"}, "nucleus_image"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_fields_are_422(visitor, fields, where):
    assert where in problems(submit(visitor, **fields), 422)
    submissions = visitor.site.settings.data / "submissions"
    assert not submissions.exists() or not list(submissions.iterdir())


def test_all_errors_of_an_image_are_reported_at_once(visitor):
    assert set(problems(submit(visitor, protein="", cell_line=""), 422)) == {"protein", "cell_line"}


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"II*\0" + b"\xff" * 40, b"%PDF-1.4"])
def test_other_content_is_refused(visitor, content):
    files = {**pair(), "protein_image": ("../../p.tif", content, "image/tiff")}
    _, message = problems(submit(visitor, files), 422)["nucleus_image"]
    assert "'p.tif'" in message


def test_images_that_do_not_match_are_refused(visitor):
    smaller = tiff(field(edge=250)[1])
    files = {**pair(), "protein_image": ("small.tif", smaller, "image/tiff")}
    _, message = problems(submit(visitor, files), 422)["nucleus_image"]
    assert "300 × 300" in message
    blank = tiff(np.random.default_rng(0).normal(200, 8, (300, 300)).astype(np.uint16))
    files = {**pair(), "protein_image": ("blank.tif", blank, "image/tiff")}
    assert "image is empty" in problems(submit(visitor, files), 422)["nucleus_image"][1]


def test_one_image_of_two_channels(visitor):
    files = {"nucleus_image": ("both.tif", tiff(*field()), "image/tiff")}
    assert "give nucleus_channel" in problems(submit(visitor, files), 422)["nucleus_image"][1]
    answer = submit(visitor, files, nucleus_channel="0", protein_channel="1")
    assert answer.status_code == 201


def test_a_duplicate_is_recognised_in_another_file(visitor, sent):
    nucleus, protein = field()
    both = io.BytesIO()
    tifffile.imwrite(both, np.stack([nucleus, protein]), compression="zlib")
    files = {"nucleus_image": ("again.tif", both.getvalue(), "image/tiff")}
    answer = submit(visitor, files, nucleus_channel="0", protein_channel="1")
    assert problems(answer, 409)["nucleus_image"][0] == "duplicate"
    visitor.client.delete(f"{API}/submissions/{sent['id']}")
    assert submit(visitor, files, nucleus_channel="0", protein_channel="1").status_code == 201


def test_two_requests_at_once_make_one_image(visitor, sent, monkeypatch):
    monkeypatch.setattr("opengps.submissions.requests.is_duplicate", lambda *_: False)
    assert problems(submit(visitor), 409)["nucleus_image"][0] == "duplicate"
    assert len(list((visitor.site.settings.data / "submissions").iterdir())) == 1


def test_a_batch_reports_what_was_rejected(visitor):
    files = batch(3)
    files["lab/table.csv"] += b"n9.tif,p9.tif,protein9,er\nn1.tif,p1.tif,again,er\nn0.tif,p0.tif,x,moon\n"
    answer = submit_files(visitor, ("lab.zip", packed(files)))
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert [each["protein"] for each in found["images"]] == ["protein0", "protein1", "protein2"]
    reasons = [each["reason"] for each in found["rejected"]]
    assert ["not among the files" in reasons[0], "before" in reasons[1], "localizations" in reasons[2]]
    assert all(each["reason"].startswith(f"Row {each['row']}") for each in found["rejected"])


def test_a_batch_as_loose_files_and_a_tsv(visitor):
    files = batch(2, folder="")
    table = files.pop("table.csv").replace(b",", b"\t")
    answer = submit_files(visitor, *files.items(), ("table.tsv", table))
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["images"]) == 2


def test_a_batch_as_excel_saves_it_where_commas_are_decimal(visitor):
    files = batch(1, folder="")
    header = HEADER.strip().replace(",", ";") + ";microscope;pixel_size_um"
    row = "n0.tif;p0.tif;x;er;Zeiss µ;0,25"
    files["table.csv"] = f"sep=;\r\n{header}\r\n{row}\r\n".encode("utf-16")
    answer = submit_files(visitor, *files.items())
    assert answer.status_code == 201, answer.text
    (image_pair,) = answer.json()["images"]
    assert (image_pair["microscope"], image_pair["pixel_size_um"]) == ("Zeiss µ", 0.25)


def test_a_cell_of_the_table_takes_precedence_over_the_form(visitor):
    files = batch(1, folder="")
    header = "\ufeff" + HEADER.replace("\n", ",cell_line\n")
    files["table.csv"] = f"{header}n0.tif,p0.tif,x,er|golgi,HeLa\n".encode()
    (image_pair,) = submit_files(visitor, *files.items()).json()["images"]
    assert (image_pair["cell_line"], image_pair["localizations"]) == ("HeLa", ["er", "golgi"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("protein,localizations\nx,er\n", "no column 'nucleus_image'"),
        ("nucleus_image,shape\na,b\n", "unknown column 'shape'"),
        (HEADER, "no rows"),
        (HEADER + "a.tif,b.tif,x,er\n", "'a.tif' is not among the files"),
        (HEADER + '"a.tif,b.tif,x,er\nc.tif,d.tif,y,er\n', "Lines 2 to 3 cannot be read"),
        (HEADER + "a.tif,b.tif,x,er,golgi\n", "Line 2 has 5 cells for 4 columns"),
    ],
)
def test_unusable_tables_are_refused(visitor, table, message):
    assert message in problems(submit_files(visitor, ("t.csv", table.encode())), 422)["files"][1]


def test_a_batch_needs_one_table_and_no_single_image(visitor):
    assert "0 tables" in problems(submit_files(visitor, ("a.tif", tiff(field()[0]))), 422)["files"][1]
    files = [("files", ("t.csv", HEADER.encode())), ("nucleus_image", ("n.tif", b"x"))]
    answer = visitor.client.post(f"{API}/submissions", data=FIELDS, files=files)
    assert problems(answer, 422)["files"][0] == "conflicting_inputs"


def test_images_by_submission_by_the_hour_and_pending_are_limited(tmp_path, visitor):
    few = visit(tmp_path / "few", max_submission_images=2)
    files = batch(2, folder="")
    files["table.csv"] += b"n0.tif,p0.tif,x,er\n"
    answer = submit_files(few, ("lab.zip", packed(files)))
    assert problems(answer, 422)["files"][0] == "too_many_images"
    hourly = visit(tmp_path / "hourly", images_per_hour=1)
    assert submit(hourly).status_code == 201
    answer = submit(hourly, pair(1))
    assert error_of(answer, 429)["code"] == "too_many_images_per_hour"
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    full = visit(tmp_path / "full", max_pending_images=0)
    assert error_of(submit(full), 429)["code"] == "server_busy"


def test_other_media_types_are_415(visitor):
    error_of(visitor.client.post(f"{API}/submissions", json=FIELDS), 415)


def test_who_sent_what_is_forgotten_and_orphans_are_deleted(visitor, sent):
    import os

    orphan = visitor.submission_folder("orphan")
    orphan.mkdir()
    os.utime(orphan, (0, 0))
    with visitor.site.sessions.begin() as session:
        assert session.query(Submission).one().visitor is not None
        kept_s = visitor.site.settings.retention_days * 86_400
        session.query(Submission).update({Submission.created_at: Submission.created_at - kept_s - 1})
    purge_submissions(visitor.site)
    with visitor.site.sessions() as session:
        assert session.query(Submission).one().visitor is None
    assert not orphan.exists()
    assert visitor.submission_folder(sent["id"]).exists()
