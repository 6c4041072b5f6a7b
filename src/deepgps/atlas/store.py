"""What an atlas has computed: answers, images and pages, each under a hash of all that it depends on."""

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

STORE_FILE = ".atlas.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, key TEXT NOT NULL, fraction REAL);
"""


class StoredFile(NamedTuple):
    """A file of the site that was written, an image or a page.

    Attributes
    ----------
    path
        Relative to the site.
    key
        Hash of all that it depends on.
    fraction
        Of an image, its intranuclear fraction in [0, 1]; None for a page, or an image without intensity.
    """

    path: str
    key: str
    fraction: float | None = None


class AtlasStore:
    """The answers of an atlas on disk; use it in a ``with`` block.

    It is a SQLite file, so that a process that is killed leaves whole answers only.

    Parameters
    ----------
    site
        The folder of the site.
    """

    def __init__(self, site: Path) -> None:
        self._base = sqlite3.connect(site / STORE_FILE)
        self._base.executescript(_SCHEMA)

    def answer_keys(self) -> set[str]:
        """Return the keys of all answers."""
        return {key for (key,) in self._base.execute("SELECT key FROM answers")}

    def files(self) -> dict[str, StoredFile]:
        """Return all files by path."""
        rows = self._base.execute("SELECT path, key, fraction FROM files")
        return {row[0]: StoredFile(*row) for row in rows}

    def add(self, answers: Iterable[tuple[str, Any]] = (), files: Iterable[StoredFile] = ()) -> None:
        """Store answers, as JSON, and files that are on the disk already, all or nothing."""
        packed = [
            (
                key,
                zlib.compress(
                    json.dumps(each, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
                ),
            )
            for key, each in answers
        ]
        with self._base:
            self._base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", packed)
            self._base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", files)

    def answer(self, key: str) -> Any:
        """Return the answer of a key; raise a `KeyError` if there is none."""
        row = self._base.execute("SELECT content FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return json.loads(zlib.decompress(row[0]))

    def keep(self, answers: Collection[str], paths: Collection[str]) -> list[str]:
        """Forget all other answers and files, and return the paths of these files."""
        gone = [(key,) for key in self.answer_keys() - set(answers)]
        others = sorted(self.files().keys() - set(paths))
        with self._base:
            self._base.executemany("DELETE FROM answers WHERE key = ?", gone)
            self._base.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in others])
        if gone:
            self._base.execute("VACUUM")
        return others

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._base.close()


def key_of(*parts: str | float | bool | Sequence[Any] | None) -> str:
    """Return a hash of strings, numbers and lists of them."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:32]
