"""What changes of a sequence change: probabilities, answer, signals, image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from deepgps.arrays import Floats, Ints
from deepgps.errors import InputError
from deepgps.explain.changes import Variant, silent_changes
from deepgps.explain.importance import FLOOR_PERCENTILE
from deepgps.explain.moves import moves
from deepgps.explain.signals import SIGNALS, Signal, find_signals

MAX_VARIANTS = 20_000
SILENT = 32
"""Silent changes that make the noise floor."""
SMALLEST_CHANGE = 0.05
"""Changes of a probability up to this mean nothing, however little silent changes do."""
_BATCH = 128

Encode = Callable[[Sequence[str]], Floats]
"""From N sequences to their predicted probabilities (N, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class VariantEffect:
    """What one change does.

    Attributes
    ----------
    variant
        The changed sequence.
    probabilities
        (K,) predicted for it.
    change
        (K,) its probabilities minus those of the unchanged sequence.
    localizations
        Its predicted localizations.
    lost, gained
        Signals of the unchanged sequence that are gone, and new ones, each in its own sequence's residues.
    moves
        The score of `deepgps.explain.moves`, for single substitutions; None for other changes.
    image
        (H, W) drawn in the same cell with the same seed; None without images.
    image_change
        Mean absolute difference from the image of the unchanged sequence; None without images.
    """

    variant: Variant
    probabilities: Floats
    change: Floats
    localizations: tuple[str, ...]
    lost: tuple[Signal, ...]
    gained: tuple[Signal, ...]
    moves: float | None
    image: Floats | None = None
    image_change: float | None = None

    @property
    def largest(self) -> int:
        """Place of the class whose probability changes most."""
        return int(np.abs(self.change).argmax())

    def signal_text(self) -> str:
        """Say what happens to the signals, as in ``destroys the NLS 316-332``."""
        texts = [f"destroys the {SIGNALS[each.kind]} {each.start}-{each.end}" for each in self.lost]
        texts += [f"creates a {SIGNALS[each.kind]} {each.start}-{each.end}" for each in self.gained]
        return "; ".join(texts)


@dataclass(frozen=True, slots=True, eq=False)
class VariantComparison:
    """Variants of one protein beside the unchanged one.

    Attributes
    ----------
    name, sequence
        The unchanged protein.
    classes
        The K classes.
    probabilities
        (K,) of the unchanged protein.
    localizations
        Its predicted localizations.
    signals
        Its signals.
    floor
        (K,) noise floor: 19 of 20 silent changes change a probability by less.
    effects
        One per variant, in the order given.
    image
        (H, W) of the unchanged protein; None without images.
    image_floor
        Largest change of the image by a few silent changes; None without images.
    """

    name: str
    sequence: str
    classes: tuple[str, ...]
    probabilities: Floats
    localizations: tuple[str, ...]
    signals: tuple[Signal, ...]
    floor: Floats
    effects: tuple[VariantEffect, ...]
    image: Floats | None = None
    image_floor: float | None = None

    def ranked(self) -> list[VariantEffect]:
        """Return the effects, the strongest first.

        The largest change of a probability, in units of its noise floor, ranks changes of every kind; the
        score `moves` ranks those that are equal.

        Returns
        -------
        list of VariantEffect
            All of them.
        """
        return sorted(self.effects, key=lambda each: (-self.strength(each), -(each.moves or 0)))

    def strength(self, effect: VariantEffect) -> float:
        """Return the largest change of a probability in units of the noise floor, or of `SMALLEST_CHANGE`."""
        if not len(effect.change):
            return 0.0
        return float((np.abs(effect.change) / np.maximum(self.floor, SMALLEST_CHANGE)).max())


Named = Callable[[Floats], tuple[str, ...]]
"""From the probabilities (K,) to the localizations that are named."""


def compare_variants(
    name: str,
    sequence: str,
    variants: Sequence[Variant],
    classes: Sequence[str],
    probabilities: Encode,
    named: Named,
) -> VariantComparison:
    """Compare variants with the unchanged protein, without images.

    Parameters
    ----------
    name, sequence
        The unchanged protein.
    variants
        Its variants.
    classes
        The K classes of the model.
    probabilities, named
        The model.

    Returns
    -------
    VariantComparison
        With one effect per variant.

    Raises
    ------
    InputError
        If there are no variants, or more than `MAX_VARIANTS`.
    """
    if not 0 < len(variants) <= MAX_VARIANTS:
        raise InputError(
            f"{len(variants):,} variants of '{name}' were given; give 1 to {MAX_VARIANTS:,} at a time."
        )
    silent = silent_changes(sequence, SILENT)
    texts = [sequence, *silent, *(each.sequence for each in variants)]
    found = np.concatenate([probabilities(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)])
    signals = find_signals([sequence, *(each.sequence for each in variants)])
    changes = np.abs(found[1 : 1 + len(silent)] - found[0])
    floor = np.percentile(changes, FLOOR_PERCENTILE, axis=0) if silent else np.zeros(found.shape[1])
    effects = []
    for variant, row, own in zip(variants, found[1 + len(silent) :], signals[1:], strict=True):
        lost, gained = changed_signals(sequence, variant, signals[0], own)
        substitution = variant.substitution
        effects.append(
            VariantEffect(
                variant,
                row,
                row - found[0],
                named(row),
                lost,
                gained,
                None if substitution is None else moves(sequence, *substitution),
            )
        )
    return VariantComparison(
        name,
        sequence,
        tuple(classes),
        found[0],
        named(found[0]),
        signals[0],
        np.asarray(floor, np.float32),
        tuple(effects),
    )


def changed_signals(
    sequence: str, variant: Variant, before: Sequence[Signal], after: Sequence[Signal]
) -> tuple[tuple[Signal, ...], tuple[Signal, ...]]:
    """Return the signals that a change destroys, and those that it creates.

    A signal is kept if the changed sequence has one of the same kind that overlaps it.

    Parameters
    ----------
    sequence
        The unchanged sequence.
    variant
        The changed one.
    before, after
        The signals of both.

    Returns
    -------
    lost, gained : tuple of Signal
        Each in the residues of its own sequence.
    """
    if tuple(before) == tuple(after) and len(variant.sequence) == len(sequence):
        return (), ()
    places = _old_places(sequence, variant)

    def same(old: Signal, new: Signal) -> bool:
        mapped = places[new.start - 1 : new.end]
        return old.kind == new.kind and bool(((mapped >= old.start - 1) & (mapped < old.end)).any())

    lost = tuple(old for old in before if not any(same(old, new) for new in after))
    gained = tuple(new for new in after if not any(same(old, new) for old in before))
    return lost, gained


def _old_places(sequence: str, variant: Variant) -> Ints:
    """Return the place in the unchanged sequence of each residue of a variant; -1 for new ones."""
    places = np.full(len(variant.sequence), -1, np.int64)
    if not variant.changes:
        # An isoform that was given as a sequence.
        matcher = SequenceMatcher(None, sequence, variant.sequence, autojunk=False)
        for old, new, size in matcher.get_matching_blocks():
            places[new : new + size] = np.arange(old, old + size)
        return places
    old = new = 0
    for change in variant.changes:
        size = change.start - old
        places[new : new + size] = np.arange(old, change.start)
        # A residue that is exchanged stays in its place.
        common = min(change.end - change.start, len(change.inserted))
        places[new + size : new + size + common] = np.arange(change.start, change.start + common)
        old, new = change.end, new + size + len(change.inserted)
    places[new:] = np.arange(old, len(sequence))
    return places


CANNOT_TELL = (
    f"the model cannot tell: no probability changes by more than {SMALLEST_CHANGE:g} and by more than silent "
    "changes do"
)


def summary(comparison: VariantComparison, effect: VariantEffect) -> str:
    """Say in one sentence what a variant does.

    Parameters
    ----------
    comparison
        The comparison.
    effect
        One of its effects.

    Returns
    -------
    str
        What becomes of the answer, the most changed probability and the signals; `CANNOT_TELL` where no
        probability changes by more than the noise floor and `SMALLEST_CHANGE`.
    """
    signals = effect.signal_text()
    slug = comparison.classes[effect.largest] if comparison.classes else ""
    change = float(effect.change[effect.largest]) if comparison.classes else 0.0
    if comparison.strength(effect) <= 1:
        return "; ".join(filter(None, [CANNOT_TELL, signals])) + "."
    answer = "the answer stays"
    if effect.localizations != comparison.localizations:
        answer = f"the answer becomes {', '.join(effect.localizations)}"
    return "; ".join(filter(None, [answer, f"{slug} {change:+.2f}", signals])) + "."
