"""A visitor's nucleus image: judged by its content and its claims before anything is decoded."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from deepgps.bundle import CropSpec
from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.images.read import image_stem
from deepgps.results.names import safe_stem
from opengps.schemas import PredictionRequest
from opengps.settings import Settings
from opengps.tiff_claims import claimed_pixels

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGE = (b"\x89PNG", b"\xff\xd8\xff")
# What the rooms below advise to a user of the command line, said for a form.
_REMEDIES: Mapping[str, str] = {
    " (--channel)": "",
    "--channel 0": "channel 0",
    "--channel": "the channel",
    "--pixel-size-um": "the pixel size",
}


def read_nucleus(
    name: str, content: bytes, request: PredictionRequest, crop: CropSpec, settings: Settings
) -> Cell:
    """Take one nucleus out of an uploaded image, as `Cell.load` does.

    Parameters
    ----------
    name, content
        The name its sender gave the file, and its bytes.
    request
        Where the pixel size and the channel are said.
    crop
        What the model draws into.
    settings
        The limits.

    Raises
    ------
    InputError
        If it is no TIFF, PNG or JPEG by its first bytes, claims too many pixels, or cannot be used.
    """
    stem = safe_stem(image_stem(name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / stem
        try:
            check_claims(path, content, settings)
            path.write_bytes(content)
            cell = Cell.load(
                path,
                size_px=crop.size_px,
                pixel_size_um=crop.pixel_size_um,
                channel=request.channel,
                image_pixel_size_um=request.pixel_size_um,
            )
        except InputError as error:
            raise InputError(for_a_form(str(error).replace(str(path), name))) from None
    notes = tuple(for_a_form(note.replace(str(path), name)) for note in cell.warnings)
    return replace(cell, name=stem, source="uploaded", warnings=notes)


def check_claims(path: Path, content: bytes, settings: Settings) -> None:
    """Refuse what is no TIFF, PNG or JPEG by its first bytes, or claims too many pixels, or too few.

    Raises
    ------
    InputError
        Calling the image by `path`, which need not exist.
    """
    if content[:4] not in _TIFF and not content.startswith(_IMAGE):
        raise InputError(
            f"'{path}' is not an image that is read here; give a TIFF, OME-TIFF, PNG or JPEG file."
        )
    try:
        if content[:4] in _TIFF:
            pixels = claimed_pixels(path, content, settings)
        else:
            pixels = _claimed_image(content)
    except InputError:
        raise
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"Image '{path}' is truncated or damaged ({reason}); save it anew.") from None
    if pixels > settings.max_image_pixels:
        raise InputError(
            f"Image '{path}' has {pixels:,} pixels; {settings.max_image_pixels:,} are read here. "
            "Crop it or save it smaller."
        )


def _claimed_image(content: bytes) -> int:
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return image.width * image.height * len(image.getbands())


def for_a_form(sentence: str) -> str:
    """Say to a visitor what the rooms below advise to a user of the command line."""
    for theirs, ours in _REMEDIES.items():
        sentence = sentence.replace(theirs, ours)
    return sentence
