"""Pairing: which training protein stands for an image whose localization is known but whose protein is not.

The image is then true to the localization, not to the one protein; the model card says so.
"""

from collections.abc import Mapping

import numpy as np

from deepgps.arrays import Floats
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet
from deepgps.training.mini.batches import sure

# Secreted proteins have no image of their own: a cell shows them on their way, in the ER.
EXTRACELLULAR_SHARE_OF_ER = 0.15
UNSEEN_SHARE = 0.3


class Pairing:
    """Draws the class probabilities of a training protein for an image.

    Parameters
    ----------
    proteins
        The labelled proteins.
    fresh, unseen
        (N, K) what the encoder says of each: having trained on it, and having seen neither its cluster's
        sequences nor itself among the neighbours, as is the case for proteins new to the model.
    classes
        The class set of both.
    """

    def __init__(self, proteins: LabelledProteins, fresh: Floats, unseen: Floats, classes: ClassSet) -> None:
        self.classes = classes
        self.fresh, self.unseen = fresh, unseen
        self.by_accession: Mapping[str, int] = {str(a): i for i, a in enumerate(proteins.ids)}
        groups: dict[frozenset[str], list[int]] = {}
        for i, row in enumerate(proteins.labels >= 0.5):
            named = frozenset(slug for slug, positive in zip(classes.slugs, row, strict=True) if positive)
            groups.setdefault(named, []).append(i)
        self.by_classes = {named: np.array(rows) for named, rows in groups.items()}

    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats:
        """Probabilities (K,) of a protein that goes where the image's does.

        Where the image's own protein is known it is that one every other time: there are too few of them
        to teach the generator more than their own probabilities.

        Parameters
        ----------
        localizations
            The image's localizations, joined by ``|``.
        accession
            UniProt accession of its protein, or an empty string.
        rng
            Source of chance.
        """
        if accession in self.by_accession and rng.random() < 0.5:
            return self._vary(self.by_accession[accession], rng)
        named = self.classes.of(localizations.split("|"))
        if (
            named == {"er"}
            and "extracellular" in self.classes.slugs
            and rng.random() < EXTRACELLULAR_SHARE_OF_ER
        ):
            named = frozenset({"extracellular"})
        if named not in self.by_classes:
            return sure(self.classes, localizations)
        return self._vary(int(rng.choice(self.by_classes[named])), rng)

    def _vary(self, row: int, rng: np.random.Generator) -> Floats:
        """Sharpen or soften the encoder's word, so that the generator meets sure and unsure proteins."""
        source = self.unseen if rng.random() < UNSEEN_SHARE else self.fresh
        p = np.clip(source[row], 1e-4, 1 - 1e-4)
        logits = np.log(p / (1 - p)) * rng.uniform(0.6, 1.6)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
