import re

import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.explain.changes import Variant, parse_variant
from deepgps.explain.moves import BLOSUM62, moves
from deepgps.explain.signals import Signal, find_signals
from deepgps.explain.variants import (
    CANNOT_TELL,
    MAX_VARIANTS,
    changed_signals,
    compare_variants,
    summary,
)

SEQUENCE = "MASTE" + "GSEDSTQAPL" * 3 + "PKKKRKVEDP" + "GSEDSTQAPL" * 3


def probabilities(sequences):
    basic = [re.search("[KR]{5}", each) for each in sequences]
    return np.array([[0.9, 0.1] if each else [0.2, 0.8] for each in basic], np.float32)


def named(row):
    return ("nucleoplasm",) if row[0] >= 0.5 else ("cytoplasmic",)


def compared(*changes, name="P"):
    variants = [parse_variant(each, SEQUENCE) for each in changes]
    return compare_variants(name, SEQUENCE, variants, ("nucleoplasm", "cytoplasmic"), probabilities, named)


def test_a_variant_that_destroys_the_signal_says_so():
    found = compared("K38T,K39T", "S7T")
    broken, same = found.effects
    assert broken.localizations == ("cytoplasmic",)
    assert broken.change.tolist() == pytest.approx([-0.7, 0.7])
    assert [each.kind for each in broken.lost] == ["NLS"]
    text = summary(found, broken)
    assert "the answer becomes cytoplasmic" in text
    assert "destroys the nuclear localization signal" in text
    assert summary(found, same) == f"{CANNOT_TELL}."
    assert found.ranked()[0] is broken


def test_signals_behind_a_deletion_are_the_same_signals():
    for change in ("2-5del", "n+MASTE", "A2_S3insGSGSGS"):
        variant = parse_variant(change, SEQUENCE)
        lost, gained = changed_signals(SEQUENCE, variant, *find_signals([SEQUENCE, variant.sequence]))
        assert "NLS" not in {each.kind for each in (*lost, *gained)}, change


def test_signals_of_an_isoform_are_compared_where_it_is_alike():
    isoform = Variant("short", SEQUENCE[20:])
    before, after = (Signal("NLS", 37, 42, 0.9, ""),), (Signal("NLS", 17, 22, 0.9, ""),)
    assert changed_signals(SEQUENCE, isoform, before, after) == ((), ())
    assert changed_signals(SEQUENCE, isoform, before, ()) == (before, ())


def test_the_number_of_variants_is_limited():
    with pytest.raises(InputError, match="0 variants of 'P' were given; give 1 to 20,000"):
        compared()
    with pytest.raises(InputError, match="20,001 variants"):
        compare_variants(
            "P", SEQUENCE, [Variant("x", SEQUENCE)] * (MAX_VARIANTS + 1), (), probabilities, named
        )


def test_moves_is_for_substitutions_and_rises_with_their_severity():
    found = compared("G6A", "G6W", "2-5del")
    mild, severe, deletion = (each.moves for each in found.effects)
    assert 0 < mild < severe < 1
    assert deletion is None
    assert moves(SEQUENCE, 6, "G") == 0


def test_blosum62_is_symmetric_and_keeps_what_is_known():
    assert (BLOSUM62 == BLOSUM62.T).all()
    assert BLOSUM62.diagonal().tolist() == [4, 9, 6, 5, 6, 6, 8, 4, 5, 4, 5, 6, 7, 5, 5, 4, 5, 4, 11, 7]


def test_blosum62_is_biotites():
    align = pytest.importorskip("biotite.sequence.align")
    matrix = align.SubstitutionMatrix.std_protein_matrix()
    letters = "ACDEFGHIKLMNPQRSTVWY"
    assert BLOSUM62.tolist() == [[matrix.get_score(a, b) for b in letters] for a in letters]
