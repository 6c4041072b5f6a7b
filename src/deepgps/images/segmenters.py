"""The segmenters that ship, by name."""

from typing import TYPE_CHECKING

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.images.segment import Segmenter

SEGMENTERS = ("otsu", "network")
"""The names that `segmenter` knows; the first is the default."""


def segmenter(name: str = SEGMENTERS[0]) -> "Segmenter":
    """Make the segmenter of a name, as data for new models are prepared with it.

    Parameters
    ----------
    name
        One of `SEGMENTERS`: ``otsu`` is `deepgps.images.segment.refined_otsu`, ``network`` is
        `deepgps.images.network.NetworkWatershed`.

    Raises
    ------
    InputError
        If there is no segmenter of that name.
    """
    if name not in SEGMENTERS:
        raise InputError(
            f"Segmenter '{name}' is unknown; use one of {', '.join(SEGMENTERS)}, "
            "or label images made elsewhere."
        )
    if name == "network":
        from deepgps.images.network import NetworkWatershed

        return NetworkWatershed()
    from deepgps.images.segment import refined_otsu

    return refined_otsu()
