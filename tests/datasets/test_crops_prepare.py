import csv
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile

from deepgps.datasets.crops.prepare import SCHEMA, crop_field, prepare_fields
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.datasets.crops.store import open_crops, read_store_proteins, sample_crops
from deepgps.datasets.splits import read_proteins_to_split
from deepgps.errors import InputError
from image_sources import discs, ring
from prepared_fields import (
    EDGE,
    PLACES,
    PROTEINS,
    RADIUS,
    SIZE,
    UM,
    pair,
    row,
    write_fields,
    write_list,
    write_proteins,
)

SETTINGS = PrepareSettings(size_px=SIZE, pixel_size_um=UM)


def prepared(fields, proteins, out, settings=SETTINGS, **options):
    return prepare_fields(fields, proteins, out, settings, **{"workers": 1, **options})


def problems(store):
    with (store / "problems.csv").open(newline="") as file:
        return {line["field"]: line["problem"] for line in csv.DictReader(file)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    write_fields(folder)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    done = prepared(folder / "fields.csv", folder / "proteins.parquet", folder / "store")
    assert (done.crops, done.fields, done.left_out, done.resumed) == (12, 6, 0, 0)
    return folder / "store"


def same(one, other):
    names = ("crops.npy", "index.parquet", "manifest.json", "problems.csv", "proteins.parquet")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_every_nucleus_gives_a_pair_of_crops(store):
    opened = open_crops(store)
    assert opened.crops.shape == (12, 2, SIZE, SIZE)
    nucleus, protein = opened.images(range(12)).transpose(1, 0, 2, 3)
    half = SIZE // 2
    assert (nucleus[:, half - 4 : half + 4, half - 4 : half + 4] > 0.5).all()
    # The protein forms a ring around the nucleus.
    assert (protein[:, half, half] < 0.5 * protein[:, half, half - 19]).all()


def test_rows_have_origin_and_quality_of_a_crop(store):
    index = open_crops(store).index
    assert dict(index.schema) == dict(SCHEMA.items())
    first = index.row(2, named=True)
    assert first | {"nucleus_area_um2": 0} == first | {
        "source": "opencell",
        "field": "f1",
        "protein_id": "ENSG2",
        "group": "ENSG2",
        "cell": "opencell/f1/0",
        "gene_symbol": "CLTA",
        "accession": "P09496",
        "localizations": "vesicles|golgi",
        "cell_line": "HEK293T",
        "split": None,
        "nucleus_area_um2": 0,
    }
    assert (first["row"], first["col"]) == pytest.approx((71, 70), abs=1)
    assert first["nucleus_area_um2"] == pytest.approx(np.pi * (RADIUS * UM) ** 2, rel=0.1)


def test_the_manifest_has_settings_and_counts(store):
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["inputs"]["settings"] == SETTINGS.model_dump(mode="json")
    assert (manifest["crops"], manifest["fields"], manifest["left_out"]) == (12, 6, 0)


def test_the_store_has_the_rows_of_its_proteins(folder, store, tmp_path):
    assert read_store_proteins(store).equals(pl.DataFrame(PROTEINS[:2]))
    wide = pl.DataFrame(PROTEINS).with_columns(sequence=pl.lit("MKT"), cluster=pl.Series([3, 1, 2]))
    pl.concat([wide.with_columns(sequence=pl.lit("OLD")), wide]).write_parquet(tmp_path / "wide.parquet")
    prepared(folder / "fields.csv", tmp_path / "wide.parquet", tmp_path / "store")
    assert read_store_proteins(tmp_path / "store").equals(wide[:2])
    rows = read_proteins_to_split(tmp_path / "store")
    assert len(rows) == len(open_crops(tmp_path / "store").index)
    assert rows.select("protein_id", "cluster").unique().sort("cluster").rows() == [
        ("ENSG2", 1),
        ("ENSG1", 3),
    ]


def test_a_store_without_its_proteins_is_refused(store, tmp_path):
    with pytest.raises(InputError, match=r"no proteins\.parquet.*--overwrite"):
        read_store_proteins(tmp_path)
    (tmp_path / "proteins.parquet").write_text("none")
    with pytest.raises(InputError, match=r"damaged .*--overwrite"):
        read_store_proteins(tmp_path)


def test_the_users_table_is_not_overwritten(folder, tmp_path):
    table = write_proteins(tmp_path)
    before = table.read_bytes()
    with pytest.raises(InputError, match="move it elsewhere"):
        prepared(folder / "fields.csv", table, tmp_path)
    assert table.read_bytes() == before


def test_the_number_of_workers_does_not_matter(folder, store, tmp_path):
    prepared(folder / "fields.csv", folder / "proteins.parquet", tmp_path, workers=2)
    assert same(tmp_path, store)


def test_an_interrupted_run_is_resumed(folder, store, tmp_path):
    class Killed(BaseException):
        pass

    def after_three(name, *_):
        if name == "f2":
            raise Killed

    with pytest.raises(Killed):
        prepared(folder / "fields.csv", folder / "proteins.parquet", tmp_path, on_field=after_three)
    seen = []
    done = prepared(
        folder / "fields.csv",
        folder / "proteins.parquet",
        tmp_path,
        on_field=lambda name, *_: seen.append(name),
    )
    assert (done.resumed, seen) == (3, ["f3", "f4", "f5"])
    assert same(tmp_path, store)


def test_a_finished_store_is_not_prepared_again(folder, store):
    done = prepared(
        folder / "fields.csv", folder / "proteins.parquet", store, on_field=lambda *_: pytest.fail()
    )
    assert (done.crops, done.resumed) == (12, 6)


def test_other_settings_are_refused(folder, store):
    with pytest.raises(InputError, match="made with another settings"):
        prepared(folder / "fields.csv", folder / "proteins.parquet", store, PrepareSettings(size_px=64))


def confluent():
    """Nuclei and the cytoplasm around them, which fills the field."""
    nucleus = pair()[0].astype(int)
    return np.stack([nucleus, 6000 - nucleus]).astype(np.uint16)


# Name of a field: cells of its row, and part of the message.
BAD = {
    "corrupt": ({}, "is truncated: 80,256 bytes expected"),
    "missing": ({}, "cannot be opened"),
    "text": ({}, "is not an image"),
    "empty": ({}, "No nucleus of at least 43 µm² was found"),
    "swapped": ({"nucleus_channel": 1, "protein_channel": 0}, "are the channels swapped"),
    "same": ({"protein_channel": 0}, "are the same channel"),
    "fifth": ({"protein_channel": 4}, "Channel 4 of image 'fifth.tif' does not exist"),
    "unnamed": ({"nucleus_channel": ""}, "does not name the one of the nucleus"),
    "unannotated": ({"ensembl_gene_id": "ENSG9"}, "'ENSG9' is not in the table of proteins"),
    "unlabelled": ({"ensembl_gene_id": "ENSG3"}, "'ENSG3' has no localization in the table"),
    "scaleless": ({"pixel_size_um": ""}, "gives the pixel size"),
    "wrong": ({"nucleus_channel": "blue"}, "'nucleus_channel' cannot be used"),
    "other": ({"protein": "small.tif", "protein_channel": 0}, "its protein image 64 × 64"),
    "blank": ({}, "is blank: every pixel is 7"),
    "bordered": ({}, "None of its 1 nuclei gives a crop"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name in BAD:
        tifffile.imwrite(folder / f"{name}.tif", pair())
    (folder / "corrupt.tif").write_bytes((folder / "same.tif").read_bytes()[:2000])
    (folder / "missing.tif").unlink()
    (folder / "text.tif").write_text("no image")
    tifffile.imwrite(folder / "small.tif", discs(64, [(30, 30)], 10).astype(np.uint16))
    noise = np.random.default_rng(0).normal(1000, 30, (EDGE, EDGE)).astype(np.uint16)
    tifffile.imwrite(folder / "empty.tif", np.stack([noise, noise[::-1]]))
    tifffile.imwrite(folder / "blank.tif", np.stack([pair()[0], np.full_like(noise, 7)]))
    tifffile.imwrite(folder / "bordered.tif", pair([(30, 30)]))
    tifffile.imwrite(folder / "swapped.tif", confluent())
    tifffile.imwrite(folder / "good.tif", pair())
    rows = [row(name, **cells) for name, (cells, _) in BAD.items()]
    write_proteins(folder)
    write_list(folder, [*rows, row("good"), row("good")])
    prepared(folder / "fields.csv", folder / "proteins.parquet", folder / "store", workers=2)
    return folder / "store"


def test_fields_that_cannot_be_used_are_listed(bad):
    assert set(open_crops(bad).index["field"]) == {"good"}
    assert problems(bad)["good"] == "Field 'good' is listed twice; the first row is used."
    assert set(problems(bad)) == {*BAD, "good"}


@pytest.mark.parametrize("name", BAD)
def test_each_problem_has_its_reason(bad, name):
    assert BAD[name][1] in problems(bad)[name]


def test_the_check_for_swapped_channels_can_be_disabled(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", confluent())
    fields = write_list(tmp_path, [row("a", nucleus_channel=1, protein_channel=0)])
    settings = SETTINGS.model_copy(update={"channel_order": "trust"})
    with pytest.raises(InputError, match="None of 1 fields gave a crop"):
        prepared(fields, write_proteins(tmp_path), tmp_path / "store")
    with pytest.raises(InputError, match="None of 1"):
        prepared(fields, tmp_path / "proteins.parquet", tmp_path / "trusted", settings)
    assert "swapped" in problems(tmp_path / "store")["a"]
    assert "bright in 97% of its area" in problems(tmp_path / "trusted")["a"]


def test_one_very_bright_cell_does_not_make_channels_look_swapped(tmp_path):
    nucleus = pair()[0].astype(int)
    nucleus[-7:, -7:] = 60000
    tifffile.imwrite(tmp_path / "a.tif", np.stack([nucleus, pair()[0]]).astype(np.uint16))
    done = prepared(write_list(tmp_path, [row("a")]), write_proteins(tmp_path), tmp_path / "store")
    assert (done.fields, done.left_out) == (1, 0)


def test_a_list_that_gives_no_crop_is_refused(tmp_path):
    fields = write_list(tmp_path, [row("a")])
    for _ in range(2):
        with pytest.raises(InputError, match=r"None of 1 fields gave a crop; see .* for the reasons"):
            prepared(fields, write_proteins(tmp_path), tmp_path / "store")
        assert "cannot be opened" in problems(tmp_path / "store")["a"]


def test_an_unexpected_error_leaves_out_one_field(folder, monkeypatch):
    from deepgps.datasets.crops import prepare
    from deepgps.datasets.crops.fields import read_fields
    from deepgps.datasets.crops.prepare import CropMethod, _task, read_annotations

    def broken(*_, **__):
        raise MemoryError("too much")

    monkeypatch.setattr(prepare, "read_field_images", broken)
    annotations = read_annotations(folder / "proteins.parquet")
    task = _task(next(read_fields(folder / "fields.csv")), annotations, CropMethod(SETTINGS, "otsu"))
    assert crop_field(task).problem == "It could not be prepared (MemoryError: too much)."


def test_label_images_replace_the_segmenter(folder, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    y, x = np.indices((EDGE, EDGE))
    drawn = np.where(np.hypot(y - 100, x - 90) < 12, 7000, 0).astype(np.int32)
    for number in range(5):
        tifffile.imwrite(labels / f"f{number}_labels.tif", drawn)
    tifffile.imwrite(labels / "f1_labels.tif", drawn[:50])
    (labels / "f2_labels.tif").write_bytes(b"II*\0")
    tifffile.imwrite(labels / "f3_labels.tif", drawn.astype(np.float32))
    out = tmp_path / "store"
    done = prepared(folder / "fields.csv", folder / "proteins.parquet", out, labels=labels)
    assert (done.crops, done.left_out) == (2, 4)
    assert open_crops(out).index.select("row", "col").unique().rows() == [(100, 90)]
    reasons = problems(out)
    assert "has 200 × 50 pixels, its nucleus image 200 × 200" in reasons["f1"].replace("have", "has")
    assert "truncated or damaged" in reasons["f2"]
    assert "is float32 of shape (200, 200)" in reasons["f3"]
    assert "has neither f5_labels.tif nor f5_labels.tif" in reasons["f5"]


def test_a_missing_folder_of_labels_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="give --labels the folder"):
        prepared(folder / "fields.csv", folder / "proteins.parquet", tmp_path, labels=tmp_path / "nowhere")


def test_a_field_without_protein_signal_can_be_dropped(tmp_path):
    nucleus = discs(EDGE, PLACES, RADIUS) * 20
    noise = np.random.default_rng(1).normal(500, 20, nucleus.shape)
    tifffile.imwrite(tmp_path / "noise.tif", np.stack([nucleus, noise]).astype(np.uint16))
    tifffile.imwrite(tmp_path / "good.tif", pair())
    fields, proteins = write_list(tmp_path, [row("noise"), row("good")]), write_proteins(tmp_path)
    assert prepared(fields, proteins, tmp_path / "kept").fields == 2
    settings = SETTINGS.model_copy(update={"empty_protein": "drop"})
    prepared(fields, proteins, tmp_path / "dropped", settings)
    assert "image is empty" in problems(tmp_path / "dropped")["noise"]
    assert set(open_crops(tmp_path / "dropped").index["field"]) == {"good"}


def test_image_paths_are_relative_to_the_list(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("store"))
    monkeypatch.chdir(tmp_path)
    done = prepared(Path("moved/fields.csv"), Path("moved/proteins.parquet"), Path("out"), workers=2)
    assert done.crops == 12


def test_colour_images_of_one_stain_are_read(tmp_path):
    from PIL import Image

    nucleus, protein = discs(EDGE, PLACES, RADIUS), ring(EDGE, PLACES, RADIUS)
    for name, pixels, colour in (("blue", nucleus, 2), ("green", protein, 1)):
        rgb = np.zeros((EDGE, EDGE, 3), np.uint8)
        rgb[..., colour] = pixels
        Image.fromarray(rgb).save(tmp_path / f"{name}.jpg", quality=80)
    both = np.stack([np.zeros_like(nucleus), protein, nucleus], -1).astype(np.uint8)
    Image.fromarray(both).save(tmp_path / "both.png")
    stains = {"nucleus_channel": "", "protein_channel": ""}
    rows = [
        row("hpa", nucleus="blue.jpg", protein="green.jpg", **stains),
        row("composite", nucleus="both.png", protein="green.jpg", **stains),
        row("named", nucleus="both.png", protein="both.png", nucleus_channel=2, protein_channel=1),
    ]
    out = tmp_path / "store"
    prepared(write_list(tmp_path, rows), write_proteins(tmp_path), out)
    assert set(open_crops(out).index["field"]) == {"hpa", "named"}
    assert "does not name the one of the nucleus" in problems(out)["composite"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "was not found"),
        (b"\xff\xfe\x00", "has no column 'field'"),
        (b"field,protein\n", "has no column 'ensembl_gene_id' .found: field, protein.; rename or add it"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, text, message):
    path = tmp_path / "fields.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        prepared(path, write_proteins(tmp_path), tmp_path / "store")


def test_a_table_that_cannot_be_used_is_refused(folder, tmp_path):
    table = tmp_path / "proteins.parquet"
    for message in ("was not found", "is not a Parquet file", "has no column 'localizations'"):
        with pytest.raises(InputError, match=message):
            prepared(folder / "fields.csv", table, tmp_path / "store")
        if not table.exists():
            table.write_text("protein_id,localizations\n")
        else:
            pl.DataFrame({"protein_id": ["a"]}).write_parquet(table)


def test_a_sample_is_even_over_the_fields(store):
    opened = open_crops(store)
    assert opened.index["field"].gather(sample_crops(opened, 6, 0).tolist()).n_unique() == 6
    assert len(sample_crops(opened, 100, 0)) == 12
    assert (
        sample_crops(opened, 5, 1).tolist()
        == sample_crops(opened, 5, 1).tolist()
        != sample_crops(opened, 5, 2).tolist()
    )
