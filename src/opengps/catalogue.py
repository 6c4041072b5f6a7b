"""The models that are installed and the nuclei that ship, as a site offers them."""

import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from deepgps.bundle import (
    DEFAULT_MODEL,
    METADATA_FILE,
    Bundle,
    BundleMetadata,
    CropSpec,
    installed_bundles,
    open_bundle,
    with_class_set,
)
from deepgps.errors import BundleError
from deepgps.images.cell import Cell
from deepgps.proteins.embedding import encoders_folder
from deepgps.results.images import stretched
from opengps.problems import Problem, not_found


def models() -> dict[str, Bundle]:
    """Read the choices of model by name: those installed, and each in its further class sets, ``NAME:SET``.

    A damaged one is left out.
    """
    found: dict[str, Bundle] = {}
    for name, path in installed_bundles().items():
        try:
            found |= _choices(name, path, _changed(path))
        except (BundleError, OSError):
            continue
    return found


def find_model(name: str, where: str) -> Bundle:
    """Find a choice of model.

    Raises
    ------
    RefusedError
        404 if there is none of that name.
    """
    found = models().get(name)
    if found is None:
        raise not_found(f"Model '{name[:80]}' is not installed.", where)
    return found


def crop_of(model: str) -> CropSpec | None:
    """Tell what a model draws into; None where none is named.

    Raises
    ------
    RefusedError
        404 if there is no such model.
    """
    return find_model(model, "model").metadata.crop if model else None


def preferred(name: str = "") -> str | None:
    """Choose a model that can be used here: the one asked for, the default, or any; None where none can."""
    usable = [each for each, bundle in models().items() if hindrance(bundle) is None]
    return next((each for each in (name, DEFAULT_MODEL, *usable) if each in usable), None)


def refusal(name: str) -> Problem | None:
    """Say why a model cannot be asked for; None if it can."""
    installed = models()
    if name not in installed:
        known = ", ".join(installed) or "none"
        said = f"Model '{name[:80]}' is not installed; there is: {known}."
        return Problem(code="unknown_model", message=said, where="model")
    if reason := hindrance(installed[name]):
        said = f"Model '{name}' {reason}; choose another."
        return Problem(code="unusable_model", message=said, where="model")
    return None


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
def _choices(name: str, path: Path, changed: int) -> Mapping[str, Bundle]:
    # Verifying reads every byte: once for each version of a bundle is enough.
    bundle = open_bundle(path)
    further = {f"{name}:{each}": with_class_set(bundle, each) for each in bundle.metadata.class_sets}
    return {name: bundle, **further}


@lru_cache(maxsize=256)
def nucleus_for(name: str, crop: CropSpec | None) -> Cell:
    """Read a default nucleus at the size and scale of a model's crops; as it ships where that is None."""
    cell = Cell.load(name)
    if crop is None:
        return cell
    return cell.resampled(size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)


@lru_cache(maxsize=256)
def nucleus_png(name: str, crop: CropSpec | None) -> bytes:
    """Draw the nucleus of `nucleus_for`, stretched for display."""
    return grey_png(nucleus_for(name, crop).nucleus)


def grey_png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    """Draw an image, (H, W) in [0, 1], as a grey PNG, stretched for display."""
    return png(Image.fromarray((stretched(pixels) * 255).astype(np.uint8)))


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    # A third of the time of the usual 6, for a twentieth more bytes: a page of results has fifty.
    image.save(buffer, format="PNG", compress_level=1)
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


_FEW = 4


def predicts(metadata: BundleMetadata) -> str:
    """Say in a plain phrase what a model tells of a protein."""
    words, count = [spoken(slug) for slug in metadata.classes], len(metadata.classes)
    if not words:
        return "an image, no label"
    if count > _FEW:
        most = f"{count} places in the cell"
        return f"any of {most}, several at once" if metadata.multi_label else f"one of {most}"
    listed = " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
    return f"{listed}, or several of them" if metadata.multi_label and count > 1 else listed
