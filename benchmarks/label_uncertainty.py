"""How a benchmark of labels measures what the model says of its own sureness."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from deepgps.arrays import Ints
from deepgps.datasets.labels import LabelledProteins
from deepgps.evaluation.labels import LabelReport, Metric, label_report
from deepgps.proteins.check import sequence_warnings
from label_protocols import cell

COVERAGES = (1.0, 0.8, 0.6, 0.4)
"""Shares of the proteins, surest first, that the accuracy is told of."""
ALL_OF_THEM = "accuracy of the surest 100%"


def of_surest(
    chances: NDArray[np.floating],
    classes: Ints,
    names: tuple[str, ...],
    tested: LabelledProteins,
    bound: NDArray[np.floating],
) -> dict[str, Metric]:
    """Accuracy of the surest answers, by `COVERAGES`, and of those that are not unclear.

    Parameters
    ----------
    chances
        (n, C) probabilities.
    classes
        (n,) the true class of each.
    names
        The C classes.
    tested
        The proteins.
    bound
        (n,) the probability below which an answer is unclear.
    """
    highest = chances.max(1)
    order = np.argsort(-highest, kind="stable")
    chosen = {
        f"accuracy of the surest {share:.0%}": order[: round(share * len(order))] for share in COVERAGES
    }
    chosen["accuracy of what is not unclear"] = np.flatnonzero(highest >= bound)
    found = {}
    for name, rows in chosen.items():
        report = report_on(chances[rows], classes[rows], names, tested, rows)
        found[name] = report.metrics["protein/accuracy"]
    share = float((highest >= bound).mean())
    return found | {"share that is not unclear": Metric(value=share, n=len(highest))}


def report_on(
    chances: NDArray[np.floating],
    classes: Ints,
    names: tuple[str, ...],
    tested: LabelledProteins,
    rows: Ints,
) -> LabelReport:
    """Measure answers in a single-label set on some rows of the tested proteins."""
    return label_report(
        chances,
        np.eye(len(names))[classes],
        names,
        multi_label=False,
        proteins=tested.ids[rows],
        clusters=tested.cluster[rows],
    )


def coverage_table(
    found: Mapping[str, Mapping[str, Metric]], bounds: Mapping[str, NDArray[np.floating]]
) -> list[str]:
    """Lines of a Markdown table of `of_surest`, a column for each class set."""
    lines = [f"| surest first | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    spans = " | ".join(f"{bounds[name].min():.2f}–{bounds[name].max():.2f}" for name in found)
    lines.append(f"| unclear below | {spans} |")
    for row in next(iter(found.values())):
        lines.append(f"| {row} | {' | '.join(cell(each[row]) for each in found.values())} |")
    return lines


def shuffled(sequences: tuple[str, ...]) -> tuple[str, ...]:
    """The same residues in another order, by seed."""
    rng = np.random.default_rng(0)
    return tuple("".join(rng.permutation(list(text))) for text in sequences)


def doubted(
    sequences: tuple[str, ...],
    nearest: NDArray[np.floating],
    unlike_below: NDArray[np.floating],
    sets: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> Iterator[tuple[str, float]]:
    """Share of sequences that are noted as unlike everything or odd, and beside that unclear, by class set.

    ``sets`` holds the probabilities (n, C) of each class set and those (n,) below which it is unclear.
    """
    odd = np.array([bool(sequence_warnings(text, None)) for text in sequences])
    noted = odd | (nearest < unlike_below)
    yield "noted as unlike everything, short or of low complexity", float(noted.mean())
    for name, (chances, bound) in sets.items():
        unclear = chances.max(1) < bound
        yield f"unclear in {name}", float(unclear.mean())
        yield f"noted or unclear in {name}", float((noted | unclear).mean())


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Probabilities of a single-label set."""
    return np.asarray(softmax(logits, axis=1))
