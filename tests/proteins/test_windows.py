from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.proteins.windows import window_count, windows


def _starts(length: int, max_length: int) -> list[int]:
    # Every residue a different letter, so that a window's first tells where it starts.
    cut = windows("".join(map(chr, range(0x4E00, 0x4E00 + length))), max_length)
    return [ord(window[0]) - 0x4E00 for window in cut]


@given(st.integers(1, 400), st.integers(1, 60))
def test_windows_cover_every_residue_in_order(length: int, max_length: int) -> None:
    starts = _starts(length, max_length)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - max_length)
    assert all(0 < b - a <= max_length - max_length // 4 for a, b in pairwise(starts))


@given(st.integers(1, 400), st.integers(1, 60))
def test_windows_are_evenly_spaced_and_of_one_size(length: int, max_length: int) -> None:
    steps = [b - a for a, b in pairwise(_starts(length, max_length))]
    assert not steps or max(steps) - min(steps) <= 1
    assert {len(window) for window in windows("A" * length, max_length)} == {min(length, max_length)}


@given(st.integers(0, 400), st.integers(1, 60))
def test_the_count_is_that_of_the_windows_and_linear(length: int, max_length: int) -> None:
    count = window_count(length, max_length)
    assert count == len(windows("A" * length, max_length))
    assert count <= 1 + 2 * length / max_length


def test_what_fits_stays_whole() -> None:
    assert windows("MEEP", 4) == ["MEEP"]
    assert windows("MEEPQ", 4) == ["MEEP", "EEPQ"]


def test_a_window_needs_a_residue() -> None:
    with pytest.raises(ValueError, match="max_length is 0"):
        windows("MEEP", 0)
