import pytest
import torch

from deepgps.training.loop import learning_rate, one_cycle
from deepgps.training.recipe import TrainingSettings


def rates(steps_per_epoch=10, **fields):
    settings = TrainingSettings(max_epochs=10, learning_rate=1.0, **fields)
    return [learning_rate(settings, step, steps_per_epoch) for step in range(10 * steps_per_epoch)]


def test_the_papers_falls_by_a_factor_each_epoch():
    found = rates(schedule="exponential", gamma=0.9, warm_up=0)
    assert found[:10] == [1.0] * 10
    assert found[10:20] == pytest.approx([0.9] * 10)
    assert found[-1] == pytest.approx(0.9**9)


def test_a_cosine_rises_and_falls_to_nothing():
    found = rates(schedule="cosine", warm_up=0.1)
    assert found[:11] == sorted(found[:11])
    assert found[0] == pytest.approx(1 / 11)
    assert max(found) == found[10] == pytest.approx(1)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0 < found[-1] < 0.001


def test_a_constant_one_stays_after_its_rise():
    found = rates(schedule="constant", warm_up=0.05)
    assert found[5:] == [1.0] * 95
    assert found[0] < found[4] < 1


def test_a_run_of_one_step_learns():
    settings = TrainingSettings(max_epochs=1, learning_rate=1.0, warm_up=0.9)
    assert learning_rate(settings, 0, 1) > 0.3


@pytest.mark.parametrize("warm_up", [0.051, 0.1])
@pytest.mark.parametrize("steps", [1, 3, 19, 21, 200])
def test_one_cycle_is_that_of_torch(steps, warm_up):
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], 0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps, pct_start=warm_up)
    for step in range(steps):
        (group,) = optimizer.param_groups
        assert one_cycle(0.3, step, steps, warm_up) == {"lr": group["lr"], "betas": group["betas"]}
        if step + 1 < steps:
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("steps", [1, 10, 20])
def test_one_cycle_has_a_rate_for_every_step(steps):
    for warm_up in (0.05, 0.1):
        rates = [one_cycle(1.0, step, steps, warm_up)["lr"] for step in range(steps)]
        assert 0 < min(rates) <= max(rates) <= 1
