"""Hold-out protocols A and B: which proteins may train a model that is tested on others.

Under both, no test protein trains, nor any protein at least 95 % identical to one, whatever its id. Under A,
no protein of a homology cluster (30 % identity) that holds a test protein trains either. A asks what a model
predicts for a protein without known relatives, B for one with relatives.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array

from deepgps.arrays import Ints, Mask
from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.proteins.known import SAME_PROTEIN
from deepgps.proteins.neighbours import kmers

Protocol = Literal["A", "B"]
PROTOCOLS: Mapping[Protocol, str] = {
    "A": "no protein of a test protein's homology cluster in training",
    "B": "no test protein, nor any at least 95 % identical to one, in training",
}

# At 95 % identity about 0.95**5 = 77 % of the 5-mers are shared; less than half of that is a safe filter.
_SHARED_KMERS = 0.35


def identity(first: str, second: str) -> float:
    """Return the share of the shorter sequence's residues that an alignment pairs with the same residue.

    The alignment is global with free end gaps (BLOSUM62, gaps 10 and 1), so that a fragment of a protein is
    1.0 identical to it.

    Returns
    -------
    float
        In [0, 1].
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


def may_train(proteins: LabelledProteins, held_out_ids: Collection[str], protocol: Protocol) -> Mask:
    """Choose the proteins that may train while others are held out.

    Parameters
    ----------
    proteins
        All N annotated proteins.
    held_out_ids
        The ids of those to test on.
    protocol
        ``A`` or ``B``, see `PROTOCOLS`.

    Returns
    -------
    (N,)
        True where a protein may train.

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
    allowed = ~_same_protein(proteins, held_out)
    if protocol == "A":
        allowed &= ~np.isin(proteins.cluster, proteins.cluster[held_out])
    return allowed


def training_proteins(
    proteins: LabelledProteins, tested: LabelledProteins, protocol: Protocol
) -> LabelledProteins:
    """Return the annotated proteins that may train when others, of whichever table, are tested."""
    names = [f"tested:{each}" for each in tested.ids.tolist()]
    together = _concatenated(proteins, replace(tested, ids=np.array(names)))
    return proteins.subset(may_train(together, names, protocol)[: len(proteins)])


def unlabelled_proteins(
    ids: Sequence[str], sequences: Sequence[str], clusters: Sequence[int], slugs: tuple[str, ...]
) -> LabelledProteins:
    """Return test proteins of which nothing is known but their homology clusters."""
    count, classes = len(ids), len(slugs)
    return LabelledProteins(
        ids=np.array(ids, np.str_),
        sequences=tuple(sequences),
        slugs=slugs,
        labels=np.zeros((count, classes), np.float32),
        mask=np.zeros((count, classes), np.bool_),
        view_labels=np.zeros((count, 2, classes), np.float32),
        view_mask=np.zeros((count, 2, classes), np.bool_),
        weight=np.ones(count, np.float32),
        cluster=np.array(clusters, np.int64),
        source=np.full(count, "tested"),
    )


def folds(groups: Ints, count: int, *, seed: int = 0) -> Ints:
    """Divide whole groups (N,) at random into folds of about as many groups: (N,) fold of each row."""
    distinct, inverse = np.unique(groups, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(len(distinct)) % count
    return np.asarray(fold_of[inverse], np.int64)


def describe_hold_out(train: LabelledProteins, tested: LabelledProteins, protocol: Protocol) -> str:
    """Report how many proteins and clusters trained and were tested, and how many clusters did both."""
    shared = np.isin(tested.cluster, train.cluster).sum()
    return (
        f"Trained on {len(train):,} proteins of {len(np.unique(train.cluster)):,} clusters "
        f"({PROTOCOLS[protocol]}); tested on {len(tested):,} proteins of "
        f"{len(np.unique(tested.cluster)):,} clusters, {shared:,} of them in a cluster that trained."
    )


def _concatenated(first: LabelledProteins, second: LabelledProteins) -> LabelledProteins:
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in fields(first)
        if field.name not in ("sequences", "slugs")
    }
    return replace(first, sequences=(*first.sequences, *second.sequences), **arrays)


def _same_protein(proteins: LabelledProteins, held_out: Mask) -> Mask:
    """Mark rows (N,) that are at least `SAME_PROTEIN` identical to a held-out one."""
    matrix = _kmer_matrix(proteins.sequences)
    sizes = np.diff(matrix.indptr)
    tested = np.flatnonzero(held_out)
    shared = (matrix[tested] @ matrix.T).tocoo()
    rows, others = tested[shared.row], shared.col
    smaller = np.minimum(sizes[rows], sizes[others])
    near = (shared.data >= _SHARED_KMERS * smaller) & ~held_out[others]
    same = held_out.copy()
    for row, other in zip(rows[near], others[near], strict=True):
        if not same[other]:
            same[other] = identity(proteins.sequences[row], proteins.sequences[other]) >= SAME_PROTEIN
    return same


def _kmer_matrix(sequences: tuple[str, ...]) -> csr_array:
    sets = [kmers(sequence) for sequence in sequences]
    ends = np.cumsum([0, *(len(each) for each in sets)])
    columns = np.concatenate([*sets, np.zeros(0, np.uint32)]).astype(np.int32)
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), 20**5))
