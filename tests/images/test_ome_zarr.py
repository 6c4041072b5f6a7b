"""OME-Zarr images are read as other programs mean them, or refused with a sentence."""

import numpy as np
import pytest

from conftest import round_nucleus
from deepgps import Cell, InputError
from deepgps.errors import MissingExtraError
from deepgps.images import decode, ome_zarr
from deepgps.images.decode import decode_image, is_image
from deepgps.images.read import image_stem

zarr = pytest.importorskip("zarr")

PIXELS = np.random.default_rng(0).integers(0, 4000, (2, 60, 50)).astype(np.uint16)
UNITS = {"t": ("time", "second"), "c": ("channel", None), "z": ("space", "micrometer")}


def write_image(path, pixels, axes, *, version="0.5", scale=0.25, unit="micrometer", labels=(), levels=1):
    """Write an image as programs for OME-NGFF do."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    kinds = UNITS | dict.fromkeys("yx", ("space", unit))
    described = [
        {"name": axis, "type": kinds[axis][0]} | ({"unit": kinds[axis][1]} if kinds[axis][1] else {})
        for axis in axes
    ]
    datasets = []
    for level in range(levels):
        step = 2**level
        group.create_array(str(level), data=pixels[..., ::step, ::step])
        size = [scale * step if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": size}]})
    metadata = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    if labels:
        metadata["omero"] = {"channels": [{"label": each} for each in labels]}
    group.attrs.update({"ome": metadata | {"version": version}} if version == "0.5" else metadata)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_names_and_pixel_size_are_read(version, tmp_path):
    path = write_image(
        tmp_path / "a.ome.zarr",
        PIXELS[None, :, None],
        "tczyx",
        version=version,
        labels=("GFP", "DAPI"),
        levels=2,
    )
    decoded = decode_image(path)
    np.testing.assert_array_equal(decoded.channels, PIXELS)
    assert (decoded.names, decoded.pixel_size_um) == (("GFP", "DAPI"), (0.25, 0.25))
    assert is_image(path) and image_stem(path) == "a"


def test_the_order_of_axes_is_that_of_the_metadata(tmp_path):
    turned = PIXELS.transpose(1, 2, 0)
    decoded = decode_image(write_image(tmp_path / "a.zarr", turned, "yxc", unit="nanometer", scale=250.0))
    np.testing.assert_array_equal(decoded.channels, PIXELS)
    assert decoded.pixel_size_um == (0.25, 0.25)
    flat = decode_image(write_image(tmp_path / "b.zarr", PIXELS[0], "yx", unit=None))
    np.testing.assert_array_equal(flat.channels, PIXELS[:1])
    assert flat.pixel_size_um is None


def test_a_coarser_level_is_read_where_the_finest_is_too_large(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.zarr", PIXELS, "cyx", levels=3)
    monkeypatch.setattr(ome_zarr, "MAX_PIXELS", 2 * 30 * 25)
    decoded = decode_image(path)
    np.testing.assert_array_equal(decoded.channels, PIXELS[:, ::2, ::2])
    assert decoded.pixel_size_um == (0.5, 0.5) and "level 1 was read" in decoded.warnings[0]
    monkeypatch.setattr(ome_zarr, "MAX_PIXELS", 10)
    with pytest.raises(InputError, match="more than"):
        decode_image(path)


def test_what_is_no_plane_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a stack or a time series \(3 images along 'z'\)"):
        decode_image(write_image(tmp_path / "a.zarr", np.stack([PIXELS[0]] * 3), "zyx"))
    zarr.open_group(tmp_path / "plate.zarr", mode="w").attrs["plate"] = {}
    with pytest.raises(InputError, match="Of a plate, or of several images, give the folder of one"):
        decode_image(tmp_path / "plate.zarr")
    broken = write_image(tmp_path / "b.zarr", PIXELS, "cyx")
    (broken / "0/zarr.json").write_text("{")
    with pytest.raises(InputError, match="truncated or damaged"):
        decode_image(broken)
    (tmp_path / "plain").mkdir()
    assert not decode.is_zarr(tmp_path / "plain")


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.zarr", PIXELS, "cyx")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"deepgps\[scale\]"):
        decode_image(path)


def test_a_cell_is_loaded_from_a_folder(tmp_path):
    nucleus = (round_nucleus("one", 40).nucleus * 4000).astype(np.uint16)
    path = write_image(
        tmp_path / "cells.ome.zarr", np.stack([np.zeros_like(nucleus) + 7, nucleus]), "cyx", scale=0.206
    )
    cell = Cell.load(path, channel=1)
    assert (cell.name, cell.nucleus.shape) == ("cells", (208, 208))
    assert cell.nucleus[104, 104] > 0.5 > cell.nucleus[4, 4]
