"""Images as programs write them are read as they were, or refused with a sentence."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepgps.errors import InputError
from deepgps.images.decode import decode_image
from deepgps.images.read import read_field

HEIGHT, WIDTH = 41, 53
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
SHAPE = np.exp(-((ROWS - 15) ** 2 + (COLUMNS - 30) ** 2) / 90) + 0.3 * np.sin(COLUMNS / 5) ** 2
"""The known image: a blob beside waves, different in every row and column."""

LOSSLESS = ("lzw", "zlib", "packbits", "lzma", "zstd", "png", "jpegxl", "jpegxr", "jpeg2000", "lerc", None)


def known_image(dtype: str, scale: float = 1.0) -> np.ndarray:
    """The known image over most of the range of a type."""
    share = scale * SHAPE / SHAPE.max()
    kind = np.dtype(dtype)
    return (share * (np.iinfo(kind).max if kind.kind in "ui" else 1)).astype(kind)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    compression=st.sampled_from(LOSSLESS),
    dtype=st.sampled_from(
        ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
    ),
    layout=st.sampled_from(
        ("grey", "white is zero", "blue", "planar blue", "grey and alpha", "two samples", "pages")
    ),
    predictor=st.booleans(),
    tile=st.sampled_from((None, (16, 16), (64, 32))),
    rows_per_strip=st.sampled_from((None, 1, 7, HEIGHT)),
    byteorder=st.sampled_from(("<", ">")),
    bigtiff=st.booleans(),
    metadata=st.sampled_from(("none", "shaped", "ome")),
)
def test_any_tiff_is_the_known_image_or_refused(
    tmp_path: Path,
    compression: str | None,
    dtype: str,
    layout: str,
    predictor: bool,
    tile: tuple[int, int] | None,
    rows_per_strip: int | None,
    byteorder: str,
    bigtiff: bool,
    metadata: str,
) -> None:
    known, other = known_image(dtype), known_image(dtype, 0.5)[::-1]
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "ui" else 1
    options: dict[str, Any] = {"photometric": "minisblack"}
    pixels, channel = known, None
    if layout == "white is zero":
        options["photometric"] = "miniswhite"
        signed = np.dtype(dtype).kind == "i"
        pixels = ~known if signed else (known.max() if np.dtype(dtype).kind == "f" else top) - known
    elif layout in ("blue", "planar blue"):
        black = np.zeros_like(known)
        planar = layout == "planar blue"
        pixels = np.stack([black, black, known], 0 if planar else -1)
        options = {"photometric": "rgb", "planarconfig": "separate" if planar else "contig"}
    elif layout == "grey and alpha":
        pixels = np.stack([known, np.full_like(known, top)], -1)
        options |= {"planarconfig": "contig", "extrasamples": ("unassalpha",)}
    elif layout == "two samples":
        pixels, channel = np.stack([other, known], -1), 1
        options |= {"planarconfig": "contig"}
    elif layout == "pages":
        pixels, channel = np.stack([other, known]), 1
    name = "a.ome.tif" if metadata == "ome" else "a.tif"
    with io.BytesIO() as content:
        try:
            tifffile.imwrite(
                content, pixels.astype(np.dtype(dtype).newbyteorder(byteorder)),
                compression=compression, predictor=predictor or None, tile=tile,
                rowsperstrip=None if tile else rows_per_strip, byteorder=byteorder, bigtiff=bigtiff,
                ome=metadata == "ome", metadata=None if metadata == "none" else {}, **options,
            )  # fmt: skip
            written = tifffile.imread(io.BytesIO(content.getvalue()))
        except Exception:
            return  # the writer knows no such file
        if not np.array_equal(np.squeeze(written), np.squeeze(pixels)):
            return  # the codec is not lossless for this type
        (tmp_path / name).write_bytes(content.getvalue())
    try:
        field = read_field(tmp_path / name, channel=channel)
    except InputError as error:
        assert str(tmp_path / name) in str(error)
        assert "damaged" not in str(error), error
        return
    expected = known.astype(np.float32)
    if layout == "white is zero" and np.dtype(dtype).kind == "f":
        expected = (pixels.max() - pixels).astype(np.float32)
    np.testing.assert_array_equal(field.pixels, expected)


@pytest.mark.parametrize("bits", range(1, 16))
def test_any_number_of_bits(tmp_path: Path, bits: int) -> None:
    """Grey values of 1 to 15 bits, packed by hand as TIFF demands: rows begin at whole bytes."""
    known = np.round(SHAPE / SHAPE.max() * (2**bits - 1)).astype(np.uint16)
    binary = (known[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(binary.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    write_raw_tiff(tmp_path / "a.tif", packed.tobytes(), {258: bits, 262: 1})
    np.testing.assert_array_equal(read_field(tmp_path / "a.tif").pixels, known)
    write_raw_tiff(tmp_path / "b.tif", packed.tobytes(), {258: bits, 262: 0})
    np.testing.assert_array_equal(
        read_field(tmp_path / "b.tif").pixels, 2**bits - 1 - known.astype(np.float32)
    )


def write_raw_tiff(path: Path, data: bytes, tags: Mapping[int, Any]) -> None:
    """Write a little-endian TIFF of one strip with the given tags; lists become arrays of 16 bits."""
    wanted = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: HEIGHT, 279: len(data), **tags}
    entries, extra = b"", b""
    start = 8 + 2 + 12 * (len(wanted) + 1) + 4
    places = {}
    for tag, value in wanted.items():
        if isinstance(value, list):
            places[tag] = start + len(extra)
            extra += np.array(value, "<u2").tobytes()
    wanted[273] = start + len(extra)
    for tag, value in sorted(wanted.items()):
        kind, count = (3, len(value)) if isinstance(value, list) else (4, 1)
        number = places.get(tag, value)
        entries += np.array([tag, kind], "<u2").tobytes() + np.array([count, number], "<u4").tobytes()
    head = b"II*\0" + np.array(8, "<u4").tobytes() + np.array(len(wanted), "<u2").tobytes()
    path.write_bytes(head + entries + bytes(4) + extra + data)


GREY = (SHAPE / SHAPE.max() * 255).astype(np.uint8)


def palette_tiff(path: Path, colours: np.ndarray) -> Path:
    """An 8-bit palette TIFF of the known image; colours (3, 256)."""
    tifffile.imwrite(path, GREY, photometric="palette", colormap=(colours * 257).astype(np.uint16))
    return path


RAMP = np.arange(256)


@pytest.mark.parametrize("tint", [(1, 1, 1), (0, 0, 1), (0, 0.6, 1), (1, 0.5, 0.2)])
def test_a_palette_from_dark_to_bright_keeps_its_indexes(tmp_path: Path, tint: tuple[float, ...]) -> None:
    field = read_field(palette_tiff(tmp_path / "a.tif", np.outer(tint, RAMP).astype(int)))
    np.testing.assert_array_equal(field.pixels, GREY)
    assert ["palette" in note for note in field.warnings] == [True] * (tint != (1, 1, 1))


def test_a_palette_from_bright_to_dark_is_applied(tmp_path: Path) -> None:
    field = read_field(palette_tiff(tmp_path / "a.tif", np.outer((1, 1, 1), RAMP[::-1])))
    np.testing.assert_array_equal(field.pixels, (255 - GREY) * np.float32(257))
    assert "palette" in field.warnings[0]


def test_a_palette_of_colours_is_a_colour_image(tmp_path: Path) -> None:
    colours = np.stack([RAMP[::-1], RAMP, (RAMP * 7) % 256])
    with pytest.raises(InputError, match="several colours"):
        read_field(palette_tiff(tmp_path / "a.tif", colours))


def test_imagej_keeps_its_values(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, photometric="miniswhite")
    field = read_field(tmp_path / "a.tif")
    np.testing.assert_array_equal(field.pixels, GREY)
    assert "ImageJ shows 'a.tif' inverted" in field.warnings[0]


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_transparent_is_black(tmp_path: Path, kind: str, compression: str | None) -> None:
    alpha = np.where(COLUMNS > 20, 255, 0).astype(np.uint8)
    white = np.where(alpha == 0, 255, GREY).astype(np.uint8)
    shown = GREY * (alpha > 0)
    colour = white if kind == "unassalpha" else shown
    tifffile.imwrite(
        tmp_path / "a.tif", np.dstack([colour, colour, colour, alpha]), photometric="rgb",
        extrasamples=(kind,), compression=compression,
    )  # fmt: skip
    np.testing.assert_array_equal(read_field(tmp_path / "a.tif").pixels, shown)
    Image.fromarray(np.dstack([white] * 3 + [alpha])).save(tmp_path / "a.png")
    field = read_field(tmp_path / "a.png")
    np.testing.assert_array_equal(field.pixels, shown)
    assert "transparent" in field.warnings[0]


@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_alpha_that_is_the_same_everywhere_says_nothing(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.dstack([GREY, np.full_like(GREY, value)]), "LA").save(tmp_path / "a.png")
    field = read_field(tmp_path / "a.png")
    np.testing.assert_array_equal(field.pixels, GREY)
    assert field.warnings == ()


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("used_bits", [9, 12, 16])
def test_png_of_16_bits_keeps_them_all(tmp_path: Path, samples: int, used_bits: int) -> None:
    import imagecodecs

    known = (SHAPE / SHAPE.max() * (2**used_bits - 1)).astype(np.uint16)
    opaque, black = np.full_like(known, 65535), np.zeros_like(known)
    planes = {1: [known], 2: [known, opaque], 3: [black, black, known], 4: [black, black, known, opaque]}[
        samples
    ]
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.squeeze(np.dstack(planes))))
    np.testing.assert_array_equal(read_field(tmp_path / "a.png").pixels, known)


@pytest.mark.parametrize(("photometric", "colours"), [(5, "CMYK"), (6, "YCbCr"), (8, "CIELab")])
def test_other_colours_are_refused_by_name(tmp_path: Path, photometric: int, colours: str) -> None:
    samples = 4 if photometric == 5 else 3
    data = np.dstack([GREY] * samples).tobytes()
    write_raw_tiff(
        tmp_path / "a.tif", data, {258: [8] * samples, 262: photometric, 277: samples, 530: [1, 1]}
    )
    with pytest.raises(InputError, match=f"colours as {colours}.*save it as grey or RGB"):
        read_field(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("compression", "name"), [(34661, "JBIG"), (32809, "THUNDERSCAN"), (12345, "number 12345")]
)
def test_a_codec_that_cannot_be_read_is_named(tmp_path: Path, compression: int, name: str) -> None:
    write_raw_tiff(tmp_path / "a.tif", GREY.tobytes(), {259: compression})
    with pytest.raises(InputError, match=rf"compression {name} .*cannot be read.*Deflate") as caught:
        read_field(tmp_path / "a.tif")
    assert "damaged" not in str(caught.value)


def test_a_jpeg_inside_a_tiff_is_read_with_a_warning(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="jpeg", compressionargs={"level": 98})
    field = read_field(tmp_path / "a.tif")
    assert np.abs(field.pixels - GREY).max() < 12
    assert "compressed as JPEG" in field.warnings[0]


OME = """<?xml version="1.0"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">
<Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8"
 SizeX="{w}" SizeY="{h}" SizeC="2" SizeZ="1" SizeT="1">
<Channel ID="Channel:0:0" Name="{first}"/><Channel ID="Channel:0:1" Name="{second}"/>
<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="c0.ome.tif">urn:uuid:0</UUID></TiffData>
<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="c1.ome.tif">urn:uuid:1</UUID></TiffData>
</Pixels></Image></OME>"""


def write_set(folder: Path, first: str, second: str) -> None:
    """An OME set of two files, the known image in the second."""
    for number, pixels in enumerate((GREY[::-1], GREY)):
        xml = OME.format(own=number, w=WIDTH, h=HEIGHT, first=first, second=second)
        tifffile.imwrite(folder / f"c{number}.ome.tif", pixels, description=xml, metadata=None)


def test_one_file_of_an_ome_set_is_read_alone(tmp_path: Path) -> None:
    write_set(tmp_path, "GFP", "DAPI")
    field = read_field(tmp_path / "c1.ome.tif")
    np.testing.assert_array_equal(field.pixels, GREY)
    assert "channel 1 only: channel 0 ('GFP') is in 'c0.ome.tif'" in field.warnings[0]
    np.testing.assert_array_equal(read_field(tmp_path / "c1.ome.tif", channel=1).pixels, GREY)
    with pytest.raises(InputError, match=r"channel 0 \('GFP'\) is in 'c0.ome.tif'. Give that file"):
        read_field(tmp_path / "c1.ome.tif", channel=0)


def test_a_nucleus_channel_in_another_file_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, "Hoechst 33342", "GFP")
    with pytest.raises(InputError, match=r"channel 0 \('Hoechst 33342'\) is in 'c0.ome.tif'. Give that file"):
        read_field(tmp_path / "c1.ome.tif")
    np.testing.assert_array_equal(read_field(tmp_path / "c0.ome.tif").pixels, GREY[::-1])


def test_no_other_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, "GFP", "DAPI")
    opened: list[str] = []
    path_open = Path.open

    def spy(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self.name)
        return path_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    monkeypatch.setattr(
        tifffile.tifffile, "open", lambda *a, **k: pytest.fail(f"opened {a[0]}"), raising=False
    )
    decode_image(tmp_path / "c1.ome.tif")
    assert opened == ["c1.ome.tif"]
