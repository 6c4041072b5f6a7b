import json
import sys

import pytest

from conftest import round_nucleus
from deepgps.errors import MissingExtraError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import Record, read_records, write_parquet

pl = pytest.importorskip("polars")

PROTEINS = [Protein(f'P{n}\n,"é', "M" + "ACDEFGHIKLNPQRSTVWYB"[n % 20] * 9) for n in range(30)]


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.mark.parametrize("options", [{"images": False}, {"cells": [round_nucleus("a"), round_nucleus("b")]}])
def test_it_holds_the_same_as_the_records(predictor, tmp_path, options):
    summary = predict_to_folder(predictor, PROTEINS, tmp_path, table="parquet", **options)
    assert summary.files[0] == tmp_path / "results.parquet"
    table = pl.read_parquet(tmp_path / "results.parquet")
    assert table.columns == list(Record.__annotations__)
    assert list(table.iter_rows(named=True)) == list(read_records(tmp_path / "results.jsonl"))
    assert not (tmp_path / "results.csv").exists()


def test_it_is_written_at_the_end_and_replaced(predictor, tmp_path):
    predict_to_folder(predictor, PROTEINS, tmp_path, table="parquet", images=False, limit=20)
    assert not (tmp_path / "results.parquet").exists()
    predict_to_folder(predictor, PROTEINS, tmp_path, table="parquet", images=False)
    assert pl.read_parquet(tmp_path / "results.parquet").height == 30


def test_evidence_is_kept(tmp_path):
    near = {"accession": "P1", "localizations": ["er", "golgi"], "similarity": 0.5}
    record = dict.fromkeys(Record.__annotations__) | {"evidence": [near], "probabilities": {"er": 0.25}}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    write_parquet(tmp_path / "a.jsonl", tmp_path / "a.parquet", ["er"])
    (row,) = pl.read_parquet(tmp_path / "a.parquet").iter_rows(named=True)
    assert row == record


def test_a_model_without_classes_has_no_probabilities(tmp_path):
    record = dict.fromkeys(Record.__annotations__) | {"probabilities": {}, "protein_id": "P"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    write_parquet(tmp_path / "a.jsonl", tmp_path / "a.parquet", [])
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert table["protein_id"].to_list() == ["P"]
    assert "probabilities" not in table.columns


def test_no_rows_are_an_empty_table(predictor, tmp_path):
    from deepgps.proteins.protein import Rejection

    predict_to_folder(predictor, [Rejection("X", "f", "r")], tmp_path, table="parquet", images=False)
    assert pl.read_parquet(tmp_path / "results.parquet").height == 0


def test_without_polars_it_is_refused_before_anything_is_made(predictor, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match=r"deepgps\[scale\]"):
        predict_to_folder(predictor, PROTEINS, tmp_path / "out", table="parquet")
    assert not (tmp_path / "out").exists()
