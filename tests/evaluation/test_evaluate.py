import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.evaluation import evaluate as module
from deepgps.evaluation.dataset import DatasetFiles, load_dataset
from deepgps.evaluation.evaluate import evaluate
from deepgps.evaluation.images import measure
from deepgps.evaluation.images.measure import (
    NO_PROTEIN,
    WRONG_CLASS,
    WRONG_PROTEIN,
    ImageGenerator,
    wrong_proteins,
)
from deepgps.evaluation.labelled_predictions import read_labelled_predictions
from deepgps.evaluation.labels import knowledge_notes
from deepgps.evaluation.peers.compare import compare_peers
from deepgps.evaluation.report import choose_cells
from deepgps.prediction import Predictor
from evaluated_store import write_store


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("evaluate") / "store")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """With too few training crops for a classifier."""
    return write_store(tmp_path_factory.mktemp("evaluate") / "small", train=2)


@pytest.fixture(scope="module")
def done(predictor, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    return evaluate(predictor, store, out), out


def read(out):
    return json.loads((out / "metrics.json").read_text())


def test_everything_is_written_and_nothing_else(done):
    _, out = done
    names = {path.name for path in out.iterdir() if not path.name.startswith(".deepgps.lock")}
    written = {"metrics.json", "metrics.csv", "labelled_predictions.csv", "left_out.csv", "report.html"}
    assert names == written
    with (out / "metrics.csv").open() as file:
        rows = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    metrics = read(out)["metrics"]
    assert rows.keys() == metrics.keys()
    assert rows["images/drawn/psnr"] == pytest.approx(metrics["images/drawn/psnr"]["value"], rel=1e-5)


def test_the_table_of_predictions_is_what_compare_reads_and_gives_the_same_metrics(done):
    evaluation, out = done
    table = read_labelled_predictions(out / "labelled_predictions.csv")
    assert table.classes == evaluation.predictor.classes
    assert set(table.proteins) == {each.protein.id for each in evaluation.dataset.proteins}
    ours = compare_peers(table, {}).models["deepGPS"].metrics
    report = evaluation.labels.report
    assert ours["auroc_macro"].value == pytest.approx(report.metrics["protein/auroc_macro"].value, abs=1e-4)


def test_metrics_stand_beside_baselines(done):
    metrics = read(done[1])["metrics"]
    for kind in ("drawn", "constant mean", "class mean", "nuclear mask", "copied nucleus"):
        assert f"images/{kind}/ssim" in metrics
    assert metrics["images/real/classifier_accuracy"]["value"] == 1
    assert metrics["images/nuclear mask/intranuclear_r"]["value"] > 0.9
    assert "images/constant mean/pearson" not in metrics
    assert metrics["labels/protein/auroc_macro"]["n"] == 4
    assert metrics["labels/crop/exact_match"]["n"] == 6
    assert all(np.isfinite(each["value"]) for each in metrics.values())


def test_the_report_holds_everything_and_loads_nothing(done):
    page = (done[1] / "report.html").read_text()
    for title in ("Read this first", "At a glance", "Labels", "Images", "Example cells", "Left out"):
        assert title in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<svg") == page.count("</svg>") >= 7
    assert "nan" not in re.sub(r"data:image/jpeg;base64,[^\"]*", "", page).replace("nanmean", "")


@pytest.mark.slow
def test_a_killed_run_continues_and_ends_with_the_same_metrics(predictor, small, tmp_path, monkeypatch):
    drawn = []
    original = ImageGenerator.draw

    def killed(self, nuclei, numbers):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(len(numbers))
        return original(self, nuclei, numbers)

    monkeypatch.setattr(measure, "BATCH", 4)
    monkeypatch.setattr(ImageGenerator, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(predictor, small, tmp_path)
    monkeypatch.setattr(ImageGenerator, "draw", original)
    counts = []
    monkeypatch.setattr(module, "measure_crops", _counting(module.measure_crops, counts))
    evaluate(predictor, small, tmp_path)
    assert counts == [4]
    evaluate(predictor, small, tmp_path / "whole")
    ours, theirs = read(tmp_path)["metrics"], read(tmp_path / "whole")["metrics"]
    assert ours.keys() == theirs.keys()
    assert all(ours[name]["value"] == pytest.approx(theirs[name]["value"], rel=1e-5) for name in ours)


def _counting(function, counts):
    def counted(*arguments, keep, **options):
        counts.append(keep)
        return function(*arguments, keep=keep, **options)

    return counted


@pytest.mark.slow
def test_another_seed_starts_over(predictor, small, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "image_metrics", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(predictor, small, tmp_path)
    counts = []
    monkeypatch.setattr(module, "measure_crops", _counting(module.measure_crops, counts))
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            evaluate(predictor, small, tmp_path, seed=seed)
    assert counts == [6, 0]


def test_without_a_classifier_the_rest_is_measured(predictor, small, tmp_path):
    done = evaluate(predictor, small, tmp_path / "out")
    assert any("Classes with 20 training images: 0" in note for note in done.notes)
    assert "images/drawn/classifier_accuracy" not in done.metrics()
    assert "images/drawn/pearson" in done.metrics()


def test_without_training_crops_nothing_is_evaluated(predictor, tmp_path):
    store = write_store(tmp_path / "store", train=0)
    with pytest.raises(InputError, match="No crop of the store has the split 'train'"):
        evaluate(predictor, store, tmp_path / "out")


def test_a_single_protein_has_metrics_and_no_intervals(predictor, tmp_path):
    store = write_store(tmp_path / "store", test="N1", train=1)
    done = evaluate(predictor, store, tmp_path / "out")
    metric = done.metrics()["images/drawn/psnr"]
    assert (metric.n, metric.low) == (1, None)
    assert "images/sequence_effect" not in done.metrics()


def test_a_table_has_labels_and_no_images(predictor, store, tmp_path):
    done = evaluate(predictor, store / "proteins.parquet", tmp_path / "out")
    assert done.images is None
    assert {name.split("/")[0] for name in done.metrics()} == {"labels"}
    assert "labels only" in (tmp_path / "out" / "report.html").read_text()


def test_wrong_proteins_are_of_another_class_or_another_protein_of_the_same(predictor, store):
    dataset = load_dataset(DatasetFiles(store), predictor)
    others = wrong_proteins(dataset, 0)
    for own, wrong, same in zip(dataset.protein_of, others[WRONG_CLASS], others[WRONG_PROTEIN], strict=True):
        mine, other, alike = (dataset.proteins[k] for k in (own, wrong, same))
        assert other.class_name != mine.class_name
        assert alike.class_name == mine.class_name
        assert same != own
    alone = replace(dataset, proteins=dataset.proteins[:1], protein_of=np.zeros(1, np.int64))
    assert {int(number) for kind in wrong_proteins(alone, 0).values() for number in kind} == {NO_PROTEIN}


def test_labels_of_known_proteins_are_no_test():
    assert knowledge_notes(np.array([1.0, 0.99]))[0].startswith("NO TEST OF LABELS: 2 of 2 proteins")
    assert knowledge_notes(np.array([1.0, 0.1]))[0].startswith("LABELS FLATTERED: 1 of 2")
    assert knowledge_notes(np.array([0.1, 0.2])) == ()
    assert "cannot be checked" in knowledge_notes(np.array([np.nan]))[0]


def test_galleries_are_chosen_by_rank_and_at_random():
    likeness = np.append(np.linspace(0, 1, 40), np.nan)
    chosen = choose_cells(likeness, 3)
    assert chosen["Best by Pearson r"].tolist() == [39, 38, 37, 36]
    assert chosen["Worst"].tolist() == [0, 1, 2, 3]
    assert set(chosen["Median"].tolist()) == {18, 19, 20, 21}
    assert 40 not in np.concatenate(list(chosen.values()))
    assert (
        choose_cells(likeness, 3)["Chosen at random (seed 3)"].tolist()
        == chosen["Chosen at random (seed 3)"].tolist()
    )
