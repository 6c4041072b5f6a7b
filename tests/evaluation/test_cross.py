import csv

import numpy as np
import pytest
from PIL import Image

from deepgps.errors import InputError
from deepgps.evaluation.cross import cross_assay, variance_shares, write_cross
from deepgps.evaluation.dataset import DatasetFiles
from deepgps.prediction import Predictor
from deepgps.results.labelled_images import CROP_PANEL, MARGIN, PROTEIN_COLOUR
from evaluated_store import proteins_table, write_store

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("cross") / "store", train=1)


def test_shares_of_a_grid_that_one_side_decides():
    rows, columns = RNG.normal(size=(5, 1)), RNG.normal(size=(1, 4))
    assert variance_shares(rows + 0 * columns)["nucleus"] == pytest.approx(1)
    assert variance_shares(0 * rows + columns)["sequence"] == pytest.approx(1)
    mixed = variance_shares(rows + columns + RNG.normal(size=(5, 4)))
    assert sum(mixed.values()) == pytest.approx(1)
    assert variance_shares(rows * columns - (rows * columns).mean())["both together"] > 0


def test_shares_are_those_of_a_two_way_analysis_of_variance():
    grid = RNG.normal(size=(4, 6))
    shares, total = variance_shares(grid), ((grid - grid.mean()) ** 2).sum()
    # Least squares on dummies, as a textbook would.
    i, j = np.indices(grid.shape)
    dummies = [np.eye(4)[i.ravel()], np.eye(6)[j.ravel()]]
    for dummy, name in zip(dummies, ("nucleus", "sequence"), strict=True):
        fitted = dummy @ np.linalg.lstsq(dummy, grid.ravel(), rcond=None)[0]
        assert shares[name] == pytest.approx(((fitted - grid.mean()) ** 2).sum() / total)


def test_a_grid_that_does_not_vary_has_no_shares():
    assert np.isnan(list(variance_shares(np.ones((3, 3))).values())).all()


def test_the_grid_is_drawn_and_written(predictor, store, tmp_path):
    assay = cross_assay(predictor, DatasetFiles(store), nuclei=2, sequences=4)
    assert assay.images.shape == (2, 4, 208, 208)
    assert assay.row_protein.tolist() == assay.column_protein[:2].tolist()
    assert set(assay.column_classes[:2]) == {"nucleoplasm", "cytoplasmic"}
    grid, table, shares = write_cross(assay, tmp_path)
    with Image.open(grid) as image:
        pixels = np.asarray(image)
    assert pixels.shape[1] > 6 * CROP_PANEL
    # The frame of the row's own protein: first row, third column.
    left, top = MARGIN + 2 * (CROP_PANEL + MARGIN), MARGIN
    assert tuple(pixels[top, left]) == PROTEIN_COLOUR
    assert tuple(pixels[top, left + CROP_PANEL + MARGIN]) != PROTEIN_COLOUR
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert [row["own_protein"] for row in rows] == ["1", "0", "0", "0", "0", "1", "0", "0"]
    with shares.open() as file:
        assert [row["of"] for row in csv.DictReader(file)] == list(assay.shares())
    again = cross_assay(predictor, DatasetFiles(store), nuclei=2, sequences=4)
    np.testing.assert_array_equal(again.images, assay.images)


def test_what_cannot_be_crossed_is_said(predictor, store, tmp_path):
    with pytest.raises(InputError, match="shows 4 proteins"):
        cross_assay(predictor, DatasetFiles(store), nuclei=5, sequences=2)
    table = tmp_path / "proteins.csv"
    proteins_table(["N1"]).write_csv(table)
    with pytest.raises(InputError, match="no crop store"):
        cross_assay(predictor, DatasetFiles(table), nuclei=2, sequences=2)
