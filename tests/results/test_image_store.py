import json
import shutil
import sys

import numpy as np
import pytest

from conftest import round_nucleus
from deepgps.errors import InputError, MissingExtraError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import read_records

zarr = pytest.importorskip("zarr")

CELLS = (round_nucleus("one"), round_nucleus("two", 30))
PROTEINS = [Protein(f"P{n}", "M" + "ACDEFGHIKLNPQRSTVWY"[n % 19] * 30) for n in range(21)]


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def stored(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_image_i_is_that_of_row_i(predictor, tmp_path):
    summary = predict_to_folder(predictor, PROTEINS, tmp_path, cells=CELLS, image_format="zarr")
    assert tmp_path / "images.zarr" in summary.files
    assert not (tmp_path / "images").exists()
    store = zarr.open_group(tmp_path / "images.zarr", mode="r")
    attributes = {"nuclei": ["one", "two"], "pixel_size_um": 0.206, "full_scale": 255, "mean": False}
    assert {name: store.attrs[name] for name in attributes} == attributes
    records = list(read_records(tmp_path / "results.jsonl"))
    expected = list(predictor.predict(PROTEINS, CELLS))
    assert store["protein"].shape == (42, 208, 208)
    for number, (record, prediction) in enumerate(zip(records, expected, strict=True)):
        assert (record["protein_id"], record["nucleus"]) == (prediction.protein.id, prediction.cell.name)
        assert record["images"] == str(number)
        pixels = store["protein"][number] / store.attrs["full_scale"]
        assert np.abs(pixels - prediction.image).max() <= 0.501 / 255
    for pixels, nucleus in zip(store["nucleus"][:], CELLS, strict=True):
        assert np.abs(pixels / 255 - nucleus.nucleus).max() <= 0.501 / 255


def test_chunks_are_a_few_images_and_no_files_are_left_over(predictor, tmp_path):
    predict_to_folder(predictor, PROTEINS, tmp_path, cells=CELLS, image_format="zarr")
    found = {path for path in stored(tmp_path / "images.zarr") if path.startswith("protein/c/")}
    assert found == {f"protein/c/{number}/0/0" for number in range(3)}


@pytest.mark.parametrize("done", [1, 8, 13])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_continues_where_it_was_stopped(predictor, tmp_path, done, workers):
    predict_to_folder(predictor, PROTEINS, tmp_path / "whole", cells=CELLS, image_format="zarr")
    predict_to_folder(predictor, PROTEINS, tmp_path / "part", cells=CELLS, image_format="zarr", limit=done)
    # As a kill leaves it: a chunk half-written, images whose rows were not.
    with (tmp_path / "part" / "results.csv").open("rb+") as table:
        table.truncate((tmp_path / "part" / "results.csv").stat().st_size - 5)
    (tmp_path / "part/images.zarr/protein/c/0/0/0.ab.partial").write_bytes(b"half")
    summary = predict_to_folder(
        predictor, PROTEINS, tmp_path / "part", cells=CELLS, image_format="zarr", workers=workers
    )
    assert summary.resumed == done - 1
    assert stored(tmp_path / "part/images.zarr") == stored(tmp_path / "whole/images.zarr")
    for name in ("results.csv", "results.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_store_that_lost_its_images_is_made_again(predictor, tmp_path):
    predict_to_folder(predictor, PROTEINS, tmp_path, cells=CELLS[:1], image_format="zarr")
    shutil.rmtree(tmp_path / "images.zarr")
    predict_to_folder(predictor, PROTEINS, tmp_path, cells=CELLS[:1], image_format="zarr")
    assert zarr.open_group(tmp_path / "images.zarr", mode="r")["protein"].shape[0] == 21


def test_files_and_store_are_not_mixed(predictor, tmp_path):
    predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS[:1])
    with pytest.raises(InputError, match="another choice of options"):
        predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS[:1], image_format="zarr")
    predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS[:1], image_format="zarr", overwrite=True)
    assert not (tmp_path / "images").exists()
    predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS[:1], overwrite=True)
    assert not (tmp_path / "images.zarr").exists()


def test_a_full_disk_says_so_and_the_run_goes_on(predictor, tmp_path, monkeypatch):
    from zarr.storage import LocalStore

    real = LocalStore.set
    left = 8

    async def full(self, key, value):
        nonlocal left
        if "/c/" in key:
            left -= 1
            if left < 7:
                raise OSError(28, "No space left on device", key)
        await real(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", full)
        with pytest.raises(OSError, match="No space"):
            predict_to_folder(predictor, PROTEINS, tmp_path / "a", cells=CELLS, image_format="zarr")
    predict_to_folder(predictor, PROTEINS, tmp_path / "whole", cells=CELLS, image_format="zarr")
    assert (
        predict_to_folder(predictor, PROTEINS, tmp_path / "a", cells=CELLS, image_format="zarr").predicted
        == 21
    )
    assert stored(tmp_path / "a/images.zarr") == stored(tmp_path / "whole/images.zarr")


def test_the_store_is_ome_zarr(predictor, tmp_path):
    from ome_zarr_models.v05.image import Image

    predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS, image_format="zarr")
    store = zarr.open_group(tmp_path / "images.zarr", mode="r")
    image = Image.from_zarr(store)
    described = {each.name: each for each in image.ome_attributes.multiscales}
    assert [axis.name for axis in described["protein"].axes] == ["row", "y", "x"]
    assert [axis.name for axis in described["nucleus"].axes] == ["cell", "y", "x"]
    (level,) = described["protein"].datasets
    assert level.coordinateTransformations[0].scale == [1.0, 0.206, 0.206]
    assert store[level.path].shape == (4, 208, 208)


def test_the_report_says_where_the_images_are(predictor, tmp_path):
    predict_to_folder(predictor, PROTEINS[:2], tmp_path, cells=CELLS[:1], image_format="zarr")
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "images.zarr" in report
    assert "is not there" not in report
    assert json.loads((tmp_path / "run.json").read_text())["options"]["image_format"] == "zarr"


def test_without_zarr_it_is_refused_before_anything_is_made(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"deepgps\[scale\]"):
        predict_to_folder(predictor, PROTEINS, tmp_path / "out", image_format="zarr")
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_program_is_left_alone(predictor, tmp_path):
    zarr.open_group(tmp_path / "images.zarr", mode="w").attrs["mine"] = True
    with pytest.raises(InputError, match=r"holds images\.zarr but no run\.json"):
        predict_to_folder(predictor, PROTEINS[:1], tmp_path, cells=CELLS[:1], image_format="zarr")
    assert dict(zarr.open_group(tmp_path / "images.zarr", mode="r").attrs) == {"mine": True}
