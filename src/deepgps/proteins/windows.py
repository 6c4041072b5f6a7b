"""Split long sequences into overlapping windows."""


def window_count(length: int, max_length: int) -> int:
    """Return the number of windows of a sequence.

    Parameters
    ----------
    length
        Residues in the sequence.
    max_length
        Residues in a window, at least 1.

    Returns
    -------
    int
        At least 1.
    """
    if length <= max_length:
        return 1
    step = max_length - _min_overlap(max_length)
    return 1 + -(-(length - max_length) // step)


def windows(sequence: str, max_length: int) -> list[str]:
    """Split a sequence into evenly spaced windows that together cover every residue.

    Parameters
    ----------
    sequence
        Any sequence.
    max_length
        Residues in a window, at least 1.

    Returns
    -------
    list of str
        The whole sequence if it fits; otherwise windows of exactly `max_length` residues, from the N-terminus
        to the C-terminus, which overlap by at least a quarter of a window.

    Raises
    ------
    ValueError
        If `max_length` is below 1.
    """
    return [sequence[start : start + max_length] for start in window_starts(len(sequence), max_length)]


def window_starts(length: int, max_length: int) -> list[int]:
    """Return the start of each window, from 0.

    Parameters
    ----------
    length
        Residues in the sequence.
    max_length
        Residues in a window, at least 1.

    Returns
    -------
    list of int
        In ascending order.

    Raises
    ------
    ValueError
        If `max_length` is below 1.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; a window needs at least 1 residue.")
    last = window_count(length, max_length) - 1
    return [number * (length - max_length) // last for number in range(last + 1)] if last else [0]


def _min_overlap(max_length: int) -> int:
    # With a quarter, a motif at the edge of a window has its context in the next, for a third more work.
    return max_length // 4
