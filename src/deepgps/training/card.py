"""The model card: intended use, data, quality beside trivial baselines, limits."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from deepgps.bundle import Metric
from deepgps.bundle.metrics_table import HEADINGS, MetricGroup, group_metrics


def card(fields: Mapping[str, Any], parts: Mapping[str, str], **values: object) -> str:
    """Write the card of a bundle.

    Parameters
    ----------
    fields
        The fields of its ``bundle.json``.
    parts
        What its kind of model has to say: ``summary``, ``what``, ``training``, ``protocol``, ``limits`` and
        ``licence``, with gaps for fields and values.
    values
        What else goes into the gaps.
    """
    template = files("deepgps.training").joinpath("card.md").read_text(encoding="utf-8")
    gaps = {
        **fields,
        "count": len(fields["classes"]),
        "classes": ", ".join(fields["classes"]),
        "data": "\n".join(f"- {source}: {what}" for source, what in fields["training_data"].items()),
        "metrics": metric_table(
            {name: Metric.model_validate(each) for name, each in fields["metrics"].items()}
        ),
        **values,
    }
    return template.format(**gaps | {name: part.format(**gaps) for name, part in parts.items()})


def card_parts(kind: str) -> dict[str, str]:
    """Read what a kind of model, ``mini`` or ``joint``, has to say: the sections of its ``card.md``."""
    text = files(f"deepgps.training.{kind}").joinpath("card.md").read_text(encoding="utf-8")
    return {name: part.strip() for name, part in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.M)}


def metric_table(metrics: Mapping[str, Metric]) -> str:
    """Set measured figures as Markdown tables, one of each subject."""
    if not metrics:
        return "Not measured yet."
    return "\n\n".join(_table(name, subject) for name, subject in group_metrics(metrics).items())


def _table(name: str, subject: MetricGroup) -> str:
    head = (name, *(HEADINGS[each] for each in subject.protocols), "n")
    lines = (head, ("---",) * len(head), *subject.rows())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
