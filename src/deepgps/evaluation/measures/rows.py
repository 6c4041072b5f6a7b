"""Labelled probabilities, gathered crop by crop and handed out by protein and by crop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Ints, Mask, Strings
from deepgps.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows:
    """Labelled probabilities on one level, proteins or crops.

    Attributes
    ----------
    classes
        The K classes.
    multi_label
        Whether a protein may belong to several.
    thresholds
        (K,) probabilities from which a class is named, if ``multi_label``; else the likeliest class is named.
    ids
        (N,) protein of each row.
    probabilities
        (N, K) in [0, 1].
    targets
        (N, K) bool.
    count
        (N,) how many proteins or crops a row stands for.
    group
        (N,) number of the homology cluster, or of the protein where clusters are unknown: what is resampled.
    decided
        (N, K) bool classes that a model itself names; None: those its probabilities name.
    """

    classes: tuple[str, ...]
    multi_label: bool
    thresholds: Doubles
    ids: tuple[str, ...]
    probabilities: Doubles
    targets: Mask
    count: Doubles
    group: Ints
    decided: Mask | None = None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group.max()) + 1

    @property
    def n(self) -> int:
        """Number of proteins or crops."""
        return int(self.count.sum())

    @property
    def named(self) -> Mask:
        """(N, K) the classes named; of equally likely ones the first."""
        if self.decided is not None:
            return self.decided
        if self.multi_label:
            return np.asarray(self.probabilities >= self.thresholds)
        return np.asarray(self.probabilities.argmax(1)[:, None] == np.arange(len(self.classes)))


@dataclass(slots=True)
class _Protein:
    """What is known of one protein: its classes, its cluster, how often which probabilities were given."""

    targets: Mask
    cluster: str
    seen: dict[bytes, int] = field(default_factory=dict)


class LabelGatherer:
    """Take labelled probabilities in chunks of crops.

    Crops of one protein with the same probabilities are kept once, with their number: a label that is
    predicted from the sequence alone takes the memory of one row a protein, however many crops there are.

    Parameters
    ----------
    classes
        The K classes.
    multi_label
        Whether a protein may belong to several.
    thresholds
        K probabilities from which a class is named, for multi-label models only; 0.5 each if None.
    """

    def __init__(
        self, classes: Sequence[str], *, multi_label: bool, thresholds: Sequence[float] | None = None
    ) -> None:
        self._classes = tuple(classes)
        self._multi_label = multi_label
        self._thresholds = np.asarray([0.5] * len(classes) if thresholds is None else thresholds, np.float64)
        self._proteins: dict[str, _Protein] = {}

    def add(
        self,
        probabilities: NDArray[np.floating],
        targets: NDArray[np.generic],
        proteins: Sequence[str] | Strings,
        clusters: Sequence[object] | NDArray[np.generic] | None = None,
    ) -> None:
        """Take a chunk of crops, or of proteins.

        Parameters
        ----------
        probabilities, targets
            (N, K) in [0, 1], and 0 or 1.
        proteins
            N ids; rows of one id are crops of one protein.
        clusters
            N homology clusters; None if unknown.

        Raises
        ------
        InputError
            If shapes do not fit, a probability or target is none, or rows of one protein contradict each
            other.
        """
        chances, truth = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
        names = [str(each) for each in proteins]
        groups = names if clusters is None else [f"cluster {each}" for each in clusters]
        self._check_shapes(chances, truth, names, groups)
        _check_values(chances, truth, names, self._classes, multi_label=self._multi_label)
        for row, yes, name, cluster in zip(chances, truth > 0, names, groups, strict=True):
            known = self._proteins.setdefault(name, _Protein(yes, cluster))
            if not np.array_equal(known.targets, yes):
                raise InputError(
                    f"Protein '{name}' has different true classes in different rows; give it one set of them."
                )
            if known.cluster != cluster:
                raise InputError(
                    f"Protein '{name}' is in more than one homology cluster; give each protein one."
                )
            key = row.tobytes()
            known.seen[key] = known.seen.get(key, 0) + 1

    def proteins(self) -> LabelRows:
        """Gather one row a protein: its mean probabilities over crops.

        Raises
        ------
        InputError
            If nothing was added.
        """
        rows = [(name, _mean(each.seen), 1) for name, each in self._proteins.items()]
        return self._rows(rows)

    def crops(self) -> LabelRows | None:
        """Gather the crops, or None where no protein has more than one."""
        if all(sum(each.seen.values()) == 1 for each in self._proteins.values()):
            return None
        return self._rows(
            [
                (name, np.frombuffer(key), count)
                for name, each in self._proteins.items()
                for key, count in each.seen.items()
            ]
        )

    def _rows(self, rows: list[tuple[str, Doubles, int]]) -> LabelRows:
        if not rows:
            raise InputError("There is no labelled protein to measure on; give a table with at least one.")
        number = {
            cluster: place
            for place, cluster in enumerate(dict.fromkeys(p.cluster for p in self._proteins.values()))
        }
        of = [self._proteins[name] for name, _, _ in rows]
        return LabelRows(
            self._classes,
            self._multi_label,
            self._thresholds,
            tuple(name for name, _, _ in rows),
            np.array([chances for _, chances, _ in rows]),
            np.array([protein.targets for protein in of]),
            np.array([count for _, _, count in rows], np.float64),
            np.array([number[protein.cluster] for protein in of], np.int64),
        )

    def _check_shapes(self, chances: Doubles, truth: Doubles, names: list[str], groups: list[str]) -> None:
        wanted = (len(names), len(self._classes))
        shapes = [chances.shape, truth.shape, (len(groups), len(self._thresholds))]
        if any(shape != wanted for shape in shapes):
            raise InputError(
                f"Probabilities, targets, proteins, clusters and thresholds do not fit: {chances.shape}, "
                f"{truth.shape}, {len(names)}, {len(groups)}, {len(self._thresholds)} for "
                f"{len(self._classes)} classes."
            )


def _mean(seen: dict[bytes, int]) -> Doubles:
    rows = np.array([np.frombuffer(key) for key in seen])
    # Divided last, so that equal rows have exactly their own value as their mean.
    return np.asarray(np.average(rows, axis=0, weights=list(seen.values())) if len(rows) > 1 else rows[0])


def _check_values(
    chances: Doubles, truth: Doubles, names: list[str], classes: tuple[str, ...], *, multi_label: bool
) -> None:
    # Negated, so that NaN is caught too.
    for row, column in np.argwhere(~((chances >= 0) & (chances <= 1)))[:1]:
        raise InputError(
            f"Protein '{names[row]}' has probability {chances[row, column]:g} for class '{classes[column]}'; "
            "give a number in [0, 1]."
        )
    for row, column in np.argwhere((truth != 0) & (truth != 1))[:1]:
        raise InputError(
            f"Protein '{names[row]}' has target {truth[row, column]:g} for class '{classes[column]}'; "
            "give 0 or 1."
        )
    for row in np.flatnonzero(truth.sum(1) != 1)[: not multi_label]:
        raise InputError(
            f"Protein '{names[row]}' has {truth[row].sum():g} true classes; a model that names one class is "
            "measured on proteins that have exactly one."
        )
