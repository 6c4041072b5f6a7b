"""What a run computes on: processes, GPUs or cores, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L  # noqa: N812
import torch
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.rank_zero import rank_zero_only

from deepgps.errors import DeepGPSError, InputError
from deepgps.training.joint.settings import TrainingSettings


def main_process() -> bool:
    """Whether this process is the one that writes, also before `start`."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def together() -> Iterator[None]:
    """End this process in a sentence where another one of the run has gone, whose own words say why.

    Raises
    ------
    DeepGPSError
        If another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        # What gloo says of a process that is gone has no type of its own.
        if "by peer" in str(error):
            raise DeepGPSError("Another process of the run has ended, and this one with it.") from None
        raise


def start(settings: TrainingSettings) -> L.Fabric:
    """Start the processes.

    Raises
    ------
    InputError
        If there are fewer GPUs than devices.
    """
    gpus, devices = torch.cuda.device_count(), settings.devices
    if 0 < gpus < devices:
        raise InputError(
            f"training.devices is {devices}, and this machine has {gpus} GPUs; set training.devices={gpus}."
        )
    several = devices * settings.nodes > 1
    if gpus:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    fabric = L.Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=devices,
        num_nodes=settings.nodes,
        # Statistics are the same everywhere already: they are summed in every step.
        strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if several else "auto",
        precision="bf16-mixed" if precision(settings) == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def precision(settings: TrainingSettings) -> str:
    """Say which precision a run computes in on this machine: ``float32`` or ``bfloat16``."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Not in every torch that we take; without it, it is slower and not wrong.
    units: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if units.get("amx_bf16") or units.get("avx512_bf16") else "float32"
