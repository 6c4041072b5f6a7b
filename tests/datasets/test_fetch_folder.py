"""The download folder after an interrupted run, and the ids of proteins to download."""

import json

import pytest

from deepgps.datasets.fetch.download import Download
from deepgps.datasets.fetch.folder import (
    ACCESSION,
    JOURNAL,
    DownloadFolder,
    SourceProtein,
    match_ids,
    read_ids,
)
from deepgps.errors import InputError

FILE = Download("http://x/a", "0" * 64, 3)


def interrupted_run(path):
    """Record one file and one absent file, then stop."""
    with pytest.raises(KeyboardInterrupt), DownloadFolder(path, "hpa", {"limit": 1}) as folder:
        (path / "a").write_bytes(b"abc")
        folder.add("a", FILE)
        folder.add_absent("http://x/b", 400)
        raise KeyboardInterrupt


def test_records_of_an_interrupted_run_are_kept(tmp_path):
    interrupted_run(tmp_path)
    with DownloadFolder(tmp_path, "hpa", {}) as folder:
        assert folder.has("a")
        assert folder.files == {"a": FILE}
        assert folder.absent == {"http://x/b": 400}
    assert json.loads((tmp_path / "manifest.json").read_text())["absent"] == {"http://x/b": 400}
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("lost", [1, 10, 30])
def test_an_incomplete_line_of_the_journal_is_ignored(tmp_path, lost):
    interrupted_run(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-lost])
    with DownloadFolder(tmp_path, "hpa", {}) as folder:
        assert folder.files == {"a": FILE}
        assert folder.absent == {}


def test_a_missing_file_or_one_of_another_size_does_not_count(tmp_path):
    interrupted_run(tmp_path)
    with DownloadFolder(tmp_path, "hpa", {}) as folder:
        assert folder.has("a", 3)
        assert not folder.has("a", 4)
        (tmp_path / "a").write_bytes(b"ab")
        assert not folder.has("a")
        (tmp_path / "a").unlink()
        assert not folder.has("a")
        assert not folder.has("b")


def test_a_folder_is_locked_for_one_process_at_a_time(tmp_path):
    with DownloadFolder(tmp_path, "hpa", {}), pytest.raises(InputError, match="Another deepGPS process"):
        DownloadFolder(tmp_path, "opencell", {})
    with DownloadFolder(tmp_path, "opencell", {}):
        pass


def test_a_refused_folder_is_unlocked(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    for _ in range(2):
        with pytest.raises(InputError, match="not a manifest"):
            DownloadFolder(tmp_path, "hpa", {})


def test_a_download_is_complete_only_after_it_has_finished(tmp_path):
    interrupted_run(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["fetched"]["hpa"] == {
        "complete": False,
        "limit": 1,
    }
    with DownloadFolder(tmp_path, "hpa", {}) as folder:
        folder.finish([])
    assert json.loads((tmp_path / "manifest.json").read_text())["fetched"]["hpa"]["complete"] is True


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("TP53\nHLA-A\n", ["TP53", "HLA-A"]),
        ("\ufeff# mine\n\n TP53 \nTP53\n", ["TP53"]),
        ("name,ensg_id\nx,ENSG00000141510\ny,\n", ["ENSG00000141510"]),
        ("gene_symbol\taccession\nTP53\tP04637\n", ["P04637"]),
        ('id,"why, then"\nTP53,"a, b"\n', ["id", "TP53"]),
        ("TP53,P04637\nEEF2,P13639\n", ["TP53", "EEF2"]),
    ],
)
def test_ids_are_read_from_lines_and_from_a_column(tmp_path, text, ids):
    path = tmp_path / "ids.csv"
    path.write_text(text, encoding="utf-8")
    assert read_ids(path) == ids


def test_the_requested_column_is_read(tmp_path):
    path = tmp_path / "library.csv"
    path.write_text("ensg_id,uniprot_id\nENSG1,P04637\nENSG2,P04637\n")
    assert read_ids(path) == ["ENSG1", "ENSG2"]
    assert read_ids(path, ACCESSION) == ["P04637"]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"accession\n"])
def test_a_file_without_ids_is_refused(tmp_path, content):
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match="one "):
        read_ids(tmp_path / "ids")


def test_proteins_are_matched_by_any_of_their_ids():
    proteins = [
        SourceProtein("ENSG1", "HLA-A", "P1"),
        SourceProtein("ENSG2", "TP53", ""),
        SourceProtein("ENSG3", "EEF2", "P3"),
    ]
    selected, unknown = match_ids(proteins, ["ensg1.12", "tp53", "P9"])
    assert [protein.gene for protein in selected] == ["HLA-A", "TP53"]
    assert unknown == ["P9"]
    assert match_ids(proteins, None) == (proteins, [])
