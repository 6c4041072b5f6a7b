"""Images as the Human Protein Atlas keeps them: a TIFF in gzip."""

import gzip
import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepgps.errors import InputError
from deepgps.images import decode
from deepgps.images.read import image_stem, read_field

PIXELS = np.arange(300 * 280, dtype=np.uint16).reshape(300, 280)


def packed(path, pixels=PIXELS, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    path.write_bytes(gzip.compress(file.getvalue()))
    return path


def test_a_gzipped_tiff_is_read_with_its_pixel_size(tmp_path):
    resolution = (1e4 / 0.08, 1e4 / 0.08)
    path = packed(tmp_path / "1_A1_1_blue.tif.gz", resolution=resolution, resolutionunit="CENTIMETER")
    field = read_field(path)
    assert (field.pixels == PIXELS).all()
    assert field.pixel_size_um == pytest.approx(0.08)
    assert field.source == str(path)


def test_a_gzipped_tiff_in_a_compression_of_its_own_is_read(tmp_path):
    file = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(file, "TIFF", compression="tiff_lzw")
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(file.getvalue()))
    assert (read_field(tmp_path / "a.tif.gz").pixels == PIXELS.astype(np.uint8)).all()


def test_a_gzipped_png_is_read(tmp_path):
    file = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(file, "PNG")
    (tmp_path / "a.png.gz").write_bytes(gzip.compress(file.getvalue()))
    assert read_field(tmp_path / "a.png.gz").pixels.shape == PIXELS.shape


@pytest.mark.parametrize("keep", [12, 1000, -4])
def test_a_gzip_that_broke_off_is_refused(tmp_path, keep):
    path = packed(tmp_path / "a.tif.gz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.tif\.gz' is truncated or damaged"):
        read_field(path)


def test_a_gzip_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"name,value\n"))
    with pytest.raises(InputError, match="not an image"):
        read_field(tmp_path / "a.gz")


def test_a_gzip_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="has more than 1,000 pixels"):
        read_field(packed(tmp_path / "a.tif.gz"))


def test_the_name_of_an_image_loses_both_endings():
    assert image_stem("images/8797/175_G3_1_blue.tif.gz") == "175_G3_1_blue"
