"""File names for ids of any kind: readable, safe on every file system, never the same twice."""

import hashlib
import re

MAX_STEM = 60

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# Windows keeps these names for devices, with any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def safe_stem(text: str) -> str:
    """Make a file name's stem of any text: ASCII letters, digits, ``.``, ``_`` and ``-``, at most 60 of them.

    It never starts or ends with a dot, so it neither hides nor leaves its folder.
    """
    stem = _UNSAFE.sub("_", text).strip("._-")[:MAX_STEM].rstrip(".") or "unnamed"
    return f"id-{stem}" if _DEVICE.match(stem) else stem


class FileNames:
    """Names of one run's images, the same in every run over the same rows.

    The first id of its kind gets its safe stem; one whose stem is taken, also in another case, or was cut,
    gets a short hash of the id as well.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, protein_id: str, nucleus: str | None = None) -> str:
        """Name the next row's images: ``<id>``, or ``<id>__<nucleus>`` where there are several nuclei."""
        parts = [protein_id] if nucleus is None else [protein_id, nucleus]
        stem = "__".join(safe_stem(part) for part in parts)
        digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        cut = any(len(part) > MAX_STEM for part in parts)
        candidates = [*([] if cut else [stem]), *(f"{stem}-{digest[:n]}" for n in (8, 16, 64))]
        chosen = next((c for c in candidates if c.casefold() not in self._taken), None)
        if chosen is None:
            # Only the very same id in the very same nucleus comes here.
            chosen = f"{candidates[-1]}-{len(self._taken)}"
        self._taken.add(chosen.casefold())
        return chosen
