"""Uploaded images: judged by their content, and by their header before anything is decoded.

They are read in a process of their own; see `opengps.isolation`.
"""

import math
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from deepgps.bundle import CropSpec
from deepgps.errors import InputError
from deepgps.files import safe_file_name
from deepgps.images.cell import Cell
from deepgps.images.read import image_stem
from opengps.errors import TooLargeError
from opengps.isolation import run_isolated
from opengps.schemas import PredictionRequest
from opengps.settings import Settings

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_OR_JPEG = (b"\x89PNG", b"\xff\xd8\xff")
_DEFLATE, _LZMA, _PACKBITS = (8, 32946), 34925, 32773
# Compressed noise is a little larger than the noise itself.
_MAX_EXPANSION, _MAX_OVERHEAD_BYTES = 1.01, 1024
_STEP_BYTES = 1 << 20
_LZMA_BYTES = 1 << 26
# Messages for the command line, in the words of a form.
_FORM_WORDS: Mapping[str, str] = {
    " (--channel)": "",
    " and give it with --pixel-size-um, or use --pixel-size-um auto": (
        ", or have it estimated from the nuclei (auto)"
    ),
    "use --no-image-checks": "skip the checks of images",
    "(--no-image-checks)": "(image_checks)",
    "--channel 0": "channel 0",
    "--channel": "the channel",
    "--pixel-size-um": "the pixel size",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file: the name it was sent with, and its content."""

    name: str
    content: bytes


class UploadError(InputError):
    """An image that cannot be used.

    Parameters
    ----------
    message
        Why.
    landmark
        Which landmark it was sent as; None for a nucleus image.
    """

    def __init__(self, message: str, landmark: str | None = None) -> None:
        super().__init__(message)
        self.landmark = landmark


def load_uploaded_cell(
    upload: Upload,
    landmarks: Mapping[str, Upload],
    request: PredictionRequest,
    crop: CropSpec,
    settings: Settings,
) -> Cell:
    """Cut a cell out of uploaded images, as `Cell.load` does.

    Parameters
    ----------
    upload
        The nucleus image.
    landmarks
        Images of its landmarks, by their names in `deepgps.images.cell.LANDMARKS`.
    request
        Pixel size and channel of the nucleus, if the visitor gave them.
    crop
        The crops of the model.
    settings
        The limits.

    Raises
    ------
    UploadError
        If an image is not a TIFF, PNG or JPEG, has too many pixels, or cannot be used.
    TooLargeError
        If the nucleus image has too many bytes; `check_size` checks the others.
    """
    check_size(upload, settings)
    stem = safe_file_name(image_stem(upload.name))
    # Made here, so that it is removed however the other process ends.
    with tempfile.TemporaryDirectory() as folder:
        uploads = {Path(folder) / "nucleus" / stem: upload}
        uploads |= {Path(folder) / name / stem: each for name, each in landmarks.items()}

        def in_words(message: str) -> str:
            for path, each in uploads.items():
                message = message.replace(str(path), each.name)
            return form_message(message)

        try:
            cell = run_isolated(settings, Path(folder), _load_cell, uploads, request, crop, settings)
        except InputError as error:
            named = (path.parent.name for path in uploads if str(path) in str(error))
            wrong = next(named, None)
            raise UploadError(in_words(str(error)), wrong if wrong in landmarks else None) from None
    return replace(cell, name=stem, source="uploaded", warnings=tuple(map(in_words, cell.warnings)))


def _load_cell(
    uploads: Mapping[Path, Upload], request: PredictionRequest, crop: CropSpec, settings: Settings
) -> Cell:
    for path, upload in uploads.items():
        check_image(path, upload.content, settings)
        path.parent.mkdir()
        path.write_bytes(upload.content)
    nucleus, *landmarks = uploads
    return Cell.load(
        nucleus,
        size_px=crop.size_px,
        pixel_size_um=crop.pixel_size_um,
        channel=request.channel,
        image_pixel_size_um=request.pixel_size_um,
        microtubules=next((path for path in landmarks if path.parent.name == "microtubules"), None),
        er=next((path for path in landmarks if path.parent.name == "er"), None),
        image_checks=request.image_checks,
        max_pixels=settings.max_image_pixels,
    )


def form_message(message: str) -> str:
    """Rewrite a message for the command line for the user of a form."""
    for option, words in _FORM_WORDS.items():
        message = message.replace(option, words)
    return message


def check_size(upload: Upload, settings: Settings) -> None:
    """Refuse an image with too many bytes.

    Raises
    ------
    TooLargeError
        If so.
    """
    if len(upload.content) > settings.max_image_bytes:
        limit = settings.max_image_bytes
        raise TooLargeError(
            f"'{upload.name}' has more than {limit:,} bytes, the limit for an image; crop it."
        )


def check_image(path: Path, content: bytes, settings: Settings) -> None:
    """Check what the header of an image declares, without decoding the image.

    Parameters
    ----------
    path
        The name of the image in messages; it need not exist.
    content, settings
        The image, and the limits.

    Raises
    ------
    InputError
        If it is not a TIFF, PNG or JPEG, is damaged, has too many pixels, or unpacks to more than it
        declares.
    """
    is_tiff = content[:4] in _TIFF
    if not is_tiff and not content.startswith(_PNG_OR_JPEG):
        raise InputError(f"'{path}' is not a supported image; use a TIFF, OME-TIFF, PNG or JPEG file.")
    try:
        pixels = declared_tiff_pixels(path, content, settings) if is_tiff else _declared_pixels(content)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"Image '{path}' is truncated or damaged ({reason}); save it again.") from None
    if pixels > settings.max_image_pixels:
        raise InputError(
            f"Image '{path}' has {pixels:,} pixels; the limit is {settings.max_image_pixels:,}. "
            "Crop it or save it smaller."
        )


def _declared_pixels(content: bytes) -> int:
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return image.width * image.height * len(image.getbands())


def declared_tiff_pixels(path: Path, content: bytes, settings: Settings) -> int:
    """Count the pixels that a TIFF declares, all channels together, or those of its largest tile.

    Raises
    ------
    InputError
        If it has too many planes, or a strip or tile unpacks to more than it declares.
    """
    from tifffile import TiffFile

    # Never another file, whatever the metadata name.
    with TiffFile(BytesIO(content), _multifile=False) as tif:
        limit = settings.max_image_planes
        if _has_page(tif, limit):
            raise InputError(f"Image '{path}' has more than {limit:,} planes; send one per channel.")
        series = tif.series[0]
        pages: list[Any] = [page for page in series.pages if page is not None]
        largest = max((math.prod(page.keyframe.chunks) for page in pages), default=0)
        pixels = max(math.prod(series.shape), largest)
        if pixels <= settings.max_image_pixels and any(_unpacks_to_more(content, page) for page in pages):
            raise InputError(f"Image '{path}' unpacks to more than it declares; save it again.")
        return pixels


def _has_page(tif: Any, number: int) -> bool:
    try:
        tif.pages[number]
    except IndexError:
        return False
    return True


def _unpacks_to_more(content: bytes, page: Any) -> bool:
    """Return whether a strip or tile of a page unpacks to more than its place in the image."""
    key = page.keyframe
    declared = math.prod(key.chunks) * key.dtype.itemsize
    limit = declared * _MAX_EXPANSION + _MAX_OVERHEAD_BYTES
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if key.compression not in (*_DEFLATE, _LZMA, _PACKBITS):
            # These decoders are told how much to unpack.
            return False
        if count > limit:
            return True
        unpacked = 0
        for size in _unpacked_sizes(key.compression, content[offset : offset + count]):
            unpacked += size
            if unpacked > limit:
                return True
    return False


def _unpacked_sizes(compression: int, packed: bytes) -> Iterator[int]:
    """Unpack step by step without keeping anything; yield the bytes of each step."""
    if compression == _PACKBITS:
        yield from _packbits_sizes(packed)
        return
    import lzma

    inflate: Any = (
        zlib.decompressobj() if compression in _DEFLATE else lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
    )
    while step := inflate.decompress(packed, _STEP_BYTES):
        yield len(step)
        if inflate.eof:
            return
        packed = inflate.unconsumed_tail if compression in _DEFLATE else b""


def _packbits_sizes(packed: bytes) -> Iterator[int]:
    position = 0
    while position < len(packed):
        head = packed[position]
        if head < 128:
            yield head + 1
            position += head + 2
        else:
            yield (257 - head) % 129
            position += 1 if head == 128 else 2
