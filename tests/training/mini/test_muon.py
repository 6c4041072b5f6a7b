import pytest
import torch

from deepgps.training.mini.muon import MuonAdamW, orthogonal


def parameters(seed: int = 0) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    made = torch.Generator().manual_seed(seed)
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3, generator=made))
    return kernel, torch.nn.Parameter(torch.randn(5, generator=made))


def optimizer(kernel, other, **options) -> MuonAdamW:
    return MuonAdamW([kernel], [other], 1e-2, kernel_factor=10, **options)


def set_gradients(step: int, *each: torch.nn.Parameter, size: float = 0.1) -> None:
    made = torch.Generator().manual_seed(step)
    for parameter in each:
        parameter.grad = size * torch.randn(parameter.shape, generator=made)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_are_brought_near_to_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.35
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    agreement = (orthogonal(matrix) * (u @ v)).sum() / min(shape)
    assert agreement > 0.7


def test_what_is_no_kernel_is_trained_as_by_adamw():
    (kernel, other), (_, twin) = parameters(), parameters()
    mine, theirs = optimizer(kernel, other, most=1e9), torch.optim.AdamW([twin], 1e-2, weight_decay=0.01)
    for step in range(5):
        set_gradients(step, other)
        twin.grad = other.grad.clone()
        mine.step()
        theirs.step()
    torch.testing.assert_close(other, twin, atol=1e-6, rtol=1e-5)


def test_a_kernel_moves_alike_in_all_directions_whatever_the_size_of_its_gradient():
    moved = []
    for size in (1e-3, 1e-1):
        kernel, other = parameters()
        before = kernel.detach().clone()
        set_gradients(0, kernel, size=size)
        optimizer(kernel, other, weight_decay=0).step()
        moved.append((before - kernel.detach()).flatten(1))
    torch.testing.assert_close(*moved, atol=5e-3, rtol=0)  # computed in bfloat16
    values = torch.linalg.svdvals(moved[0]) / (10 * 1e-2)
    assert 0.5 < values.min() <= values.max() < 1.4


def test_large_gradients_are_scaled_together():
    kernel, other = parameters()
    set_gradients(0, kernel, other, size=100)
    ratio = kernel.grad.norm() / other.grad.norm()
    optimizer(kernel, other).step()
    assert torch.stack([kernel.grad.norm(), other.grad.norm()]).norm() == pytest.approx(1, rel=1e-4)
    assert kernel.grad.norm() / other.grad.norm() == pytest.approx(float(ratio), rel=1e-4)


def test_a_restored_optimizer_goes_on_as_the_first_would_have():
    ends = []
    for restored in (False, True):
        kernel, other = parameters()
        mine = optimizer(kernel, other)
        for step in range(4):
            if restored and step == 2:
                state = mine.state_dict()
                mine = optimizer(kernel, other)
                mine.load_state_dict(state)
            set_gradients(step, kernel, other)
            mine.step()
        ends.append((kernel.detach(), other.detach()))
    for one, two in zip(*ends, strict=True):
        assert torch.equal(one, two)
