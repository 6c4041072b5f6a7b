"""The learning rate of every step, as a function of the step alone, so that nothing of it need be kept."""

import math
from typing import Protocol


class ScheduleSettings(Protocol):
    """What decides the learning rate; `TrainingSettings` documents it."""

    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def schedule(self) -> str: ...  # noqa: D102
    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def warm_up(self) -> float: ...  # noqa: D102
    @property
    def max_epochs(self) -> int: ...  # noqa: D102


def learning_rate(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0 over all epochs.

    It rises over the share ``warm_up`` of all steps and then follows the schedule: a cosine to 0 at the end,
    a factor ``gamma`` after each epoch, or none.
    """
    total = settings.max_epochs * steps_per_epoch
    rising = round(settings.warm_up * total)
    rise = min(1.0, (step + 1) / (rising + 1))
    if settings.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * max(0, step - rising) / max(1, total - rising)))
    elif settings.schedule == "exponential":
        fall = settings.gamma ** (step // steps_per_epoch)
    else:
        fall = 1.0
    return settings.learning_rate * rise * fall
