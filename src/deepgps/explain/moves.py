"""A score for whether a substitution moves a protein or disturbs it: `moves`, in [0, 1].

A logistic regression of three features, fitted to the imaging hits of VarChAMP (``experiments/variants``).
The change of the predicted probabilities and the conservation among relatives did not help there, and are
left out.
"""

import numpy as np

from deepgps.arrays import Doubles
from deepgps.proteins.features import RESIDUES, SCALES, residue_codes

FEATURES = ("severity", "disorder", "strand")
"""Minus the BLOSUM62 score; mean disorder of 21 residues around; mean strand propensity of 11."""
WEIGHTS = (0.1116, -1.0422, 0.4443)
BIAS = -1.5516

_BLOSUM62 = """
 4  0 -2 -1 -2  0 -2 -1 -1 -1 -1 -2 -1 -1 -1  1  0  0 -3 -2
 0  9 -3 -4 -2 -3 -3 -1 -3 -1 -1 -3 -3 -3 -3 -1 -1 -1 -2 -2
-2 -3  6  2 -3 -1 -1 -3 -1 -4 -3  1 -1  0 -2  0 -1 -3 -4 -3
-1 -4  2  5 -3 -2  0 -3  1 -3 -2  0 -1  2  0  0 -1 -2 -3 -2
-2 -2 -3 -3  6 -3 -1  0 -3  0  0 -3 -4 -3 -3 -2 -2 -1  1  3
 0 -3 -1 -2 -3  6 -2 -4 -2 -4 -3  0 -2 -2 -2  0 -2 -3 -2 -3
-2 -3 -1  0 -1 -2  8 -3 -1 -3 -2  1 -2  0  0 -1 -2 -3 -2  2
-1 -1 -3 -3  0 -4 -3  4 -3  2  1 -3 -3 -3 -3 -2 -1  3 -3 -1
-1 -3 -1  1 -3 -2 -1 -3  5 -2 -1  0 -1  1  2  0 -1 -2 -3 -2
-1 -1 -4 -3  0 -4 -3  2 -2  4  2 -3 -3 -2 -2 -2 -1  1 -2 -1
-1 -1 -3 -2  0 -3 -2  1 -1  2  5 -2 -2  0 -1 -1 -1  1 -1 -1
-2 -3  1  0 -3  0  1 -3  0 -3 -2  6 -2  0  0  1  0 -3 -4 -2
-1 -3 -1 -1 -4 -2 -2 -3 -1 -3 -2 -2  7 -1 -2 -1 -1 -2 -4 -3
-1 -3  0  2 -3 -2  0 -3  1 -2  0  0 -1  5  1  0 -1 -2 -2 -1
-1 -3 -2  0 -3 -2  0 -3  2 -2 -1  0 -2  1  5 -1 -1 -3 -3 -2
 1 -1  0  0 -2  0 -1 -2  0 -2 -1  1 -1  0 -1  4  1 -2 -3 -2
 0 -1 -1 -1 -2 -2 -2 -1 -1 -1 -1  0 -1 -1 -1  1  5  0 -2 -2
 0 -1 -3 -2 -1 -3 -3  3 -2  1  1 -3 -2 -2 -3 -2  0  4 -3 -1
-3 -2 -4 -3  1 -2 -2 -3 -3 -2 -1 -4 -4 -2 -3 -3 -2 -3 11  2
-2 -2 -3 -2  3 -3  2 -1 -2 -1 -1 -2 -3 -1 -2 -2 -2 -1  2  7
"""
BLOSUM62 = np.array([line.split() for line in _BLOSUM62.strip().splitlines()], int)
"""(20, 20) substitution scores, in the order of `RESIDUES`."""

_DISORDER, _STRAND = (np.array([*SCALES[name], 0.0]) for name in ("disorder", "strand"))


def features(sequence: str, position: int, residue: str) -> Doubles:
    """Compute the features of a substitution.

    Parameters
    ----------
    sequence
        The unchanged sequence.
    position
        The changed residue, from 1.
    residue
        The new residue, one of the 20 amino acids.

    Returns
    -------
    Doubles
        (3,) in the order of `FEATURES`.
    """
    place = position - 1
    codes = residue_codes(sequence[max(0, place - 10) : place + 11])
    near = residue_codes(sequence[max(0, place - 5) : place + 6])
    before, after = residue_codes(sequence[place] + residue)
    severity = 0 if before >= len(RESIDUES) else -BLOSUM62[before, after]
    return np.array([severity, _DISORDER[codes].mean(), _STRAND[near].mean()])


def moves(sequence: str, position: int, residue: str) -> float:
    """Score a substitution; see `features`.

    Returns
    -------
    float
        In [0, 1]; the share of such substitutions that changed the picture of the cells in VarChAMP.
    """
    if sequence[position - 1] == residue:
        return 0.0
    logit = float(features(sequence, position, residue) @ np.array(WEIGHTS)) + BIAS
    return float(1 / (1 + np.exp(-logit)))
