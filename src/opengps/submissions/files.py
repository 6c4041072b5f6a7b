"""The files of a batch: as they were sent, or out of a ZIP that is trusted in nothing."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

from deepgps.errors import InputError
from opengps.orders import TooLargeError, Upload
from opengps.settings import Settings

_ZIP = b"PK\x03\x04"
_UNIX = 3
_ENCRYPTED = 1
# What packers add of their own.
_CLUTTER = ("__macosx", ".", "thumbs.db", "desktop.ini")

Read = Callable[[], bytes]


def gather(uploads: Sequence[Upload], settings: Settings) -> Mapping[str, Read]:
    """Find the files of a batch by their names without folders; each is read when it is asked for.

    Nothing is written anywhere and no name becomes a path, so that none leads out of a folder. Never more
    than the limits is unpacked, whatever an archive claims.

    Raises
    ------
    InputError
        If two files have one name, or an archive is damaged, encrypted or holds a link.
    TooLargeError
        Of a ZIP, when it is opened or read, if it holds more files or bytes than is taken.
    """
    found: dict[str, Read] = {}
    left = settings.max_unpacked_bytes

    def spend(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            most = settings.max_unpacked_bytes
            raise TooLargeError(f"The files have more than {most:,} bytes, unpacked; send fewer at a time.")

    def add(name: str, read: Read) -> None:
        if name in found:
            raise InputError(f"Two files are called '{name}'; rename one.")
        found[name] = read

    for upload in uploads:
        if not upload.content.startswith(_ZIP):
            add(upload.name, lambda content=upload.content: content)  # type: ignore[misc]
            continue
        for name, read in _members(upload, settings, spend):
            add(name, read)
    return found


def _members(upload: Upload, settings: Settings, spend: Callable[[int], None]) -> Sequence[tuple[str, Read]]:
    try:
        archive = zipfile.ZipFile(BytesIO(upload.content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged(upload, error) from None
    members = [each for each in archive.infolist() if not each.is_dir() and not _is_clutter(each.filename)]
    most = 2 * settings.max_submission_images + 1
    if len(members) > most:
        raise TooLargeError(f"'{upload.name}' holds {len(members):,} files; {most:,} are taken. Split it.")
    return [(_name(each), _reader(upload, archive, each, settings, spend)) for each in members]


def _reader(
    upload: Upload,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    settings: Settings,
    spend: Callable[[int], None],
) -> Read:
    name, mode = _name(member), member.external_attr >> 16
    if member.flag_bits & _ENCRYPTED:
        raise InputError(f"'{name}' in '{upload.name}' is encrypted; pack it without a password.")
    if member.create_system == _UNIX and stat.S_ISLNK(mode):
        raise InputError(f"'{name}' in '{upload.name}' is a link; pack the file itself.")

    def read() -> bytes:
        try:
            with archive.open(member) as file:
                content = file.read(settings.max_image_bytes + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise _damaged(upload, error) from None
        spend(len(content))
        return content

    return read


def _damaged(upload: Upload, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(f"'{upload.name}' is a damaged ZIP ({reason}); make it again.")


def _name(member: zipfile.ZipInfo) -> str:
    name = member.filename.replace("\\", "/").rpartition("/")[2]
    return "".join(letter if letter.isprintable() else "_" for letter in name)[:120]


def _is_clutter(path: str) -> bool:
    parts = path.replace("\\", "/").lower().split("/")
    return parts[0] == _CLUTTER[0] or parts[-1].startswith(_CLUTTER[1]) or parts[-1] in _CLUTTER
