"""Decode TIFF, PNG and JPEG files, and OME-Zarr folders, into channels with a pixel size."""

import gzip
import io
import logging
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from deepgps.errors import InputError
from deepgps.images.pixel_size import (
    PixelSize,
    ome_elements,
    ome_pixels,
    plausible,
    tiff_pixel_size,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries


MAX_PIXELS = 100_000_000
"""Largest height × width × channels of an image, checked in its header before decoding."""

MIN_EDGE_PX = 16
"""Smallest height and width of an image, in pixels."""

# Without a handler, Python prints what tifffile logs about damaged tags.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAX_CHANNELS = 8
"""An unnamed third axis of at most this length is taken for channels; a longer one is a stack."""

# Values of TIFF's PhotometricInterpretation, ExtraSamples and Compression.
_WHITE_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6
_OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter"}
_PREMULTIPLIED, _ALPHA = 1, 2
_DECODED_TO_RGB = {6, 7, 33003, 33005, 33007, 34712, 34892, 50001, 50002}
_LOSSY = {6: "JPEG", 7: "JPEG", 33007: "JPEG", 34892: "JPEG"}

_Channels = NDArray[np.generic]


class ChannelElsewhere(NamedTuple):
    """A channel of a set of files that is in another file: its number and name, and that file if known."""

    number: int
    name: str
    file: str

    def __str__(self) -> str:
        named = f" ('{self.name}')" if self.name else ""
        where = f"in '{self.file}'" if self.file else "missing"
        return f"channel {self.number}{named} is {where}"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The decoded channels of an image file.

    Attributes
    ----------
    channels
        (C, H, W) intensities: as stored, with black as the background.
    names
        Names of the channels; empty if unknown.
    colour
        Whether the channels are red, green and blue.
    pixel_size_um
        Height and width of a pixel in micrometres from the metadata, or None.
    warnings
        What the user should know.
    numbers
        Numbers of the channels; they have gaps where the file is one of a set and others hold the rest.
    elsewhere
        The channels that this file lacks, and the files that hold them.
    """

    channels: _Channels
    names: tuple[str, ...] = ()
    colour: bool = False
    pixel_size_um: PixelSize | None = None
    warnings: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    elsewhere: tuple[ChannelElsewhere, ...] = ()

    def place(self, channel: int, name: str) -> int:
        """Return the place of a channel among `channels`.

        Parameters
        ----------
        channel
            A channel number, from 0.
        name
            Name of the image, for the error.

        Returns
        -------
        int
            Its index.

        Raises
        ------
        InputError
            If the image has no such channel, or another file holds it.
        """
        numbers = self.numbers or tuple(range(len(self.channels)))
        if channel in numbers:
            return numbers.index(channel)
        for each in self.elsewhere:
            if each.number == channel:
                raise InputError(f"Image '{name}' is one file of a set: {each}. Give that file.")
        raise InputError(
            f"Channel {channel} of image '{name}' does not exist; it has channels 0 to {numbers[-1]}."
        )


def decode_image(path: Path) -> Decoded:
    """Decode a TIFF, OME-TIFF, PNG or JPEG file, plain or gzipped, or the folder of an OME-Zarr image.

    A file's kind is detected by its first bytes. No other file is opened, whatever the file names. Images
    that store white as 0 are inverted, palettes are applied and transparent pixels become black, each with a
    warning; ImageJ's own files keep their values.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Decoded
        All channels.

    Raises
    ------
    InputError
        If the file cannot be opened, has another format, is damaged or coded in a way that cannot be read,
        has more than `MAX_PIXELS`, or is a stack.
    """
    if is_zarr(path):
        from deepgps.images.ome_zarr import decode_ome_zarr

        return decode_ome_zarr(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(_GZIP):
                return _decode_stream(path, _decompress(path))
            return _decode_stream(path, file)
    except OSError as error:
        raise InputError(f"Image '{path}' cannot be opened: {error.strerror}.") from None


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _JPEG, _GZIP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b"

# Files of microscopes that are often given, by their first bytes.
_MICROSCOPE_FILES = {
    b"ZISRAWFI": "Zeiss (CZI)",
    b"\xda\xce\xbe\x0a": "Nikon (ND2)",
    b"\x70\0\0\0": "Leica (LIF)",
    b"\xd0\xcf\x11\xe0": "Olympus (OIB) or Zeiss (ZVI)",
    b"\x89HDF": "Imaris or another program (HDF5)",
}


_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Return whether a path is the folder of a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in _ZARR_FILES)


def is_image(path: Path) -> bool:
    """Return whether a path is a file that begins like an image, plain or gzipped, or a folder of Zarr."""
    if is_zarr(path):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(_GZIP):
            with gzip.open(path) as packed:
                start = packed.read(8)
    except (OSError, EOFError, zlib.error):
        return False
    return start.startswith((*_TIFF, _PNG, _JPEG))


def _decode_stream(path: Path, stream: BinaryIO) -> Decoded:
    stream.seek(0)
    start = stream.read(8)
    stream.seek(0)
    if start.startswith(_TIFF):
        reader = _decode_tiff
    elif start == _PNG:
        reader = _decode_png
    elif start.startswith(_JPEG):
        reader = _decode_jpeg
    else:
        kind = next((kind for magic, kind in _MICROSCOPE_FILES.items() if start.startswith(magic)), None)
        remedy = "save it as OME-TIFF, for example in Fiji" if kind else "give a TIFF, OME-TIFF or PNG file"
        what = f"a file of {kind}, which deepGPS cannot read" if kind else "not an image deepGPS can read"
        raise InputError(f"'{path}' is {what}; {remedy}.")
    try:
        return reader(path, stream)
    except InputError:
        raise
    except Exception as error:  # decoders raise exceptions of any type on damaged files
        raise InputError(damage_message(path, error)) from None


def damage_message(path: Path, error: Exception) -> str:
    """Say that an image cannot be decoded, and why."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return f"Image '{path}' is truncated or damaged ({reason}); save it again."


def _decompress(path: Path) -> BytesIO:
    """Decompress a gzipped file, up to the size of the largest image."""
    max_bytes = 4 * MAX_PIXELS
    try:
        with gzip.open(path) as packed:
            content = packed.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(damage_message(path, error)) from None
    if len(content) > max_bytes:
        raise InputError(size_message(path))
    return BytesIO(content)


def size_message(path: Path) -> str:
    """Say that an image has more than `MAX_PIXELS`."""
    return (
        f"Image '{path}' has more than {MAX_PIXELS:,} pixels, the most that are read. "
        "Crop it or save it smaller."
    )


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if math.prod(shape) > MAX_PIXELS:
        size = " × ".join(f"{n:,}" for n in shape)
        raise InputError(
            f"Image '{path}' has {size} pixels; at most {MAX_PIXELS:,} are read. Crop it or save it smaller."
        )


# PNG and JPEG.


def _open_with_pillow(path: Path, stream: BinaryIO) -> Any:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
        try:
            return Image.open(stream)
        except Image.DecompressionBombError:
            raise InputError(size_message(path)) from None


def _decode_png(path: Path, stream: BinaryIO) -> Decoded:
    with _open_with_pillow(path, stream) as image:
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise InputError(stack_message(path, f"{frames} frames"))
        bands = 1 if image.mode in ("1", "L", "I", "I;16", "P") else len(image.getbands())
        _check_size((image.height, image.width, bands), path)
        size = _png_pixel_size(image)
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            channels, notes = _apply_palette(np.asarray(image)[None], palette, path)
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if "transparency" in image.info else None
        else:
            # Pillow keeps 8 of the 16 bits of a colour.
            import imagecodecs

            stream.seek(0)
            pixels = np.atleast_3d(imagecodecs.png_decode(stream.read()))
            channels, notes = np.moveaxis(pixels, -1, 0), ()
            alpha = channels[-1] if len(channels) in (2, 4) else None
            channels = channels[: 3 if len(channels) > 2 else 1]
    channels, more = _over_black(channels, alpha, path)
    return Decoded(channels, (), len(channels) == 3, size, (*notes, *more))


def _png_pixel_size(image: Any) -> PixelSize | None:
    per_inch_x, per_inch_y = image.info.get("dpi", (0, 0))
    size = (25_400 / per_inch_y, 25_400 / per_inch_x) if per_inch_x and per_inch_y else None
    return size if size and plausible(size) else None


def _decode_jpeg(path: Path, stream: BinaryIO) -> Decoded:
    with _open_with_pillow(path, stream) as image:
        # A JPEG of several frames, such as a preview, has the image first.
        grey = image.mode == "L"
        _check_size((image.height, image.width, 1 if grey else 3), path)
        pixels = np.atleast_3d(np.asarray(image if grey else image.convert("RGB")))
    return Decoded(np.moveaxis(pixels, -1, 0), colour=not grey, warnings=_lossy_notes(path, "JPEG"))


def _lossy_notes(path: Path, compression: str) -> tuple[str, ...]:
    kind = "is a JPEG" if path.suffix.lower() not in (".tif", ".tiff") else f"is compressed as {compression}"
    return (f"Image '{path.name}' {kind}; its compression blurs texture.",)


# What colours, palettes and transparency mean.


def _apply_palette(
    indexes: _Channels, palette: NDArray[Any], path: Path
) -> tuple[_Channels, tuple[str, ...]]:
    """Look up the colours (n, 3) of indexes (1, H, W), unless they only tint a grey image for display."""
    used = palette[int(indexes.min()) : int(indexes.max()) + 1].astype(np.int64)
    steps = np.diff(used, axis=0)
    if (steps >= 0).all() and (steps.sum(1) > 0).all():
        grey = (used == used[:, :1]).all() and len(set(steps[:, 0])) <= 2
        tinted = f"Image '{path.name}' has a palette from dark to bright; its indexes are the intensities."
        return indexes, () if grey else (tinted,)
    colours = np.moveaxis(palette[indexes[0]], -1, 0)
    return colours, (f"Image '{path.name}' has a palette of colours; they were read as it shows them.",)


def _over_black(
    channels: _Channels, alpha: _Channels | None, path: Path, top: float | None = None
) -> tuple[_Channels, tuple[str, ...]]:
    """Lay channels (C, H, W) over black by their alpha (H, W); one that is the same everywhere is ignored."""
    if alpha is None or alpha.min() == alpha.max():
        return channels, ()
    if top is None:
        top = np.iinfo(alpha.dtype.name).max if alpha.dtype.kind in "ui" else 1.0
    opacity = alpha.astype(np.float32) / np.float32(top)
    note = f"Image '{path.name}' has transparent pixels; they were read as black, like the background."
    return channels.astype(np.float32) * opacity, (note,)


def _white_is_zero(channels: _Channels, bits: int) -> _Channels:
    """Invert channels so that bright is high."""
    if channels.dtype.kind == "u":
        return np.asarray(np.subtract(channels.dtype.type(2**bits - 1), channels))
    if channels.dtype.kind == "i":
        return np.asarray(np.invert(channels))
    return np.asarray(channels.max() - channels)


# TIFF.


class _OneFile(io.RawIOBase):
    """A stream without a name or a folder, so that tifffile opens no other file that the file names."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]


def _decode_tiff(path: Path, stream: BinaryIO) -> Decoded:
    from tifffile import TiffFile

    # The name tells tifffile which planes of an OME-TIFF are in this file.
    with TiffFile(cast(BinaryIO, _OneFile(stream)), name=path.name) as tif:
        series = _first_series(tif)
        page = series.keyframe
        axes, shape = _squeezed(series.axes, series.shape)
        channel_axis = _channel_axis(axes, shape, path)
        _check_size(shape, path)
        _check_codec(page, path)
        _check_complete(tif, series, path)
        pixels = np.asarray(series.asarray(maxworkers=1)).reshape(shape)
        channels = pixels[None] if channel_axis is None else np.moveaxis(pixels, channel_axis, 0)
        samples = channel_axis is not None and axes[channel_axis] == "S"
        channels, colour, notes = _intensities(channels, page, samples, tif.is_imagej, path)
        names = _channel_names(tif)
        names = names if len(names) == len(channels) else ()
        numbers, elsewhere = _planes_here(tif, series, len(channels), names)
        if elsewhere:
            notes += (_elsewhere_note(path, numbers, elsewhere),)
            channels, names = channels[list(numbers)], tuple(names[n] for n in numbers) if names else ()
        size, more = tiff_pixel_size(tif)
        notes += more
        if len(tif.series) > 1:
            notes += (f"Image '{path.name}' has {len(tif.series)} images; the first was read.",)
    return Decoded(channels, names, colour, size, notes, numbers, elsewhere)


def _first_series(tif: "TiffFile") -> "TiffPageSeries":
    try:
        return tif.series[0]
    except ValueError:
        # Metadata that contradict the planes: read these as any TIFF.
        return (tif._series_generic() or [])[0]


def _squeezed(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    kept = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def _channel_axis(axes: str, shape: tuple[int, ...], path: Path) -> int | None:
    """Return the channel axis, or None for a plain (H, W) image; raise an error for a stack."""
    if len(shape) == 2:
        return None
    named = [index for index, axis in enumerate(axes) if axis in "CS"]
    if len(shape) == 3 and named:
        return named[0]
    smallest = int(np.argmin(shape))
    if len(shape) == 3 and not set(axes) & set("ZT") and shape[smallest] <= _MAX_CHANNELS:
        return smallest
    raise InputError(stack_message(path, " × ".join(f"{n} {a}" for a, n in zip(axes, shape, strict=True))))


def stack_message(path: Path, extent: str) -> str:
    """Say that an image has several planes."""
    return (
        f"Image '{path}' is a stack or a time series ({extent}); "
        "deepGPS reads one plane: give a maximum projection or a single slice."
    )


def _check_codec(page: "TiffPage", path: Path) -> None:
    """Refuse what cannot be decoded although the file is sound."""
    from tifffile import COMPRESSION

    remedy = "save it as grey or RGB, uncompressed or with Deflate (ZIP) or LZW compression"
    colours = _OTHER_COLOURS.get(page.photometric)
    if colours and page.compression not in _DECODED_TO_RGB:
        raise InputError(f"Image '{path}' stores its colours as {colours}, which cannot be read; {remedy}.")
    try:
        page.decode(None, 0)  # of no data: raises at once what it cannot decode
    except (ValueError, NotImplementedError) as error:
        known = {each.value: each.name for each in COMPRESSION}
        name = known.get(page.compression, f"number {page.compression}")
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        why = "" if "imagecodecs" not in str(error) else ", or install the package 'imagecodecs'"
        raise InputError(
            f"Image '{path}' is stored with compression {name} and {bits} bits per value, "
            f"which cannot be read; {remedy}{why}."
        ) from None


def _check_complete(tif: "TiffFile", series: "TiffPageSeries", path: Path) -> None:
    pages = [page for page in series.pages if page is not None]
    end = max(
        offset + count
        for page in pages
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    )
    if end > (size := tif.filehandle.size):
        raise InputError(f"Image '{path}' is truncated: {end:,} bytes expected, {size:,} found.")


def _intensities(
    channels: _Channels, page: "TiffPage", samples: bool, imagej: bool, path: Path
) -> tuple[_Channels, bool, tuple[str, ...]]:
    """Return the channels (C, H, W), whether they are colours, and notes; `samples`: they are of one page."""
    notes: tuple[str, ...] = ()
    if channels.dtype.kind == "b":
        channels = channels.astype(np.uint8)
    if page.compression in _LOSSY:
        notes += _lossy_notes(path, _LOSSY[page.compression])
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    alpha = None
    extra = tuple(page.extrasamples) if samples else ()
    if extra and extra[0] in (_PREMULTIPLIED, _ALPHA) and len(channels) > len(extra):
        first = len(channels) - len(extra)
        alpha = channels[first] if extra[0] == _ALPHA else None
        channels = channels[:first]
    colour = samples and page.photometric in (_RGB, _YCBCR) and len(channels) in (3, 4)
    if colour:
        channels = channels[:3]  # the fourth is not said to be anything
    elif page.photometric == _PALETTE and page.colormap is not None and not imagej:
        if len(channels) == 1:
            channels, more = _apply_palette(channels, page.colormap.T, path)
            notes += more
            colour = len(channels) == 3
    elif page.photometric == _WHITE_IS_ZERO and imagej:
        notes += (f"ImageJ shows '{path.name}' inverted; its values were kept, so that high is bright.",)
    elif page.photometric == _WHITE_IS_ZERO:
        channels = _white_is_zero(channels, bits)
        notes += (f"Image '{path.name}' stores white as 0 (WhiteIsZero); it was inverted, as viewers do.",)
    top = 2.0**bits - 1 if channels.dtype.kind == "u" else None
    channels, more = _over_black(channels, alpha, path, top)
    return channels, colour, (*notes, *more)


def _channel_names(tif: "TiffFile") -> tuple[str, ...]:
    if not tif.is_ome:
        return tuple(map(str, (tif.imagej_metadata or {}).get("Labels", ()))) if tif.is_imagej else ()
    pixels = ome_pixels(tif.ome_metadata)
    nodes = () if pixels is None else ome_elements(pixels, "Channel")
    return tuple(node.get("Name") or node.get("Fluor") or "" for node in nodes)


# Files of a set.


def _planes_here(
    tif: "TiffFile", series: "TiffPageSeries", count: int, names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[ChannelElsewhere, ...]]:
    """Return the numbers of the channels in this file, and the channels in others."""
    pages = list(series.pages)
    if None not in pages or len(pages) != count:
        return tuple(range(count)), ()
    files = _files_of_channels(tif.ome_metadata)
    return tuple(number for number, page in enumerate(pages) if page is not None), tuple(
        ChannelElsewhere(number, names[number] if names else "", files.get(number, ""))
        for number, page in enumerate(pages)
        if page is None
    )


def _files_of_channels(xml: str | None) -> dict[int, str]:
    pixels = ome_pixels(xml)
    files: dict[int, str] = {}
    for data in () if pixels is None else ome_elements(pixels, "TiffData"):
        for uuid in ome_elements(data, "UUID"):
            files.setdefault(int(data.get("FirstC", 0)), uuid.get("FileName", ""))
    return files


def _elsewhere_note(path: Path, numbers: Sequence[int], elsewhere: Sequence[ChannelElsewhere]) -> str:
    here = ", ".join(map(str, numbers))
    return (
        f"Image '{path.name}' is one file of a set and has channel {here} only: "
        f"{', '.join(map(str, elsewhere))}. Other files are not opened."
    )
