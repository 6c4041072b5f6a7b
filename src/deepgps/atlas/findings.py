"""What only many proteins show: hit rates, disagreements, candidates, relatives that differ, and a map."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from deepgps.arrays import Doubles
from deepgps.atlas.entries import Entry, Said
from deepgps.prediction.overall import Overall
from deepgps.prediction.prediction import UNCLEAR

CONFIDENCE_BINS = (0.0, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0)
"""Edges of the bins of confidence in which hit rates are counted."""
CLOSE = 0.2
"""Similarity from which a relative is called a paralog; that of unrelated proteins is mostly below 0.1."""
_Z = 1.96
_UNMEASURED = 0.5


@dataclass(frozen=True, slots=True)
class HitRate:
    """How often the most probable predicted class is one that sources say.

    Attributes
    ----------
    lowest, highest
        The bin of confidence.
    count
        Proteins of the atlas in the bin of which sources say something.
    hits
        Those of which a source says the class.
    low, high
        95 % interval (Wilson) of the rate.
    """

    lowest: float
    highest: float
    count: int
    hits: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        """Share of hits; None for an empty bin."""
        return self.hits / self.count if self.count else None


def hit_rates(entries: Sequence[Entry], classes: Sequence[str], *, has_relative: bool) -> list[HitRate]:
    """Count, by confidence, how often the most probable predicted class is one that sources say.

    The prediction of a known protein is made without its own record, so that these proteins stand for those
    of which nothing is known, where both have an annotated relative, or neither has.

    Parameters
    ----------
    entries
        All proteins.
    classes
        The model's classes.
    has_relative
        Whether to count the proteins with an annotated relative, or those without.

    Returns
    -------
    list of HitRate
        One for each bin of `CONFIDENCE_BINS`.
    """
    known = [
        each
        for each in entries
        if each.known and each.predicted_probabilities and each.has_relative == has_relative
    ]
    confidence = np.array([max(each.predicted_probabilities) for each in known])
    hit = np.array(
        [classes[int(np.argmax(each.predicted_probabilities))] in each.known for each in known], bool
    )
    place = np.digitize(confidence, CONFIDENCE_BINS[1:-1])
    return [
        _hit_rate(
            CONFIDENCE_BINS[number],
            CONFIDENCE_BINS[number + 1],
            int((place == number).sum()),
            int(hit[place == number].sum()),
        )
        for number in range(len(CONFIDENCE_BINS) - 1)
    ]


def _hit_rate(lowest: float, highest: float, count: int, hits: int) -> HitRate:
    if not count:
        return HitRate(lowest, highest, 0, 0, 0.0, 1.0)
    share, z = hits / count, _Z**2 / count
    middle = (share + z / 2) / (1 + z)
    half = _Z / (1 + z) * float(np.sqrt(share * (1 - share) / count + z / 4 / count))
    return HitRate(lowest, highest, count, hits, max(0.0, middle - half), min(1.0, middle + half))


def rate_of(confidence: float, rates: Sequence[HitRate]) -> HitRate:
    """Return the hit rate of the bin of a confidence."""
    return rates[int(np.digitize(confidence, CONFIDENCE_BINS[1:-1]))]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A protein whose prediction none of its sources says.

    Attributes
    ----------
    entry
        The protein.
    score
        Probability of the first predicted class, less that of the most probable known class.
    """

    entry: Entry
    score: float


def disagreements(entries: Sequence[Entry], classes: Sequence[str]) -> list[Disagreement]:
    """Rank the proteins whose prediction shares no class with what is known of them.

    Parameters
    ----------
    entries
        All proteins.
    classes
        The model's classes.

    Returns
    -------
    list of Disagreement
        The most confident contradiction first.
    """
    found = []
    for each in entries:
        if each.agreement == "differ":
            predicted = dict(zip(classes, each.predicted_probabilities, strict=True))
            known = max(predicted.get(slug, 0.0) for slug in each.known)
            found.append(Disagreement(each, predicted[each.predicted[0]] - known))
    return sorted(found, key=lambda each: (-each.score, each.entry.protein_id))


@dataclass(frozen=True, slots=True)
class SourceConflict:
    """Two sources that contradict each other.

    Attributes
    ----------
    entry
        The protein.
    one, other
        What each says.
    score
        Product of how often statements of either reliability hold in other sources.
    backed
        The source that the prediction agrees with; empty if with neither or both.
    """

    entry: Entry
    one: Said
    other: Said
    score: float
    backed: str


def source_conflicts(entries: Sequence[Entry], overall: Overall | None) -> list[SourceConflict]:
    """Rank the pairs of sources that contradict each other.

    Parameters
    ----------
    entries
        All proteins.
    overall
        The model's table of measured reliabilities; None if it has none.

    Returns
    -------
    list of SourceConflict
        Two sources that are mostly right come first; one pair for each protein, its best.
    """
    holds = _holds(overall)
    found = []
    for each in entries:
        pairs = []
        for one, other in combinations(each.said, 2):
            if not one.contradicts(other):
                continue
            score = holds.get(_level(one), _UNMEASURED) * holds.get(_level(other), _UNMEASURED)
            fits = [side.source for side in (one, other) if set(each.predicted[:1]) & set(side.classes)]
            pairs.append(SourceConflict(each, one, other, score, fits[0] if len(fits) == 1 else ""))
        if pairs:
            found.append(max(pairs, key=lambda pair: pair.score))
    return sorted(found, key=lambda pair: (-pair.score, pair.entry.protein_id))


def _level(said: Said) -> str:
    return said.source if said.reliability == "map" else f"{said.source} {said.reliability}"


def _holds(overall: Overall | None) -> Mapping[str, float]:
    """Return how often what a source says holds in the others, weighted by the number of proteins."""
    if overall is None:
        return {}
    means = {}
    for source, others in overall.table().items():
        counts = sum(each.count for each in others.values())
        if counts:
            means[source] = sum(each.count * each.holds for each in others.values()) / counts
    return means


def candidates(entries: Sequence[Entry]) -> list[Entry]:
    """Return the proteins of which no source says anything and whose prediction is not unclear.

    Parameters
    ----------
    entries
        All proteins.

    Returns
    -------
    list of Entry
        The most confident first.
    """
    found = [each for each in entries if not each.known and each.predicted[:1] not in ((), (UNCLEAR,))]
    return sorted(found, key=lambda each: (-(each.predicted_confidence or 0), each.protein_id))


@dataclass(frozen=True, slots=True)
class DifferingPair:
    """Two isoforms or paralogs that go to different places.

    Attributes
    ----------
    one, other
        The proteins.
    kind
        ``isoforms`` or ``paralogs``.
    similarity
        Of the sequences, where it was measured.
    distance
        Half the sum of the differences of their overall probabilities, each divided by its sum: in [0, 1].
    """

    one: Entry
    other: Entry
    kind: str
    similarity: float | None
    distance: float


def differing_pairs(entries: Sequence[Entry]) -> list[DifferingPair]:
    """Rank isoforms and paralogs whose overall answers share no class.

    Parameters
    ----------
    entries
        All proteins.

    Returns
    -------
    list of DifferingPair
        The most different first.
    """
    found = []
    for one, other, kind, similarity in _related(entries):
        first, second = set(one.overall) - {UNCLEAR}, set(other.overall) - {UNCLEAR}
        if first and second and not first & second:
            a, b = (np.array(each.probabilities) for each in (one, other))
            distance = float(np.abs(a / max(a.sum(), 1e-9) - b / max(b.sum(), 1e-9)).sum() / 2)
            found.append(DifferingPair(one, other, kind, similarity, distance))
    return sorted(found, key=lambda pair: (-pair.distance, pair.one.protein_id, pair.other.protein_id))


def _related(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry, str, float | None]]:
    """Yield each pair of isoforms, and of near relatives, once."""
    base: dict[str, list[Entry]] = {}
    for each in entries:
        if each.accession:
            base.setdefault(each.accession.partition("-")[0], []).append(each)
    for group in base.values():
        for one, other in combinations(group, 2):
            yield one, other, "isoforms", None
    seen = set()
    by_accession = {each.accession: each for each in entries if each.accession}
    for each in entries:
        for accession, similarity in each.relatives:
            relative = by_accession.get(accession)
            if relative is None or relative is each or similarity < CLOSE:
                continue
            pair = frozenset((each.protein_id, relative.protein_id))
            if pair not in seen and each.sequence_sha256 != relative.sequence_sha256:
                seen.add(pair)
                yield each, relative, "paralogs", similarity


def map_positions(entries: Sequence[Entry]) -> Doubles:
    """Lay proteins out in two dimensions, so that those with similar overall probabilities are near.

    The two principal components of the square roots of the probabilities, of which each protein's sum to one:
    the distance between square roots does not let the most probable class alone decide.

    Parameters
    ----------
    entries
        N proteins.

    Returns
    -------
    Doubles
        (N, 2) in [0, 1]; zeros for a model without classes.
    """
    if not entries or not entries[0].probabilities:
        return np.zeros((len(entries), 2))
    values = np.array([each.probabilities for each in entries])
    roots = np.sqrt(values / np.maximum(values.sum(1, keepdims=True), 1e-9))
    centred = roots - roots.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    # The sign of an axis is arbitrary: its largest weight is positive.
    chosen = axes[:, [-1, -2]] if axes.shape[1] > 1 else np.repeat(axes, 2, 1)
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(0), range(2)])
    places = centred @ chosen
    low, high = places.min(0), places.max(0)
    return np.asarray((places - low) / np.maximum(high - low, 1e-9))
