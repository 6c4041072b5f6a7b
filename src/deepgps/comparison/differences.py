"""What several models say of one protein, held against what the first of them says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.comparison.sides import Side
from deepgps.results.table import Record

CONTROL_SHARE = 0.95
"""A difference counts once it is larger than this share of all controls."""


@dataclass(frozen=True, slots=True)
class Row:
    """One protein.

    Attributes
    ----------
    records
        Of each model, in the nucleus compared in; without evidence.
    controls
        Of each model, how far the intranuclear fractions in two nuclei that ship lie apart; None where an
        image has no intensity.
    likeness
        Of each model but the first, Pearson r of its image and the first one's; None where their crops are
        not of the same scale or an image is constant.
    image
        Name of its image in ``images/``, without ending.
    """

    records: tuple[Record, ...]
    controls: tuple[float | None, ...]
    likeness: tuple[float | None, ...]
    image: str

    def fraction_difference(self, other: int) -> float | None:
        """Intranuclear fraction of a model, by number, less that of the first."""
        here, there = (self.records[k]["intranuclear_fraction"] for k in (0, other))
        return None if here is None or there is None else there - here

    def probability_differences(self, other: int) -> dict[str, float]:
        """Probabilities of the classes that a model shares with the first, less the first one's."""
        here, there = (self.records[k]["probabilities"] for k in (0, other))
        return {slug: there[slug] - here[slug] for slug in here if slug in there}

    def largest(self) -> float:
        """Largest difference in probability or intranuclear fraction, 0 to 1."""
        found = [0.0]
        for other in range(1, len(self.records)):
            found += [abs(each) for each in self.probability_differences(other).values()]
            found.append(abs(self.fraction_difference(other) or 0.0))
        return max(found)

    def beyond(self, other: int, bound: float | None) -> bool | None:
        """Whether a model's fraction lies further from the first one's than any control allows."""
        difference = self.fraction_difference(other)
        if difference is None or bound is None:
            return None
        return abs(difference) > max(bound, self.controls[0] or 0.0, self.controls[other] or 0.0)

    def agree(self, sides: Sequence[Side]) -> bool | None:
        """Whether all models that can be held against the first name what it does; None where none can."""
        answers = [agreement(self, sides, other) for other in range(1, len(sides))]
        return False if False in answers else True if True in answers else None


@dataclass(frozen=True, slots=True)
class Totals:
    """All proteins together, one model beside the first.

    Attributes
    ----------
    name
        The model's.
    agreeing, decided
        Proteins of which both name the same, of those whose labels can be compared.
    probability, fraction
        Mean absolute difference in the probabilities of shared classes, and in the intranuclear fraction;
        None where there is none.
    control, bound
        Mean of both models' controls, and the value that `CONTROL_SHARE` of them do not exceed.
    beyond, measured
        Proteins whose intranuclear fractions lie apart, see `Row.beyond`, of those that have them.
    """

    name: str
    agreeing: int
    decided: int
    probability: float | None
    fraction: float | None
    control: float | None
    bound: float | None
    beyond: int
    measured: int

    @property
    def within(self) -> bool:
        """Whether no more proteins lie beyond the control than the controls themselves would."""
        return self.beyond <= (1 - CONTROL_SHARE) * self.measured


def agreement(row: Row, sides: Sequence[Side], other: int) -> bool | None:
    """Whether a model, by number, names the same classes as the first, among those that both have.

    A model that names one class agrees with one that names several if its class is among them.

    Returns
    -------
    bool or None
        None where one of them names only what the other has no class for.
    """
    shared = set(sides[0].classes) & set(sides[other].classes)
    here, there = (shared.intersection(row.records[k]["localizations"]) for k in (0, other))
    if not here or not there:
        return None
    return here == there if sides[0].multi_label and sides[other].multi_label else bool(here & there)


def control_bound(rows: Sequence[Row], other: int) -> float | None:
    """Value that `CONTROL_SHARE` of the controls of a model and of the first do not exceed."""
    controls = list(_controls(rows, other))
    return float(np.quantile(controls, CONTROL_SHARE, method="higher")) if controls else None


def totals(rows: Sequence[Row], sides: Sequence[Side], other: int) -> Totals:
    """Count and average over all proteins."""
    answers = [agreement(row, sides, other) for row in rows]
    fractions = [abs(each) for row in rows if (each := row.fraction_difference(other)) is not None]
    chances = [abs(each) for row in rows for each in row.probability_differences(other).values()]
    bound = control_bound(rows, other)
    return Totals(
        name=sides[other].name,
        agreeing=answers.count(True),
        decided=len(answers) - answers.count(None),
        probability=_mean(chances),
        fraction=_mean(fractions),
        control=_mean(list(_controls(rows, other))),
        bound=bound,
        beyond=[row.beyond(other, bound) for row in rows].count(True),
        measured=len(fractions),
    )


def verdict(sums: Totals, first: str) -> str | None:
    """Say that the differences are no more than the control, where they are not; None where they are."""
    if not sums.measured or not sums.within:
        return None
    return (
        f"The intranuclear fractions of {sums.name} and {first} differ no more than those of one model "
        "between two nuclei: do not take these differences for biology"
    )


def _controls(rows: Sequence[Row], other: int) -> Iterator[float]:
    return (each for row in rows for k in (0, other) if (each := row.controls[k]) is not None)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
