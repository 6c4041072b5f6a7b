"""Read, verify, find and write model bundles, which training exports and prediction loads.

A bundle is a folder, or a ``.zip`` of it or of its files, with ``bundle.json`` (described by
`BundleMetadata`), the graphs ``encoder.onnx`` and ``generator.onnx`` (and ``grain.onnx``, if it draws by flow
matching), optionally ``neighbours.npz``, and ``CARD.md``. Nothing in it is pickled.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deepgps.bundle.metadata import (
    BundleMetadata,
    ClassSetSpec,
)
from deepgps.errors import BundleError

SCHEMA_VERSION = 1
METADATA_FILE = "bundle.json"
FINGERPRINT = "sha256"
"""Field of ``bundle.json``: the sha256 of its other fields; older bundles have none."""
NEIGHBOURS_FILE = "neighbours.npz"
GRAIN_FILE = "grain.onnx"
KNOWN_FILE, KNOWN_SEQUENCES_FILE, OVERALL_FILE = "known.npz", "known_sequences.npz", "overall.json"
"""Facts on known proteins, the sequences of those that do not vote, and how both and the prediction
combine."""
# Weights shrink by a few per cent, text to a third.
_MAX_EXPANSION, _MAX_SMALL_BYTES = 20, 1_000_000
REQUIRED_FILES = ("encoder.onnx", "generator.onnx", "CARD.md")
DEFAULT_MODEL = "deepgps-mini"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model bundle.

    Attributes
    ----------
    path
        The folder or ``.zip`` it was read from.
    metadata
        Its ``bundle.json``.
    sha256
        Hash of ``bundle.json``, which contains the hashes of all other files: the model's fingerprint.
    class_set
        The class set that replaces the model's own classes, if any; see `with_class_set`.

    Examples
    --------
    >>> from deepgps import open_model
    >>> bundle = open_model("deepgps-mini")
    >>> bundle.metadata.crop.size_px
    208
    """

    path: Path
    metadata: BundleMetadata
    sha256: str
    class_set: ClassSetSpec | None = None

    def read(self, name: str) -> bytes:
        """Read one of the bundle's files and check its hash.

        Parameters
        ----------
        name
            File name, such as ``CARD.md``.

        Returns
        -------
        bytes
            The content.

        Raises
        ------
        BundleError
            If the file is missing or has another hash than when the bundle was made.
        """
        content = _read(self.path, name)
        if hashlib.sha256(content).hexdigest() != self.metadata.files.get(name):
            raise BundleError(f"Bundle '{self.path}': '{name}' has a wrong sha256; fetch or export it again.")
        return content

    def has(self, name: str) -> bool:
        """Whether the bundle has a file.

        Parameters
        ----------
        name
            File name.

        Returns
        -------
        bool
            True if it is one of the files with a hash in ``bundle.json``.
        """
        return name in self.metadata.files

    def copy_to(self, folder: Path) -> None:
        """Write the bundle's files, unchanged, to a folder; ``bundle.json`` is written last.

        Parameters
        ----------
        folder
            An existing folder.
        """
        for name in self.metadata.files:
            (folder / name).write_bytes(self.read(name))
        (folder / METADATA_FILE).write_bytes(_read(self.path, METADATA_FILE))


def _read(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return _unpack(archive, _member(archive, name), path)
    except (KeyError, FileNotFoundError):
        raise BundleError(f"Bundle '{path}' has no '{name}'; fetch or export it again.") from None
    # The last four are how a damaged or encrypted archive shows, depending on where it is damaged.
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"Bundle '{path}' cannot be read ({reason}); fetch or export it again.") from None


def _unpack(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Unpack a file, unless it becomes far larger than weights and text do."""
    member = archive.getinfo(name)
    limit = _MAX_EXPANSION * member.compress_size + _MAX_SMALL_BYTES
    with archive.open(member) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BundleError(f"Bundle '{path}': '{name}' unpacks to more than a bundle has; fetch it again.")
    return content


def _member(archive: zipfile.ZipFile, name: str) -> str:
    """Find a file within an archive, whether the bundle's files or their folder was zipped."""
    return next((each for each in archive.namelist() if each.partition("/")[2] == name), name)


def _metadata(path: Path, content: bytes) -> BundleMetadata:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise BundleError(f"Bundle '{path}': {METADATA_FILE} is not JSON; export it again.") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"Bundle '{path}' has schema version {version!r}; this deepGPS reads {SCHEMA_VERSION}: "
            "install the deepGPS it was made for, or export it again."
        )
    expected = fields.pop(FINGERPRINT, None)
    if expected is not None and expected != _fingerprint(fields):
        raise BundleError(
            f"Bundle '{path}': {METADATA_FILE} does not match its {FINGERPRINT}; fetch or export it again."
        )
    try:
        return BundleMetadata.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"Bundle '{path}': field '{where}' of {METADATA_FILE}: {first['msg']}; export it again."
        ) from None


def _fingerprint(fields: Mapping[str, Any]) -> str:
    """Return the sha256 of the fields of ``bundle.json``, without regard to their order and layout."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and verify every file in it.

    Parameters
    ----------
    path
        A folder or ``.zip``.

    Returns
    -------
    Bundle
        The verified bundle.

    Raises
    ------
    BundleError
        If it is missing or damaged, a file has a wrong hash, or its schema version is unknown.
    """
    if not path.exists():
        raise BundleError(f"Bundle '{path}' does not exist; `deepgps models list` shows what is installed.")
    content = _read(path, METADATA_FILE)
    bundle = Bundle(path, _metadata(path, content), hashlib.sha256(content).hexdigest())
    for name in dict.fromkeys((*REQUIRED_FILES, *bundle.metadata.files)):
        bundle.read(name)
    return bundle


def write_bundle(folder: Path, metadata: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle folder; ``bundle.json`` is written last, so that a half-written bundle is never valid.

    Parameters
    ----------
    folder
        Where to write; files of an earlier bundle are replaced.
    metadata
        The fields of `BundleMetadata` without ``schema_version`` and ``files``.
    files
        Contents by name; must include `REQUIRED_FILES`.

    Returns
    -------
    Bundle
        The written bundle, verified.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = BundleMetadata.model_validate({**metadata, "schema_version": SCHEMA_VERSION, "files": hashes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METADATA_FILE).unlink(missing_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    fields = whole.model_dump(mode="json")
    fields[FINGERPRINT] = _fingerprint(fields)
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    (folder / METADATA_FILE).write_text(text, encoding="utf-8")
    return open_bundle(folder)


def with_class_set(bundle: Bundle, name: str) -> Bundle:
    """Replace a bundle's classes by another of its class sets.

    Parameters
    ----------
    bundle
        The bundle.
    name
        A key of its ``class_sets``.

    Returns
    -------
    Bundle
        The same files, with the classes and thresholds of that set; its name is ``MODEL:SET``.

    Raises
    ------
    BundleError
        If there is no class set of that name, or it needs annotated proteins that the bundle does not have.
    """
    metadata = bundle.metadata
    if (spec := metadata.class_sets.get(name)) is None:
        known = ", ".join(metadata.class_sets) or "none but its own"
        raise BundleError(f"Model '{metadata.name}' has no class set '{name}'; it has {known}.")
    if spec.votes and not bundle.has(NEIGHBOURS_FILE):
        raise BundleError(
            f"Model '{metadata.name}' has no '{NEIGHBOURS_FILE}', which its class set '{name}' needs; "
            "export it again."
        )
    of_set = spec.model_dump(include={"classes", "multi_label", "thresholds", "unclear_below"})
    of_set |= {"name": f"{metadata.name}:{name}", "class_sets": {}}
    return replace(bundle, metadata=metadata.model_copy(update=of_set), class_set=spec)


def open_model(model: str | Path) -> Bundle:
    """Open a bundle by name or path.

    Parameters
    ----------
    model
        Name of an installed bundle or path of one; a class set may follow after a colon, as in
        ``deepgps-mini:single-4``.

    Returns
    -------
    Bundle
        The verified bundle.

    Raises
    ------
    BundleError
        If there is no such bundle, it is damaged, or it has no such class set.

    Examples
    --------
    >>> from deepgps import open_model
    >>> open_model("deepgps-mini:single-2").metadata.multi_label
    False
    """
    name, colon, class_set = str(model).rpartition(":")
    if not colon or str(model) in installed_bundles() or Path(model).exists():
        return open_bundle(find_bundle(model))
    return with_class_set(open_bundle(find_bundle(name)), class_set)


def model_folders() -> tuple[Path, ...]:
    """Return the folders searched for bundles: the user's (``DEEPGPS_MODELS``), then the package's."""
    from platformdirs import user_data_path

    own = os.environ.get("DEEPGPS_MODELS")
    users = Path(own) if own else user_data_path("deepgps") / "models"
    return (users, Path(__file__).parents[1] / "bundles")


def installed_bundles() -> dict[str, Path]:
    """Return the installed bundles by name; the user's come before the package's."""
    found: dict[str, Path] = {}
    for folder in model_folders():
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix == ".zip" or (path / METADATA_FILE).exists():
                found.setdefault(path.stem if path.suffix == ".zip" else path.name, path)
    return found


def find_bundle(name_or_path: str | Path) -> Path:
    """Return the path of a bundle, given its name or path.

    Parameters
    ----------
    name_or_path
        Name of an installed bundle, or the path of one.

    Returns
    -------
    Path
        Folder or ``.zip`` of the bundle.

    Raises
    ------
    BundleError
        If no bundle of that name is installed and no such path exists.
    """
    installed = installed_bundles()
    if str(name_or_path) in installed:
        return installed[str(name_or_path)]
    if (path := Path(name_or_path)).exists():
        return path
    names = ", ".join(installed) or "none"
    raise BundleError(f"Model '{name_or_path}' is neither installed ({names}) nor a path to a bundle.")
