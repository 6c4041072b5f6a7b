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
    assert f"{size:g} µm per pixel" in field.warnings[0]
