"""One protein on its way into an encoder graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Floats
from deepgps.proteins.neighbours import Neighbour


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the graph is told of one protein.

    Attributes
    ----------
    weights
        (W,) residues of each of its windows; most have one.
    arrays
        By input of the graph, (W, …): a row for each window.
    evidence
        The nearest annotated proteins, most similar first.
    """

    weights: Floats
    arrays: Mapping[str, Floats]
    evidence: tuple[Neighbour, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of a window; proteins of the same shapes are encoded together."""
        return tuple(array.shape[1:] for array in self.arrays.values())


def whole(length: int, **arrays: Floats) -> Inputs:
    """Take a protein of so many residues as one window, without the axis of windows in its arrays."""
    return Inputs(np.array([length], np.float32), {name: array[None] for name, array in arrays.items()})
