"""Which proteins may train when others are tested: no homologs (A), or only not the same protein (B)."""

from collections.abc import Collection
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from deepgps.arrays import Mask
from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.proteins.neighbours import kmers

SAME_PROTEIN = 0.95
"""Identity from which protocol B takes two sequences for the same protein."""

# At 95 % identity about 0.95**5 = 77 % of the 5-residue words survive; half of that is a safe net.
_SHARED_WORDS = 0.35


def identity(first: str, second: str) -> float:
    """Share of the shorter sequence's residues that an alignment pairs with the same residue.

    The alignment is global with free end gaps (BLOSUM62, gaps 10 and 1), so that a fragment of a protein is
    1.0 identical to it.
    """
    from biotite.sequence import ProteinSequence
    from biotite.sequence.align import SubstitutionMatrix, align_optimal, get_sequence_identity

    short, long = sorted((first, second), key=len)
    if short in long:
        return 1.0
    pair = [ProteinSequence(text.replace("U", "C").replace("O", "K")) for text in (short, long)]
    matrix = SubstitutionMatrix.std_protein_matrix()
    alignments = align_optimal(*pair, matrix, gap_penalty=(-10, -1), terminal_penalty=False, max_number=1)
    return float(get_sequence_identity(alignments[0], mode="shortest"))


def _word_matrix(sequences: tuple[str, ...]) -> csr_array:
    sets = [kmers(sequence) for sequence in sequences]
    ends = np.cumsum([0, *(len(each) for each in sets)])
    columns = np.concatenate([*sets, np.zeros(0, np.uint32)]).astype(np.int32)
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), 20**5))


def _same_protein(proteins: LabelledProteins, held_out: Mask) -> Mask:
    """Mark rows (N,) at least `SAME_PROTEIN` identical to a held-out one."""
    matrix = _word_matrix(proteins.sequences)
    sizes = np.diff(matrix.indptr)
    tested = np.flatnonzero(held_out)
    shared = (matrix[tested] @ matrix.T).tocoo()
    rows, others = tested[shared.row], shared.col
    smaller = np.minimum(sizes[rows], sizes[others])
    near = (shared.data >= _SHARED_WORDS * smaller) & ~held_out[others]
    same = held_out.copy()
    for row, other in zip(rows[near], others[near], strict=True):
        if not same[other]:
            same[other] = identity(proteins.sequences[row], proteins.sequences[other]) >= SAME_PROTEIN
    return same


def training_set(
    proteins: LabelledProteins, held_out_ids: Collection[str], protocol: Literal["A", "B"]
) -> Mask:
    """Choose the proteins that may train while others are held out.

    Parameters
    ----------
    proteins
        All N annotated proteins.
    held_out_ids
        The ids of those to test on.
    protocol
        ``B`` leaves out the test proteins and whatever is at least 95 % identical to one (`identity`), under
        whichever id and table; ``A`` leaves out, besides, every protein of a homology cluster that holds one.

    Returns
    -------
    Mask
        (N,) true where a protein may train.

    Raises
    ------
    InputError
        If an id is not among the proteins.
    """
    held_out = np.isin(proteins.ids, list(held_out_ids))
    if unknown := sorted(set(held_out_ids) - set(proteins.ids.tolist())):
        raise InputError(
            f"Protein '{unknown[0]}' is not among the annotated ones; hold out only proteins that are."
        )
    may_train = ~_same_protein(proteins, held_out)
    if protocol == "A":
        may_train &= ~np.isin(proteins.cluster, proteins.cluster[held_out])
    return may_train
