"""Speed and memory of measuring labels of 62,108 crops, the paper's number.

Crops come in chunks of 1,000, of 1,301 proteins, with probabilities of 17 classes: the same for all crops of
a protein, as labels predicted from the sequence are, or different for every crop. Half, all and twice as many
crops are collected, which shows what grows; the report (1,000 resamples of every metric, on two levels, of
the model and both baselines) is made of all. Each row is a process of its own; time is processor time of one
core.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

CROPS, PROTEINS, CLASSES, CHUNK = 62_108, 1_301, 17, 1_000


def measure(crops: int, *, distinct: bool, reported: bool) -> dict[str, float]:
    """Seconds and MB of collecting crops and, if ``reported``, of the report."""
    from deepgps.evaluation.label_metrics import LabelCollector
    from deepgps.evaluation.labels import report_on

    rng = np.random.default_rng(0)
    base = rng.dirichlet(np.ones(CLASSES), PROTEINS)
    truth = (base > 0.15) | (rng.random(base.shape) < 0.05)
    names = np.array([f"P{number}" for number in range(PROTEINS)])
    collector = LabelCollector([f"c{number}" for number in range(CLASSES)], multi_label=True)
    before, started = megabytes(), time.process_time()
    for start in range(0, crops, CHUNK):
        rows = rng.integers(0, PROTEINS, min(CHUNK, crops - start))
        noise = rng.random((len(rows), CLASSES)) * 0.01 if distinct else 0
        collector.add(np.clip(base[rows] + noise, 0, 1), truth[rows], names[rows])
    found = {"collect_s": time.process_time() - started, "collect_mb": megabytes() - before}
    if reported:
        started = time.process_time()
        report_on(collector, by_cluster=False)
        found |= {"report_s": time.process_time() - started, "report_mb": megabytes() - before}
    return found


def megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lines_of(crops: int) -> list[str]:
    """Lines of a Markdown table, a row a process."""
    lines = [
        "| probabilities | crops | collected, crops/s | memory | report | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for distinct in (False, True):
        for count in (crops // 2, crops, 2 * crops):
            options = [
                "--one",
                str(count),
                *(["--distinct"] if distinct else []),
                *(["--report"] if count == crops else []),
            ]
            command = [sys.executable, __file__, *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            report = (
                f"{found['report_s']:.1f} s | +{found['report_mb']:.0f} MB" if count == crops else "– | –"
            )
            lines.append(
                f"| {'of every crop' if distinct else 'of every protein'} | {count:,} | "
                f"{count / found['collect_s']:,.0f} | +{found['collect_mb']:.0f} MB | {report} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--one", type=int, help="measure so many in this process and print JSON")
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/label_metrics.md"))
    options = parser.parse_args()
    if options.one:
        found = measure(options.one, distinct=options.distinct, reported=options.report)
        print(json.dumps(found))
        return
    about = (__doc__ or "").split("\n\n", 1)[1].strip()
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    machine = f"Measured {date} on {os.cpu_count()} cores, Python {platform.python_version()}."
    text = ["# Measuring labels: speed and memory", "", about, "", machine, "", *lines_of(options.crops)]
    options.out.write_text("\n".join(text) + "\n", "utf-8")
    print(options.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
