"""Labelled predictions come back from disk as they went."""

import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.evaluation.labelled_predictions import (
    LabelledPredictions,
    read_labelled_predictions,
    write_labelled_predictions,
)

TWO = LabelledPredictions(
    ("cytoplasmic", "er"),
    ("P1", "P1", "P2"),
    np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]]),
    np.array([[False, True], [False, True], [True, False]]),
    ("7", "7", "x"),
)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_comes_back(tmp_path, name):
    write_labelled_predictions(TWO, tmp_path / name)
    again = read_labelled_predictions(tmp_path / name)
    assert (again.classes, again.proteins, again.clusters) == (TWO.classes, TWO.proteins, TWO.clusters)
    np.testing.assert_array_equal(again.probabilities, TWO.probabilities)
    np.testing.assert_array_equal(again.targets, TWO.targets)
    assert not again.multi_label


def read(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return read_labelled_predictions(path)


def test_crops_other_columns_and_ids_of_digits_are_fine(tmp_path):
    table = read(tmp_path, "crop,true,protein_id,note,p_a,p_b\n1,a|b,007,hi,0.9,0.8\n2,,8,,0,1e-3\n")
    assert table.proteins == ("007", "8")
    assert table.clusters is None
    assert table.targets.tolist() == [[True, True], [False, False]]
    assert table.multi_label


def test_probabilities_that_do_not_sum_to_one_are_of_several_classes(tmp_path):
    assert read(tmp_path, "protein_id,true,p_a,p_b\nP,a,0.9,0.8\n").multi_label
    assert not read(tmp_path, "protein_id,true,p_a,p_b\nP,a,0.667,0.334\n").multi_label


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("protein_id,p_a\nP,1\n", "no column 'true'"),
        ("id,true,p_a\nP,a,1\n", "no column 'protein_id'"),
        ("protein_id,true,a\nP,a,1\n", "no column 'p_<class>'"),
        ("protein_id,true,p_a\nP,b,1\n", "'P' has the true class 'b'.*no column 'p_b'"),
        ("protein_id,true,p_a\nP,a,many\n", "has 'many' for p_a of protein 'P'"),
        ("protein_id,true,p_a\nP,a,\n", "for p_a of protein 'P'"),
        ("protein_id,true,p_a\nP,a,NaN\n", "has 'NaN' for p_a of protein 'P'"),
        ("", "is empty"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="was not found"):
        read_labelled_predictions(tmp_path / "none.csv")
