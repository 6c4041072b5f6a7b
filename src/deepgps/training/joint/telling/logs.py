"""What a run tells while it trains: stderr, ``metrics.csv``, TensorBoard, sample images."""

import csv
import io
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.utils.tensorboard import SummaryWriter

from deepgps.files import atomic_path
from deepgps.training.joint.learning.checkpoint import Progress, Row
from deepgps.training.joint.learning.loop import Fit
from deepgps.training.joint.names import HISTORY
from deepgps.training.joint.telling.samples import draw_samples, sample_names, sample_rows, sheet, write_sheet

TENSORBOARD = "tensorboard"


class TrainingLog:
    """The log of the process that writes; use it as a context.

    Parameters
    ----------
    task
        What is trained.
    """

    def __init__(self, task: Fit) -> None:
        self.task = task
        self.rows = sample_rows(task.data, task.data.rows["validation"])
        self.names = sample_names(task, self.rows)
        terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left at most"),
            console=terminal,
            transient=True,
            disable=not terminal.is_terminal,
        )
        self._line = self._bar.add_task("training", total=None)
        self._board: SummaryWriter | None = None
        self._since, self._trained, self._parts = time.monotonic(), 0.0, 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def begin(self, progress: Progress, parts: int) -> None:
        """Take up the logs where the run is: what a killed one wrote beyond its checkpoint is dropped."""
        self.parts = parts
        epochs = self.task.recipe.training.max_epochs
        self._bar.update(self._line, total=epochs * parts, completed=progress.epoch * parts + progress.part)
        steps = progress.epoch * self.task.steps
        self._board = SummaryWriter(str(self.task.run / TENSORBOARD), purge_step=steps + 1)
        write_metrics(progress.history, self.task.run / HISTORY)
        if progress.epoch or progress.part:
            share = f", {100 * progress.part // parts} % of the next" if progress.part else ""
            self._bar.console.print(f"Going on after {progress.epoch} of {epochs} epochs{share}.")
        self._since = time.monotonic()

    def step(self, progress: Progress) -> None:
        """Move the bar on by a part of a batch."""
        epoch, epochs = progress.epoch + 1, self.task.recipe.training.max_epochs
        self._parts += 1
        self._trained = time.monotonic() - self._since
        self._bar.update(self._line, advance=1, description=f"epoch {epoch}/{epochs}")

    def epoch(self, progress: Progress) -> None:
        """Log a finished epoch, and draw the samples."""
        row = progress.history[-1]
        write_metrics(progress.history, self.task.run / HISTORY)
        drawn = sheet(draw_samples(self.task, self.rows), self.names)
        write_sheet(drawn, self.task.run, progress.epoch)
        assert self._board is not None
        for name, value in row.items():
            if name not in ("epoch", "steps"):
                self._board.add_scalar(name.replace("_", "/", 1), value, int(row["steps"]))
        self._board.add_image("samples", np.asarray(drawn), int(row["steps"]), dataformats="HWC")
        self._board.flush()
        self._bar.console.print(self._said(progress, row))
        self._since, self._parts = time.monotonic(), 0

    def _said(self, progress: Progress, row: Row) -> str:
        settings = self.task.recipe.training
        crops = self._parts * settings.batch_size / settings.accumulate / max(self._trained, 1e-9)
        # An epoch that was taken up in its middle says how long a whole one takes.
        whole = (time.monotonic() - self._since) * self.parts / max(self._parts, 1)
        left = timedelta(seconds=round(whole * (settings.max_epochs - progress.epoch)))
        best = "" if progress.stale else ", the best images yet"
        return (
            f"epoch {progress.epoch}/{settings.max_epochs}: training loss {row['train_loss']:.4f}, "
            f"validation loss {row['validation_loss']:.4f}{best}; {crops:.3g} crops/s, {left} left at most"
        )


class Silent:
    """The log of the other processes."""

    def begin(self, progress: Progress, parts: int) -> None:
        """Say nothing."""

    def step(self, progress: Progress) -> None:
        """Say nothing."""

    def epoch(self, progress: Progress) -> None:
        """Say nothing."""


def write_metrics(history: Sequence[Row], path: Path) -> None:
    """Write a row an epoch, every number as exact as it is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]) if history else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with atomic_path(path) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8")
