"""Whole files or none: written under a hidden name and renamed when complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HIDDEN = ".deepgps-"


def hidden(path: Path) -> Path:
    """Hidden name beside a file, with the same extension."""
    return path.with_name(HIDDEN + path.name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes ``path`` when the block ends well and vanishes when it does not."""
    draft = hidden(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what a killed run left half-written in a folder."""
    # A writer may hide its own draft once more.
    for pattern in (f"{HIDDEN}*", f".{HIDDEN}*"):
        for draft in folder.glob(pattern):
            draft.unlink(missing_ok=True)
