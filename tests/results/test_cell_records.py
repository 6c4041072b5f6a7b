import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from conftest import round_nucleus
from deepgps.bundle import Bundle
from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.images.cell import WholeField
from deepgps.images.read import read_field
from deepgps.prediction import Predictor
from deepgps.prediction.generator import Tiling
from deepgps.results.cell_records import (
    FAILED,
    PREDICTED,
    RESULTS_COLUMNS,
    predict_cell_records,
    read_cell_records,
    records_of_manifest,
)

UM = 0.107
ISOFORMS = {"a": "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ", "b": "MKRPAATKKAGQAKKKKLDKNWLEDSG"}


def nucleus(edge: int = 640) -> np.ndarray:
    """A cell as large as the challenge's: a nucleus of 14 um in the middle, the background black."""
    image = np.zeros((edge, edge), np.float32)
    rows, columns = np.indices(image.shape) - edge // 2
    image[np.hypot(rows, columns) < 65] = 0.7
    return image + np.random.default_rng(0).normal(0, 0.01, image.shape).clip(0).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two records of one cell with isoforms, in files relative to the folder."""
    for name in ("nucleus", "microtubules", "er"):
        tifffile.imwrite(tmp_path / f"{name}.tiff", nucleus())
    for name, sequence in ISOFORMS.items():
        (tmp_path / f"{name}.faa").write_text(f">{name}\n{sequence}\n")
    write(tmp_path, [record(name) for name in ISOFORMS])
    return tmp_path


def record(name: str, **fields) -> dict:
    images = {f"{kind}_image": f"{kind}.tiff" for kind in ("nucleus", "microtubules", "er")}
    return {"prediction_id": name, **images, "fasta_file": f"{name}.faa", "pixel_size_um": UM, **fields}


def write(folder: Path, records) -> Path:
    (folder / "records.json").write_text(json.dumps(records))
    return folder / "records.json"


def rows(out: Path) -> list[dict]:
    with (out / "prediction_results.tsv").open(newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def predict(bundle: Bundle, folder: Path, *tokens: str) -> int:
    given = ["--records", folder / "records.json", "--out", folder / "out", "--model", bundle.path, *tokens]
    return run(["predict", *map(str, given)])


def test_every_record_becomes_an_image_of_its_size_and_a_row(tiny_flow_bundle, folder):
    assert predict(tiny_flow_bundle, folder) == 0
    table = rows(folder / "out")
    assert [row["status"] for row in table] == [PREDICTED] * 2
    assert tuple(table[0]) == RESULTS_COLUMNS
    for row in table:
        with tifffile.TiffFile(folder / "out" / row["output_file"]) as tif:
            image, about = tif.asarray(), json.loads(tif.pages[0].description)
        assert (image.dtype, image.shape) == (np.float32, (640, 640))
        assert 0 <= image.min() < image.max() <= 1
        assert "0 to 1" in about["intensity"] and about["prediction_id"] == row["prediction_id"]
        assert read_field(folder / "out" / row["output_file"]).pixel_size_um == pytest.approx(UM)
        assert (row["height"], row["width"], float(row["pixel_size_um"])) == ("640", "640", UM)


def test_two_isoforms_in_one_cell_are_two_images_and_one_isoform_twice_is_one(tiny_flow_bundle, folder):
    write(folder, [record("a"), record("b"), record("again", fasta_file="a.faa")])
    assert predict(tiny_flow_bundle, folder) == 0
    a, b, again = (tifffile.imread(folder / "out" / f"{name}.tiff") for name in ("a", "b", "again"))
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, again)


def test_no_record_is_skipped_and_each_failure_has_a_sentence(tiny_flow_bundle, folder, capsys):
    tifffile.imwrite(folder / "small.tiff", nucleus(320))
    (folder / "bad.faa").write_text(">bad\nMKVLAAGJVGLCAKWDEYHR\n")
    (folder / "two.faa").write_text(">x\nMKVLAAGIVGLCAKWDEYHR\n>y\nMKVLAAGIVGLCAKWDEYHR\n")
    (folder / "broken.tiff").write_bytes(b"II*\0")
    cases = [
        (record("good", fasta_file="a.faa"), ""),
        (record("letter", fasta_file="bad.faa"), "'J'"),
        (record("two"), "2 sequences"),
        (record("nowhere", fasta_file="a.faa", nucleus_image="nowhere.tiff"), "nowhere.tiff"),
        (record("broken", fasta_file="a.faa", nucleus_image="broken.tiff"), "broken.tiff"),
        (record("no-fasta", fasta_file="none.faa"), "none.faa"),
        ({"prediction_id": "empty"}, "nucleus_image"),
        (record("../out", fasta_file="a.faa"), "../out"),
        (record("good", fasta_file="a.faa"), "record 1"),
        ({"nucleus_image": "nucleus.tiff", "fasta_file": "a.faa"}, "prediction_id"),
        (record("bucket", fasta_file="gs://bucket/a.faa"), "gs://bucket/a.faa"),
        (record("size", fasta_file="a.faa", pixel_size_um=-1), "-1"),
        # An image that only helps does not cost the record its answer.
        (record("help", fasta_file="a.faa", er_image="small.tiff"), "Drawn without the er image"),
    ]
    write(folder, [each for each, _ in cases])
    assert predict(tiny_flow_bundle, folder) == 3
    table = rows(folder / "out")
    assert len(table) == len(cases)
    for row, (each, said) in zip(table, cases, strict=True):
        assert row["prediction_id"] == each.get("prediction_id", "")
        drawn = each.get("prediction_id") == "help" or said == ""
        assert row["status"] == (PREDICTED if drawn else FAILED)
        assert said in row["message"]
    drawn = {path.name for path in (folder / "out").glob("*.tiff")}
    assert drawn == {"good.tiff", "help.tiff"}
    assert "11 failed" in capsys.readouterr().out


def test_a_second_call_draws_only_what_is_missing_or_changed(tiny_flow_bundle, folder):
    write(folder, [record("a"), record("b"), record("c", fasta_file="missing.faa")])
    assert predict(tiny_flow_bundle, folder) == 3
    (folder / "missing.faa").write_text((folder / "a.faa").read_text())
    (folder / "b.faa").write_text((folder / "a.faa").read_text())
    predictor = Predictor.load(tiny_flow_bundle.path)
    drawn = []
    predictor.draw = lambda *given, **more: drawn.append(1) or Predictor.draw(predictor, *given, **more)
    records = read_cell_records(folder / "records.json")
    done = predict_cell_records(predictor, records, folder / "out")
    assert (done.predicted, done.resumed, done.failed, len(drawn)) == (3, 1, 0, 2)
    images = [(folder / "out" / f"{name}.tiff").read_bytes() for name in "ab"]
    assert len(set(map(len, images))) == 1
    (folder / "out/a.tiff").unlink()
    assert predict_cell_records(predictor, records, folder / "out").resumed == 2
    assert predict_cell_records(predictor.with_seed(1), records, folder / "out").resumed == 0
    assert predict_cell_records(predictor.with_seed(1), records, folder / "out", overwrite=True).resumed == 0


def test_rows_survive_an_interruption(tiny_flow_bundle, folder):
    predictor = Predictor.load(tiny_flow_bundle.path)
    records = read_cell_records(folder / "records.json")

    def stop(id, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cell_records(predictor, records, folder / "out", on_record=stop)
    assert [row["prediction_id"] for row in rows(folder / "out")] == ["a"]
    assert predict_cell_records(predictor, records, folder / "out").resumed == 1


def test_a_model_that_draws_in_one_pass_draws_fields_and_says_what_it_does_not_use(tiny_bundle, folder):
    assert predict(tiny_bundle, folder) == 0
    for row in rows(folder / "out"):
        assert tifffile.imread(folder / "out" / row["output_file"]).shape == (640, 640)
        assert "does not use the er image" in row["message"]


def test_an_unknown_pixel_size_is_estimated_and_said(tiny_flow_bundle, folder):
    write(folder, [record("a", pixel_size_um=None), record("b", pixel_size_um=None)])
    assert predict(tiny_flow_bundle, folder, "--pixel-size-um", "0.107") == 0
    assert "estimated" not in rows(folder / "out")[0]["message"]
    assert predict(tiny_flow_bundle, folder) == 0
    row = rows(folder / "out")[0]
    assert "estimated" in row["message"]
    assert float(row["pixel_size_um"]) == pytest.approx(UM, rel=0.15)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "not a list"), ("[]", "no records"), ("[1]", "not a list"), ("nonsense", "JSON")],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, content, said):
    (tmp_path / "records.json").write_text(content)
    with pytest.raises(InputError, match=said):
        read_cell_records(tmp_path / "records.json")
    with pytest.raises(InputError, match="not found"):
        read_cell_records(tmp_path / "nothing.json")


def test_options_that_records_decide_are_refused(tiny_flow_bundle, folder, capsys):
    for tokens in (["--nucleus", "hek-1"], ["--no-images"], ["--sequence", "MKRPAATKKAGQ"], ["a.fasta"]):
        assert predict(tiny_flow_bundle, folder, *tokens) == 2
        assert "--records says what to predict" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_manifest_becomes_records(folder):
    header = (
        "uid\tcell_line\tprediction_id\tmicrotubules_image\tnucleus_image\ter_image\taa_sequence_fasta_path"
    )
    manifest = folder / "manifest.tsv"
    manifest.write_text(
        f"{header}\n1\tU-2 OS\ta\tm.tiff\tnucleus.tiff\t\ta.faa\n2\t\tb\t\t/n.tiff\t\tb.faa\n"
    )
    assert run(["data", "records", str(manifest), "--out", str(folder / "made.json")]) == 0
    made = json.loads((folder / "made.json").read_text())
    base = str(folder.resolve())
    assert made == [
        {
            "prediction_id": "a",
            "nucleus_image": f"{base}/nucleus.tiff",
            "microtubules_image": f"{base}/m.tiff",
            "fasta_file": f"{base}/a.faa",
            "cell_line": "U-2 OS",
        },
        {"prediction_id": "b", "nucleus_image": "/n.tiff", "fasta_file": f"{base}/b.faa"},
    ]
    assert read_cell_records(folder / "made.json")[0].fasta_file == Path(f"{base}/a.faa")
    assert records_of_manifest(manifest, "gs://bucket/x/")[0]["fasta_file"] == "gs://bucket/x/a.faa"
    manifest.write_text("prediction_id\tnucleus_image\na\tb\n")
    with pytest.raises(InputError, match="fasta_file"):
        records_of_manifest(manifest)


def test_tiles_cover_a_field_and_merge_to_it():
    field = np.random.default_rng(0).random((2, 332, 208), np.float32)
    tiling = Tiling.of(field.shape[1:], 208)
    tiles = tiling.split(field)
    assert tiles.shape == (2, 2, 208, 208)
    np.testing.assert_allclose(tiling.merge(tiles), field, atol=1e-6)


def test_a_field_of_one_crop_is_drawn_as_a_cell(tiny_flow_bundle, tmp_path):
    um = tiny_flow_bundle.metadata.crop.pixel_size_um
    tifffile.imwrite(tmp_path / "n.tiff", round_nucleus("n").nucleus)
    predictor = Predictor.load(tiny_flow_bundle.path)
    field = predictor.load_field(tmp_path / "n.tiff", image_pixel_size_um=um, image_checks=False)
    cell = predictor.load_cell(tmp_path / "n.tiff", image_pixel_size_um=um, image_checks=False)
    images = [predictor.predict_one(ISOFORMS["a"], each).image for each in (field.cell, cell)]
    np.testing.assert_array_equal(*images)
    np.testing.assert_array_equal(field.as_stored(images[0]), images[0])


def test_a_small_field_is_padded_and_comes_back_at_its_size(tmp_path):
    tifffile.imwrite(tmp_path / "n.tiff", nucleus(300)[:250])
    field = WholeField.load(tmp_path / "n.tiff", image_pixel_size_um=UM, image_checks=False)
    assert field.cell.nucleus.shape == (208, 208)
    assert field.as_stored(field.cell.nucleus).shape == (250, 300)


@pytest.mark.slow
def test_the_bundled_model_draws_into_real_cells(shared_data, tmp_path):
    from PIL import Image

    source = shared_data / "images" / "hpa_landmark_fields"
    files = {"nucleus": "TUBA1A_nucleus", "microtubules": "TUBA1A_protein", "er": "CALR_protein"}
    for name, file in files.items():
        image = np.asarray(Image.open(source / f"cell_0_{file}.png"), np.float32) / 255
        tifffile.imwrite(tmp_path / f"{name}.tiff", np.pad(image, 64))
    (tmp_path / "a.faa").write_text(f">a\n{ISOFORMS['a']}\n")
    write(tmp_path, [record("a")])
    assert run(["predict", "--records", str(tmp_path / "records.json"), "--out", str(tmp_path / "out")]) == 0
    assert tifffile.imread(tmp_path / "out" / "a.tiff").shape == (640, 640)
