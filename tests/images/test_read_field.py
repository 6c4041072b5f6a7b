import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepgps.errors import InputError
from deepgps.images.decode import MAX_PIXELS
from deepgps.images.read import read_field

RNG = np.random.default_rng(0)
GREY = RNG.integers(100, 4000, (40, 50), dtype=np.uint16)
STACK = RNG.integers(100, 4000, (3, 40, 50), dtype=np.uint16)


def png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that claims a size and has no pixels."""
    bodies = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64", "float16"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_any_type_and_byte_order(tmp_path: Path, dtype: str, order: str) -> None:
    pixels = (GREY % 250).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order)
    field = read_field(tmp_path / "a.tif")
    assert field.pixels.dtype == np.float32
    assert field.pixels.dtype.isnative
    np.testing.assert_array_equal(field.pixels, pixels)
    assert field.source == str(tmp_path / "a.tif")
    assert field.warnings == ()


@pytest.mark.parametrize("compression", ["zlib", "tiff_lzw", "packbits"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    Image.fromarray(GREY).save(
        tmp_path / "a.tif", compression={"zlib": "tiff_adobe_deflate"}.get(compression, compression)
    )
    np.testing.assert_array_equal(read_field(tmp_path / "a.tif").pixels, GREY)


def test_compressed_channels(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "a.tif", compression="tiff_lzw", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_field(tmp_path / "a.tif", channel=2).pixels, STACK[2])


@pytest.mark.parametrize("name", ["a.png", "A.PNG", "no_ending", "wrong.tif"])
def test_png_whatever_its_name(tmp_path: Path, name: str) -> None:
    Image.fromarray(GREY).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(read_field(tmp_path / name).pixels, GREY)


def test_bigtiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, bigtiff=True)
    np.testing.assert_array_equal(read_field(tmp_path / "a.tif").pixels, GREY)


def test_channels_first_and_last(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cyx.ome.tif", STACK, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "yxc.tif", np.moveaxis(STACK, 0, -1), photometric="minisblack")
    tifffile.imwrite(tmp_path / "unnamed.tif", STACK, photometric="minisblack", metadata=None)
    for name in ("cyx.ome.tif", "yxc.tif", "unnamed.tif"):
        np.testing.assert_array_equal(read_field(tmp_path / name, channel=1).pixels, STACK[1], err_msg=name)


def test_axes_of_length_one_do_not_count(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY[None, None, None], metadata={"axes": "TCZYX"})
    np.testing.assert_array_equal(read_field(tmp_path / "a.ome.tif").pixels, GREY)


@pytest.mark.parametrize("channel", [-1, 3])
def test_missing_channel(tmp_path: Path, channel: int) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "CYX"})
    with pytest.raises(InputError, match=rf"Channel {channel} of image 'a.ome.tif' .* 0 to 2"):
        read_field(tmp_path / "a.ome.tif", channel=channel)


def test_further_images_are_mentioned(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY)
        writer.write(GREY[:20, :20])
    field = read_field(tmp_path / "a.tif")
    assert field.pixels.shape == GREY.shape
    assert "2 images" in field.warnings[0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_saved_as_rgb(tmp_path: Path, suffix: str) -> None:
    grey = (GREY // 16).astype(np.uint8)
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / f"a.{suffix}")
    field = read_field(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(field.pixels, grey)
    assert field.warnings == ()


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_rgb_photograph(tmp_path: Path, suffix: str) -> None:
    photograph = RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="RGB image with several colours"):
        read_field(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_composite_with_a_chosen_channel(tmp_path: Path, mode: str) -> None:
    composite = RNG.integers(0, 255, (40, 50, len(mode)), dtype=np.uint8)
    Image.fromarray(composite, mode).save(tmp_path / "a.png")
    opacity = composite[..., 3] / 255 if mode == "RGBA" else 1
    field = read_field(tmp_path / "a.png", channel=2)
    np.testing.assert_allclose(field.pixels, composite[..., 2] * opacity, rtol=1e-5)
    assert ["transparent" in note for note in field.warnings] == [True] * (mode == "RGBA")


def test_one_stain_in_its_colour(tmp_path: Path) -> None:
    blue = np.zeros((40, 50, 3), np.uint8)
    blue[..., 2] = GREY // 16
    Image.fromarray(blue).save(tmp_path / "a.png")
    field = read_field(tmp_path / "a.png")
    np.testing.assert_array_equal(field.pixels, blue[..., 2])
    assert "blue" in field.warnings[0]


def test_palette_and_alpha(tmp_path: Path) -> None:
    grey = Image.fromarray((GREY // 16).astype(np.uint8))
    for mode in ("P", "LA"):
        grey.convert(mode).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_field(tmp_path / "a.png").pixels, np.asarray(grey), err_msg=mode)


def test_jpeg_is_read_with_a_warning(tmp_path: Path) -> None:
    Image.fromarray((GREY // 16).astype(np.uint8)).save(tmp_path / "a.jpg")
    assert "JPEG" in read_field(tmp_path / "a.jpg").warnings[0]


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((40, 50), np.uint16), "blank: every pixel is 0"),
        (np.full((40, 50), 0.25, np.float32), "blank: every pixel is 0.25"),
        (np.where(GREY.max() == GREY, np.nan, GREY).astype(np.float32), "1 NaN or infinite"),
        (np.where(GREY.max() == GREY, np.inf, GREY).astype(np.float32), "1 NaN or infinite"),
        (np.ones((1, 1), np.uint8), "1 × 1 pixels; 16 × 16"),
        (GREY[:5], "50 × 5 pixels"),
        (GREY.astype(np.complex64), "complex"),
    ],
)
def test_pixels_that_cannot_be_used(tmp_path: Path, pixels: np.ndarray, sentence: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(InputError, match=sentence) as caught:
        read_field(tmp_path / "a.tif")
    assert "a.tif" in str(caught.value)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CZYX"])
def test_stacks_are_refused_with_the_remedy(tmp_path: Path, axes: str) -> None:
    shape = {"C": 2, "Z": 3, "T": 3, "Y": 40, "X": 50}
    pixels = RNG.integers(0, 9, [shape[axis] for axis in axes], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "ome.ome.tif", pixels, metadata={"axes": axes})
    imagej = pixels.swapaxes(0, 1) if axes == "CZYX" else pixels
    tifffile.imwrite(
        tmp_path / "imagej.tif", imagej, imagej=True, metadata={"axes": axes.replace("CZ", "ZC")}
    )
    for name in ("ome.ome.tif", "imagej.tif"):
        with pytest.raises(InputError, match="maximum projection"):
            read_field(tmp_path / name, channel=0)


def test_many_unnamed_pages_are_a_stack(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.tile(GREY, (30, 1, 1)), photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match="maximum projection"):
        read_field(tmp_path / "a.tif")


def test_animated_png_is_a_stack(tmp_path: Path) -> None:
    frames = [Image.fromarray((page % 200).astype(np.uint8)) for page in STACK]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames"):
        read_field(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["plain.tif", "zlib.tif", "big.ome.tif", "grey.png", "grey.jpg"])
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind.endswith("tif"):
        tifffile.imwrite(path, GREY, compression="zlib" if kind == "zlib.tif" else None)
    else:
        Image.fromarray((GREY // 16).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    for share in (0.05, 0.3, 0.6, 0.8):
        path.write_bytes(whole[: max(9, int(share * len(whole)))])
        with pytest.raises(InputError, match=r"is truncated"):
            read_field(path)


def test_flipped_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata={"axes": "CYX"}, compression="zlib")
    whole = (tmp_path / "a.ome.tif").read_bytes()
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in RNG.integers(4, 600, 4):
            damaged[place] = RNG.integers(256)
        (tmp_path / "b.tif").write_bytes(damaged)
        try:
            read_field(tmp_path / "b.tif", channel=0)
        except InputError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("content", [b"", b"II", b"GIF89a" + bytes(40), b">P1\nMKLV\n", bytes(500)])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="not an image deepGPS can read"):
        read_field(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"ZISRAWFILE", "Zeiss"),
        (b"\xda\xce\xbe\x0a", "Nikon"),
        (b"\x70\0\0\0", "Leica"),
        (b"\xd0\xcf\x11\xe0", "Olympus"),
        (b"\x89HDF\r\n\x1a\n", "Imaris"),
    ],
)
def test_files_of_microscopes_that_cannot_be_read_are_named(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "a.bin").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=f"is a file of {kind}.*save it as OME-TIFF"):
        read_field(tmp_path / "a.bin")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tif", tmp_path):
        with pytest.raises(InputError, match="cannot be opened"):
            read_field(path)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (11_000, 11_000), (2_000_000_000, 1)])
def test_png_bomb_is_refused_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(InputError, match=f"{MAX_PIXELS:,}"):
        read_field(png_header(tmp_path / "bomb.png", width, height))


def test_tiff_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[tag].overwrite(60_000, dtype="I")
    with pytest.raises(InputError, match=f"60,000 × 60,000 pixels; at most {MAX_PIXELS:,}"):
        read_field(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [0, -0.2, float("nan")])
def test_impossible_pixel_size(tmp_path: Path, size: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    with pytest.raises(InputError, match="positive"):
        read_field(tmp_path / "a.tif", pixel_size_um=size)
