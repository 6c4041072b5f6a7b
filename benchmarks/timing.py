"""What the parts of ``make bench`` share: proteins drawn by chance, works in turns, where figures go."""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from moved import ratio

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
# Share of each residue in Swiss-Prot, in per cent, rounded.
SHARES = (8, 1, 5, 7, 4, 7, 2, 6, 6, 10, 2, 4, 5, 4, 6, 7, 5, 7, 1, 3)
MEAN_LENGTH = 450
SEED = 0
TOGETHER = 8
"""Images of a batch, as `Predictor` takes them."""


def random_proteins(count: int) -> Iterable[Protein]:
    """Draw proteins, the same ones each time."""
    chance = random.Random(SEED)
    for number in range(count):
        length = max(20, round(chance.gammavariate(2, MEAN_LENGTH / 2)))
        yield Protein(f"R{number}", "M" + "".join(chance.choices(RESIDUES, SHARES, k=length - 1)))


class Figures:
    """What is measured, as it comes."""

    def __init__(self) -> None:
        self.ratios: dict[str, Any] = {}
        self.rates: dict[str, tuple[str, str]] = {}

    def rate(self, what: str, measured: str, aim: str = "") -> None:
        """Take down and print what the clock says."""
        self.rates[what] = measured, aim
        print(f"{what:<60}{measured:>20}   {aim and 'aim: ' + aim}", flush=True)

    def ratio(self, name: str, what: str, samples: Sequence[float], aim: str = "") -> None:
        """Take down and print a ratio, of which there is a sample for each round."""
        self.ratios[name] = ratio(samples, what, aim)
        span = f"({min(samples):.3g} to {max(samples):.3g})"
        median = f"{statistics.median(samples):.3g}"
        print(f"{what:<60}{median:>20}   {span}{aim and ', aim: ' + aim}", flush=True)


def cpu(work: Callable[[], object]) -> float:
    """Seconds of the processor, all threads together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each work, in each round one after the other, after one that is not counted."""
    took = [{name: cpu(work) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: [each[name] for each in took[1:]] for name in works}


@contextmanager
def runtime(name: str) -> Iterator[None]:
    """Choose what computes."""
    before = os.environ.get("DEEPGPS_RUNTIME")
    os.environ["DEEPGPS_RUNTIME"] = name
    try:
        yield
    finally:
        os.environ.pop("DEEPGPS_RUNTIME")
        if before is not None:
            os.environ["DEEPGPS_RUNTIME"] = before


def loaded(model: str, name: str) -> Predictor:
    """Load the model to be computed by a runtime, in one thread; its generator is opened now."""
    with runtime(name):
        predictor = Predictor.load(model, threads=1)
        _ = predictor._generator
        return predictor


def yardstick() -> int:
    """A piece of work for Python itself, about that of ten labels."""
    return sum(len(str(number)) for number in range(200_000))


def drawn(predictor: Predictor, count: int) -> None:
    """Draw so many images, as `Predictor` does it, without writing them."""
    latents = [each.latent for each in predictor.encode(list(random_proteins(TOGETHER)))]
    cells = [Cell.load("hek-1")] * TOGETHER
    for start in range(0, count, TOGETHER):
        some = slice(0, min(TOGETHER, count - start))
        predictor.draw(cells[some], latents[some])
