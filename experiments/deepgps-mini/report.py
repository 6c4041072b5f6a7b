"""Evaluate the shipped model on the data at hand and write the report to ``report``.

    python experiments/deepgps-mini/report.py [--model deepgps-mini] [--source opencell_tiles]

The test crops are those of ``measure.py images``. They are cut from the reference images if they are missing.
"""

import argparse
import tempfile
from pathlib import Path

from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import CROPS_MANIFEST
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.evaluation.evaluate import REPORT, evaluate
from deepgps.localization import class_set
from deepgps.prediction import Predictor
from evaluation_store import write_evaluation_store
from image_quality import OPENCELL, U2OS, show_progress


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="deepgps-mini")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--crops", type=Path, default=Path("runs/mini/crops"))
    parser.add_argument("--source", default=U2OS, choices=(U2OS, OPENCELL))
    parser.add_argument("--out", type=Path, default=Path("report"))
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    crop, classes = predictor.bundle.metadata.crop, class_set("mini")
    if not (options.crops / CROPS_MANIFEST).exists():
        images = options.data / "images"
        prepare_reference_crops(images, options.crops, size_px=crop.size_px, pixel_size_um=crop.pixel_size_um)
    proteins = load_labelled_proteins(options.data, classes)
    with tempfile.TemporaryDirectory() as folder:
        store = write_evaluation_store(
            options.crops, Path(folder) / options.source, proteins, classes, options.source
        )
        done = evaluate(predictor, store, options.out, on_progress=show_progress)
    for note in done.notes:
        print(f"Warning: {note}")
    print(options.out / REPORT)


if __name__ == "__main__":
    main()
