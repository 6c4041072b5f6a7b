"""Peak rate of this machine: floating-point operations per second of a large matrix product and convolution.

Run ``python benchmarks/peak.py [--threads N]``. The best of several rounds counts, in float32 and bfloat16;
seconds are processor time divided by the threads, so that other load on the cores matters little.
"""

import argparse
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ROUNDS = 8
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Workload = tuple[Callable[[], object], float]


def workloads_of(dtype: torch.dtype, device: torch.device) -> Mapping[str, Workload]:
    """Return a matrix product and a 3 x 3 convolution, each with its number of operations."""
    on_gpu = device.type == "cuda"
    edge, batch = (8192, 64) if on_gpu else (2048, 8)
    a, b = torch.randn(2, edge, edge, device=device, dtype=dtype)
    image = channels_last(torch.randn(batch, 256, 52, 52, device=device, dtype=dtype))
    weight = channels_last(torch.randn(256, 256, 3, 3, device=device, dtype=dtype))
    return {
        "matrices": (lambda: a @ b, 2.0 * edge**3),
        "convolution": (lambda: F.conv2d(image, weight, padding=1), 2.0 * image.numel() * 256 * 9),
    }


def channels_last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


def seconds(workload: Callable[[], object], device: torch.device) -> float:
    """Return seconds: wall-clock time on a GPU, else processor time per thread."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        workload()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    workload()
    return (time.process_time() - start) / torch.get_num_threads()


def peaks(dtype: torch.dtype, device: torch.device | None = None) -> dict[str, float]:
    """Return the operations per second of both workloads, the best of `ROUNDS`."""
    device = device or torch.device("cpu")
    with torch.inference_mode():
        found = {}
        for name, (workload, operations) in workloads_of(dtype, device).items():
            workload()
            found[name] = operations / min(seconds(workload, device) for _ in range(ROUNDS))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="threads of the processor; all cores by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}\n")
    print("| precision | matrices, GFLOP/s | convolution, GFLOP/s |\n|---|---|---|")
    for name, dtype in PRECISIONS.items():
        rates = " | ".join(f"{rate / 1e9:,.0f}" for rate in peaks(dtype, device).values())
        print(f"| {name} | {rates} |")


if __name__ == "__main__":
    main()
