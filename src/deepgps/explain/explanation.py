"""`Explanation`: what a prediction rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.explain.signals import SIGNALS, Signal
from deepgps.localization import display_name
from deepgps.proteins.neighbours import Neighbour
from deepgps.proteins.protein import Protein

LEADS_TO: Mapping[str, tuple[str, ...]] = {
    "SP": ("extracellular", "er", "golgi", "membrane", "vesicles"),
    "MT": ("mitochondria",),
    "TM": ("membrane", "er", "golgi", "vesicles", "nuclear_membrane"),
    "PTS": ("vesicles",),
    "NLS": ("nucleoplasm", "nucleolus", "nuclear_membrane"),
    "NES": ("cytoplasmic",),
    "GPI": ("membrane", "extracellular"),
    "ER": ("er",),
    "LIPID": ("membrane", "nuclear_membrane", "vesicles", "golgi"),
}
"""Localizations that each kind of signal leads to."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why a protein was predicted where it was.

    Attributes
    ----------
    protein
        The protein.
    localizations
        The predicted localizations that are explained, most probable first; the most probable class alone
        where the prediction is unclear.
    probabilities
        Predicted probability by class.
    importance
        (C, L) for the C localizations, how much each of the L residues speaks for it, in units of the logit;
        see `deepgps.explain.importance`.
    floor
        (C,) noise floor: importance below it is no more than random masks cause.
    width
        Residues of a masked window.
    signals
        Sorting signals, in the order of their first residues.
    evidence
        The nearest annotated proteins.
    shared
        (E, L) the residues that lie in a k-mer of each of the E proteins in `evidence`: what it has in common
        with its relatives.
    model, version
        The bundle's name and version.
    """

    protein: Protein
    localizations: tuple[str, ...]
    probabilities: Mapping[str, float]
    importance: Floats
    floor: Floats
    width: int
    signals: tuple[Signal, ...]
    evidence: tuple[Neighbour, ...]
    shared: Mask
    model: str
    version: str

    def regions(self, localization: str) -> list[tuple[int, int, float]]:
        """Return the stretches above the noise floor, the most important first.

        Parameters
        ----------
        localization
            One of `localizations`.

        Returns
        -------
        list of (int, int, float)
            First and last residue, from 1, and the highest importance between them.
        """
        row = self.localizations.index(localization)
        values = self.importance[row]
        above = np.flatnonzero(np.diff(np.concatenate([[0], (values > self.floor[row]).astype(int), [0]])))
        spans = zip(above[::2].tolist(), above[1::2].tolist(), strict=True)
        found = [(start + 1, end, float(values[start:end].max())) for start, end in spans]
        return sorted(found, key=lambda each: -each[2])

    def sentence(self) -> str:
        """Say in one sentence what the prediction rests on."""
        if not self.localizations:
            return "This model predicts no localizations, so that there is none to explain."
        first = self.localizations[0]
        start = f"{display_name(first)} (probability {self.probabilities[first]:.2f}) was predicted"
        fitting = [each for each in self.signals if first in LEADS_TO.get(each.kind, ())]
        others = [each for each in self.signals if each not in fitting]
        parts = []
        if fitting:
            parts.append(f"{_listed(fitting)} {'leads' if len(fitting) == 1 else 'lead'} there")
        if regions := self.regions(first)[:3]:
            spans = ", ".join(f"{start}-{end}" for start, end, _ in sorted(regions))
            parts.append(f"it depends most on residues {spans}")
        else:
            parts.append("no stretch of residues stands out above the noise: it rests on the whole sequence")
        if others:
            parts.append(f"{_listed(others)} {'leads' if len(others) == 1 else 'lead'} elsewhere")
        near = self.evidence[0] if self.evidence else None
        if near is not None and near.similarity >= 0.1 and near.localizations:
            names = " and ".join(display_name(name) for name in near.localizations)
            parts.append(f"its nearest relative ({near.accession}) is annotated with {names}")
        return f"{start[0].upper()}{start[1:]}: {'; '.join(parts)}."


def _listed(signals: Sequence[Signal]) -> str:
    shown = [f"the {SIGNALS[each.kind]} {each.start}-{each.end}" for each in signals[:4]]
    if len(signals) > 4:
        shown.append(f"{len(signals) - 4} more signals")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
