"""Batch normalisation with the statistics of all processes, on any device.

`torch.nn.SyncBatchNorm` works on GPUs only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


def synchronise(module: nn.Module) -> None:
    """Make every batch norm of a module normalise over all processes; names and values stay the same."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.__class__ = _SyncBatchNorm


class _Sum(torch.autograd.Function):
    """Sum over the processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Sum.forward(ctx, grads[0].contiguous())


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all processes, which must have equally many samples."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, …)."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() // values.shape[1] * dist.get_world_size()
        shape = [1, -1] + [1] * (values.ndim - 2)
        mean = _sum(values.sum(axes)) / count
        centred = values - mean.reshape(shape)
        variance = _sum(centred.square().sum(axes)) / count
        self._update_statistics(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(input.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total
