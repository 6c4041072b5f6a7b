"""Hand-made vectors of single residues: which residue it is, and what the stretch around it is like.

For models that read a sequence residue by residue and have no language model.
"""

import numpy as np

from deepgps.arrays import Floats
from deepgps.proteins.features import RESIDUES, UNKNOWN, residue_codes
from deepgps.proteins.motifs import SCALES

RESIDUE_FEATURES_NAME = "residues-1"
RESIDUE_WINDOWS = (7, 21)
RESIDUE_DIMENSION = len(RESIDUES) + len(SCALES) * len(RESIDUE_WINDOWS)

_IDENTITY = np.eye(UNKNOWN + 1, len(RESIDUES), dtype=np.float32)
_SCALE_TABLE = np.array([[*values, 0.0] for values in SCALES.values()], np.float32)


def residue_features(sequence: str) -> Floats:
    """Describe each residue of a sequence.

    Parameters
    ----------
    sequence
        One-letter residues; an unknown one has zeros for its identity and its scales.

    Returns
    -------
    NDArray
        (L, `RESIDUE_DIMENSION`): which of the 20 residues it is, then each scale's mean over the residues of
        each window of `RESIDUE_WINDOWS` around it, fewer at the ends.
    """
    codes = residue_codes(sequence)
    means = [_running_mean(_SCALE_TABLE[:, codes], window) for window in RESIDUE_WINDOWS]
    return np.concatenate([_IDENTITY[codes], *(mean.T for mean in means)], axis=1)


def _running_mean(values: Floats, window: int) -> Floats:
    """Means (S, L) of values (S, L) over windows centred on each residue and cut off at the ends."""
    length, half = values.shape[1], window // 2
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1, dtype=np.float64)], axis=1)
    places = np.arange(length)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, length)
    return np.asarray((sums[:, last] - sums[:, first]) / (last - first), np.float32)
