"""Read the nucleus channel of an image file, with its pixel size if it is known."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.decode import MIN_EDGE_PX, Decoded, decode_image
from deepgps.images.pixel_size import PixelSize
from deepgps.images.processing import resample, same_pixel_size

# Stains of DNA and chromatin come before words that other stains' names hold, too.
_NUCLEAR_STAIN = re.compile(
    r"dapi|hoechst|h\s?(oe)?33(342|258)|draq|nucblue|nucspot|sytox|h2b|h2a|sir-?dna|\bdna\b", re.IGNORECASE
)
_NUCLEAR_WORD = re.compile(r"nucle(us|i|ar)\b|\b405\b", re.IGNORECASE)
_OTHER_STAIN = re.compile(
    r"lamin|membrane|envelope|pore|phalloidin|actin|tubul|mito|golgi|lyso|\ber\b|concanavalin|\bwga\b|"
    r"non-?nuclear|cyto",
    re.IGNORECASE,
)
_LANDMARK_NAMES = {
    "microtubules": re.compile(r"microtubul|tubulin|tub[ab]\w*\b|\bsir-?tub", re.IGNORECASE),
    "er": re.compile(
        r"\ber\b|endoplasmic|calnexin|calreticulin|\bcanx\b|\bcalr\b|concanavalin", re.IGNORECASE
    ),
}
_COLOURS = ("red", "green", "blue")
_GUESS_EDGE_PX = 256


def guess_channel(channels: NDArray[np.generic], names: Sequence[str], image: str) -> tuple[int, str]:
    """Guess the nucleus channel, from the channels' names or else from their images.

    Parameters
    ----------
    channels
        (C, H, W) intensities.
    names
        Names of the channels; empty if unknown.
    image
        The image's name, for the warning.

    Returns
    -------
    index : int
        The channel named after a stain of DNA, such as DAPI, or else by a word such as *nucleus*, or else
        the one that looks most like nuclei.
    warning : str
        Which channel was taken, and why.
    """
    named = nucleus_names(names)
    candidates = named or range(len(channels))
    scores = [nucleus_score(channels[index]) for index in candidates] if len(candidates) > 1 else [0.0]
    index = candidates[int(np.argmax(scores))]
    why = f"by its name, '{names[index]}'" if named else "because its blobs look most like nuclei"
    return index, (
        f"Image '{image}' has {len(channels)} channels; channel {index} was taken as the nucleus, {why}. "
        "Choose another with --channel."
    )


def nucleus_names(names: Sequence[str]) -> list[int]:
    """Return the indexes of the channels whose names say that they show nuclei, those of the best words."""
    stains = [index for index, name in enumerate(names) if _NUCLEAR_STAIN.search(name)]
    words = (index for index, name in enumerate(names) if _NUCLEAR_WORD.search(name))
    return stains or [index for index in words if not _OTHER_STAIN.search(names[index])]


def colour_channel(channels: NDArray[np.generic], image: str) -> tuple[int, tuple[str, ...]]:
    """Find the channel of a colour image that has the signal.

    Parameters
    ----------
    channels
        (3, H, W): red, green, blue.
    image
        The image's name, for messages.

    Returns
    -------
    index : int
        0 if all three are equal (a grey image saved in colour), or else the only one that is not constant
        (one stain in its colour).
    warnings : tuple of str
        Which channel was taken, if there was a choice.

    Raises
    ------
    InputError
        If several channels have signal: a photograph, or a composite whose nucleus channel must be chosen.
    """
    if all(np.array_equal(channels[0], other) for other in channels[1:]):
        return 0, ()
    lit = [index for index, channel in enumerate(channels) if channel.min() != channel.max()]
    if len(lit) == 1:
        return lit[0], (f"Image '{image}' has signal in {_COLOURS[lit[0]]} only; that channel was taken.",)
    raise InputError(
        f"Image '{image}' is an RGB image with several colours, and nothing says which is the nucleus "
        "stain; give a one-channel image, or, for a fluorescence composite, --channel 0 (red), 1 (green) or "
        "2 (blue). Photographs cannot be used."
    )


def dominant_colour(channels: NDArray[np.generic]) -> int | None:
    """Find the colour of an image of one stain that lossy compression has spread to other channels.

    Parameters
    ----------
    channels
        (3, H, W): red, green, blue.

    Returns
    -------
    int or None
        The channel with more than two thirds of the energy, the sum of squares; None if there is none.
    """
    energy = np.array([np.square(channel.astype(np.float32)).sum() for channel in channels])
    brightest = int(energy.argmax())
    return brightest if energy[brightest] > 2 / 3 * energy.sum() else None


def nucleus_score(pixels: NDArray[np.generic], min_share: float = 5e-4) -> float:
    """Score how much a channel looks like a nucleus stain, at any scale.

    Parameters
    ----------
    pixels
        (H, W) intensities.
    min_share
        The smallest nucleus, as a share of the field.

    Returns
    -------
    float
        Share in [0, 1] of the area above Otsu's threshold in nucleus-like blobs: each at most 15 % of the
        field, and with an inscribed circle of more than 0.55 of the radius of a disc of the same area.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    step = max(1, max(pixels.shape) // _GUESS_EDGE_PX)
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), step)[::step, ::step]
    if not np.isfinite(smooth).all() or smooth.min() == smooth.max():
        return 0.0
    bright = ndimage.binary_fill_holes(smooth > threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    labels, count = ndimage.label(bright)
    areas = np.bincount(labels.ravel())[1:]
    depths = ndimage.maximum(ndimage.distance_transform_edt(bright), labels, np.arange(1, count + 1))
    fits = (
        (depths > 0.55 * np.sqrt(areas / np.pi))
        & (areas >= min_share * smooth.size)
        & (areas <= 0.15 * smooth.size)
    )
    return float(areas[fits].sum() / areas.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The nucleus channel of one field of view, as recorded.

    Attributes
    ----------
    pixels
        (H, W) float32 raw intensities of the nucleus channel, finite and not all equal.
    pixel_size_um
        Edge of a pixel in micrometres, or None if neither the user nor the file states it.
    source
        The file.
    warnings
        What the user should know about how it was read.
    landmarks
        (H, W) float32 raw intensities of channels that are named like microtubules or ER, by
        ``microtubules`` and ``er``.
    stored_shape
        Height and width as stored; they differ from those of `pixels` where the file's pixels are not square.
    """

    pixels: Floats
    pixel_size_um: float | None
    source: str
    warnings: tuple[str, ...] = ()
    landmarks: Mapping[str, Floats] = field(default_factory=dict)
    stored_shape: tuple[int, ...] = ()


def read_field(
    path: str | PathLike[str],
    *,
    channel: int | None = None,
    pixel_size_um: float | Literal["auto"] | None = None,
) -> Field:
    """Read the nucleus channel of a TIFF, OME-TIFF, PNG or JPEG file.

    Parameters
    ----------
    path
        8-bit, 16-bit or float, (H, W), (C, H, W) or (H, W, C). If the file does not name its axes, the
        shortest of three is that of the channels.
    channel
        Which channel is the nucleus, from 0; guessed, with a warning, if None.
    pixel_size_um
        Micrometres per pixel; if None, those that the file states. ``auto`` estimates them from the nuclei,
        with a warning.

    Returns
    -------
    Field
        The raw intensities of the nucleus channel, and of microtubules and ER where channels are named so;
        where the file's pixels are not square, resampled to square ones.

    Raises
    ------
    InputError
        If the file is not an image, or is damaged, too large, too small, blank, a stack, a photograph, or has
        NaN or infinite pixels; if the channel does not exist; if the pixel size is not positive, or cannot
        be estimated.
    """
    path = Path(path)
    if isinstance(pixel_size_um, float | int) and not (math.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise InputError(f"Pixel size {pixel_size_um} is not a positive number; give micrometres per pixel.")
    decoded = decode_image(path)
    index, notes = _choose_channel(decoded, channel, path.name)
    chosen = select_channel(decoded, index, path, pixel_size_um, notes)
    found = _named_landmarks(decoded, index)
    if not found:
        return chosen
    taken = [f"channel {number} ('{decoded.names[number]}') as {name}" for name, number in found.items()]
    return replace(
        chosen,
        landmarks={
            name: _as_large_as(chosen, _check_pixels(decoded.channels[number], path))
            for name, number in found.items()
        },
        warnings=(*chosen.warnings, f"Image '{path.name}': took {' and '.join(taken)}."),
    )


def read_landmark(path: Path, landmark: str, nucleus: Field) -> Floats:
    """Read the image of a landmark of a field.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF, PNG or JPEG file with one channel, or with one that is named like the landmark.
    landmark
        ``microtubules`` or ``er``.
    nucleus
        The field.

    Returns
    -------
    Floats
        (H, W) raw intensities.

    Raises
    ------
    InputError
        If the file cannot be used, as in `read_field`; if it has several channels of which none is named like
        the landmark; or if it is not as large as the nucleus image.
    """
    decoded = decode_image(path)
    index = _named_landmarks(decoded, None).get(landmark)
    if index is None and decoded.colour:
        index, _ = colour_channel(decoded.channels, path.name)
    elif index is None and len(decoded.channels) > 1:
        raise InputError(
            f"Image '{path}' has {len(decoded.channels)} channels, and none is named like {landmark}; give a "
            "file with that channel alone."
        )
    pixels = _check_pixels(decoded.channels[index or 0], path)
    if pixels.shape != nucleus.stored_shape:
        sizes = (f"{shape[1]} × {shape[0]}" for shape in (pixels.shape, nucleus.stored_shape))
        raise InputError(
            f"Image '{path}' ({landmark}) has {next(sizes)} pixels and that of the nucleus {next(sizes)}; "
            "give images of the same field."
        )
    return _as_large_as(nucleus, pixels)


def _named_landmarks(decoded: Decoded, nucleus: int | None) -> dict[str, int]:
    """Return the channels that are named like landmarks, the nucleus channel left out."""
    found = {}
    for landmark, pattern in _LANDMARK_NAMES.items():
        matching = (n for n, name in enumerate(decoded.names) if n != nucleus and pattern.search(name))
        if (index := next(matching, None)) is not None:
            found[landmark] = index
    return found


def select_channel(
    decoded: Decoded,
    index: int,
    path: Path,
    pixel_size_um: float | Literal["auto"] | None,
    notes: tuple[str, ...] = (),
) -> Field:
    """Return one channel of a decoded file as a field.

    Parameters
    ----------
    decoded
        The file's channels.
    index
        The place of the channel among them.
    path
        The file.
    pixel_size_um
        Micrometres per pixel; those of the file if None; estimated from the nuclei if ``auto``.
    notes
        Warnings about the choice of the channel.

    Returns
    -------
    Field
        The channel's intensities, checked, with square pixels.

    Raises
    ------
    InputError
        If the channel is too small, blank, or has NaN or infinite pixels; if the pixel size cannot be
        estimated.
    """
    pixels = _check_pixels(decoded.channels[index], path)
    size, notes = pixel_size_um, (*decoded.warnings, *notes)
    if size == "auto":
        from deepgps.images.nuclear_stain import pixel_size_from_nuclei

        size = pixel_size_from_nuclei(pixels, path.name)
        notes += (f"The pixel size of '{path.name}' was estimated from its nuclei: {size:.2g} µm.",)
    square, um, more = _square_pixels(pixels, decoded.pixel_size_um if size is None else (size, size), path)
    return Field(square, um, str(path), (*notes, *more), stored_shape=pixels.shape)


def _square_pixels(
    pixels: Floats, size: PixelSize | None, path: Path
) -> tuple[Floats, float | None, tuple[str, ...]]:
    if size is None or same_pixel_size(*size):
        return pixels, size and size[1], ()
    note = (
        f"The pixels of '{path.name}' are not square: {size[1]:g} µm wide and {size[0]:g} µm high; "
        f"it was resampled to {min(size):g} µm."
    )
    return resample(pixels, size, min(size)), min(size), (note,)


def _as_large_as(nucleus: Field, pixels: Floats) -> Floats:
    """Resample another channel of a field to square pixels, as its nucleus image was."""
    ratios = [new / old for new, old in zip(nucleus.pixels.shape, pixels.shape, strict=True)]
    return resample(pixels, (ratios[0], ratios[1]), 1.0)


def image_stem(path: str | PathLike[str]) -> str:
    """Return an image's name without folder and suffixes: ``a.b`` for ``a.b.ome.tif``."""
    name = Path(path).name
    return (
        re.sub(r"(\.ome)?\.(tiff?|btf|tf2|tf8|png|jpe?g|zarr)(\.gz)?$", "", name, flags=re.IGNORECASE) or name
    )


def _choose_channel(decoded: Decoded, channel: int | None, name: str) -> tuple[int, tuple[str, ...]]:
    if channel is not None:
        return decoded.place(channel, name), ()
    count = len(decoded.channels)
    lost = [each for each in decoded.elsewhere if nucleus_names([each.name])]
    if lost and not nucleus_names(decoded.names):
        raise InputError(f"Image '{name}' is one file of a set: {lost[0]}. Give that file.")
    if decoded.colour:
        return colour_channel(decoded.channels, name)
    if count == 1:
        return 0, ()
    index, note = guess_channel(decoded.channels, decoded.names, name)
    return index, (note,)


def _check_pixels(pixels: NDArray[np.generic], path: Path) -> Floats:
    height, width = pixels.shape
    if min(height, width) < MIN_EDGE_PX:
        raise InputError(
            f"Image '{path}' has {width} × {height} pixels; {MIN_EDGE_PX} × {MIN_EDGE_PX} are needed."
        )
    if np.iscomplexobj(pixels):
        raise InputError(f"Image '{path}' has complex numbers as pixels; give intensities.")
    values = pixels.astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise InputError(f"Image '{path}' has {bad:,} NaN or infinite pixels; replace them, e.g. by 0.")
    if values.min() == values.max():
        raise InputError(f"Image '{path}' is blank: every pixel is {values.flat[0]:g}; give one with cells.")
    return values
