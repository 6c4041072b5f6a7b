"""Weights whose batch norms were folded into their convolutions, back into a network that has them.

A bundle's graphs are folded; a network is trained with its batch norms. They are given the statistics of the
crops at hand, and such factors that the network predicts what the folded one does.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

_Norm = nn.BatchNorm1d | nn.BatchNorm2d


class _Seen:
    """Mean and variance (C,) of what goes into a batch norm, over all that it was shown."""

    def __init__(self, norm: _Norm) -> None:
        self.norm, self.count = norm, 0
        self.sum, self.squares = (torch.zeros(norm.num_features, dtype=torch.float64) for _ in range(2))

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].detach().double().transpose(0, 1).flatten(1)
        self.count += values.shape[1]
        self.sum += values.sum(1)
        self.squares += values.square().sum(1)

    def settle(self) -> None:
        """Take the statistics over, and undo them by weight and bias."""
        norm, mean = self.norm, self.sum / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        bias = norm.bias.double() + mean
        _fill(norm, mean, variance, torch.sqrt(variance + norm.eps), bias)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], predict: Callable[[], object]) -> None:
    """Load weights of a network, folded or not; it is left ready to predict.

    Parameters
    ----------
    module
        The network, on the CPU.
    weights
        Its weights, or those after `deepgps.training.graphs.condensed`.
    predict
        Lets the network predict on some of the crops that it will be trained on; called if they are folded.

    Raises
    ------
    RuntimeError
        If the weights are of another network.
    """
    module.eval()
    folded = dict(_folded(module, weights))
    rest = {name: value for name, value in weights.items() if name not in folded}
    for name, norm in folded.items():
        shift = weights[name]
        _fill(
            norm,
            torch.zeros_like(shift),
            torch.ones_like(shift),
            shift.new_full((), 1 + norm.eps).sqrt(),
            shift,
        )
    norms = {id(each) for norm in folded.values() for each in norm.state_dict(keep_vars=True).values()}
    own = {name: each for name, each in module.state_dict(keep_vars=True).items() if id(each) in norms}
    module.load_state_dict(rest | own)
    if folded:
        _settle(list(folded.values()), predict)


def _folded(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, _Norm]]:
    """Find the biases that were batch norms, each with the norm that it was."""
    for name, chain in module.named_modules():
        if isinstance(chain, nn.Sequential):
            prefix = f"{name}." if name else ""
            for number, (layer, norm) in enumerate(pairwise(chain)):
                bias = f"{prefix}{number}.bias"
                if isinstance(norm, _Norm) and layer.bias is None and bias in weights:
                    yield bias, norm


def _settle(norms: list[_Norm], predict: Callable[[], object]) -> None:
    seen = [_Seen(norm) for norm in norms]
    handles = [each.norm.register_forward_pre_hook(each) for each in seen]
    try:
        with torch.no_grad():
            predict()
    finally:
        for handle in handles:
            handle.remove()
    for each in seen:
        each.settle()


def _fill(norm: _Norm, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        for own, value in zip(
            (norm.running_mean, norm.running_var, norm.weight, norm.bias),
            (mean, variance, weight, bias),
            strict=True,
        ):
            own.copy_(value)
