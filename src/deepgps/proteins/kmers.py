"""Words of a sequence: what two proteins must share to be alike, and who holds which.

A spaced word is six residues out of eight in a row, read in an alphabet of 13 groups of residues that
evolution exchanges easily. Diverged relatives share more of them than of unbroken words of the 20.
"""

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Mask
from deepgps.proteins.features import RESIDUES, UNKNOWN, residue_codes

K = 5
GROUPS_13 = ("A", "C", "DE", "FY", "G", "H", "ILMV", "KR", "N", "P", "Q", "ST", "W")
SEED = (0, 1, 2, 4, 5, 7)
"""Places of a spaced word; the residues between may be any."""
_SPAN = SEED[-1] + 1
_VOCABULARY = len(GROUPS_13) ** len(SEED)


def kmers(sequence: str) -> NDArray[np.uint32]:
    """List the distinct 5-residue k-mers of a sequence, to count how many two proteins share.

    Parameters
    ----------
    sequence
        One-letter residues in either case.

    Returns
    -------
    NDArray[np.uint32]
        (W,) sorted k-mer codes in base 20; words with an unknown residue are left out.
    """
    codes = residue_codes(sequence)
    n = len(codes) - K + 1
    if n <= 0:
        return np.zeros(0, np.uint32)
    known = np.logical_and.reduce([codes[i : i + n] != UNKNOWN for i in range(K)])
    numbers = sum(codes[i : i + n] * 20 ** (K - 1 - i) for i in range(K))
    return np.unique(np.asarray(numbers)[known]).astype(np.uint32)


def _group_table() -> Bytes:
    table = np.zeros(256, np.uint8)
    for number, members in enumerate(GROUPS_13):
        table[[RESIDUES.index(residue) for residue in members]] = number
    return table


_GROUP = _group_table()


def _spaced_words(codes: Bytes) -> tuple[NDArray[np.int32], Mask]:
    """Spaced word at every place of residue codes (L,), and whether all its residues are known."""
    n = max(0, len(codes) - _SPAN + 1)
    groups, unknown = _GROUP[codes], codes >= UNKNOWN
    numbers, known = np.zeros(n, np.int32), np.ones(n, np.bool_)
    for place in SEED:
        numbers *= len(GROUPS_13)
        numbers += groups[place : place + n]
    for place in range(_SPAN):
        known &= ~unknown[place : place + n]
    return numbers, known


def spaced_kmers(sequence: str) -> NDArray[np.int32]:
    """List the distinct spaced k-mers of a sequence, (W,) sorted; none spans an unknown residue."""
    numbers, known = _spaced_words(residue_codes(sequence).astype(np.uint8))
    return np.unique(numbers[known])


def inverted(
    residues: Bytes, lengths: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Find which proteins hold each spaced word.

    Parameters
    ----------
    residues
        Residue codes of all N proteins, one after another, an `UNKNOWN` behind each.
    lengths
        (N,) residues of each.

    Returns
    -------
    tuple[NDArray[np.integer], NDArray[np.integer]]
        Where the proteins of each k-mer begin (k-mers + 1,), and their rows, ascending, each once.
    """
    from scipy.sparse import csr_array

    numbers, known = _spaced_words(residues)
    ends = np.cumsum(np.append(0, lengths.astype(np.int64) + 1))
    # With pointers of 64 bits SciPy computes in 64 bits throughout, in three times the time and the memory.
    pointers = _counted(known)[np.minimum(ends, len(known))]
    numbers = numbers[known]
    shape = (len(lengths), _VOCABULARY)
    found = csr_array((np.ones(len(numbers), np.bool_), numbers, pointers), shape=shape).tocsc()
    del numbers, known
    rows, starts = found.indices, found.indptr
    first = np.ones(len(rows), np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    first[starts[:-1][np.diff(starts) > 0]] = True
    return _counted(first)[starts], rows[first].astype(np.uint16 if len(lengths) <= 2**16 else np.uint32)


def _counted(flags: Mask) -> NDArray[np.integer]:
    """Count the flags before each place, and behind the last: (L + 1,)."""
    size = np.int32 if len(flags) < 2**31 else np.int64
    counts: NDArray[np.integer] = np.zeros(len(flags) + 1, size)
    np.cumsum(flags, out=counts[1:])
    return counts
