"""Which proteins of a crop store a recipe can train on, and why not the others."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from deepgps.datasets.annotation.proteins import cell_line_key
from deepgps.localization import ClassSet, class_set
from deepgps.proteins.check import check_sequence
from deepgps.training.joint.settings import JointRecipe

Row = Mapping[str, Any]
"""A protein as the table of proteins has it, by column."""


class Verdict(NamedTuple):
    """The classes of a protein, or a sentence that says why it is left out."""

    classes: frozenset[str]
    reason: str | None = None


def judge(protein: Row, recipe: JointRecipe, cell_lines: Iterable[str], parts: Mapping[str, str]) -> Verdict:
    """Tell whether a recipe can train on a protein.

    Parameters
    ----------
    protein
        Its row of the table of proteins.
    recipe
        The recipe.
    cell_lines
        The cells of its crops.
    parts
        The split: part by protein.
    """
    checks: tuple[Callable[[], str | None], ...] = (
        lambda: _other_cells(recipe.cell_line, cell_lines),
        lambda: _no_sequence(protein) if "sequence" in recipe.protein.inputs else None,
        lambda: None if protein["protein_id"] in parts else "It is in no part of the split.",
    )
    verdict = classify(protein, class_set(recipe.class_set))
    reason = verdict.reason or next(filter(None, (check() for check in checks)), None)
    return Verdict(frozenset(), reason) if reason else verdict


def classify(protein: Row, classes: ClassSet) -> Verdict:
    """Find the classes of a protein.

    A set of one class a protein takes single-localized proteins only; where the table has a column for the
    set, such as ``single_2``, that has the last word.
    """
    places = tuple(filter(None, (protein["localizations"] or "").split("|")))
    named = ", ".join(places)
    found = classes.of(places)
    if not classes.multi_label:
        if len(places) > 1 or protein.get("single_localized") is False:
            return Verdict(frozenset(), f"It is multi-localized ({named}), and '{classes.name}' takes one.")
        column = classes.name.replace("-", "_")
        found &= {protein.get(column)} if column in protein else found
    return Verdict(found, None if found else f"It is in no class of '{classes.name}' ({named}).")


def _other_cells(wanted: str | None, cell_lines: Iterable[str]) -> str | None:
    if wanted is None or any(cell_line_key(each) == cell_line_key(wanted) for each in cell_lines):
        return None
    return f"Its crops are of other cells than {wanted} ({', '.join(sorted(set(cell_lines)))})."


def _no_sequence(protein: Row) -> str | None:
    if not (sequence := protein.get("sequence")):
        return "It has no sequence."
    return check_sequence(protein["protein_id"], sequence)
