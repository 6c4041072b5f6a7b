from pathlib import Path

import numpy as np
import pytest
import tifffile

from deepgps.errors import DeepGPSError
from deepgps.images.read import read_field
from deepgps.images.write import FULL_SCALE, write_ome_tiff

RNG = np.random.default_rng(0)
CHANNELS = {name: RNG.random((60, 70), dtype=np.float32) for name in ("nucleus", "protein_predicted")}


def test_reads_back_with_names_and_pixel_size(tmp_path: Path) -> None:
    write_ome_tiff(tmp_path / "a.ome.tif", CHANNELS, 0.206349)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].dtype) == ("CYX", np.uint16)
        values = tif.asarray()
        assert [f'Name="{name}"' in tif.ome_metadata for name in CHANNELS] == [True, True]
        assert tif.ome_metadata.count('="0.206349"') == 2
        assert tif.ome_metadata.count('Unit="µm"') == 2
    for stored, pixels in zip(values, CHANNELS.values(), strict=True):
        assert np.abs(stored / FULL_SCALE - pixels).max() < 0.51 / FULL_SCALE


def test_our_own_reader_finds_the_nucleus_channel(tmp_path: Path) -> None:
    write_ome_tiff(tmp_path / "a.ome.tif", dict(reversed(CHANNELS.items())), 0.2)
    field = read_field(tmp_path / "a.ome.tif")
    assert field.pixel_size_um == 0.2
    np.testing.assert_allclose(field.pixels / FULL_SCALE, CHANNELS["nucleus"], atol=1e-5)


def test_values_beyond_the_range_are_clipped(tmp_path: Path) -> None:
    write_ome_tiff(tmp_path / "a.ome.tif", {"x": np.array([[-1, 0], [1, 2]], np.float32)}, 0.2)
    assert tifffile.imread(tmp_path / "a.ome.tif").ravel().tolist() == [0, 0, FULL_SCALE, FULL_SCALE]


def test_equal_images_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_ome_tiff(tmp_path / name, CHANNELS, 0.2)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_replaces_what_is_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").write_bytes(b"old")
    write_ome_tiff(tmp_path / "a.ome.tif", CHANNELS, 0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tif"]
    assert tifffile.imread(tmp_path / "a.ome.tif").shape == (2, 60, 70)


def test_a_failure_keeps_the_old_file_and_no_part_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.ome.tif").write_bytes(b"old")
    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(DeepGPSError, match=r"a\.ome\.tif' cannot be written: No space left"):
        write_ome_tiff(tmp_path / "a.ome.tif", CHANNELS, 0.2)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DeepGPSError, match="cannot be written"):
        write_ome_tiff(tmp_path / "absent" / "a.ome.tif", CHANNELS, 0.2)
