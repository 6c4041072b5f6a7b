"""Landmarks and seeds: the website draws what the command line draws, and says what was given."""

import io
import json

import numpy as np
import pytest
import tifffile
from visitor import API, SEQUENCE, error_of, text_of, visit

from deepgps.cli.app import run

UM = 0.206
MODEL = "tiny-flow"
FASTA = f">one\n{SEQUENCE}\n"


def field(row, column, level=3000, shape=(240, 260)):
    rows, columns = np.indices(shape)
    noise = np.random.default_rng(row).normal(0, 20, shape)
    return (300 + level * (np.hypot(rows - row, columns - column) < 35) + noise).astype(np.uint16)


NUCLEUS, TUBULES, ER = field(120, 130), field(100, 110), field(150, 140)


def tiff(*channels, names=()):
    content, shape = io.BytesIO(), {"axes": "CYX"} if names else {"axes": "YX"}
    metadata = {**shape, "PhysicalSizeX": UM, "PhysicalSizeY": UM}
    if names:
        metadata["Channel"] = {"Name": list(names)}
    pixels = np.stack(channels) if names else channels[0]
    tifffile.imwrite(content, pixels, ome=True, metadata=metadata)
    return content.getvalue()


IMAGES = {
    "nucleus_images": ("my nucleus.ome.tif", tiff(NUCLEUS)),
    "microtubules_image": ("er.tif", tiff(TUBULES)),
    "er_image": ("nucleus.tif", tiff(ER)),
}


@pytest.fixture
def drawer(tmp_path, tiny_flow_bundle, monkeypatch):
    """A visitor of a site with a model that uses landmarks."""
    monkeypatch.setenv("DEEPGPS_MODELS", str(tiny_flow_bundle.path.parent))
    found = visit(tmp_path / "site")
    yield found
    found.site.sessions.kw["bind"].dispose()


def send(visitor, files=IMAGES, model=MODEL, **fields):
    data = {"model": model, "proteins": FASTA, **fields}
    sent = [(name, file) for name, each in dict(files).items() for file in ([each] if each else [])]
    return visitor.client.post(f"{API}/predictions", data=data, files=sent)


def drawn(visitor, **fields):
    answer = send(visitor, **fields)
    assert answer.status_code == 202, answer.text
    visitor.work()
    return answer.json()["id"]


def stored(visitor, job_id):
    content = visitor.client.get(f"{API}/predictions/{job_id}/results/0/image.ome.tif").content
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        names = [
            each["Name"] for each in tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
        ]
        return dict(zip(names, file.asarray(), strict=True))


def by_command(tmp_path, tiny_flow_bundle, *options):
    """Draw the same on the command line; return the channels of the image and the run record."""
    folder = tmp_path / "files"
    folder.mkdir(exist_ok=True)
    for field_name, (_, content) in IMAGES.items():
        (folder / f"{field_name}.tif").write_bytes(content)
    (folder / "one.fasta").write_text(FASTA)
    arguments = ["predict", folder / "one.fasta", "--model", tiny_flow_bundle.path, "--out", tmp_path / "out"]
    assert run(list(map(str, [*arguments, *options]))) == 0
    (image,) = (tmp_path / "out/images").glob("*.ome.tif")
    with tifffile.TiffFile(image) as file:
        return file.asarray(), json.loads((tmp_path / "out/run.json").read_text())


def test_the_image_is_that_of_the_command_line(drawer, tmp_path, tiny_flow_bundle):
    job_id = drawn(drawer, seed="5")
    files = [tmp_path / "files" / f"{name}.tif" for name in IMAGES]
    options = ("--nucleus", files[0], "--microtubules", files[1], "--er", files[2], "--seed", "5")
    expected, record = by_command(tmp_path, tiny_flow_bundle, *options)
    found = stored(drawer, job_id)
    assert list(found) == ["nucleus", "protein_predicted", "microtubules", "er"]
    np.testing.assert_array_equal(np.stack(list(found.values())), expected)
    assert len(np.unique(found["protein_predicted"])) > 100
    run_record = json.loads((drawer.job_folder(job_id) / "run.json").read_text())
    assert run_record["seed"] == record["seed"] == 5
    assert run_record["options"]["landmarks"] == {"my_nucleus": ["microtubules", "er"]}
    assert [each["sha256"] for each in run_record["nuclei"]] == [each["sha256"] for each in record["nuclei"]]


def test_landmarks_and_seed_change_the_image(drawer):
    only_nucleus = {"nucleus_images": IMAGES["nucleus_images"]}
    jobs = [
        drawn(drawer, files=only_nucleus),
        drawn(drawer, files=only_nucleus, seed="1"),
        drawn(drawer, files={**only_nucleus, "er_image": IMAGES["er_image"]}),
        drawn(drawer),
    ]
    images = [stored(drawer, each)["protein_predicted"] for each in jobs]
    different = [not np.array_equal(images[a], images[b]) for a in range(4) for b in range(a)]
    assert all(different)


def test_page_and_json_say_what_was_given(drawer):
    job_id = drawn(drawer, seed="5")
    status = drawer.status(job_id)
    assert (status["seed"], status["landmarks"]) == (5, {"my_nucleus": ["microtubules", "er"]})
    (row,) = drawer.rows(job_id)["results"]
    assert row["landmarks"] == ["microtubules", "er"]
    for address in (f"/predictions/{job_id}", f"/predictions/{job_id}/results/0"):
        text = text_of(drawer.page(address))
        assert "my_nucleus with its microtubules and ER" in text
        assert "seed 5" in text
    report = (drawer.job_folder(job_id) / "report.html").read_text()
    assert "my_nucleus drawn with its microtubules and er" in report
    for layer in ("overlay.png", "protein.png", "small.png"):
        assert drawer.client.get(f"/predictions/{job_id}/results/0/{layer}").status_code == 200
    default = drawn(drawer, files={"nucleus_images": None})
    assert drawer.status(default)["landmarks"] == {}
    assert "with its" not in text_of(drawer.page(f"/predictions/{default}"))


def test_named_channels_are_taken_for_landmarks(drawer):
    content = tiff(TUBULES, NUCLEUS, ER, names=("Tubulin", "DAPI", "Calnexin"))
    job_id = drawn(drawer, files={"nucleus_images": ("all.ome.tif", content)}, seed="5")
    separate = drawn(drawer, seed="5")
    assert drawer.status(job_id)["landmarks"] == {"all": ["microtubules", "er"]}
    (row,) = drawer.rows(job_id)["results"]
    assert any("'Calnexin'" in warning for warning in row["warnings"])
    np.testing.assert_array_equal(
        stored(drawer, job_id)["protein_predicted"], stored(drawer, separate)["protein_predicted"]
    )


def error_fields(answer):
    assert answer.status_code in (413, 422), answer.text
    return [(error["code"], error["field"], error["message"]) for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(field(90, 90, shape=(200, 240))), "240 × 200 pixels and that of the nucleus 260 × 240"),
        (tiff(np.full((240, 260), 7, np.uint16)), "blank"),
        (b"no image", "not a supported image"),
        (tiff(ER)[:900], "truncated"),
    ],
)
def test_a_landmark_that_cannot_be_used_is_named(drawer, content, reason):
    answer = send(drawer, files={**IMAGES, "er_image": ("my er.tif", content)})
    ((code, where, message),) = error_fields(answer)
    assert (code, where) == ("invalid_image", "er_image")
    assert "my er.tif" in message
    assert reason in message


def test_a_nucleus_that_cannot_be_used_is_named_as_before(drawer):
    answer = send(drawer, files={**IMAGES, "nucleus_images": ("n.tif", b"no image")})
    assert error_of(answer, 422)["field"] == "nucleus_images"


def test_landmarks_are_one_for_each_nucleus_image(drawer):
    landmarks = {"microtubules_image": IMAGES["microtubules_image"]}
    ((code, where, message),) = error_fields(send(drawer, files=landmarks, nuclei="hek-1"))
    assert (code, where) == ("unmatched_landmarks", "microtubules_image")
    assert "1 images of microtubules and 0 nucleus images" in message


def test_landmarks_have_the_limits_of_nuclei(tmp_path, tiny_flow_bundle, monkeypatch):
    monkeypatch.setenv("DEEPGPS_MODELS", str(tiny_flow_bundle.path.parent))
    limit = len(IMAGES["nucleus_images"][1]) + 10
    small = visit(tmp_path / "small", max_image_bytes=limit)
    answer = send(small, files={**IMAGES, "er_image": ("e.tif", IMAGES["er_image"][1] + bytes(20))})
    assert [each[:2] for each in error_fields(answer)] == [("payload_too_large", "er_image")]
    few = visit(tmp_path / "few", max_image_pixels=240 * 260)
    wide = ("e.tif", tiff(field(90, 90, shape=(240, 300))))
    ((code, where, message),) = error_fields(send(few, files={**IMAGES, "er_image": wide}))
    assert (code, where) == ("invalid_image", "er_image")
    assert "the limit is 62,400" in message


def test_a_model_that_does_not_use_landmarks_refuses_them(visitor):
    answer = send(visitor, model="tiny")
    assert {each[:2] for each in error_fields(answer)} == {
        ("unused_landmark", "microtubules_image"),
        ("unused_landmark", "er_image"),
    }


def test_unknown_files_and_seeds_are_refused(drawer):
    unknown = {"golgi_image": IMAGES["er_image"]}
    assert error_of(send(drawer, files=unknown), 422)["code"] == "unknown_field"
    for seed in ("-1", "x", "1.5", str(2**31)):
        assert error_of(send(drawer, seed=seed), 422)["field"] == "seed"
    answer = drawer.client.post(
        f"{API}/predictions", json={"model": MODEL, "proteins": FASTA, "images": False, "seed": 2}
    )
    assert error_of(answer, 422)["field"] == "seed"


def test_the_form_of_the_page_takes_them(drawer):
    fields = {"proteins": FASTA, "model": MODEL, "images": "true", "seed": "5", "pixel_size_um": ""}
    address = drawer.form(fields, list(IMAGES.items())).headers["location"]
    drawer.work()
    assert drawer.status(address.rpartition("/")[2])["landmarks"] == {"my_nucleus": ["microtubules", "er"]}
    page = drawer.form(fields, {"er_image": IMAGES["er_image"]}, status=422).text
    assert 'id="er-problems"' in page
    assert 'name="seed" type="number"' in page and 'value="5"' in page
    # Labels alone need no seed.
    drawer.form({**fields, "images": "false"})
