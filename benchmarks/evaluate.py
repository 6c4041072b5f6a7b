"""Speed and memory of measuring images in an evaluation, at two sizes: metrics alone, no model.

This script makes the crops, and the "drawn" images are blurred nuclei, so that only measuring takes time.
Memory is the process's own (RssAnon), without cached pages of the crop store.

    python benchmarks/evaluate.py [--crops 200] [--times 10] [--out benchmarks/results]
"""

import argparse
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import ndimage

from deepgps.arrays import Bytes, Floats, Ints
from deepgps.datasets.crops.store import CropStore, open_crops, write_crops
from deepgps.evaluation.dataset import EvaluatedProtein, EvaluationDataset
from deepgps.evaluation.images.measure import ImageGenerator, measure_crops, open_measurements
from deepgps.evaluation.images.metrics import image_metrics
from deepgps.evaluation.images.reference import fit_training_reference
from deepgps.proteins.protein import Protein

SIZE, UM = 208, 0.206349
LOCALIZATIONS = ("nucleoplasm", "cytoplasmic")
PROTEINS = 40
TRAINING = 80
WHOLE = 62108
"""Crops of the paper's OpenCell dataset."""


def pair(place: int, rng: np.random.Generator) -> Bytes:
    """A round nucleus, and a mottled protein inside it or around."""
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2 - rng.uniform(-15, 15, 2)[:, None, None]
    distance = np.hypot(y, x)
    inside = distance < 42
    protein = np.where(~inside & (distance < 80) if place else inside, 0.6, 0.08)
    mottled = protein * (1 + ndimage.gaussian_filter(rng.normal(0, 4, protein.shape), 2))
    both = np.stack([np.where(inside, 0.8, 0.05), mottled]) + rng.normal(0, 0.02, (2, SIZE, SIZE))
    return np.asarray(np.clip(both, 0, 1) * 255, np.uint8)


def write_store(folder: Path, crops: int) -> CropStore:
    """Write test and training crops; the same few images again and again, or drawing takes longest."""
    rng = np.random.default_rng(0)
    kept = [pair(k % 2, rng) for k in range(TRAINING)]
    rows = ({"field": str(k), "split": "test"} for k in range(crops + TRAINING))
    write_crops(folder, (kept[k % TRAINING] for k in range(crops + TRAINING)), rows, {})
    return open_crops(folder)


def dataset_of(store: CropStore, crops: int) -> EvaluationDataset:
    """Crops in turn of some made-up proteins; the last ones train."""
    sequence = "MKVLAAGIVGLCAKWDEYHR"
    proteins = [
        EvaluatedProtein(Protein(f"P{k}", sequence), (LOCALIZATIONS[k % 2],)) for k in range(PROTEINS)
    ]
    protein_of, training_rows = np.arange(crops) % PROTEINS, np.arange(crops, crops + TRAINING)
    crop_classes, training_classes = (
        np.array(LOCALIZATIONS)[rows % 2] for rows in (protein_of, training_rows)
    )
    return EvaluationDataset(
        proteins=tuple(proteins),
        store=store,
        rows=np.arange(crops),
        protein_of=protein_of,
        groups=protein_of,
        crop_classes=crop_classes,
        training_rows=training_rows,
        training_classes=training_classes,
        left_out=(),
        notes=(),
    )


class BlurredNuclei(ImageGenerator):
    """Stands in for the model: draws the blurred nucleus, whatever the protein."""

    def __init__(self) -> None:
        self.pixel_size_um = UM

    def draw(self, nuclei: Floats, proteins: Ints) -> Floats:
        """Draw n nuclei (n, H, W)."""
        return np.asarray(ndimage.uniform_filter(nuclei, (0, 9, 9)))


def own_memory() -> int:
    """Return the anonymous memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


@contextmanager
def peak() -> Iterator[list[int]]:
    """Watch the memory while a block runs."""
    seen, stop = [own_memory()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            seen.append(own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def measure(crops: int) -> tuple[float, float, float, int]:
    """Seconds of wall clock and of processor for the crops, seconds for the metrics, and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = dataset_of(write_store(Path(folder) / "store", crops), crops)
        reference = fit_training_reference(dataset, UM)
        path = Path(folder) / "records"
        with peak() as seen:
            start, processor = time.perf_counter(), time.process_time()
            measure_crops(dataset, BlurredNuclei(), reference, path)
            wall, busy = time.perf_counter() - start, time.process_time() - processor
            start = time.perf_counter()
            image_metrics(open_measurements(path), dataset, reference)
            return wall, busy, time.perf_counter() - start, max(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    measure(40)  # What is loaded once is loaded now.
    lines = []
    for crops in (options.crops, options.crops * options.times):
        wall, busy, figures, memory = measure(crops)
        speeds = f"{crops / wall:.1f} | {crops / busy:.1f} | {figures:.1f} s"
        lines.append(f"| {crops:,} | {speeds} | {memory / 2**20:.0f} MiB |")
        print(lines[-1], file=sys.stderr)
    text = f"""# Evaluating images: speed and memory

{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}.
Metrics alone, on one thread: ten images of each crop measured, six of them read. The figures with their
intervals come after. Memory is the process's own, without pages of files. Other work on the machine shows in
the wall clock.

| crops | crops/s, wall clock | crops/s, processor time | figures | peak memory |
|---|---|---|---|---|
{chr(10).join(lines)}

At the speed of the processor, the {WHOLE:,} crops of the paper's OpenCell dataset take
{WHOLE / crops * busy / 3600:.1f} h of one core, without the drawing.
"""
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "evaluate.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
