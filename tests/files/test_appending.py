import errno
import os

import pytest

from deepgps.files import AppendFile, offset_after, record_ends


def test_a_torn_last_line_is_no_record(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"h\na,1\nb,2\nc")
    assert list(record_ends(path, quoted=True)) == [2, 6, 10]


def test_a_line_break_in_quotes_belongs_to_the_record(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b'h\n"a\nb",1\n"c""\n",2\n"torn\n')
    assert len(list(record_ends(path, quoted=True))) == 3


def test_a_missing_file_has_no_records(tmp_path):
    assert list(record_ends(tmp_path / "none", quoted=False)) == []
    assert offset_after(tmp_path / "none", 3, quoted=False) == 0


def test_appending_continues_after_what_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"1\n2\n3\ntor")
    file = AppendFile(path, offset_after(path, 2, quoted=False))
    file.append(b"x\n")
    file.close()
    assert path.read_bytes() == b"1\n2\nx\n"


def test_a_record_that_does_not_fit_leaves_none_of_itself(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    file = AppendFile(path)
    file.append(b"whole\n")
    write = os.write

    def full(handle, data):
        if len(data) < 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:4])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"torn one\n")
    file.close()
    assert path.read_bytes() == b"whole\n"
