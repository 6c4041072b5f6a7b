"""What a TIFF claims to hold, and whether its pieces unpack to more, before anything is decoded."""

import math
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from deepgps.errors import InputError
from opengps.settings import Settings

_DEFLATE, _LZMA, _PACKBITS = (8, 32946), 34925, 32773
# Packed, noise is a little larger than it is.
_OVERHEAD, _HEAD_BYTES = 1.01, 1024
_STEP_BYTES = 1 << 20
_LZMA_BYTES = 1 << 26


def claimed_pixels(path: Path, content: bytes, settings: Settings) -> int:
    """Count the pixels that a TIFF claims, all channels together.

    Parameters
    ----------
    path
        What to call it.
    content
        Its bytes.
    settings
        The limits.

    Raises
    ------
    InputError
        If it has too many planes, or, within the limit of pixels, a piece unpacks to more than it claims.
    """
    from tifffile import TiffFile

    with TiffFile(BytesIO(content)) as tif:
        most = settings.max_image_planes
        if _has_more_pages(tif, most):
            raise InputError(f"Image '{path}' has more than {most:,} planes; send one of each channel.")
        series = tif.series[0]
        pixels = math.prod(series.shape)
        pages: list[Any] = [page for page in series.pages if page is not None]
        chunk = max((math.prod(page.keyframe.chunks) for page in pages), default=0)
        if max(pixels, chunk) <= settings.max_image_pixels and any(_bursts(content, page) for page in pages):
            raise InputError(f"Image '{path}' unpacks to more than it claims; save it anew.")
        return max(pixels, chunk)


def _has_more_pages(tif: Any, most: int) -> bool:
    try:
        tif.pages[most]
    except IndexError:
        return False
    return True


def _bursts(content: bytes, page: Any) -> bool:
    """Whether a strip or tile of a page unpacks to more than its place in the image."""
    key = page.keyframe
    claimed = math.prod(key.chunks) * key.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if key.compression not in (*_DEFLATE, _LZMA, _PACKBITS):
            # Unpacked by what knows how much is wanted.
            return False
        if count > claimed * _OVERHEAD + _HEAD_BYTES:
            return True
        unpacked = 0
        for size in _unpacked(key.compression, content[offset : offset + count]):
            unpacked += size
            if unpacked > claimed * _OVERHEAD + _HEAD_BYTES:
                return True
    return False


def _unpacked(compression: int, piece: bytes) -> Iterator[int]:
    """Unpack step by step, keeping nothing; tell the bytes of each step."""
    if compression == _PACKBITS:
        yield from _packbits(piece)
        return
    import lzma

    inflate: Any = (
        zlib.decompressobj() if compression in _DEFLATE else lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
    )
    while step := inflate.decompress(piece, _STEP_BYTES):
        yield len(step)
        if inflate.eof:
            return
        piece = inflate.unconsumed_tail if compression in _DEFLATE else b""


def _packbits(piece: bytes) -> Iterator[int]:
    at = 0
    while at < len(piece):
        head = piece[at]
        if head < 128:
            yield head + 1
            at += head + 2
        else:
            yield (257 - head) % 129
            at += 1 if head == 128 else 2
