"""TIFFs that unpack to more than they declare."""

import io
import lzma
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_web_security import draw, image
from visitor import error_of

from deepgps.errors import InputError
from opengps.settings import Settings
from opengps.uploads import check_image, declared_tiff_pixels

SETTINGS = Settings(max_image_planes=4)
EDGE = 64
LIES = "unpacks to more than it declares"


def tiff(piece, compression, *, edge=EDGE, tile=None, claimed=None):
    """Return a little-endian grey 8-bit TIFF with one strip or tile of any content."""
    place = {322: tile, 323: tile, 324: 8, 325: len(piece)} if tile else {273: 8, 278: edge, 279: len(piece)}
    tags = {256: edge, 257: claimed or edge, 258: 8, 259: compression, 262: 1, 277: 1, **place}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = 8 + len(piece)
    return b"II*\0" + struct.pack("<I", start) + piece + struct.pack("<H", len(tags)) + entries + bytes(4)


def packbits(size):
    return b"\x81\0" * (size // 128)


PACKERS = {
    8: zlib.compress,
    32946: zlib.compress,
    34925: lzma.compress,
    32773: lambda data: packbits(len(data)),
}


@pytest.mark.parametrize("compression", PACKERS)
def test_a_correct_strip_passes_and_a_bomb_does_not(compression):
    pack = PACKERS[compression]
    honest = tiff(pack(bytes(EDGE * EDGE)), compression)
    assert declared_tiff_pixels(Path("a.tif"), honest, SETTINGS) == EDGE * EDGE
    assert tifffile.imread(io.BytesIO(honest)).shape == (EDGE, EDGE)
    bomb = tiff(pack(bytes(20_000_000)), compression)
    assert len(bomb) < 400_000
    with pytest.raises(InputError, match=LIES):
        declared_tiff_pixels(Path("a.tif"), bomb, SETTINGS)


def test_noise_passes_although_compression_makes_it_larger():
    noise = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE), np.uint8).tobytes()
    for packed in (zlib.compress(noise, 0), lzma.compress(noise)):
        assert len(packed) > len(noise)
    assert declared_tiff_pixels(Path("a.tif"), tiff(zlib.compress(noise, 0), 8), SETTINGS) == EDGE * EDGE
    assert declared_tiff_pixels(Path("a.tif"), tiff(lzma.compress(noise), 34925), SETTINGS) == EDGE * EDGE


def test_a_strip_that_is_too_large_is_not_read():
    with pytest.raises(InputError, match=LIES):
        declared_tiff_pixels(Path("a.tif"), tiff(bytes(1_000_000), 8), SETTINGS)


def test_a_tile_that_is_larger_than_its_image_counts_in_full():
    huge = tiff(zlib.compress(bytes(1000)), 8, tile=65_536)
    with pytest.raises(InputError, match="pixels"):
        check_image(Path("a.tif"), huge, SETTINGS)


def test_damage_is_reported():
    with pytest.raises(InputError, match="truncated or damaged"):
        check_image(Path("a.tif"), tiff(b"no deflate at all", 8), SETTINGS)


def test_planes_are_limited():
    def stack(planes):
        content = io.BytesIO()
        tifffile.imwrite(content, np.zeros((planes, 16, 16), np.uint8), photometric="minisblack")
        return content.getvalue()

    assert declared_tiff_pixels(Path("a.tif"), stack(4), SETTINGS) > 0
    with pytest.raises(InputError, match="more than 4 planes"):
        declared_tiff_pixels(Path("a.tif"), stack(5), SETTINGS)


def test_the_error_is_shown_to_the_visitor(visitor):
    bomb = tiff(zlib.compress(bytes(50_000_000)), 8, edge=208)
    assert LIES in error_of(draw(visitor, "a.tif", bomb), 422)["message"]
    for kwargs in (
        {"compression": "zlib"},
        {"compression": "zlib", "tile": (64, 64)},
        {"predictor": True, "compression": "zlib"},
    ):
        content = io.BytesIO()
        tifffile.imwrite(content, np.asarray(Image.open(io.BytesIO(image()))), **kwargs)
        assert draw(visitor, "a.tif", content.getvalue()).status_code == 202


def test_an_animation_is_refused(visitor):
    frames = [Image.open(io.BytesIO(image())), Image.new("L", (208, 208), 9)]
    content = io.BytesIO()
    frames[0].save(content, "PNG", save_all=True, append_images=frames[1:])
    assert "2 frames" in error_of(draw(visitor, "a.png", content.getvalue()), 422)["message"]


@pytest.mark.slow
def test_a_bomb_costs_no_memory():
    """Half a gigabyte in half a megabyte is refused by a process with less memory."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy, tifffile, PIL.Image\n"
        "from opengps.uploads import check_image; from opengps.settings import Settings\n"
        "from deepgps.errors import InputError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)\n"
        "try: check_image(Path('a.tif'), sys.stdin.buffer.read(), Settings())\n"
        "except InputError as error: print(error)"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("finds its memory in /proc")
    bomb = tiff(zlib.compress(bytes(500_000_000), 9), 8)
    done = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, timeout=120)
    assert LIES in done.stdout.decode(), done.stderr.decode()
