import json
import sys
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest

from conftest import round_nucleus
from deepgps.errors import MissingExtraError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.exports import write_parquet
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import Record, read_records

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


def sheet_of(path):
    """Rows of the first sheet of a workbook: cells as numbers or texts."""
    name = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(path) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
        assert b"<f>" not in archive.read("xl/worksheets/sheet1.xml")
    return [
        [
            float(cell.find(f"{name}v").text)
            if cell.get("t") is None
            else "".join(cell.find(f"{name}is").itertext())
            for cell in row
        ]
        for row in sheet.iter(f"{name}row")
    ]


def test_excel_gets_numbers_and_texts_and_no_formula(predictor, tmp_path):
    pytest.importorskip("xlsxwriter")
    proteins = [Protein('=HYPERLINK("x")', "MKVLAAGIVGLCAKWDEYHR"), *PROTEINS[:2]]
    summary = predict_to_folder(predictor, proteins, tmp_path, table="xlsx", images=False)
    assert summary.files[0] == tmp_path / "results.xlsx"
    header, first, *_ = found = sheet_of(tmp_path / "results.xlsx")
    assert len(found) == 4
    record = next(read_records(tmp_path / "results.jsonl"))
    assert first[0] == '=HYPERLINK("x")'
    assert "20.0" in map(str, first)
    assert round(record["confidence"], 4) in first
    assert header[:4] == ["Protein_ID", "Accession", "Gene", "Length"]


def test_anndata_has_probabilities_and_what_is_said_of_each_protein(predictor, tmp_path):
    anndata = pytest.importorskip("anndata")
    cells = [round_nucleus("a"), round_nucleus("b")]
    for options, names in (
        ({"images": False}, [each.id for each in PROTEINS[:3]]),
        ({"cells": cells}, [f"{each.id} in {cell}" for each in PROTEINS[:3] for cell in "ab"]),
    ):
        predict_to_folder(predictor, PROTEINS[:3], tmp_path, table="h5ad", overwrite=True, **options)
        found = anndata.read_h5ad(tmp_path / "results.h5ad")
        assert list(found.obs_names) == names
        assert list(found.var_names) == list(predictor.classes)
        records = list(read_records(tmp_path / "results.jsonl"))
        np.testing.assert_allclose(found.X, [list(each["probabilities"].values()) for each in records])
        np.testing.assert_allclose(
            found.layers["predicted"], [list(each["predicted"].values()) for each in records]
        )
        assert list(found.obs["Length"]) == [each["length"] for each in records]


@pytest.mark.parametrize(("table", "package"), [("xlsx", "xlsxwriter"), ("h5ad", "anndata")])
def test_without_its_package_a_format_is_refused(predictor, tmp_path, monkeypatch, table, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"deepgps\[{table if table == 'xlsx' else package}\]"):
        predict_to_folder(predictor, PROTEINS, tmp_path / "out", table=table)
    assert not (tmp_path / "out").exists()
