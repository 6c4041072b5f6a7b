import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from deepgps.images.read import read_field

GREY = np.arange(1600, dtype=np.uint16).reshape(40, 40)


def ome(path: Path, size: float, unit: str | None) -> Path:
    metadata: dict[str, Any] = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
    if unit:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(path, GREY, ome=True, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [(0.2, "µm", 0.2), (0.2, None, 0.2), (206.0, "nm", 0.206), (2e-4, "mm", 0.2)],
)
def test_ome(tmp_path: Path, size: float, unit: str | None, expected: float) -> None:
    assert read_field(ome(tmp_path / "a.ome.tif", size, unit)).pixel_size_um == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [("um", 5, 0.2), ("micron", 5, 0.2), ("\\u00B5m", 5, 0.2), ("nm", 0.005, 0.2), ("pixel", 1, None)],
)
def test_imagej(tmp_path: Path, unit: str, per_unit: float, expected: float | None) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", GREY, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit}
    )
    assert read_field(tmp_path / "a.tif").pixel_size_um == (expected and pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [
        (50_000, "CENTIMETER", 0.2),
        (127_000, "INCH", 0.2),
        (72, "INCH", None),
        (96, "INCH", None),
        (300, "INCH", None),
        (1, "NONE", None),
        (50_000, "NONE", None),
    ],
)
def test_resolution_tags(tmp_path: Path, per_unit: float, unit: str, expected: float | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(per_unit, per_unit), resolutionunit=unit)
    field = read_field(tmp_path / "a.tif")
    assert field.pixel_size_um == (expected and pytest.approx(expected))
    assert field.warnings == ()


def test_the_argument_wins(tmp_path: Path) -> None:
    assert read_field(ome(tmp_path / "a.ome.tif", 0.2, "µm"), pixel_size_um=0.1).pixel_size_um == 0.1


@pytest.mark.parametrize("size", [1e-6, 300.0])
def test_implausible_metadata_are_ignored_and_told(tmp_path: Path, size: float) -> None:
    field = read_field(ome(tmp_path / "a.ome.tif", size, "µm"))
    assert field.pixel_size_um is None
    assert f"The metadata of 'a.ome.tif' give {size:g} µm per pixel" in field.warnings[0]


def described(path: Path, description: str, **options: Any) -> float | None:
    tifffile.imwrite(path, GREY, description=description, metadata=None, **options)
    return read_field(path).pixel_size_um


@pytest.mark.parametrize("unit", ["micrometers", "micrometre", "Microns", "UM", "\\u00b5m"])
def test_spellings_of_imagej(tmp_path: Path, unit: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, imagej=True, resolution=(5, 5), metadata={"unit": unit})
    assert read_field(tmp_path / "a.tif").pixel_size_um == pytest.approx(0.2, rel=1e-4)


METAMORPH = (
    '<MetaData><prop id="Description" type="string" value="x"/><PlaneInfo>'
    '<prop id="spatial-calibration-state" type="bool" value="{state}"/>'
    '<prop id="spatial-calibration-x" type="float" value="{x}"/>'
    '<prop id="spatial-calibration-y" type="float" value="{x}"/>'
    '<prop id="spatial-calibration-units" type="string" value="{unit}"/></PlaneInfo></MetaData>'
)


@pytest.mark.parametrize(
    ("state", "x", "unit", "expected"),
    [("on", 0.16, "um", 0.16), ("on", 160, "nm", 0.16), ("off", 0.16, "um", None), ("on", 1, "pixel", None)],
)
def test_metamorph(tmp_path: Path, state: str, x: float, unit: str, expected: float | None) -> None:
    found = described(tmp_path / "a.tif", METAMORPH.format(state=state, x=x, unit=unit))
    assert found == (expected and pytest.approx(expected))


def test_aperio(tmp_path: Path) -> None:
    text = "Aperio Image Library v12.0.15 \r\n40x40 (256x256) |AppMag = 20|MPP = 0.4990|Left = 25"
    assert described(tmp_path / "a.svs", text) == pytest.approx(0.499)


def test_zeiss_lsm(tmp_path: Path) -> None:
    info = np.zeros((), tifffile.TIFF.CZ_LSMINFO)
    info["MagicNumber"], info["StructureSize"] = 67127628, info.itemsize
    info["DimensionX"] = info["DimensionY"] = 40
    info["DimensionZ"] = info["DimensionChannels"] = info["DimensionTime"] = 1
    info["VoxelSizeX"] = info["VoxelSizeY"] = 1.3e-7
    with tifffile.TiffWriter(tmp_path / "a.lsm", byteorder="<") as file:
        file.write(GREY, extratags=[(34412, 1, info.itemsize, info.tobytes(), True)], metadata=None)
        file.write(GREY[::2, ::2], subfiletype=1, metadata=None)  # LSM files have a thumbnail of each plane
    field = read_field(tmp_path / "a.lsm")
    assert field.pixel_size_um == pytest.approx(0.13)
    np.testing.assert_array_equal(field.pixels, GREY)


def test_olympus_sis(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    head = struct.pack("<4s6xhhhhh6x32sH", b"SIS0", 30, 12, 1, 0, 124, b"x", 1)
    # Calibrations are multiples of a power of ten metres.
    data = struct.pack("<10xhdd8xd2x34s32s", -6, 0.325, 0.325, 20.0, b"camera", b"Intensity")
    tag = head + bytes(8) + data
    tifffile.imwrite(path, GREY, extratags=[(33560, 1, len(tag), tag, True)], metadata=None, byteorder="<")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.tags[33560].valueoffset
    with path.open("r+b") as file:
        file.seek(offset + len(head))
        file.write(struct.pack("<hhI", 1, 1, offset + len(head) + 8))
    assert read_field(path).pixel_size_um == pytest.approx(0.325)


@pytest.mark.parametrize(
    ("metadata", "expected"), [({"PixelSizeUm": 0.65}, 0.65), ({"PixelSizeUm": 0}, None), ({}, None)]
)
def test_micro_manager(tmp_path: Path, metadata: dict[str, float], expected: float | None) -> None:
    found = json.dumps(metadata)
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(51123, 2, 0, found, True)], metadata=None)
    assert read_field(tmp_path / "a.tif").pixel_size_um == expected


@pytest.mark.parametrize(
    ("attributes", "namespace", "expected"),
    [
        ('PhysicalSizeX="0.3" PhysicalSizeY="0.3"', "", 0.3),
        ('PhysicalSizeY="0.3"', ' xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"', 0.3),
        ('PhysicalSizeX="300" PhysicalSizeXUnit="nm"', "", 0.3),
        ('PhysicalSizeX="0" PhysicalSizeY="0"', "", 0.25),
        ('PhysicalSizeX="NaN"', "", 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', "", 0.25),
        ('PhysicalSizeX="26458" PhysicalSizeY="26458"', "", 0.25),
        ("", "", 0.25),
    ],
)
def test_ome_as_it_is_written_and_the_tags_beside_it(
    tmp_path: Path, attributes: str, namespace: str, expected: float
) -> None:
    xml = (
        f'<?xml version="1.0"?><OME{namespace}><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint16" '
        f'DimensionOrder="XYCZT" SizeX="40" SizeY="40" SizeC="1" SizeZ="1" SizeT="1" {attributes}>'
        '<TiffData IFD="0"/></Pixels></Image></OME>'
    )
    found = described(tmp_path / "a.ome.tif", xml, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("unit", "per_unit"), [(4, 4000), (5, 4)])
def test_units_that_tifffile_writes(tmp_path: Path, unit: int, per_unit: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(per_unit, per_unit), resolutionunit=unit)
    assert read_field(tmp_path / "a.tif").pixel_size_um == pytest.approx(0.25)


def test_png_states_pixels_per_metre(tmp_path: Path) -> None:
    from PIL import Image

    for um, expected in ((0.25, 0.25), (25_400 / 300, None)):
        Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(25_400 / um, 25_400 / um))
        assert read_field(tmp_path / "a.png").pixel_size_um == (
            expected and pytest.approx(expected, rel=1e-3)
        )


def test_pixels_that_are_not_square_are_resampled(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:100, :100]
    disc = (np.hypot(rows - 50, columns - 50) < 30).astype(np.uint16) * 1000
    tifffile.imwrite(tmp_path / "a.tif", disc[::2], resolution=(50_000, 25_000), resolutionunit="CENTIMETER")
    field = read_field(tmp_path / "a.tif")
    assert field.pixels.shape == (100, 100)
    assert field.stored_shape == (50, 100)
    assert field.pixel_size_um == pytest.approx(0.2)
    assert "0.2 µm wide and 0.4 µm high" in field.warnings[0]
    assert np.corrcoef(field.pixels.ravel(), disc.ravel())[0, 1] > 0.97
    # A number from the user is that of both axes.
    assert read_field(tmp_path / "a.tif", pixel_size_um=0.3).pixels.shape == (50, 100)
