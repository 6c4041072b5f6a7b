"""The model card: intended use, data, quality beside trivial baselines, limits."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from deepgps.bundle import Metric
from deepgps.bundle.metrics_table import HEADINGS, MetricGroup, group_metrics
from deepgps.training.recipe import JointRecipe


def joint_card(fields: Mapping[str, Any], recipe: JointRecipe) -> str:
    """Write the card of a model of the paper.

    Parameters
    ----------
    fields
        The fields of its ``bundle.json``.
    recipe
        Its recipe.

    Returns
    -------
    str
        Markdown.
    """
    classes, settings = fields["classes"], recipe.model
    sections = _sections("joint")
    only_draws, constant, no_validation = (
        sections.pop("summary of a model that only draws"),
        sections.pop("limits of fusion paper"),
        sections.pop("protocol of validation on the test part"),
    )
    if not classes:
        sections["summary"] = only_draws
    if recipe.split.validate_on == "test":
        sections["protocol"] += f" {no_validation}"
    if settings.fusion == "paper" and len(recipe.protein.inputs) == 1:
        sections["limits"] += f"\n{constant}"
    return _card(
        fields,
        sections,
        protein=_protein(fields["encoder"]),
        widths="-".join(map(str, settings.widths)),
        fusion=settings.fusion,
        labels=f"{', '.join(classes)}; {fields['calibration']}" if classes else "none",
    )


def mini_card(fields: Mapping[str, Any], encoder: Mapping[str, Any]) -> str:
    """Write the card of a model like the bundled one.

    Parameters
    ----------
    fields
        The fields of its ``bundle.json``.
    encoder
        ``encoder.json`` of its label half.

    Returns
    -------
    str
        Markdown.
    """
    members = encoder["members"]
    bounds = [f"{spec['unclear_below']} in {name}" for name, spec in fields.get("class_sets", {}).items()]
    return _card(
        fields,
        _sections("mini"),
        features=fields["encoder"]["name"],
        proteins=encoder["proteins"],
        bounds=f" ({', '.join(bounds)})" if bounds else "",
        members=f"the mean of {members} multilayer perceptrons" if members > 1 else "a multilayer perceptron",
    )


def metric_table(metrics: Mapping[str, Metric]) -> str:
    """Return measured metrics as Markdown tables, one for each subject."""
    if not metrics:
        return "Not measured yet."
    return "\n\n".join(_table(name, subject) for name, subject in group_metrics(metrics).items())


def _table(name: str, subject: MetricGroup) -> str:
    head = (name, *(HEADINGS[each] for each in subject.protocols), "n")
    lines = (head, ("---",) * len(head), *subject.rows())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _card(fields: Mapping[str, Any], sections: Mapping[str, str], **values: object) -> str:
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
    return _text("card.md").format(**gaps | {name: text.format(**gaps) for name, text in sections.items()})


def _sections(kind: str) -> dict[str, str]:
    """Read the sections of a kind's template, by their headings."""
    found = re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", _text(f"card_{kind}.md"), re.M)
    return {name: text.strip() for name, text in found}


def _text(name: str) -> str:
    return files("deepgps.training").joinpath(name).read_text(encoding="utf-8")


def _protein(spec: Mapping[str, Any]) -> str:
    points = spec["structure_points"]
    atoms = f"{points:,} atoms of its predicted structure, through PointNet" if points else ""
    if spec["kind"] == "structure":
        return atoms
    of = "each residue" if spec["level"] == "residue" else "the sequence"
    vectors = "hand-made features" if spec["kind"] == "features" else "an embedding"
    outside = "" if spec["kind"] == "features" else ", which is not in this bundle"
    return " and ".join(filter(None, [f"{vectors} of {of} (`{spec['name']}`{outside})", atoms]))
