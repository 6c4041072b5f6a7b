"""Embed images in a page."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

_JPEG_QUALITY = 88


def image_uri(image: "Image", encoding: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """Encode an image as a ``data:`` URI, for the ``src`` of an ``<img>``."""
    buffer = io.BytesIO()
    if encoding == "JPEG":
        image.convert("RGB").save(buffer, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{encoding.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_file_uri(path: Path) -> str | None:
    """Encode an image file as a JPEG ``data:`` URI, a quarter of the size of a PNG; None if it is missing."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image_uri(image)
    except OSError:
        return None
