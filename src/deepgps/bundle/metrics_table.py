"""A bundle's metrics as tables: protocols in columns, and baselines below the model."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deepgps.bundle.metadata import Metric

HEADINGS: Mapping[str, str] = {"A": "without homologs (A)", "B": "with homologs (B)", "": "figure"}
"""Column headings of the protocols."""

_GROUP = re.compile(r"(?P<group>.*?)(?:, (?P<protocol>[AB]))?", re.DOTALL)
_METRIC = re.compile(r"(?P<metric>.*?)(?: of the baseline '(?P<baseline>.*)')?", re.DOTALL)


@dataclass(slots=True)
class MetricCell:
    """A metric under one protocol.

    Attributes
    ----------
    metric
        The model's value; None if only baselines were measured.
    baselines
        The values of baselines, by name.
    """

    metric: Metric | None = None
    baselines: dict[str, Metric] = field(default_factory=dict)


@dataclass(slots=True)
class MetricGroup:
    """The metrics of one evaluation, such as that of a class set.

    Attributes
    ----------
    metrics
        Cells by metric and protocol: ``A``, ``B``, or an empty string if there are no protocols.
    """

    metrics: dict[str, dict[str, MetricCell]] = field(default_factory=dict)

    @property
    def protocols(self) -> list[str]:
        """All protocols of the group."""
        return sorted(set().union(*self.metrics.values()))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield rows of text, with baselines below the model.

        Yields
        ------
        tuple of str
            Name of the metric or baseline, its value under each protocol, and the number of samples.
        """
        for name, by_protocol in self.metrics.items():
            cells = [by_protocol.get(protocol, MetricCell()) for protocol in self.protocols]
            yield _row(name, [cell.metric for cell in cells])
            for baseline in dict.fromkeys(baseline for cell in cells for baseline in cell.baselines):
                yield _row(f"baseline '{baseline}'", [cell.baselines.get(baseline) for cell in cells])


def _row(name: str, metrics: list[Metric | None]) -> tuple[str, ...]:
    counts = dict.fromkeys(str(each.n) for each in metrics if each and each.n)
    return (name, *(format_metric(each) if each else "" for each in metrics), ", ".join(counts))


def format_metric(metric: Metric) -> str:
    """Format a metric with its interval, if it has one."""
    interval = f" [{metric.low:.3f}, {metric.high:.3f}]" if None not in (metric.low, metric.high) else ""
    return f"{metric.value:.3f}{interval}"


def group_metrics(metrics: Mapping[str, Metric]) -> dict[str, MetricGroup]:
    """Group a bundle's metrics.

    Parameters
    ----------
    metrics
        By name: ``GROUP, PROTOCOL: METRIC of the baseline 'NAME'``, of which only the metric is required.

    Returns
    -------
    dict of MetricGroup
        By group; the empty string if the name has none.
    """
    groups: dict[str, MetricGroup] = {}
    for name, metric in metrics.items():
        before, _, after = name.rpartition(": ")
        group, measured = _GROUP.fullmatch(before), _METRIC.fullmatch(after)
        assert group and measured  # both patterns match every string
        by_protocol = groups.setdefault(group["group"], MetricGroup()).metrics.setdefault(
            measured["metric"], {}
        )
        cell = by_protocol.setdefault(group["protocol"] or "", MetricCell())
        if measured["baseline"]:
            cell.baselines[measured["baseline"]] = metric
        else:
            cell.metric = metric
    return groups


def metric_lines(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Format a bundle's metrics for a console, a block for each group."""
    groups = group_metrics(metrics)
    names = [name for group in groups.values() for name, *_ in group.rows()]
    width = max(map(len, (*names, *groups)), default=0)
    for title, group in groups.items():
        headings = [HEADINGS[protocol] for protocol in group.protocols]
        yield _line((title, *headings, "n"), width + 2)
        yield from (f"  {_line(row, width)}" for row in group.rows())


def _line(row: Sequence[str], width: int) -> str:
    name, *values, count = row
    return (f"{name:<{width}}  " + "".join(f"{value:<24}" for value in values) + count).rstrip()
