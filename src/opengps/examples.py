"""The example proteins, and their images on the home page: ``python -m opengps.examples`` draws these."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import deepgps.examples

GALLERY: Mapping[str, str] = {
    "PCNA": "nucleoplasm",
    "NPM1": "nucleolus",
    "GAPDH": "cytoplasm",
    "CALR": "ER",
    "TUBA1A": "cytoskeleton",
    "COX4I1": "mitochondria",
}
"""The examples on the home page, and the localization that each stands for."""
_SIZE_PX, _QUALITY = 416, 80


def example_path() -> Path:
    """Return the path of the example proteins, a FASTA file."""
    return Path(deepgps.examples.__path__[0]) / "proteins.fasta"


@cache
def example_fasta() -> str:
    """Read the example proteins."""
    return example_path().read_text(encoding="utf-8")


def draw_gallery(folder: Path) -> list[Path]:
    """Draw each example protein into the first default nucleus, as WebP; return the files."""
    import numpy as np
    from PIL import Image

    from deepgps.prediction import Predictor
    from deepgps.proteins.protein import Protein
    from deepgps.proteins.reading import read_protein_file
    from deepgps.results.labelled_images import overlay, stretch

    files = []
    examples = [each for each in read_protein_file(example_path()) if isinstance(each, Protein)]
    for prediction in Predictor.load().predict(each for each in examples if each.id in GALLERY):
        assert prediction.cell is not None and prediction.image is not None
        pixels = overlay(stretch(prediction.cell.nucleus), stretch(prediction.image))
        image = Image.fromarray(np.ascontiguousarray(pixels))
        file = folder / f"{prediction.protein.id}.webp"
        image.resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BICUBIC).save(file, quality=_QUALITY)
        files.append(file)
    return files


if __name__ == "__main__":
    for written in draw_gallery(Path(__file__).parent / "static" / "gallery"):
        print(written)
