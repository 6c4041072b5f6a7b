"""Residues as the tokens of ESM2."""

from collections.abc import Sequence

import numpy as np

from deepgps.arrays import Ints, Mask

START, PADDING, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = 2
"""Tokens beside the residues: one at the start, one at the end."""
VOCABULARY = 33

# In the order of ESM2's training; the letters begin at token 4.
_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"


def _table() -> Ints:
    table = np.full(256, UNKNOWN, np.int64)
    table[[ord(letter) for letter in _LETTERS]] = np.arange(4, 4 + len(_LETTERS))
    return table


_TOKEN = _table()


def tokenize(sequences: Sequence[str]) -> tuple[Ints, Mask]:
    """Turn sequences into one padded array.

    Parameters
    ----------
    sequences
        Upper-case residues; another letter than the 20 amino acids, U, O, B, Z or X becomes `UNKNOWN`.

    Returns
    -------
    tuple of ndarray
        Tokens (B, L) int64: `START`, the residues, `END`, then `PADDING`; and the mask (B, L) bool, false
        where it pads. L is the longest sequence and `SPECIAL`.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    places = np.arange(lengths.max() + SPECIAL)
    tokens = np.full((len(sequences), len(places)), PADDING, np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[0], row[len(sequence) + 1] = START, END
        row[1 : len(sequence) + 1] = _TOKEN[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    return tokens, places < lengths[:, None] + SPECIAL
