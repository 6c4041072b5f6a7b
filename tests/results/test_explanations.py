import csv

import numpy as np
import pytest
from PIL import Image

from deepgps.errors import InputError
from deepgps.explain.changes import parse_variant, scan
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.explanations import (
    IMPORTANCE_COLUMNS,
    LIMITS,
    SIGNAL_COLUMNS,
    explain_to_folder,
    variant_table_to_folder,
    variants_to_folder,
)
from known_proteins import CALR, INSULIN, NPM1


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_an_explanation_is_tables_pictures_and_a_page(predictor, tmp_path):
    records = [Protein("a/CALR", CALR), Rejection("bad", "in.fasta", "It is empty."), Protein("ins", INSULIN)]
    summary = explain_to_folder(predictor, records, tmp_path)
    assert (summary.done, summary.rejected) == (2, 1)
    signals = rows(tmp_path / "signals.csv")
    assert tuple(signals[0]) == SIGNAL_COLUMNS == ("protein_id", "signal", "start", "end", "score")
    found = {(row["protein_id"], row["signal"], row["start"], row["end"]) for row in signals}
    assert {("a/CALR", "SP", "1", "17"), ("a/CALR", "ER", "414", "417"), ("ins", "SP", "1", "24")} <= found
    importance = rows(tmp_path / "importance.csv")
    assert tuple(importance[0]) == IMPORTANCE_COLUMNS
    first = [row for row in importance if row["protein_id"] == "ins"]
    slugs = {row["localization"] for row in first}
    assert len(first) == len(slugs) * len(INSULIN)
    assert "".join(row["residue"] for row in first[: len(INSULIN)]) == INSULIN
    assert rows(tmp_path / "rejected.csv") == [{"id": "bad", "source": "in.fasta", "reason": "It is empty."}]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "signal peptide 1-17" in page or "SP, signal peptide" in page
    assert page.count("<svg xmlns") == 2
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        *("a_CALR.svg", "a_CALR.png", "ins.svg", "ins.png")
    }
    assert np.asarray(Image.open(tmp_path / "pictures" / "ins.png")).std() > 1


def test_an_explanation_gives_the_numbers_of_the_predictor(predictor, tmp_path):
    explanation = predictor.explain(Protein("ins", INSULIN))
    explain_to_folder(predictor, [Protein("ins", INSULIN)], tmp_path)
    written = [float(row["importance"]) for row in rows(tmp_path / "importance.csv")]
    assert written == pytest.approx(explanation.importance.ravel().tolist(), abs=1e-4)
    assert explanation.probabilities == predictor.predict_one(INSULIN, images=False).probabilities


def test_variants_are_a_ranked_table_images_and_a_page(predictor, tmp_path):
    changes = [parse_variant(each, CALR) for each in ("414-417del", "L9R", "E18D")]
    summary = variants_to_folder(predictor, Protein("CALR", CALR), changes, tmp_path)
    table = rows(tmp_path / "variants.csv")
    assert {row["change"] for row in table} == {"414-417del", "L9R", "E18D"}
    by_change = {row["change"]: row for row in table}
    assert by_change["414-417del"]["signals_lost"] == "ER 414-417"
    assert by_change["414-417del"]["moves"] == ""
    assert 0 < float(by_change["L9R"]["moves"]) < 1
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        *("unchanged.png", "414-417del.png", "L9R.png", "E18D.png")
    }
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "destroys the ER retention signal 414-417" in page
    assert "0.63" in page
    assert LIMITS[:60].replace("'", "&#39;") in page
    assert not (tmp_path / "scan.svg").exists()
    assert summary.done == 3


def test_variants_are_drawn_by_flow_matching_too(tiny_flow_bundle):
    compared = Predictor(tiny_flow_bundle, threads=1).variants(CALR, ["L9R", "M1="])
    changed, same = compared.effects
    assert changed.image.shape == compared.image.shape
    assert same.image_change == 0


def test_a_scan_has_a_heat_map(predictor, tmp_path):
    variants = list(scan(CALR, 1, 3))
    variants_to_folder(predictor, Protein("CALR", CALR), variants, tmp_path, images=False)
    assert len(rows(tmp_path / "variants.csv")) == 57
    assert (tmp_path / "scan.svg").read_text(encoding="utf-8").count("<rect") > 57
    assert Image.open(tmp_path / "scan.png").size[0] == 1920
    assert not (tmp_path / "images").exists()


def test_a_table_keeps_its_rows_and_columns(predictor, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text(
        "gene_symbol,wild_type,position,mutant,note,sequence\n"
        f"CALR,L,9,R,first,{CALR}\nNPM1,M,1,V,second,{NPM1}\n"
        f"X,A,2,V,no sequence,\nCALR,A,10,R,wrong,{CALR}\n"
    )
    summary = variant_table_to_folder(predictor, table, tmp_path / "out")
    assert (summary.done, summary.rejected) == (2, 2)
    found = rows(tmp_path / "out" / "variants.csv")
    assert [row["note"] for row in found] == ["first", "second", "no sequence", "wrong"]
    assert [bool(row["moves"]) for row in found] == [True, True, False, False]
    assert all(0 <= float(row["moves"]) <= 1 for row in found[:2])
    assert "has no sequence" in found[2]["problem"]
    assert "expects A at residue 10" in found[3]["problem"]
    assert found[0]["signals_lost"] == "" or "SP" in found[0]["signals_lost"]
    alone = predictor.variants(CALR, ["L9R"], images=False).effects[0]
    assert float(found[0]["moves"]) == pytest.approx(alone.moves, abs=1e-4)


def test_a_lone_quote_and_semicolons_lose_no_row(predictor, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text(f'sep=;\nchange;sequence;Note\nL9R;{CALR};"a\nA10V;{CALR};b\n', encoding="utf-8-sig")
    summary = variant_table_to_folder(predictor, table, tmp_path / "out")
    assert (summary.done, summary.rejected) == (0, 1)
    found = rows(tmp_path / "out" / "variants.csv")
    assert "quotes" in found[0]["problem"]
    assert "Note" in found[0]


def test_a_table_like_vcf_names_the_proteins_given(predictor, tmp_path):
    table = tmp_path / "in.vcf"
    table.write_text("##made up\n#CHROM\tPOS\tREF\tALT\nCALR\t9\tL\tR\n")
    summary = variant_table_to_folder(predictor, table, tmp_path / "out", [Protein("CALR", CALR)])
    assert (summary.done, summary.rejected) == (1, 0)
    assert rows(tmp_path / "out" / "variants.csv")[0]["POS"] == "9"


def test_a_table_without_the_columns_is_refused(predictor, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text("gene,where\nA,1\n")
    with pytest.raises(InputError, match="has the columns gene, where; it needs wild_type"):
        variant_table_to_folder(predictor, table, tmp_path / "out")
    table.write_text("")
    with pytest.raises(InputError, match="is empty"):
        variant_table_to_folder(predictor, table, tmp_path / "out")
