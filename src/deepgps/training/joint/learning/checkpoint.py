"""What a run needs to go on: written beside the one before and renamed, so that one is always whole."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepgps.errors import InputError
from deepgps.files import atomic_path

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"

Row = dict[str, float]
"""One epoch's figures, by name."""


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes
    ----------
    epoch
        Epochs that are finished.
    part
        Parts of batches that the epoch under way has seen.
    sums
        Sums of the losses over these parts, in the order of `Fit.parts`.
    history
        A row of figures for every finished epoch.
    best
        Lowest loss of the validation images so far.
    stale
        Epochs since it was reached.
    """

    epoch: int = 0
    part: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    best: float = float("inf")
    stale: int = 0


def save_whole(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to a file, which stays what it was until the new one is whole.

    Raises
    ------
    OSError
        If it cannot be written; what was there is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, draft.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch wraps what the system says of a full disk.
            if isinstance(cause := error.__context__, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from None
            raise
        file.flush()
        os.fsync(file.fileno())


def save_last(run: Path, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Keep all that a run needs to go on."""
    content = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "progress": asdict(progress)}
    save_whole(content, run / LAST)


def load_last(run: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Take up a run where it was; one that has no checkpoint yet begins.

    Raises
    ------
    InputError
        If the checkpoint is damaged or does not fit the model.
    """
    if not (run / LAST).exists():
        return Progress()
    content = read_checkpoint(run / LAST)
    try:
        model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        return Progress(**content["progress"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Checkpoint '{run / LAST}' is of another model ({error}); name another folder."
        ) from None


def best_weights(run: Path, keep: str) -> dict[str, Tensor]:
    """Weights that the run ends with: of its best epoch, or of its last."""
    weights: dict[str, Tensor] = read_checkpoint(run / (BEST if keep == "best" else LAST))["model"]
    return weights


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is ever executed.

    Raises
    ------
    InputError
        If it is damaged or missing.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise InputError(
            f"Checkpoint '{path}' cannot be read ({error}); train into another folder."
        ) from None
    return content
