"""Names for the array types used throughout, so that signatures stay short."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
"""Images, features, logits and probabilities."""

Doubles = NDArray[np.float64]
"""Metrics and other statistics."""

Ints = NDArray[np.int64]
"""Row numbers and counts."""

Indices = NDArray[np.intp]
"""Positions in an array, as NumPy returns them."""

Bytes = NDArray[np.uint8]
"""Images and residues as they are stored."""

Mask = NDArray[np.bool_]
"""True for the pixels or rows that count."""

Strings = NDArray[np.str_]

LabelImage = NDArray[np.int32]
"""Segmented nuclei, (H, W): 0 is background, each nucleus has a number from 1."""
