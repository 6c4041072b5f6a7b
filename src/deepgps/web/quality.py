"""A model's figures as a table: protocols side by side, baselines beside what they are baselines of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deepgps.bundle import Metric

_SUBJECT = re.compile(r"(?P<of>.*?)(?:, (?P<protocol>[AB]))?")
_FIGURE = re.compile(r"(?P<figure>.*?)(?: of the baseline '(?P<baseline>.*)')?")


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


def arranged(metrics: Mapping[str, Metric]) -> dict[str, Subject]:
    """Arrange a bundle's metrics by subject.

    They are named as ``SUBJECT, PROTOCOL: FIGURE of the baseline 'NAME'``, of which only the figure must be.
    """
    table: dict[str, Subject] = {}
    for name, metric in metrics.items():
        subject, _, rest = name.rpartition(": ")
        of, figure = _SUBJECT.fullmatch(subject), _FIGURE.fullmatch(rest)
        assert of and figure  # they match every line
        row = table.setdefault(of["of"], Subject()).figures.setdefault(figure["figure"], {})
        cell = row.setdefault(of["protocol"] or "", Cell())
        if figure["baseline"]:
            cell.baselines[figure["baseline"]] = metric
        else:
            cell.metric = metric
    return table
