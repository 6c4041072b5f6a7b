"""The tutorial on datasets, as a reader types it, on sources that answer from this machine."""

import csv
import shutil

import polars as pl
import pytest
from documents import blocks, document, shell
from PIL import Image

from deepgps.datasets.crops.store import open_crops
from fake_sources import serving
from tiny_models import write_tiny_esm2

pytestmark = pytest.mark.slow

PAGE = document("docs/tutorials/datasets.md")
# Fewer than a reader has, to be quick.
FEWER = {
    "--limit 20": "--limit 4",
    "--limit 12": "--proteins few.txt",
    " --proteins p": " --workers 1 --proteins p",
}
TINY = {
    "model.widths": "[4,8]",
    "model.latent_dim": "8",
    "training.batch_size": "4",
    "training.max_epochs": "1",
}
FEW = "DCYT1\nECYT1\nDNUC1\nENUC1\nDVES1\nEVES1\n"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """What the commands of the page printed, and the folder they ran in."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "few.txt").write_text(FEW)
    with serving() as sources, pytest.MonkeyPatch.context() as patch:
        for name, value in sources.environment.items():
            patch.setenv(name, value)
        said = [shell(quick(script), folder) for script in blocks(PAGE, "sh")]
    return said, folder


def quick(script):
    for many, few in FEWER.items():
        script = script.replace(many, few)
    return script


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_taste_of_opencell_becomes_crops(reader):
    said, folder = reader
    assert said[0].startswith("4 proteins, 8 fields: 10 files fetched")
    assert said[1].startswith("4 proteins, 8 fields: 0 files fetched (0.0 MB), 10 already there")
    fields = {row["field"] for row in rows(folder / "raw" / "fields.csv")}
    store = open_crops(folder / "store")
    assert store.crops.shape[1:] == (2, 208, 208)
    assert set(store.index["field"]) == fields
    labels = dict(store.index.select("gene_symbol", "localizations").unique().iter_rows())
    assert labels["ACYT1"] == "cytoplasmic"
    assert labels["A-HYPHEN1"] == "nucleoplasm|cytoplasmic"
    proteins = pl.read_parquet(folder / "proteins.parquet")
    assert proteins["sequence"].count() == 4


def test_the_nucleus_is_in_the_middle_and_the_protein_where_its_label_says(reader):
    store = open_crops(reader[1] / "store")
    middle = store.crops[:, :, 94:114, 94:114].mean(axis=(2, 3)) / 255
    assert (middle[:, 0] > 0.5).all()
    place = store.index["localizations"].to_numpy()
    assert (middle[place == "nucleoplasm", 1] > 0.5).all()
    assert (middle[place == "cytoplasmic", 1] < 0.2).all()


def test_every_protein_is_on_one_side(reader):
    _, folder = reader
    split = rows(folder / "split.csv")
    assert {row["split"] for row in split} <= {"train", "validation", "test"}
    proteins = [row["protein_id"] for row in split]
    assert len(proteins) == len(set(proteins)) == 4


def test_the_sheets_are_drawn(reader):
    for name in ("sheet.png", "sheet-hpa.png"):
        with Image.open(reader[1] / name) as sheet:
            assert min(sheet.size) > 200


def test_the_atlas_becomes_crops_at_the_same_scale(reader):
    _, folder = reader
    fields = rows(folder / "raw-hpa" / "fields.csv")
    assert {row["note"] for row in fields} == {
        "",
        "jpeg",
        "composite: the protein shows in the nucleus channel",
    }
    store = open_crops(folder / "store-hpa")
    assert set(store.index["field"]) == {row["field"] for row in fields}
    assert set(store.index["cell_line"]) == {"U-2 OS"}
    assert rows(folder / "split-hpa.csv")


def test_a_model_of_the_paper_trains_on_them(reader, tmp_path):
    [command] = [part for part in PAGE.split("`") if part.startswith("deepgps train u2os-single-2 --data")]
    # Of so few proteins, chance would leave a part empty.
    split = tmp_path / "split.csv"
    made = pl.read_csv(reader[1] / "split-hpa.csv")["protein_id"].sort()
    parts = ["train", "validation"] * len(made)
    pl.DataFrame({"protein_id": made, "split": parts[: len(made)]}).write_csv(split)
    small = {"protein.encoder": str(write_tiny_esm2(tmp_path / "tiny")), **TINY}
    settings = " ".join(f"--set '{name}={value}'" for name, value in small.items())
    shell(f"{command} {settings} --split {split} --cache {tmp_path} --offline", reader[1])
    run = reader[1] / "runs" / "u2os"
    assert (run / "manifest.json").exists()
    left = (run / "left_out.csv").read_text()
    assert "sequence" not in left
    assert "VES1" in left or "vesicles" in left


def test_the_structures_are_those_of_the_fields(reader):
    _, folder = reader
    known = {row["accession"] for row in rows(folder / "raw" / "fields.csv")}
    assert {row["accession"] for row in rows(folder / "raw" / "structures.csv")} == known


def test_the_python_of_the_page_runs(reader, monkeypatch, capsys):
    monkeypatch.chdir(reader[1])
    for code in blocks(PAGE, "python"):
        exec(code, {})
    assert "2, 208, 208) uint8" in capsys.readouterr().out


def test_the_folder_may_be_moved(reader, tmp_path):
    shutil.copytree(reader[1] / "raw", tmp_path / "elsewhere")
    for row in rows(tmp_path / "elsewhere" / "fields.csv"):
        assert (tmp_path / "elsewhere" / row["nucleus"]).is_file()
