"""The optimizer of the networks that draw: Muon for kernels of convolutions, AdamW for everything else."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

BETAS, EPSILON = (0.9, 0.999), 1e-8


class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982) over kernels, AdamW over the rest.

    Muon is momentum whose every update is made orthogonal: a kernel (O, I, H, W) is a matrix (O, I H W), and
    of the momentum only the singular vectors are kept, so that all directions in which the kernel can change
    are changed alike. `torch.optim.Muon` takes matrices only.

    Parameters
    ----------
    kernels, others
        The parameters of Muon and of AdamW.
    lr
        Learning rate of AdamW.
    kernel_factor
        Learning rate of Muon, in learning rates of AdamW.
    momentum
        Decay of Muon's momentum, which is Nesterov's.
    weight_decay
        Share of a weight that is lost in a step, in learning rates.
    most
        Norm of all gradients together to which larger ones are scaled.
    """

    def __init__(
        self,
        kernels: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        kernel_factor: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        most: float = 1.0,
    ) -> None:
        groups = [
            {"params": list(kernels), "muon": True, "factor": kernel_factor},
            # The state of a fused optimizer counts its steps on the device of the parameters.
            {"params": list(others), "muon": False, "factor": 1.0, "fused": True},
        ]
        self.most = most
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        trained = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        torch.nn.utils.clip_grad_norm_(trained, self.most)
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if group["muon"]:
                self._step_kernels(parameters, group)
            elif parameters:
                self._step_others(parameters, group)

    def _step_kernels(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        rate = group["lr"] * group["factor"]
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            if not state:
                state["momentum"] = torch.zeros_like(kernel)
            state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
            update = kernel.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
            scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
            kernel.mul_(1 - rate * group["weight_decay"])
            kernel.add_(orthogonal(update).view_as(kernel), alpha=-rate * scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for each in parameters:
            if not self.state[each]:
                self.state[each]["step"] = torch.zeros((), device=each.device)
                self.state[each] |= {name: torch.zeros_like(each) for name in ("first", "second")}
        states = [self.state[each] for each in parameters]
        adamw(
            parameters,
            [each.grad for each in parameters if each.grad is not None],
            [state["first"] for state in states],
            [state["second"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=group["lr"] * group["factor"],
            weight_decay=group["weight_decay"],
            eps=EPSILON,
            maximize=False,
        )


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of a matrix (N, M) to between 0.7 and 1.2, by Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    found: Tensor = (matrix.T if tall else matrix).bfloat16()
    found = found / (found.norm() + 1e-7)
    for _ in range(steps):
        square = found @ found.T
        found = 3.4445 * found + (-4.7750 * square + 2.0315 * square @ square) @ found
    return (found.T if tall else found).to(matrix.dtype)
