"""What the card of a joint model says."""

from collections.abc import Mapping
from typing import Any

from deepgps.training.card import card, card_parts
from deepgps.training.joint.settings import JointRecipe


def model_card(fields: Mapping[str, Any], recipe: JointRecipe) -> str:
    """Write the card of a bundle from its fields and the recipe."""
    classes, settings = fields["classes"], recipe.model
    parts = card_parts("joint")
    drawing, constant = parts.pop("summary of a model that only draws"), parts.pop("limits of fusion paper")
    if not classes:
        parts["summary"] = drawing
    if settings.fusion == "paper":
        parts["limits"] += f"\n{constant}"
    return card(
        fields,
        parts,
        protein=_protein(fields["encoder"]),
        widths="-".join(map(str, settings.widths)),
        fusion=settings.fusion,
        labels=f"{', '.join(classes)}; {fields['calibration']}" if classes else "none",
    )


def _protein(spec: Mapping[str, Any]) -> str:
    """Say what of a protein the model looks at."""
    points = spec["structure_points"]
    atoms = f"{points:,} atoms of its predicted structure, through PointNet" if points else ""
    if spec["kind"] == "structure":
        return atoms
    of = "each residue" if spec["level"] == "residue" else "the sequence"
    made_by = "hand-made features" if spec["kind"] == "features" else "an embedding"
    outside = "" if spec["kind"] == "features" else ", which lies outside of this bundle"
    return " and ".join(filter(None, [f"{made_by} of {of} (`{spec['name']}`{outside})", atoms]))
