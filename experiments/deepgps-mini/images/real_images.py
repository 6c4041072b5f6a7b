"""Real images of the packed file that drawn ones are compared with."""

import numpy as np

from deepgps.arrays import Floats, Ints, Strings
from deepgps.training.mini.image_pack import PROTEIN, ImagePack

SIZE = 96
"""Edge of a crop in pixels of the packed file."""
MAX_PER_KIND = 150
"""Images of one source and class that are taken at most."""


def single_class(pack: ImagePack, split: str, per_kind: int = MAX_PER_KIND) -> tuple[Ints, Strings]:
    """Choose examples of a split that show one class, landmark channels included.

    Returns
    -------
    rows, classes
        (N,) numbers of the examples and the class of each, in an order that does not change.
    """
    names = pack.arrays["class_names"]
    kinds: dict[tuple[str, str], list[int]] = {}
    for row in np.random.default_rng(0).permutation(pack.rows(split)).tolist():
        classes, _, trust = pack.labels(row)
        number = int(pack.fields(np.array([row]))[0])
        slug = str(names[classes.argmax()])
        if classes.sum() != 1 or not trust:
            continue
        channel = int(pack.examples[row, 1])
        source = str(pack.arrays["source"][number]) if channel == PROTEIN else f"channel {channel}"
        kinds.setdefault((source, slug), []).append(row)
    found = [(row, slug) for (_, slug), rows in sorted(kinds.items()) for row in rows[:per_kind]]
    return np.array([row for row, _ in found], np.int64), np.array([slug for _, slug in found])


def crops(pack: ImagePack, rows: Ints, size: int = SIZE) -> tuple[Floats, Floats]:
    """Cut the protein and the nucleus images (N, size, size) of examples."""
    stacks = [pack.window(int(cell), size)[[channel, 0]] for cell, channel in pack.examples[rows]]
    pairs = np.stack(stacks)
    return pairs[:, 0], pairs[:, 1]
