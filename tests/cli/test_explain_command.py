import csv

import pytest

from deepgps.cli.app import run
from known_proteins import CALR


@pytest.fixture
def call(tiny_bundle, tmp_path, capsys):
    def call(*tokens):
        code = run([*map(str, tokens), "--model", str(tiny_bundle.path), "--out", str(tmp_path / "out")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def calr(tmp_path):
    path = tmp_path / "calr.fasta"
    path.write_text(f">CALR\n{CALR}\n")
    return path


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_explain_writes_signals_and_prints_them(call, calr, tmp_path):
    code, out, err = call("explain", calr)
    assert (code, err) == (0, "")
    assert "SP 1-17, ER 414-417" in out
    assert "1 explained, 0 rejected" in out
    assert str(tmp_path / "out" / "report.html") in out
    assert [row["signal"] for row in rows(tmp_path / "out" / "signals.csv")] == ["SP", "ER"]


def test_explain_goes_on_after_a_bad_record(call, calr, tmp_path):
    calr.write_text(calr.read_text() + ">bad\nMKJ\n")
    code, out, err = call("explain", calr)
    assert code == 3
    assert "has 'J' at residue 3" in err
    assert "1 explained, 1 rejected" in out


def test_variants_of_one_protein(call, calr, tmp_path):
    code, out, _ = call("variants", calr, "p.Leu9Arg", "414-417del", "--no-images")
    assert code == 0
    assert "destroys the ER retention signal 414-417" in out
    assert len(rows(tmp_path / "out" / "variants.csv")) == 2


def test_a_scan_and_isoforms(call, calr, tmp_path):
    isoforms = tmp_path / "isoforms.fasta"
    isoforms.write_text(f">short\n{CALR[:400]}\n")
    code, out, _ = call("variants", calr, "--scan", "5-6", "--isoforms", isoforms)
    assert code == 0
    assert "39 compared" in out


def test_a_table(call, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text(f"wild_type,position,mutant,sequence\nL,9,R,{CALR}\n")
    code, _, _ = call("variants", "--table", table)
    assert code == 0
    assert 0 < float(rows(tmp_path / "out" / "variants.csv")[0]["moves"]) < 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("variants", "--sequence", CALR), "There is no change"),
        (("variants", "--sequence", CALR, "K1T"), "expects K at residue 1"),
        (("variants", "--sequence", CALR, "--scan", "5"), "Region '5' cannot be read"),
        (("variants", "--sequence", CALR, "--scan", "5-999"), "not in the sequence of 417"),
        (("variants", "--table", "missing.csv", "--scan", "1-2"), "leave --scan"),
        (("variants",), "nothing to predict"),
        (("explain",), "nothing to predict"),
        (("explain", "--wrong"), "Option '--wrong' is unknown"),
    ],
)
def test_wrong_usage_is_refused_with_a_remedy(call, tokens, said):
    code, _, err = call(*tokens)
    assert code == 2
    assert said in err
