import numpy as np
import pytest
import tifffile
from PIL import Image

from deepgps.cli.app import run
from deepgps.datasets.crops.store import open_crops
from deepgps.images.segmentation import read_labels
from image_sources import discs
from prepared_fields import EDGE, PLACES, RADIUS, RULES, UM, pair, row, write_fields, write_list


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    write_fields(folder, 3)
    tifffile.imwrite(folder / "gone.tif", pair())
    rows = [row(f"f{n}") for n in range(3)]
    write_list(folder, [*rows, row("gone", ensembl_gene_id="ENSG9")])
    return folder


def prepare(fields, out, *options):
    tables = [str(fields / "fields.csv"), "--proteins", str(fields / "proteins.parquet")]
    return run(["data", "prepare", *tables, "--out", str(out), *RULES, "--workers", "1", *options])


def test_prepare_then_show(fields, tmp_path, capsys):
    store, sheet = tmp_path / "store", tmp_path / "sheet.png"
    assert prepare(fields, store) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "6 crops of 3 fields, 1 fields left out"
    assert said.err == (
        "deepgps: field 'gone' is left out: Its protein 'ENSG9' is not in the table of proteins.\n"
    )
    assert run(["data", "show", str(store), "--out", str(sheet), "--crops", "4"]) == 0
    assert "4 of 6 crops" in capsys.readouterr().out
    assert Image.open(sheet).size[0] > 4 * 400


def test_rules_are_options(fields, tmp_path):
    assert prepare(fields, tmp_path, "--border", "pad", "--min-nucleus-px", "0", "--max-overlap", "0.5") == 0
    assert prepare(fields, tmp_path) == 2
    assert prepare(fields, tmp_path, "--overwrite") == 0


@pytest.mark.parametrize(
    "options", [["--border", "wrap"], ["--low", "99.9"], ["--max-overlap", "2"], ["--segmenter", "no"]]
)
def test_rules_that_make_no_sense_are_refused(fields, tmp_path, options, capsys):
    assert prepare(fields, tmp_path / "store", *options) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_segment_writes_labels_that_prepare_takes(fields, tmp_path, capsys):
    images = [str(fields / f"f{n}.tif") for n in range(3)]
    options = ["--channel", "0", "--pixel-size-um", str(UM), "--out", str(tmp_path / "labels")]
    assert run(["data", "segment", *images, *options]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("f0_labels.tif\t2 nuclei")
    labels = read_labels(tmp_path / "labels" / "f0_labels.tif")
    assert labels.shape == (EDGE, EDGE)
    assert {labels[place] for place in PLACES} == {1, 2}
    assert prepare(fields, tmp_path / "store", "--labels", str(tmp_path / "labels")) == 0
    assert len(open_crops(tmp_path / "store").index) == 6


def test_segment_goes_on_after_an_image_that_cannot_be_used(tmp_path, capsys):
    good, bad, same = tmp_path / "good.tif", tmp_path / "bad.tif", tmp_path / "other" / "good.png"
    same.parent.mkdir()
    nuclei = discs(EDGE, PLACES, RADIUS).astype(np.uint8)
    tifffile.imwrite(good, nuclei)
    Image.fromarray(nuclei).save(same)
    bad.write_text("no image")
    options = ["--pixel-size-um", str(UM), "--out", str(tmp_path / "labels")]
    assert run(["data", "segment", str(bad), str(good), str(same), *options]) == 3
    err = capsys.readouterr().err
    assert "is not an image" in err
    assert "would both become good_labels.tif" in err
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["good_labels.tif"]
    assert run(["data", "segment", str(good), "--out", str(tmp_path / "labels")]) == 2
    assert "give --pixel-size-um" in capsys.readouterr().err
