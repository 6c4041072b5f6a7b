"""What a fine-tuned run started from: ``base.json`` in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepgps.training.claim import write_json

BASE = "base.json"


def write_origin(run: Path, name: str, fingerprint: str, figures: Mapping[str, float]) -> None:
    """Note what a run starts from, and how well that did on the run's validation part before."""
    write_json(run / BASE, {"name": name, "fingerprint": fingerprint, "before": dict(figures)})


def read_origin(run: Path) -> dict[str, Any]:
    """Read what a run started from; nothing if its weights were fresh."""
    path = run / BASE
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def started_from(run: Path) -> dict[str, str]:
    """What a run's bundle says of it among the training data."""
    if not (origin := read_origin(run)):
        return {}
    return {"fine-tuned from": f"{origin['name']} (sha256 {origin['fingerprint'][:12]}…)"}
