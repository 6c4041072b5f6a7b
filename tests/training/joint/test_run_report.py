import csv
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deepgps.evaluation.labels import label_report
from deepgps.training.joint.data import load_training_data
from deepgps.training.joint.measure import grey_baselines, intensity_moments, other_proteins
from deepgps.training.joint.task import sample_rows, sample_sheet
from deepgps.training.joint.train import train_joint
from joint_store import PLACES, protein, recipe, write_store

NAME = "<b>model</b> & co"


@pytest.fixture(scope="module")
def which():
    training = {"batch_size": 8, "max_epochs": 2, "precision": "float32"}
    return recipe(name=NAME, class_set="single-4", training=training)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = [protein(number, PLACES[number % 4]) for number in range(32)]
    odd = protein(40, "golgi", protein_id="<i>odd</i>")
    return write_store(tmp_path_factory.mktemp("crops") / "store", [*rows, odd], crops=2)


@pytest.fixture(scope="module")
def run(store, which, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train_joint(which, store, run)
    return run


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text(encoding="utf-8")


def tables(page):
    """Cells of every table, row by row."""
    found = re.findall(r"<table[^>]*>(.*?)</table>", page, re.S)
    return [
        [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", each, re.S)]
        for each in found
    ]


def test_it_is_whole_and_loads_nothing(page):
    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "line", "circle", "polyline"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag in self.open:
                assert self.open.pop() == tag

    reader = Balance()
    reader.feed(page)
    assert reader.open == []
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "url(" not in page


def test_names_are_escaped(page):
    assert "<b>model</b>" not in page
    assert "&lt;b&gt;model&lt;/b&gt; &amp; co" in page
    assert "<i>odd</i>" not in page
    assert "&lt;i&gt;odd&lt;/i&gt;" in page


def test_labels_stand_beside_the_baselines_as_metrics_json_has_them(run, page):
    metrics = json.loads((run / "metrics.json").read_text())
    head, *rows = tables(page)[0]
    assert head == ["", "model", "majority class", "class prior"]
    shown = {row[0]: row[1:] for row in rows}
    for figure, of in (("balanced accuracy", "balanced_accuracy"), ("f1 macro", "f1_macro")):
        for level in ("protein", "crop"):
            value = metrics[f"validation/{level}/{of} (model)"]["value"]
            assert shown[f"{figure}, by {level}"][0].startswith(f"{value:.3f} <small>[")


def test_the_confusion_counts_every_validation_protein(run, page):
    with (run / "split.csv").open(newline="") as file:
        count = sum(row["split"] == "validation" for row in csv.DictReader(file))
    matrix = next(each for each in tables(page) if each[0][0] == "true \\ predicted")
    assert sum(int(cell) for row in matrix[1:] for cell in row[1:]) == count


def test_images_stand_beside_what_anybody_can_draw(page):
    table = next(each for each in tables(page) if "PSNR (dB)" in each[0])
    assert [row[0] for row in table[1:]] == [
        *("drawn", "drawn as another protein", "constant mean", "class mean")
    ]
    assert table[3][3:] == ["–", "–"]


def test_the_curves_are_those_of_metrics_csv(run, page):
    drawn = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    titles = [each.attrib["aria-label"] for each in drawn]
    assert titles == ["Loss", "Loss: image", "Loss: mae", "Loss: label", "PSNR (dB)", "SSIM", "Pearson r"]
    lines = list(drawn[0].iter("polyline"))
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 2]


def test_the_data_are_counted_and_who_was_left_out_is_named(page):
    table = next(each for each in tables(page) if each[0] == ["", "train", "validation", "test"])
    assert [row[0] for row in table[1:]] == [*PLACES, "all"]
    proteins, crops = zip(*(map(int, re.findall(r"\d+", cell)) for cell in table[-1][1:]), strict=True)
    assert sum(proteins) == 32
    assert sum(crops) == 64
    assert "1 proteins of the store were left out" in page


def test_samples_are_of_all_classes_and_always_the_same(which, store, run):
    data = load_training_data(which, store)
    rows = sample_rows(data, data.rows["validation"], 4)
    assert np.array_equal(rows, sample_rows(data, data.rows["validation"], 4))
    assert set(data.targets[data.protein_of_row[rows]].argmax(1)) == {0, 1, 2, 3}
    assert len(sample_rows(data, data.rows["validation"], 10_000)) == len(data.rows["validation"])
    with Image.open(run / "samples" / "epoch-0002.png") as image:
        assert image.size == sample_sheet(np.zeros((6, 3, 32, 32), np.float32), ["name"] * 6).size


def test_a_sheet_shows_intensities_as_they_are():
    drawn = np.stack([np.full((100, 100), grey, np.float32) for grey in (0.0, 0.5, 1.0)])[None]
    pixels = np.asarray(sample_sheet(drawn, ["one"]))
    middle = pixels[70, [50, 154, 258]]
    assert middle.tolist() == [[0] * 3, [127] * 3, [255] * 3]


def test_another_protein_is_of_another_class(which, store):
    data = load_training_data(which, store)
    proteins = data.protein_of_row[data.rows["validation"]]
    other = other_proteins(data, proteins)
    assert not (data.targets[proteins] * data.targets[other]).sum(1).any()
    assert set(other) <= set(proteins)
    assert all(len(set(other[proteins == number])) == 1 for number in proteins)


def test_trivial_images_are_measured_as_if_they_were_drawn(which, store):
    data = load_training_data(which, store)
    rows = data.rows["validation"]
    real = data.store.images(rows)[:, 1].astype(np.float64)
    train_mean = data.store.images(data.rows["train"])[:, 1].astype(np.float64).mean()
    wanted = -10 * np.log10(((real - train_mean) ** 2).mean((1, 2)))
    found = grey_baselines(data, rows)
    assert found["constant mean"]["psnr"] == pytest.approx(wanted, abs=1e-4)
    assert found["class mean"]["psnr"].mean() >= wanted.mean() - 0.1
    means, variances = intensity_moments(data, rows)
    assert means == pytest.approx(real.mean((1, 2)), abs=1e-6)
    assert variances == pytest.approx(real.var((1, 2)), abs=1e-6)


def test_several_classes_are_shown_class_by_class():
    from deepgps.training.joint.report import label_context

    report = label_report(
        np.array([[0.9, 0.2], [0.1, 0.8]]),
        np.array([[1, 0], [0, 1]]),
        ["a", "b"],
        multi_label=True,
        proteins=["p", "q"],
    )
    assert [row[:2] for row in label_context(report)["class_rows"]] == [("a", 1), ("b", 1)]
