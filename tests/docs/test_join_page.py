"""How to join predictions with a table: the page's commands and Python, one after the other."""

import re

import pytest
from documents import SHIPPED_MODEL, blocks, document, shell

PAGE = document("docs/how-to/join-tables.md")


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED_MODEL.exists(), reason="the page is about the model in the package")
def test_the_page_joins(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    whole, by_name = blocks(PAGE, "python")
    exec(whole, {})
    rows = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in rows[1:]] == ["g1", "g2", "g3"]
    assert "residue 3" in rows[3]
    first, pipe = blocks(PAGE, "sh")
    shell(first, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(by_name, {})
    printed = capsys.readouterr().out
    assert re.search(r"NPM1\s+0.01\s+\S*nucleolus", printed)
    assert re.search(r"ACTB\s+0.50\s+NaN", printed)
    header, row = shell(pipe, tmp_path).splitlines()
    assert header == "Protein_ID\tLocalizations\tConfidence"
    assert row.startswith("NPM1\t")
