import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.proteins.features import UNKNOWN_RESIDUE, feature_names, residue_codes, sequence_features

NAMES = feature_names()
MEMBRANE = "MKRSDE" + "LIVALLIVFLALIVLAVILL" + "RKDESGNQ" * 6


def feature(sequence: str, name: str) -> float:
    return float(sequence_features(sequence)[NAMES.index(name)])


def test_names_are_distinct_and_as_many_as_the_features():
    assert len(set(NAMES)) == len(NAMES) == len(sequence_features("MKTAYIAKQR"))


@given(st.text("ACDEFGHIKLMNPQRSTVWYUOBZX", min_size=1, max_size=300))
def test_any_accepted_sequence_gives_finite_numbers(sequence):
    features = sequence_features(sequence)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@pytest.mark.parametrize("letter", "ACXUOBZ")
def test_a_single_residue_is_enough(letter):
    assert np.isfinite(sequence_features(letter)).all()


def test_case_does_not_matter():
    np.testing.assert_array_equal(sequence_features(MEMBRANE.lower()), sequence_features(MEMBRANE))


def test_rare_letters_read_as_their_kin_and_x_as_none():
    np.testing.assert_array_equal(residue_codes("UOBZ"), residue_codes("CKDE"))
    assert residue_codes("x")[0] == UNKNOWN_RESIDUE
    assert feature("AAXX", "all_A") == 1


def test_composition_of_whole_and_ends():
    sequence = "M" * 10 + "A" * 80 + "K" * 10
    assert feature(sequence, "all_A") == pytest.approx(0.8)
    assert feature(sequence, "n10_M") == feature(sequence, "c10_K") == feature(sequence, "s3_A") == 1


def test_kmer_shares_are_square_roots_that_sum_to_one():
    features = sequence_features(MEMBRANE)
    for prefix in ("pair_", "triad7_", "tetrad4_", "gap2_"):
        shares = [value for name, value in zip(NAMES, features, strict=True) if name.startswith(prefix)]
        assert np.square(shares).sum() == pytest.approx(1, abs=1e-5)


def test_a_membrane_stretch_is_found_where_it_is():
    assert feature(MEMBRANE, "tm_count") == 1
    assert feature(MEMBRANE, "tm_first") * 500 < 12
    assert feature("RKDESGNQ" * 10, "tm_count") == 0
    assert feature(MEMBRANE + "GS" * 30 + MEMBRANE, "tm_count") == 2


def test_a_basic_cluster_is_found():
    assert feature("AGST" * 10 + "PKKKRKV" + "AGST" * 10, "motif_nls_4") > 0
    assert feature("AGST" * 10 + "KRKRKRKRKRK" + "AGST" * 10, "basic_clusters") == 1
    assert feature("AGST" * 20, "motif_nls_4") == 0


@pytest.mark.parametrize(
    ("tail", "motif"), [("KDEL", "kdel"), ("ASKL", "skl"), ("CVIM", "caax"), ("AKKTN", "kkxx")]
)
def test_signals_count_at_the_end_only(tail, motif):
    assert feature("AGSTNQ" * 5 + tail, f"motif_{motif}") > 0
    assert feature("AGSTNQ" * 5 + tail + "GGGGGG", f"motif_{motif}") == 0


def test_longest_run():
    assert feature("AQQQQQAQQ", "run_Q") == pytest.approx(np.log(6))


def test_end_windows_of_short_proteins_are_the_protein():
    assert feature("MAGST", "n50_M") == feature("MAGST", "all_M") == pytest.approx(0.2)


def test_a_terminal_change_leaves_the_far_end_alone():
    plain, changed = sequence_features("A" * 300), sequence_features("K" * 10 + "A" * 290)
    same = {name for name, a, b in zip(NAMES, plain, changed, strict=True) if a == b}
    assert {f"c100_{residue}" for residue in "AK"} <= same
    assert not same & {f"{place}_K" for place in itertools.chain(["all", "n10", "s1"])}
