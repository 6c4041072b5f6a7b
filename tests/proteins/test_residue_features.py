import numpy as np
import pytest

from deepgps.proteins.features import RESIDUE_DIMENSION, RESIDUE_WINDOWS, RESIDUES, SCALES, residue_features


def test_each_residue_has_its_own_row():
    found = residue_features(RESIDUES)
    assert found.shape == (20, RESIDUE_DIMENSION) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :20], np.eye(20))


def test_an_unknown_residue_is_none_of_the_twenty():
    assert not residue_features("X").any()


def test_the_means_are_those_of_the_stretch_around():
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
    found = residue_features(sequence)[:, 20:].reshape(len(sequence), len(RESIDUE_WINDOWS), len(SCALES))
    for place in (0, 3, 16, len(sequence) - 1):
        for w, window in enumerate(RESIDUE_WINDOWS):
            around = sequence[max(0, place - window // 2) : place + window // 2 + 1]
            for s, values in enumerate(SCALES.values()):
                mean = np.mean([values[RESIDUES.index(residue)] for residue in around])
                assert found[place, w, s] == pytest.approx(mean, abs=1e-5)


def test_a_long_sequence_is_described_alike_wherever_a_stretch_lies():
    stretch = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
    alone, inside = residue_features(stretch), residue_features("G" * 5000 + stretch + "G" * 5000)
    np.testing.assert_allclose(inside[5010:5023], alone[10:23], atol=1e-5)
