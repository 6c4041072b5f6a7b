"""The overall answer: what is known of a protein and what is predicted, combined by measured reliability.

How often a statement of one source holds in another was measured over the human proteome
(`SourceReliability`). On the same proteins, a logistic regression for each class learned how much to trust
each source that names the class, each source that names others, and the prediction: one source at a time
was hidden and predicted from the others and from a prediction that knew none. Where nothing is known, the
overall answer is the prediction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle import KNOWN_FILE, KNOWN_SEQUENCES_FILE, OVERALL_FILE, Bundle
from deepgps.errors import BundleError
from deepgps.localization import CLASS_SETS, LOCALIZATIONS, ClassSet, undecided_localizations
from deepgps.proteins.known import KnownFacts, KnownProteins, Statement, main_statements
from deepgps.proteins.neighbours import NeighbourIndex, cached_index

WEAK = ("uncertain", "approved, additional", "grade 1")
"""Reliabilities of statements that hold in other sources less often than not: they name no class."""
OTHERS = {"OpenCell": "OpenCell", "HPA": "HPA", "UniProt": "UniProt, experimental", "maps": "any map"}
"""The sources that judge others in the table of reliabilities, and what pages call them."""


@dataclass(frozen=True, slots=True)
class SourceReliability:
    """How often what a source says of a class holds in another source.

    Attributes
    ----------
    source
        Source and reliability, as of `level`.
    slug
        The class; None for all classes together.
    other
        The other source.
    count
        Proteins and classes of which the first source says so and the other says anything.
    holds
        Share of them that the other source says, too.
    """

    source: str
    slug: str | None
    other: str
    count: int
    holds: float


@dataclass(frozen=True, slots=True, eq=False)
class Combination:
    """Weights of the sources and of the prediction, for K classes.

    Attributes
    ----------
    levels
        The S levels of reliability, see `level`.
    bias, prediction
        (K,) bias, and weight of the predicted logit.
    says, silent
        (S, K) weight where a source of that level says the class, and where it says others only.
    """

    levels: tuple[str, ...]
    bias: Floats
    prediction: Floats
    says: Floats
    silent: Floats

    def logits(self, predicted: Floats, said: Mask, silent: Mask) -> Floats:
        """Combine predicted logits (K,) with what the levels say and leave out, (S, K) each."""
        combined = self.bias + self.prediction * predicted
        return np.asarray(combined + (self.says * said).sum(0) + (self.silent * silent).sum(0), np.float32)


class Overall:
    """The combinations and reliabilities of a bundle.

    Parameters
    ----------
    combinations
        By name of the class set.
    reliabilities
        The measured table.
    """

    def __init__(
        self, combinations: Mapping[str, Combination], reliabilities: Sequence[SourceReliability]
    ) -> None:
        self._combinations, self.reliabilities = combinations, tuple(reliabilities)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read ``overall.json`` of a bundle.

        Parameters
        ----------
        content
            Its content.

        Returns
        -------
        Overall
            What it holds.

        Raises
        ------
        BundleError
            If it cannot be read.
        """
        try:
            document = json.loads(content)
            combinations = {name: _combination(each) for name, each in document["combinations"].items()}
            return cls(combinations, [SourceReliability(*row) for row in document["reliability"]])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"'{OVERALL_FILE}' cannot be read ({error}); fetch the model again.") from None

    def table(self, slug: str | None = None) -> dict[str, dict[str, SourceReliability]]:
        """Return the reliabilities for a class, or for all together, by source and by the other source."""
        rows: dict[str, dict[str, SourceReliability]] = {}
        for each in self.reliabilities:
            if each.slug == slug:
                rows.setdefault(each.source, {})[each.other] = each
        return rows

    def logits(
        self, predicted: Floats, statements: Sequence[Statement], classes: ClassSet
    ) -> tuple[Floats, frozenset[str]]:
        """Combine a prediction with what is known.

        Parameters
        ----------
        predicted
            (K,) predicted logits.
        statements
            What sources say of the protein.
        classes
            The K classes.

        Returns
        -------
        logits : Floats
            (K,) overall; the predicted ones where nothing is said in the vocabulary.
        said : frozenset of str
            The classes that a source says, and not as one of `WEAK`.
        """
        used = main_statements(statements)
        reliable = (each for each in used if each.reliability not in WEAK)
        said = frozenset(slug for each in reliable for slug in classes.of(each.localizations))
        if not any(each.localizations for each in used):
            return predicted, said
        combination = self.combination(classes)
        return combination.logits(predicted, *statement_masks(used, classes, combination.levels)), said

    def combination(self, classes: ClassSet) -> Combination:
        """Return the weights for a class set."""
        if classes.name in self._combinations:
            return self._combinations[classes.name]
        # A single-label set has classes of the model's own set; the softmax needs no bias.
        whole = CLASS_SETS["mini"]
        columns = [whole.slugs.index(slug) for slug in classes.slugs]
        own = self._combinations[whole.name]
        return Combination(
            own.levels,
            np.zeros(len(columns), np.float32),
            own.prediction[columns],
            own.says[:, columns],
            own.silent[:, columns],
        )


def _combination(document: Mapping[str, Any]) -> Combination:
    arrays = (np.array(document[name], np.float32) for name in ("bias", "prediction", "says", "silent"))
    return Combination(tuple(document["levels"]), *arrays)


def level(statement: Statement) -> str:
    """Return source and reliability of a statement, as in ``HPA enhanced``; a map has its source alone."""
    if statement.reliability == "map":
        return statement.source
    return f"{statement.source} {statement.reliability}"


def said_classes(statements: Sequence[Statement], classes: Sequence[str]) -> list[str]:
    """Return the classes that sources say, the one of most sources first; localizations for other classes."""
    named = class_set_of(classes)
    sources: dict[str, set[str]] = {}
    for each in statements:
        for slug in each.localizations if named is None else named.of(each.localizations):
            sources.setdefault(slug, set()).add(each.source)
    order = LOCALIZATIONS if named is None else named.slugs
    return sorted(sources, key=lambda slug: (-len(sources[slug]), order.index(slug)))


def statement_masks(
    statements: Sequence[Statement], classes: ClassSet, levels: Sequence[str]
) -> tuple[Mask, Mask]:
    """Return what each level says, and what its source leaves out.

    Parameters
    ----------
    statements
        What is said.
    classes
        The K classes.
    levels
        The S levels.

    Returns
    -------
    said, silent : Mask
        (S, K) each. A source says a class at its most reliable level, and is silent at the most reliable
        level at which it says anything. It is neither where its words leave a class undecided.
    """
    said = np.zeros((len(levels), len(classes.slugs)), np.bool_)
    silent = np.zeros_like(said)
    sources: dict[str, list[Statement]] = {}
    for each in statements:
        if each.localizations and level(each) in levels:
            sources.setdefault(each.source, []).append(each)
    for own in sources.values():
        rows = [levels.index(level(each)) for each in own]
        decided = np.ones(len(classes.slugs), np.bool_)
        any_said = np.zeros(len(classes.slugs), np.bool_)
        for row, each in sorted(zip(rows, own, strict=True), key=lambda pair: pair[0]):
            places = [classes.slugs.index(slug) for slug in classes.of(each.localizations)]
            for place in places:
                said[row, place] = not any_said[place]
                any_said[place] = True
            for slug in classes.of(undecided_localizations(each.word)):
                decided[classes.slugs.index(slug)] = False
        silent[min(rows)] = decided & ~any_said
    return said, silent


def class_set_of(classes: Sequence[str]) -> ClassSet | None:
    """Return the class set of some class slugs; None if they are those of no set."""
    return next((each for each in CLASS_SETS.values() if each.slugs == tuple(classes)), None)


def open_known(bundle: Bundle, voting: NeighbourIndex | None) -> KnownProteins | None:
    """Open the index of known proteins of a bundle; None if it has none."""
    if voting is None or not bundle.has(KNOWN_FILE):
        return None
    fingerprint = bundle.metadata.files[KNOWN_SEQUENCES_FILE]
    others = cached_index(fingerprint, lambda: bundle.read(KNOWN_SEQUENCES_FILE))
    return KnownProteins(KnownFacts.from_bytes(bundle.read(KNOWN_FILE)), voting, others)


def open_overall(bundle: Bundle) -> Overall | None:
    """Open the combinations of a bundle; None if it has none."""
    return Overall.from_bytes(bundle.read(OVERALL_FILE)) if bundle.has(OVERALL_FILE) else None
