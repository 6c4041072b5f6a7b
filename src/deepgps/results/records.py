"""Read results back."""

import json
from collections.abc import Iterator
from pathlib import Path

from deepgps.results.table import Record


def read_records(path: Path) -> Iterator[Record]:
    """Read the whole records of a ``results.jsonl``, one at a time; a torn last line is left out.

    Parameters
    ----------
    path
        The file; one that does not exist has no records.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError:
                return
