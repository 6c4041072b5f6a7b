"""The model card: intended use, data, quality beside trivial baselines, limits."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from deepgps.bundle import Metric


def model_card(fields: Mapping[str, Any], metrics: Mapping[str, Metric], about: Mapping[str, Any]) -> str:
    """Write the card of a bundle from its fields, measured figures and what its label half says of itself."""
    members = about["members"]
    template = files("deepgps.training.mini").joinpath("card.md").read_text(encoding="utf-8")
    return template.format(
        name=fields["name"],
        version=fields["version"],
        count=len(fields["classes"]),
        features=fields["encoder"]["name"],
        calibration=fields["calibration"],
        classes=", ".join(fields["classes"]),
        data="\n".join(f"- {source}: {what}" for source, what in fields["training_data"].items()),
        proteins=about["proteins"],
        members=f"the mean of {members} multilayer perceptrons" if members > 1 else "a multilayer perceptron",
        metrics=metric_table(metrics),
        licence=fields["licence"],
    )


def metric_table(metrics: Mapping[str, Metric]) -> str:
    """Set measured figures as a Markdown table."""
    if not metrics:
        return "Not measured yet."
    rows = [f"| {name} | {shown(metric)} | {metric.n or ''} |" for name, metric in metrics.items()]
    return "\n".join(["| what | figure | n |", "|---|---|---|", *rows])


def shown(metric: Metric) -> str:
    """Write a figure with its interval, where it has one."""
    interval = f" [{metric.low:.3f}, {metric.high:.3f}]" if None not in (metric.low, metric.high) else ""
    return f"{metric.value:.3f}{interval}"
