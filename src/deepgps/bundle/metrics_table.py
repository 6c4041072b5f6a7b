"""A model's figures as a table: protocols side by side, baselines beside what they are baselines of."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deepgps.bundle.metadata import Metric

HEADINGS: Mapping[str, str] = {"A": "without homologs (A)", "B": "with homologs (B)", "": "figure"}
"""What stands over the figures of a protocol."""

_SUBJECT = re.compile(r"(?P<of>.*?)(?:, (?P<protocol>[AB]))?", re.DOTALL)
_FIGURE = re.compile(r"(?P<figure>.*?)(?: of the baseline '(?P<baseline>.*)')?", re.DOTALL)


@dataclass(slots=True)
class Cell:
    """A figure under one protocol.

    Attributes
    ----------
    metric
        What was measured of the model; None where only a baseline was.
    baselines
        The same of what needs no model, by name.
    """

    metric: Metric | None = None
    baselines: dict[str, Metric] = field(default_factory=dict)


@dataclass(slots=True)
class Subject:
    """What was measured of one subject.

    Attributes
    ----------
    figures
        Cells by figure and protocol: ``A``, ``B``, or an empty text where there is none.
    """

    figures: dict[str, dict[str, Cell]] = field(default_factory=dict)

    @property
    def protocols(self) -> list[str]:
        """The protocols that any figure was measured under."""
        return sorted(set().union(*self.figures.values()))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Rows of text: what, a figure for each of `protocols`, and how many it was measured on.

        The baselines of a figure stand below it.
        """
        for what, cells in self.figures.items():
            here = [cells.get(protocol, Cell()) for protocol in self.protocols]
            yield _row(what, [each.metric for each in here])
            for name in dict.fromkeys(name for each in here for name in each.baselines):
                yield _row(f"baseline '{name}'", [each.baselines.get(name) for each in here])


def _row(what: str, metrics: list[Metric | None]) -> tuple[str, ...]:
    counts = dict.fromkeys(str(each.n) for each in metrics if each and each.n)
    return (what, *(shown(each) if each else "" for each in metrics), ", ".join(counts))


def shown(metric: Metric) -> str:
    """Write a figure with its interval, where it has one."""
    interval = f" [{metric.low:.3f}, {metric.high:.3f}]" if None not in (metric.low, metric.high) else ""
    return f"{metric.value:.3f}{interval}"


def arranged(metrics: Mapping[str, Metric]) -> dict[str, Subject]:
    """Arrange a bundle's metrics by subject.

    They are named as ``SUBJECT, PROTOCOL: FIGURE of the baseline 'NAME'``, of which only the figure must be.
    """
    table: dict[str, Subject] = {}
    for name, metric in metrics.items():
        subject, _, rest = name.rpartition(": ")
        of, figure = _SUBJECT.fullmatch(subject), _FIGURE.fullmatch(rest)
        assert of and figure  # they match every text
        row = table.setdefault(of["of"], Subject()).figures.setdefault(figure["figure"], {})
        cell = row.setdefault(of["protocol"] or "", Cell())
        if figure["baseline"]:
            cell.baselines[figure["baseline"]] = metric
        else:
            cell.metric = metric
    return table


def text_lines(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Set a bundle's metrics for a console, a block of each subject."""
    subjects = arranged(metrics)
    whats = [what for subject in subjects.values() for what, *_ in subject.rows()]
    width = max(map(len, (*whats, *subjects)), default=0)
    for name, subject in subjects.items():
        headings = [HEADINGS[each] for each in subject.protocols]
        yield _line((name, *headings, "n"), width + 2)
        yield from (f"  {_line(row, width)}" for row in subject.rows())


def _line(row: Sequence[str], width: int) -> str:
    what, *figures, count = row
    return (f"{what:<{width}}  " + "".join(f"{each:<24}" for each in figures) + count).rstrip()
