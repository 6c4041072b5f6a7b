import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.files import UniqueNames, safe_file_name, unique_names


def test_a_uniprot_id_stays_readable():
    assert safe_file_name("sp|P04637|P53_HUMAN") == "sp_P04637_P53_HUMAN"
    assert safe_file_name("ENSP00000269305.4") == "ENSP00000269305.4"


@pytest.mark.parametrize(
    "text",
    ["../../etc/passwd", "/etc/passwd", "..", ".", "", "C:\\x", "a/b", ".hidden", "nul", "COM1.txt", "\0"],
)
def test_no_file_name_leaves_the_folder_is_hidden_or_names_a_device(text):
    name = safe_file_name(text)
    assert name
    assert not set(name) & set('/\\:\0|<>"?*')
    assert not name.startswith(".")
    assert name.partition(".")[0].lower() not in {"nul", "con", "com1"}


def test_names_that_are_taken_get_a_number():
    assert unique_names(["P1", "P2", "P1", "P1"]) == ["P1", "P2", "P1-2", "P1-3"]


@pytest.mark.parametrize(("one", "other"), [("a b", "a_b"), ("p1", "P1"), ("x" * 200 + "1", "x" * 200 + "2")])
def test_ids_that_look_alike_to_a_file_system_get_different_names(one, other):
    first, second = unique_names(map(safe_file_name, (one, other)))
    assert first.casefold() != second.casefold()


@pytest.mark.parametrize("names", [["A", "a-2", "a"], ["a-2", "A", "a"], ["A", "a", "a-2"]])
def test_a_name_that_looks_numbered_is_not_given_twice(names):
    assert len({name.casefold() for name in unique_names(names)}) == 3


@given(st.lists(st.text(max_size=300)))
def test_names_are_distinct_short_and_the_same_in_every_run(texts):
    names, again = UniqueNames(), UniqueNames()
    found = [names.add(safe_file_name(text)) for text in texts]
    assert found == [again.add(safe_file_name(text)) for text in texts]
    assert len({name.casefold() for name in found}) == len(texts)
    # Two of them and a number must fit into 255 bytes, with the prefix of a draft and the longest extension.
    assert all(len(name) < 80 and name.isascii() for name in found)


def test_many_equal_names_are_numbered_quickly():
    assert unique_names(["x"] * 20_000)[-1] == "x-20000"
