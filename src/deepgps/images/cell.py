"""The cell that a protein image is drawn into."""

from dataclasses import dataclass

from deepgps.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One cell: its nucleus image, normalised and ready to be drawn into.

    Attributes
    ----------
    name
        A short name that identifies the cell in tables and file names.
    nucleus
        Nucleus image, (H, W) float32 in [0, 1].
    pixel_size_um
        Edge of a pixel in micrometres.
    source
        Where the image comes from: a file, or ``drawn``.
    warnings
        What the user should know about how the image was read.
    """

    name: str
    nucleus: Floats
    pixel_size_um: float
    source: str
    warnings: tuple[str, ...] = ()
