"""Flips and quarter turns: the eight ways to lay a square."""

import numpy as np

from deepgps.arrays import Bytes

WAYS = 8
"""Four quarter turns, each as it is and mirrored."""


def laid(pair: Bytes, way: int) -> Bytes:
    """Lay a pair one of eight ways, nucleus and protein alike.

    Parameters
    ----------
    pair
        (2, S, S) nucleus and protein.
    way
        Quarter turns, 0 to 3; 4 more for the mirrored one.

    Returns
    -------
    (2, S, S), a view of the same pixels.
    """
    turned = np.rot90(pair, way % 4, (1, 2))
    return turned[:, :, ::-1] if way >= 4 else turned
