"""What is said of training proteins by models that never saw their cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from deepgps.arrays import Floats
from deepgps.errors import InputError

REGIMES = ("without homologs", "without the same protein")
"""Whose votes a held-out protein got: those of other clusters, or all but of what is nearly the same."""
HELD_OUT = "held_out.safetensors"

_VOTES = "votes, "  # before the name of a regime


class HeldOutAnswers(NamedTuple):
    """What is said of the N training proteins.

    Attributes
    ----------
    logits
        (N, K) calibrated logits.
    votes
        (N, V) votes of their neighbours, as `deepgps.proteins.neighbours.NeighbourIndex.vote` gives them.
    """

    logits: Floats
    votes: Floats


def write_held_out(folder: Path, logits: Sequence[Tensor], votes: Sequence[Tensor]) -> None:
    """Write logits (N, K) and votes (N, V) of each of `REGIMES`; a kill leaves no half of a file."""
    tensors = dict(zip(REGIMES, logits, strict=True))
    tensors |= {f"{_VOTES}{name}": each for name, each in zip(REGIMES, votes, strict=True)}
    draft = folder / "held_out.part"
    save_file({name: each.contiguous() for name, each in tensors.items()}, draft)
    draft.replace(folder / HELD_OUT)


def held_out_answers(folder: Path) -> dict[str, HeldOutAnswers]:
    """Read what `write_held_out` left in a folder, by the names of `REGIMES`.

    Raises
    ------
    InputError
        If an earlier deepGPS left it, without the votes.
    """
    said = load_file(folder / HELD_OUT)
    if not said.keys() >= {f"{_VOTES}{name}" for name in REGIMES}:
        raise InputError(
            f"Folder '{folder}' was trained by an earlier deepGPS; remove it, and it is trained again."
        )
    return {name: HeldOutAnswers(said[name].numpy(), said[f"{_VOTES}{name}"].numpy()) for name in REGIMES}
