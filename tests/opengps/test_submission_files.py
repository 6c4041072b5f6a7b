"""Hostile ZIPs."""

import io
import zipfile

import pytest
from contributor import batch, packed, submit_files
from visitor import visit

from deepgps.errors import InputError
from opengps.settings import Settings
from opengps.submissions.requests import unpack_files
from opengps.uploads import TooLargeError, Upload

SETTINGS = Settings(max_image_bytes=1000, max_unpacked_bytes=2500, max_submission_images=2)


def unpacked(content, settings=SETTINGS):
    return unpack_files([Upload("lab.zip", content)], settings)


def with_info(content, **attributes):
    """Return a ZIP of one member with changed metadata."""
    info = zipfile.ZipInfo("a.tif")
    for name, value in attributes.items():
        setattr(info, name, value)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, content)
    return out.getvalue()


def test_names_lose_their_folders_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["../../up.tif", "/etc/root.tif", "C:\\win\\w.tif", "deep/er/d.tif"]
    found = unpacked(packed(dict.fromkeys(names, b"x")))
    assert set(found) == {"up.tif", "root.tif", "w.tif", "d.tif"}
    assert found["up.tif"]() == b"x"
    assert not list(tmp_path.iterdir())


def test_files_of_the_operating_system_are_ignored():
    found = unpacked(packed({"a.tif": b"x", "__MACOSX/._a.tif": b"y", ".DS_Store": b"z", "Thumbs.db": b"z"}))
    assert list(found) == ["a.tif"]


def test_a_bomb_is_unpacked_only_up_to_the_limit_of_an_image():
    found = unpacked(packed({"a.tif": b"\0" * 50_000_000}))
    assert len(found["a.tif"]()) == SETTINGS.max_image_bytes + 1


def test_all_files_together_are_limited():
    found = unpacked(packed({name: bytes(1000) for name in ("a", "b", "c")}))
    found["a"](), found["b"]()
    with pytest.raises(TooLargeError, match="2,500 bytes"):
        found["c"]()


def test_a_false_size_does_not_help():
    content = bytearray(packed({"a.tif": bytes(50_000)}))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises((InputError, AssertionError)):
        assert len(unpacked(bytes(content))["a.tif"]()) > SETTINGS.max_image_bytes


def test_too_many_files_are_not_read():
    with pytest.raises(TooLargeError, match="limit is 5"):
        unpacked(packed({f"{number}.tif": b"" for number in range(6)}))


def test_links_and_passwords_are_refused():
    with pytest.raises(InputError, match="is a link"):
        unpacked(with_info(b"/etc/passwd", create_system=3, external_attr=0o120777 << 16))
    locked = bytearray(packed({"a.tif": b"x"}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="encrypted"):
        unpacked(bytes(locked))


def test_names_that_come_twice_are_refused():
    with pytest.raises(InputError, match=r"called 'a\.tif'"):
        unpacked(packed({"x/a.tif": b"1", "y/a.tif": b"2"}))


@pytest.mark.parametrize("cut", [10, -30])
def test_a_damaged_archive_is_refused(cut):
    with pytest.raises(InputError, match="damaged ZIP"):
        unpacked(packed({"a.tif": b"x" * 500})[:cut])


def test_damaged_bytes_inside_are_refused():
    content = bytearray(packed({"a.tif": bytes(range(200))}))
    content[60] ^= 0xFF
    with pytest.raises(InputError, match="damaged ZIP"):
        unpacked(bytes(content))["a.tif"]()


def test_an_archive_within_an_archive_stays_packed():
    inner = packed({"b.tif": b"x"})
    assert unpacked(packed({"a.zip": inner}))["a.zip"]() == inner


def test_the_error_is_shown_to_the_visitor(tmp_path, visitor):
    small = visit(tmp_path / "small", max_unpacked_bytes=10_000)
    answer = submit_files(small, ("lab.zip", packed(batch(1))))
    assert answer.status_code == 413
    answer = submit_files(visitor, ("lab.zip", packed(batch(1))[:-40]))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unreadable_file")
