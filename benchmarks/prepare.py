"""Speed and memory of `deepgps data prepare`: cutting fields into crops.

Run ``python benchmarks/prepare.py [--fields 80] [--memory-fields 50 500]``.

Fields are drawn in OpenCell's format, 600 x 600 px of two channels in uint16 with about 30 nuclei, a few
different ones under many names. Speed is fields a second with one process and with two, from when all have
started to the last field; efficiency is the second over twice the first. On a loaded
machine, look at processor time instead: per field, without start-up, all processes together.
Memory is the peak of the main process and of its largest worker, in new processes for each number of fields.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

EDGE, NUCLEI = 600, 30
DISTINCT = 12
"""Distinct fields; more are the same files under other names."""
AIM = 0.85


def draw_field(seed: int) -> NDArray[np.uint16]:
    """(2, H, W): nuclei of uneven brightness, and the cytoplasm around them."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((EDGE, EDGE))
    nuclei = np.zeros((EDGE, EDGE), np.float32)
    for row, col in rng.uniform(0, EDGE, (NUCLEI, 2)):
        inside = np.hypot(y - row, (x - col) * rng.uniform(0.7, 1.3)) < rng.uniform(26, 34)
        nuclei[inside] = rng.uniform(0.5, 1)
    nuclei = ndimage.gaussian_filter(nuclei, 2)
    cytoplasm = ndimage.gaussian_filter(nuclei, 15) * (1 - nuclei)
    noise = rng.normal(0, 30, (2, EDGE, EDGE))
    return np.asarray((400 + noise + 3000 * np.stack([nuclei, cytoplasm])).clip(0, 65535), np.uint16)


def write_fields(folder: Path, count: int) -> None:
    for number in range(min(DISTINCT, count)):
        path = folder / f"{number}.tif"
        if not path.exists():
            tifffile.imwrite(path, draw_field(number))
    names = "field,ensembl_gene_id,nucleus,nucleus_channel,protein,protein_channel,pixel_size_um"
    lines = [f"f{n},ENSG1,{n % DISTINCT}.tif,0,{n % DISTINCT}.tif,1,0.206349" for n in range(count)]
    (folder / f"{count}.csv").write_text("\n".join([names, *lines]) + "\n")
    pl.DataFrame({"protein_id": ["ENSG1"], "localizations": ["er"]}).write_parquet(
        folder / "proteins.parquet"
    )


def prepare_once(folder: Path, count: int, workers: int) -> dict[str, float]:
    """Cut fields in this process; return speed, processor time and memory."""
    from deepgps.datasets.crops.prepare import prepare_fields

    times = []
    with tempfile.TemporaryDirectory(dir=folder) as out:
        fields, proteins = folder / f"{count}.csv", folder / "proteins.parquet"
        done = prepare_fields(
            fields,
            proteins,
            Path(out),
            workers=workers,
            on_field=lambda *_: times.append(time.perf_counter()),
        )
    # The first fields of all workers come while the others are still starting.
    skip = min(4 * workers, count // 2)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peaks = [usage.ru_maxrss / 1024 for usage in usages]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    speed = (count - skip) / (times[-1] - times[skip - 1])
    return {"crops": done.crops, "cpu": cpu, "speed": speed, "main": peaks[0], "worker": peaks[1]}


def measure(folder: Path, count: int, workers: int) -> dict[str, float]:
    """Cut fields in a process of its own; return what `prepare_once` returns."""
    write_fields(folder, count)
    command = [sys.executable, __file__, "--measure", str(folder), str(count), str(workers)]
    # Threads of libraries would make one process look like two.
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **one_thread}, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fields", type=int, default=80)
    parser.add_argument("--memory-fields", type=int, nargs=2, default=(50, 500))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        folder, count, workers = options.measure
        print(json.dumps(prepare_once(Path(folder), int(count), int(workers))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_speed(folder, options.fields)
        print_memory(folder, options.memory_fields)


def print_speed(folder: Path, fields: int) -> None:
    warm_up = fields // 4
    (few_one, one), (few_two, two) = (
        [measure(folder, count, workers) for count in (warm_up, fields)] for workers in (1, 2)
    )
    cpu = [(many["cpu"] - few["cpu"]) / (fields - warm_up) for few, many in ((few_one, one), (few_two, two))]
    print(f"one process    {one['speed']:6.2f} fields/s, {one['crops']} crops of {fields} fields")
    print(f"two processes  {two['speed']:6.2f} fields/s")
    print(f"efficiency     {two['speed'] / one['speed'] / 2:6.2f} (aim: >= {AIM})")
    print(f"processors     {cpu[0]:6.3f} s a field in one process, {cpu[1]:.3f} s in two and the main one")
    print(f"efficiency     {cpu[0] / cpu[1]:6.2f} by the processors (aim: >= {AIM})")


def print_memory(folder: Path, counts: tuple[int, int]) -> None:
    few, many = (measure(folder, count, 2) for count in counts)
    for count, found in zip(counts, (few, many), strict=True):
        print(f"peak memory    {found['main']:.0f} MiB at {count} fields, a worker {found['worker']:.0f} MiB")
    print(f"growth         {many['main'] - few['main']:+6.0f} MiB in the main process (aim: flat)")


if __name__ == "__main__":
    main()
