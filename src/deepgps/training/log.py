"""The log of a training run: lines and a bar on stderr, ``metrics.csv``, TensorBoard, sample images."""

import csv
import io
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.utils.tensorboard import SummaryWriter

from deepgps.files import atomic_path
from deepgps.training.loop import EpochMetrics, Progress, Task

HISTORY, SAMPLES, TENSORBOARD = "metrics.csv", "samples", "tensorboard"


class TrainingLog:
    """The log of the main process; use it as a context manager.

    Parameters
    ----------
    task
        What is trained.
    folder
        Folder of the run.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.epochs, self.batches = task.settings.max_epochs, task.steps * task.accumulate
        terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        columns: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left at most"),
        )
        self._bar = Bar(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
        self._line = self._bar.add_task("training", total=None)
        self._board: SummaryWriter | None = None
        self._begun, self._training_s, self._done = time.monotonic(), 0.0, 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def begin(self, progress: Progress) -> None:
        """Continue the logs where the run is; drop what a killed run wrote after its checkpoint."""
        done = progress.epoch * self.batches + progress.batch
        self._bar.update(self._line, total=self.epochs * self.batches, completed=done)
        steps = progress.epoch * self.task.steps
        self._board = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=steps + 1)
        write_history(progress.history, self.folder / HISTORY)
        if done and progress.epoch < self.epochs:
            share = f", {100 * progress.batch // self.batches} % of the next" if progress.batch else ""
            self._bar.console.print(f"Continuing after {progress.epoch} of {self.epochs} epochs{share}.")
        self._begun = time.monotonic()

    def batch(self, progress: Progress) -> None:
        """Advance the bar by a batch."""
        self._done += 1
        self._training_s = time.monotonic() - self._begun
        self._bar.update(self._line, advance=1, description=f"epoch {progress.epoch + 1}/{self.epochs}")

    def epoch(self, progress: Progress, samples: Image.Image | None) -> None:
        """Log a finished epoch."""
        metrics = progress.history[-1]
        write_history(progress.history, self.folder / HISTORY)
        assert self._board is not None
        for name, value in metrics.items():
            if name not in ("epoch", "steps"):
                self._board.add_scalar(name.replace("_", "/", 1), value, int(metrics["steps"]))
        if samples is not None:
            _write_samples(samples, self.folder / SAMPLES / f"epoch-{progress.epoch:04d}.png")
            self._board.add_image("samples", np.asarray(samples), int(metrics["steps"]), dataformats="HWC")
        self._board.flush()
        self._bar.console.print(self._summary(progress, metrics))

    def _summary(self, progress: Progress, metrics: EpochMetrics) -> str:
        crops = self._done * self.task.settings.batch_size / self.task.accumulate
        # Also right for an epoch that was continued in its middle.
        whole = (time.monotonic() - self._begun) * self.batches / max(self._done, 1)
        left = timedelta(seconds=round(whole * (self.epochs - progress.epoch)))
        validation = ""
        if "validation_loss" in metrics:
            best = "" if self.task.best_metric is None or progress.stale else ", the best images so far"
            validation = f", validation loss {metrics['validation_loss']:.4f}{best}"
        return (
            f"epoch {progress.epoch}/{self.epochs}: training loss {metrics['train_loss']:.4f}{validation}; "
            f"{crops / max(self._training_s, 1e-9):.3g} crops/s, {left} left at most"
        )


def write_history(history: Sequence[EpochMetrics], path: Path) -> None:
    """Write the metrics of all epochs as CSV, in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]) if history else ["epoch"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with atomic_path(path) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8")


def _write_samples(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        image.save(draft, format="PNG")
