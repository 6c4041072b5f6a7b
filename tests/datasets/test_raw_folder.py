"""The folder that a fetch fills, killed at any moment."""

import json

import pytest

from deepgps.datasets.fetch.download import Download
from deepgps.datasets.fetch.folder import JOURNAL, DownloadFolder
from deepgps.errors import InputError

FILE = Download("http://x/a", "0" * 64, 3)


def cut_short(path):
    """A fetch that gets one file and one refusal, and ends there."""
    with pytest.raises(KeyboardInterrupt), DownloadFolder(path, "hpa", {"limit": 1}) as raw:
        (path / "a").write_bytes(b"abc")
        raw.add("a", FILE)
        raw.lack("http://x/b", 400)
        raise KeyboardInterrupt


def test_what_was_noted_before_the_end_is_known_after_it(tmp_path):
    cut_short(tmp_path)
    with DownloadFolder(tmp_path, "hpa", {}) as raw:
        assert raw.has("a")
        assert raw.files == {"a": FILE}
        assert raw.absent == {"http://x/b": 400}
    assert json.loads((tmp_path / "manifest.json").read_text())["absent"] == {"http://x/b": 400}
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize("lost", [1, 10, 30])
def test_a_torn_line_is_passed_over(tmp_path, lost):
    cut_short(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-lost])
    with DownloadFolder(tmp_path, "hpa", {}) as raw:
        assert raw.files == {"a": FILE}
        assert raw.absent == {}


def test_a_file_that_is_not_as_recorded_is_not_there(tmp_path):
    cut_short(tmp_path)
    with DownloadFolder(tmp_path, "hpa", {}) as raw:
        assert raw.has("a", 3)
        assert not raw.has("a", 4)
        (tmp_path / "a").write_bytes(b"ab")
        assert not raw.has("a")
        (tmp_path / "a").unlink()
        assert not raw.has("a")
        assert not raw.has("b")


def test_one_writes_at_a_time_and_the_next_may_after_it(tmp_path):
    with DownloadFolder(tmp_path, "hpa", {}), pytest.raises(InputError, match="Another deepGPS process"):
        DownloadFolder(tmp_path, "opencell", {})
    with DownloadFolder(tmp_path, "opencell", {}):
        pass


def test_a_refused_folder_is_left_unlocked(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    for _ in range(2):
        with pytest.raises(InputError, match="not the manifest"):
            DownloadFolder(tmp_path, "hpa", {})


def test_a_fetch_is_complete_only_when_it_came_to_its_end(tmp_path):
    cut_short(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["fetched"]["hpa"] == {
        "complete": False,
        "limit": 1,
    }
    with DownloadFolder(tmp_path, "hpa", {}) as raw:
        raw.finish([])
    assert json.loads((tmp_path / "manifest.json").read_text())["fetched"]["hpa"]["complete"] is True
