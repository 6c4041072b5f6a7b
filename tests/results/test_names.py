import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.results.names import FileNames, safe_stem


def test_a_uniprot_id_stays_readable():
    assert safe_stem("sp|P04637|P53_HUMAN") == "sp_P04637_P53_HUMAN"


def test_a_plain_id_is_its_own_name():
    assert FileNames().name("ENSP00000269305.4") == "ENSP00000269305.4"


@pytest.mark.parametrize(
    "nasty",
    ["../../etc/passwd", "/etc/passwd", "..", ".", "", "C:\\x", "a/b", ".hidden", "nul", "COM1.txt", "\0"],
)
def test_no_id_leaves_the_folder_hides_or_names_a_device(nasty):
    stem = safe_stem(nasty)
    assert stem
    assert not set(stem) & set('/\\:\0|<>"?*')
    assert not stem.startswith(".")
    assert stem.partition(".")[0].lower() not in {"nul", "con", "com1"}


@pytest.mark.parametrize(("one", "other"), [("a b", "a_b"), ("p1", "P1"), ("x" * 200 + "1", "x" * 200 + "2")])
def test_ids_that_look_alike_to_a_file_system_get_different_names(one, other):
    names = FileNames()
    assert names.name(one).casefold() != names.name(other).casefold()


def test_id_and_nucleus_do_not_run_into_each_other():
    names = FileNames()
    assert names.name("a", "b__c") != names.name("a__b", "c")


def test_an_id_made_to_look_like_a_hashed_name_does_not_overwrite_it():
    first = FileNames()
    first.name("A")
    hashed = first.name("a")
    names = FileNames()
    assert len({names.name(each).casefold() for each in (hashed, "A", "a")}) == 3


@given(st.lists(st.tuples(st.text(max_size=300), st.none() | st.text(max_size=300)), unique=True))
def test_names_are_distinct_short_and_the_same_in_every_run(rows):
    names, again = FileNames(), FileNames()
    given_names = [names.name(*row) for row in rows]
    assert given_names == [again.name(*row) for row in rows]
    assert len({name.casefold() for name in given_names}) == len(rows)
    # 255 bytes are what file systems allow, with a draft's prefix and the longest extension.
    assert all(len(name) < 210 and name.isascii() for name in given_names)
