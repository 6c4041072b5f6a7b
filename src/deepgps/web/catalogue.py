"""The models that are installed and the nuclei that ship, as a site offers them."""

import io
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from deepgps.bundle import METADATA_FILE, Bundle, installed_bundles, open_bundle
from deepgps.errors import BundleError
from deepgps.images.defaults import DEFAULT_NAMES, default_nucleus
from deepgps.proteins.embedding.prepared import encoders_folder
from deepgps.results.pictures import stretched


def models() -> dict[str, Bundle]:
    """Read the installed models by name; a damaged one is left out."""
    found = {}
    for name, path in installed_bundles().items():
        try:
            found[name] = _opened(path, _changed(path))
        except BundleError:
            continue
    return found


def hindrance(bundle: Bundle) -> str | None:
    """Say what keeps a model from being used on this site; None if nothing does."""
    encoder = bundle.metadata.encoder
    if encoder.structure_points is not None:
        return "looks at structures, which this site does not take"
    if encoder.kind == "esm2" and not (encoders_folder() / encoder.name).is_dir():
        return f"needs the language model '{encoder.name}', which is not prepared on this site"
    return None


def _changed(path: Path) -> int:
    file = path / METADATA_FILE if path.is_dir() else path
    return file.stat().st_mtime_ns


@lru_cache(maxsize=64)
def _opened(path: Path, changed: int) -> Bundle:
    # Verifying reads every byte: once for each version of a bundle is enough.
    return open_bundle(path)


@cache
def nucleus_png(name: str) -> bytes:
    """Draw a default nucleus, stretched for display."""
    if name not in DEFAULT_NAMES:
        raise KeyError(name)
    return grey_png(default_nucleus(name).pixels)


def grey_png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    """Draw an image, (H, W) in [0, 1], as a grey PNG, stretched for display."""
    return png(Image.fromarray((stretched(pixels) * 255).astype(np.uint8)))


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


# What the vocabulary's slugs are called on a page; others are shown with their underscores as blanks.
_SPOKEN: Mapping[str, str] = {
    "er": "ER",
    "golgi": "Golgi",
    "nucleolus_gc": "nucleolus (granular component)",
    "nucleolus_fc_dfc": "nucleolus (fibrillar centre)",
    "membrane": "plasma membrane",
    "cytoplasmic": "cytoplasm",
}


def spoken(slug: str) -> str:
    """Say a class for people."""
    return _SPOKEN.get(slug, slug.replace("_", " "))
