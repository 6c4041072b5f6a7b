r"""Measure the images of a checkpoint or of a bundle, and write a report.

    python experiments/deepgps-mini/images/measure_images.py --data runs/images/structure.npz \
        --read-back runs/images/read_back.pt --checkpoint runs/images/structure/checkpoints/last.ckpt \
        --out runs/report.md

``--bundle deepgps-mini`` measures a bundle instead, ``--real`` the real images.
"""

import argparse
import time
from pathlib import Path

import read_back
import torch
from measuring import Report, measure_mean_images, measure_model, measure_real_images

from deepgps.training.mini.image_pack import ImagePack
from models import Bundled, Checkpoint, Model


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/images/structure.npz"))
    parser.add_argument("--read-back", type=Path, default=Path("runs/images/read_back.pt"))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--bundle")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--mean", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("runs/images/report.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    pack, network = ImagePack.load(options.data), read_back.load(options.read_back)
    began = time.process_time()
    name = "real images"
    if options.real:
        report = Report(measure_real_images(pack, network), "")
    else:
        model: Model = (
            Checkpoint(options.checkpoint, pack, steps=options.steps, guidance=options.guidance)
            if options.checkpoint
            else Bundled(options.bundle, pack)
        )
        name = model.name
        if options.mean:
            report = Report(measure_mean_images(model, pack), "")
        else:
            report = measure_model(model, pack, network, quick=options.quick)
    lines = [f"# {name}", ""]
    for figure, metric in report.figures.items():
        interval = "" if metric.low is None else f" [{metric.low:.3f}, {metric.high:.3f}]"
        lines.append(f"- {figure}: {metric.value:.3f}{interval} (n {metric.n})")
    text = "\n".join([*lines, "", report.table, f"\n{time.process_time() - began:.0f} s of one core\n"])
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
