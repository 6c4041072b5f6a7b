import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.proteins.check import check_sequence, clean_sequence, sequence_warnings
from deepgps.proteins.windows import windows

P53_HEAD = "MEEPQSDPSVEPPLSQETFSDLWKLLPENNVLSPLPSQAMDDLMLSPDDIEQWFTEDPGP"
RESIDUES = "ACDEFGHIKLMNPQRSTVWYUOBZX"


@pytest.mark.parametrize(
    "raw",
    ["meepqsdpsv", "MEEPQSDPSV*", " MEEPQ SDPSV ", "MEEPQ\nSDPSV\r\n", "MEEPQ\tSDPSV\xa0*\n", "mEEpQsDPSv"],
)
def test_people_write_one_sequence_in_many_ways(raw: str) -> None:
    assert clean_sequence(raw) == "MEEPQSDPSV"


def test_only_one_final_stop_is_dropped() -> None:
    assert clean_sequence("MEEP**") == "MEEP*"
    assert clean_sequence("ME*EP") == "ME*EP"


@given(st.text())
def test_cleaning_never_makes_a_residue_of_another_letter(raw: str) -> None:
    foreign = [letter for letter in raw if not letter.isspace() and not letter.isascii()]
    assert [letter for letter in clean_sequence(raw) if not letter.isascii()] == foreign


@given(st.text(RESIDUES, min_size=10, max_size=60))
def test_the_accepted_alphabet_is_accepted(sequence: str) -> None:
    assert check_sequence("P1", sequence) is None


@given(st.text(RESIDUES, min_size=9, max_size=40), st.characters(exclude_characters=RESIDUES), st.data())
def test_any_other_letter_is_refused_at_its_place(sequence: str, letter: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(sequence)))
    reason = check_sequence("P1", sequence[:place] + letter + sequence[place:])
    assert reason is not None
    assert "'P1'" in reason
    assert f"at residue {place + 1};" in reason


def test_the_sentence_names_thing_value_and_remedy() -> None:
    assert check_sequence("P1", "MEEPQSDPSVE1") == (
        "Sequence 'P1' has '1' at residue 12; use the 20 amino acids, U, O, B, Z or X."
    )


@pytest.mark.parametrize(
    ("letter", "hint"), [("*", "stop"), ("-", "gaps"), ("J", "leucine"), ("\x00", r"'\x00'")]
)
def test_usual_mistakes_get_their_own_hint(letter: str, hint: str) -> None:
    assert hint in (check_sequence("P1", "MEEPQ" + letter + "SDPSV") or "")


def test_length_bounds() -> None:
    assert check_sequence("P1", "") == "Sequence 'P1' is empty; at least 10 residues are needed."
    assert "only 9 residues" in (check_sequence("P1", "MEEPQSDPS") or "")
    assert check_sequence("P1", "MEEPQSDPSV") is None
    assert check_sequence("titin", P53_HEAD * 700) is None
    assert "genomes" in (check_sequence("chr1", "ACGT" * 30_000) or "")


def test_an_ordinary_protein_has_no_warnings() -> None:
    assert sequence_warnings(P53_HEAD, None) == ()
    assert sequence_warnings(P53_HEAD, len(P53_HEAD)) == ()


def test_unusual_residues_are_counted_and_placed() -> None:
    (note, _) = reversed(sequence_warnings("MEEPQXDPSVEPPUSQXTFSD", None))
    assert note == "contains 1 U, 2 X beside the 20 amino acids (first at residue 6)"


def test_nucleotides_are_noted_from_30_letters_and_nine_tenths_on() -> None:
    assert "nucleotides" in sequence_warnings("ATGGAGGAGCCGCAGTCAGATCCTAGCGTC", None)[0]
    assert "nucleotides (90%" in sequence_warnings("ACGT" * 9 + "WWWW", None)[0]
    assert "nucleotides" not in str(sequence_warnings("ACGT" * 9 + "WWWWW", None))
    assert "nucleotides" not in str(sequence_warnings("ATGGAGGAGCCGCAGTCAGATCCTAGCGT", None))
    assert any("nucleotides" in note for note in sequence_warnings("AUGGAGGAGCCGCAGUCAGAUCCUAGCGUC", None))


def test_a_few_kinds_of_residue_are_noted() -> None:
    assert "2 kinds of residue (Q, S)" in sequence_warnings("QSQSQSQSQSQS", None)[0]


def test_short_sequences_and_those_of_low_complexity_are_noted() -> None:
    assert sequence_warnings(P53_HEAD[:20], None) == (
        "has only 20 residues: models learn from few proteins that short",
    )
    dull = "AAAAAAAAAAKKKKKKKKKKGGGGGSSSSSLLLLL" * 3
    (note,) = sequence_warnings(dull + "TV", None)
    assert note.startswith("is of low complexity (entropy 1.6")
    assert sequence_warnings(P53_HEAD * 3, None) == ()


def test_the_window_note_counts_the_windows_there_are() -> None:
    (note,) = sequence_warnings(P53_HEAD, 25)
    assert f"in {len(windows(P53_HEAD, 25))} windows" in note


@given(st.text(RESIDUES, min_size=10, max_size=200), st.none() | st.integers(1, 50))
def test_notes_can_be_joined_in_one_cell(sequence: str, max_length: int | None) -> None:
    assert not any(mark in note for note in sequence_warnings(sequence, max_length) for mark in ";|\n")
