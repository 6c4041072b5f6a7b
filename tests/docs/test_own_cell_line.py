"""The tutorial on one's own cells, as a reader types it, on drawn cells."""

import json

import pytest
import tifffile
import yaml
from documents import blocks, document, shell

from deepgps.bundle import open_bundle, write_bundle
from deepgps.datasets.crops.store import open_crops
from prepared_fields import pair, row, write_list

pytestmark = pytest.mark.slow

PAGE = document("docs/tutorials/own-cell-line.md")
PROTEINS = 4
# Fewer than a reader has, to be quick.
QUICK = {
    "--out runs/mine": "--out runs/mine --set images.structure.max_epochs=1 --set images.structure.batches=1"
    " --set images.grain.max_epochs=1 --set images.grain.batches=1",
    "--out store\n": "--out store --workers 1\n",
}


def quick(script):
    for many, few in QUICK.items():
        script = script.replace(many, few)
    return script


@pytest.fixture(scope="module")
def models(tiny_export, tmp_path_factory):
    """A folder of models with a tiny one of the shipped model's name, which is quicker to train."""
    folder, name = tmp_path_factory.mktemp("models"), "deepgps-mini"
    files = {file: tiny_export.read(file) for file in tiny_export.metadata.files}
    recipe = yaml.safe_load(files["recipe.yaml"]) | {"name": name}
    fields = tiny_export.metadata.model_dump(exclude={"schema_version", "files"}) | {"name": name}
    write_bundle(folder / name, fields, files | {"recipe.yaml": yaml.safe_dump(recipe).encode()})
    return folder


@pytest.fixture(scope="module")
def reader(models, tmp_path_factory):
    """What the commands of the page printed, and the folder they ran in."""
    folder = tmp_path_factory.mktemp("reader")
    rows = []
    for number in range(PROTEINS):
        tifffile.imwrite(folder / f"a{number}.tif", pair([(70 + number, 70), (130, 120 + number)]))
        rows.append(row(f"a{number}", ensembl_gene_id=f"ENSG{number}", cell_line="HeLa"))
    write_list(folder, rows)
    lines = [f"ENSG{number},cytoplasmic," for number in range(PROTEINS)]
    (folder / "proteins.csv").write_text("\n".join(["protein_id,localizations,sequence", *lines]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in blocks(PAGE, "python"):
            exec(code, {})
    return [shell(quick(script), folder, models) for script in blocks(PAGE, "sh")], folder


def test_the_columns_that_the_page_shows_are_those_that_are_read(reader):
    shown = blocks(PAGE, "text")
    known = row("a1")
    assert set(shown[0].splitlines()[0].split(",")) <= set(known)
    assert shown[1].splitlines()[0] == "protein_id,localizations,sequence"
    assert {line.count(",") for line in shown[1].splitlines()} == {2}


def test_the_fields_become_crops_of_the_models_scale(reader):
    store = open_crops(reader[1] / "store")
    assert store.crops.shape == (2 * PROTEINS, 2, 208, 208)


def test_the_model_in_the_package_learns_the_cells(reader):
    said, folder = reader
    assert said[1].startswith("Validation loss: ")
    origin = json.loads((folder / "runs" / "mine" / "base.json").read_text())
    assert origin["name"].startswith("deepgps-mini ")


def test_the_bundle_predicts_and_says_what_it_is(reader):
    said, folder = reader
    metadata = open_bundle(folder / "mine").metadata
    assert (metadata.name, metadata.cell_line) == ("deepgps-mini-finetuned", "HeLa")
    assert "deepgps-mini" in metadata.training_data["fine-tuned from"]
    assert (folder / "try" / "report.html").exists()
    assert "GAPDH" in said[-1]
