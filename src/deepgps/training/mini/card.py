"""What the card of the bundled model says."""

from collections.abc import Mapping
from typing import Any

from deepgps.training.card import card, card_parts


def model_card(fields: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Write the card of a bundle from its fields and what its label half says of itself."""
    members = about["members"]
    bounds = [f"{spec['unclear_below']} in {name}" for name, spec in fields.get("class_sets", {}).items()]
    return card(
        fields,
        card_parts("mini"),
        features=fields["encoder"]["name"],
        proteins=about["proteins"],
        bounds=f" ({', '.join(bounds)})" if bounds else "",
        members=f"the mean of {members} multilayer perceptrons" if members > 1 else "a multilayer perceptron",
    )
