"""Draw the images of the home page: ``python -m opengps.gallery``."""

from pathlib import Path

import numpy as np
from PIL import Image

from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.proteins.reading import read_protein_file
from deepgps.results.images import overlay, stretched
from opengps.examples import GALLERY, example_path


def draw_gallery(folder: Path) -> list[Path]:
    """Draw each example protein into the first default nucleus, as WebP; return the files."""
    drawn = []
    examples = [each for each in read_protein_file(example_path()) if isinstance(each, Protein)]
    for prediction in Predictor.load().predict(each for each in examples if each.id in GALLERY):
        assert prediction.cell is not None and prediction.image is not None
        pixels = overlay(stretched(prediction.cell.nucleus), stretched(prediction.image))
        file = folder / f"{prediction.protein.id}.webp"
        Image.fromarray(np.ascontiguousarray(pixels)).resize((416, 416), Image.Resampling.BICUBIC).save(
            file, quality=80
        )
        drawn.append(file)
    return drawn


if __name__ == "__main__":
    for written in draw_gallery(Path(__file__).parent / "static" / "gallery"):
        print(written)
