"""Which proteins may train under protocols A and B, and how test proteins are divided."""

import numpy as np
import pytest

from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.evaluation.protocols import (
    describe_hold_out,
    folds,
    identity,
    may_train,
    training_proteins,
    unlabelled_proteins,
)

RNG = np.random.default_rng(1)


def random_protein(length: int = 120) -> str:
    return "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


A, B = random_protein(), random_protein()


def test_identity_is_the_share_of_the_shorter_sequence():
    changed = "".join("A" if i % 10 == 0 and c != "A" else "C" if i % 10 == 0 else c for i, c in enumerate(A))
    assert identity(A, A) == 1
    assert identity(A, A[20:90]) == 1
    assert identity(A, changed) == pytest.approx(0.9)
    assert identity(A, B) < 0.4


def family() -> LabelledProteins:
    """A protein, itself with three residues changed, a remote homolog of its cluster, and a stranger."""
    near = "GGG" + A[3:]
    remote = random_protein(60) + A[60:]
    count = 4
    return LabelledProteins(
        ids=np.array(["P", "near", "remote", "stranger"]),
        sequences=(A, near, remote, B),
        slugs=("x",),
        labels=np.zeros((count, 1), np.float32),
        mask=np.ones((count, 1), bool),
        view_labels=np.zeros((count, 2, 1), np.float32),
        view_mask=np.ones((count, 2, 1), bool),
        weight=np.ones(count, np.float32),
        cluster=np.array([1, 9, 1, 2]),  # the near copy fell into another cluster
        source=np.array(["hpa"] * count),
    )


def test_protocol_a_leaves_out_the_cluster_and_b_the_protein():
    assert may_train(family(), ["P"], "A").tolist() == [False, False, False, True]
    assert may_train(family(), ["P"], "B").tolist() == [False, False, True, True]


def test_an_unknown_id_is_refused():
    with pytest.raises(InputError, match="'Q'"):
        may_train(family(), ["Q"], "A")


def test_proteins_of_another_table_are_held_out_by_sequence():
    tested = unlabelled_proteins(["P"], [A], [1], ("x",))
    kept = {protocol: training_proteins(family(), tested, protocol).ids.tolist() for protocol in "AB"}
    assert kept == {"A": ["stranger"], "B": ["remote", "stranger"]}


def test_folds_keep_groups_whole_and_alike_in_size():
    groups = np.repeat(np.arange(23), 3)
    fold = folds(groups, 5)
    assert all(len(set(fold[groups == group])) == 1 for group in range(23))
    assert sorted(np.bincount(fold).tolist()) == [12, 12, 15, 15, 15]
    assert (folds(groups, 5) == fold).all()
    assert (folds(groups, 5, seed=1) != fold).any()


def test_a_hold_out_is_described_by_its_clusters():
    text = describe_hold_out(family(), unlabelled_proteins(["P", "Q"], [A, B], [1, 7], ("x",)), "B")
    assert text.startswith("Trained on 4 proteins of 3 clusters")
    assert text.endswith("tested on 2 proteins of 2 clusters, 1 of them in a cluster that trained.")
