import io
from pathlib import Path

import numpy as np
import tifffile

from deepgps.images.read import read_field
from deepgps.images.write import FULL_SCALE, ome_tiff

RNG = np.random.default_rng(0)
CHANNELS = {name: RNG.random((60, 70), dtype=np.float32) for name in ("nucleus", "protein_predicted")}


def test_reads_back_with_names_and_pixel_size() -> None:
    with tifffile.TiffFile(io.BytesIO(ome_tiff(CHANNELS, 0.206349))) as tif:
        assert (tif.series[0].axes, tif.series[0].dtype) == ("CYX", np.uint16)
        values = tif.asarray()
        assert [f'Name="{name}"' in tif.ome_metadata for name in CHANNELS] == [True, True]
        assert tif.ome_metadata.count('="0.206349"') == 2
        assert tif.ome_metadata.count('Unit="µm"') == 2
    for stored, pixels in zip(values, CHANNELS.values(), strict=True):
        assert np.abs(stored / FULL_SCALE - pixels).max() < 0.51 / FULL_SCALE


def test_our_own_reader_finds_the_nucleus_channel(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").write_bytes(ome_tiff(dict(reversed(CHANNELS.items())), 0.2))
    field = read_field(tmp_path / "a.ome.tif")
    assert field.pixel_size_um == 0.2
    np.testing.assert_allclose(field.pixels / FULL_SCALE, CHANNELS["nucleus"], atol=1e-5)


def test_values_beyond_the_range_are_clipped() -> None:
    content = ome_tiff({"x": np.array([[-1, 0], [1, 2]], np.float32)}, 0.2)
    assert tifffile.imread(io.BytesIO(content)).ravel().tolist() == [0, 0, FULL_SCALE, FULL_SCALE]


def test_equal_images_give_equal_files() -> None:
    assert ome_tiff(CHANNELS, 0.2) == ome_tiff(CHANNELS, 0.2)
