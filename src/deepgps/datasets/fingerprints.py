"""Which files something was made of."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprints(paths: Iterable[Path]) -> dict[str, str]:
    """Sha256 of each file by name; of a folder, of each file directly in it, by ``folder/name``."""
    found = {}
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            name = f"{path.name}/{file.name}" if path.is_dir() else file.name
            with file.open("rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
