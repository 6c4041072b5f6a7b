"""Sequences of similar length together, so that little is padded."""

from collections.abc import Sequence

from deepgps.proteins.embedding.tokens import SPECIAL
from deepgps.proteins.windows import window_count

# Few proteins differ much in length; beyond this many tokens, a batch gains less than its padding costs.
_ENOUGH = 512
_WASTE = 1 / 8


def batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Sort sequences into batches by length, the longest first.

    The longest come first so that a machine of too little memory says so at once. A batch ends early where it
    would be padded by more than an eighth.

    Parameters
    ----------
    lengths
        Residues of each sequence.
    token_budget
        Tokens in a batch at most, padding and special tokens counted; a sequence of more is a batch alone.

    Returns
    -------
    list of list of int
        Places in ``lengths``, each in one batch.
    """
    return _filled(lengths, [1] * len(lengths), token_budget)


def groups(lengths: Sequence[int], max_length: int, token_budget: int) -> list[list[int]]:
    """Do as `batches`, for sequences that may need several windows of ``max_length`` residues."""
    windows = [window_count(length, max_length) for length in lengths]
    return _filled([min(length, max_length) for length in lengths], windows, token_budget, lengths)


def _filled(
    widths: Sequence[int], counts: Sequence[int], budget: int, order: Sequence[int] | None = None
) -> list[list[int]]:
    keys = order or widths
    found: list[list[int]] = []
    rows = width = real = 0
    for place in sorted(range(len(widths)), key=lambda place: -keys[place]):
        tokens = counts[place] * (widths[place] + SPECIAL)
        padded = (rows + counts[place]) * width
        wasted = padded - real - tokens
        if not found or padded > budget or (real >= _ENOUGH and wasted > _WASTE * padded):
            found.append([])
            rows, width, real = 0, widths[place] + SPECIAL, 0
        found[-1].append(place)
        rows, real = rows + counts[place], real + tokens
    return found
