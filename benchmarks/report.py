"""Evaluate the model that ships on the data at hand: a report to look at, in ./report.

The test side of the reference images of U-2 OS cells, as `benchmarks/images.py` uses it, without what
needs the run that the model came from. The crops are cut from the images if they are not there.

    python benchmarks/report.py [--model deepgps-mini] [--crops runs/mini/crops] [--source opencell_tiles]
"""

import argparse
import tempfile
from pathlib import Path

from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import MANIFEST
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.evaluation.dataset import DatasetFiles
from deepgps.evaluation.evaluate import REPORT, evaluate
from deepgps.localization import class_set
from deepgps.prediction import Predictor
from image_figures import progress
from images import SOURCE
from stand_ins import paired_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepgps-mini")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--crops", type=Path, default=Path("runs/mini/crops"))
    parser.add_argument("--source", default=SOURCE, help="hpa_u2os_cells or opencell_tiles")
    parser.add_argument("--out", type=Path, default=Path("report"))
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    crop, classes = predictor.bundle.metadata.crop, class_set("mini")
    if not (options.crops / MANIFEST).exists():
        images = options.data / "images"
        prepare_reference_crops(images, options.crops, size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)
    proteins = load_labelled_proteins(options.data, classes)
    with tempfile.TemporaryDirectory() as folder:
        store = paired_store(options.crops, Path(folder) / options.source, proteins, classes, options.source)
        done = evaluate(predictor, DatasetFiles(store), options.out, on_progress=progress)
    for note in done.notes:
        print(f"Beware: {note}")
    print(options.out / REPORT)


if __name__ == "__main__":
    main()
