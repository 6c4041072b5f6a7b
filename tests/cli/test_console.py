import gzip
import sys

import pytest

from deepgps.cli.console import count_records


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


def test_records_of_files_are_counted_beforehand(terminal, tmp_path):
    (tmp_path / "a.fa").write_text(">a\nMK\nLV\n\n>b\nMK")
    (tmp_path / "b.fa.gz").write_bytes(gzip.compress(b">a\nMK\n"))
    (tmp_path / "c.csv").write_text("id,sequence\nx,MK\ny,MK\n")
    paths = [str(tmp_path / name) for name in ("a.fa", "b.fa.gz", "c.csv")]
    assert count_records(paths, None) == 5
    assert count_records([*paths, "P04637"], "MKLV") == 7


@pytest.mark.parametrize("unknown", ["-", "cut.gz", "folder"])
def test_what_cannot_be_counted_has_no_total(terminal, tmp_path, unknown):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b">a\nMK\n" * 100)[:20])
    (tmp_path / "folder").mkdir()
    assert count_records([unknown if unknown == "-" else str(tmp_path / unknown)], None) is None


def test_nothing_is_counted_where_nobody_looks(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    (tmp_path / "a.fa").write_text(">a\nMK\n")
    assert count_records([str(tmp_path / "a.fa")], None) is None
