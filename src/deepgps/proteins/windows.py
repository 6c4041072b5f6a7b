"""Long sequences as overlapping windows, so that nothing is cut."""


def window_count(length: int, max_length: int) -> int:
    """Count the windows that `windows` gives for a sequence of this length.

    Parameters
    ----------
    length
        Residues in the sequence.
    max_length
        Residues in a window, at least 1.
    """
    if length <= max_length:
        return 1
    step = max_length - _least_overlap(max_length)
    return 1 + -(-(length - max_length) // step)


def windows(sequence: str, max_length: int) -> list[str]:
    """Cut a sequence into evenly spaced windows that together cover every residue.

    Parameters
    ----------
    sequence
        Any sequence.
    max_length
        Residues in a window, at least 1.

    Returns
    -------
    list of str
        The whole sequence if it fits; else windows of exactly `max_length` residues, the first at the
        N-terminus, the last at the C-terminus, neighbours sharing at least a quarter of a window. Their
        number grows linearly with the sequence.

    Raises
    ------
    ValueError
        If `max_length` is below 1.
    """
    return [sequence[start : start + max_length] for start in window_starts(len(sequence), max_length)]


def window_starts(length: int, max_length: int) -> list[int]:
    """Say where the windows of `windows` begin, counted from 0.

    Parameters
    ----------
    length
        Residues in the sequence.
    max_length
        Residues in a window, at least 1.

    Raises
    ------
    ValueError
        If `max_length` is below 1.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}; a window needs at least 1 residue.")
    last = window_count(length, max_length) - 1
    return [number * (length - max_length) // last for number in range(last + 1)] if last else [0]


def _least_overlap(max_length: int) -> int:
    # A quarter gives a motif at one window's edge its context in the next, for a third more work.
    return max_length // 4
