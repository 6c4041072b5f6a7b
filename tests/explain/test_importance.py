import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.explain.importance import MAX_RESIDUES_EXPLAINED, importance


def motif_logits(sequences):
    """A model that knows one motif, and one class that nothing speaks for."""
    return np.array([[2.0 * ("KKRKV" in each), 0.0] for each in sequences], np.float32)


def test_the_motif_alone_is_important():
    sequence = "MA" + "GSTAD" * 30 + "KKRKV" + "GSTAD" * 30
    found = importance(sequence, motif_logits)
    assert found.values.shape == (2, len(sequence))
    top = found.values[0].argmax() + 1
    assert 140 <= top <= 170
    assert found.values[0, 152:157].min() > found.floor[0]
    assert found.values[0, :120].max() == 0
    assert (found.values[1] == 0).all()


@pytest.mark.parametrize("length", [10, 11, 16, 50, 3000])
def test_every_residue_gets_a_finite_value(length):
    found = importance(
        ("MKRAVLDEST" * 300)[:length], lambda sequences: np.ones((len(sequences), 1), np.float32)
    )
    assert found.values.shape == (1, length)
    assert np.isfinite(found.values).all()


def test_the_seed_decides_the_floor():
    sequence = "MA" + "GSTAD" * 30 + "KKRKV" + "GSTAD" * 30
    same = [importance(sequence, motif_logits, seed=3).floor for _ in range(2)]
    assert (same[0] == same[1]).all()


def test_too_long_a_sequence_is_refused():
    with pytest.raises(InputError, match="too long to explain; give at most 10,000"):
        importance("A" * (MAX_RESIDUES_EXPLAINED + 1), motif_logits)
