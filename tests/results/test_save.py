import csv
import json

import pytest

from deepgps.errors import InputError
from deepgps.predict import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.save import save


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def proteins(n, prefix="P"):
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return [
        Protein(f"{prefix}{i}", "M" + "".join(letters[(i * 7 + k * k) % 20] for k in range(40)))
        for i in range(n)
    ]


def rows_of(path, delimiter=","):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_the_table_has_the_promised_columns_and_the_input_order(predictor, tmp_path):
    save(predictor, proteins(40), tmp_path, images=False)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split(",")
    assert header == [
        *("Protein_ID", "Localizations", *predictor.classes),
        *("Intranuclear_Fraction", "Model", "Version", "Nucleus", "Warnings"),
    ]
    assert [row["Protein_ID"] for row in rows_of(tmp_path / "results.csv")] == [f"P{i}" for i in range(40)]
