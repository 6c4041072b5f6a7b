"""The classes of other tools, mapped to those of `deepgps.localization`.

The paper compares on two classes: whatever a tool puts into the nucleus is nucleoplasm, everything else
cytoplasm. For any other class set a tool's class counts where all of its localizations do.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from deepgps.arrays import Mask
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, LOCALIZATIONS

_SECRETORY = ("er", "golgi", "vesicles", "membrane", "extracellular")

PLACES: Mapping[str, tuple[str, ...]] = {
    "nucleus": ("nucleoplasm",),
    "nuclear": ("nucleoplasm",),
    "nucleoli": ("nucleolus_gc",),
    "cytoplasm": ("cytoplasmic",),
    "cytosol": ("cytoplasmic",),
    "cytoplasmic": ("cytoplasmic",),
    "cytoskeleton": ("cytoskeleton",),
    "mitochondrion": ("mitochondria",),
    "mitochondrial": ("mitochondria",),
    "mitochondria": ("mitochondria",),
    "mitochondrial membrane": ("mitochondria",),
    "endoplasmic reticulum": ("er",),
    "endoplasmatic reticulum": ("er",),
    "endoplasmic": ("er",),
    "golgi apparatus": ("golgi",),
    "lysosome vacuole": ("vesicles",),
    "lysosome or vacuole": ("vesicles",),
    "lysosome": ("vesicles",),
    "peroxisome": ("vesicles",),
    "cell membrane": ("membrane",),
    "plasma membrane": ("membrane",),
    "membrane": ("membrane",),
    "extracellular": ("extracellular",),
    "extracellular space": ("extracellular",),
    "secreted": ("extracellular",),
    "secretory pathway": _SECRETORY,
    "endomembrane system": ("er", "golgi", "vesicles", "nuclear_membrane"),
    "organelle membrane": ("mitochondria", "er", "golgi", "vesicles", "nuclear_membrane"),
    "plastid": ("plastid",),
    "chloroplast": ("plastid",),
    **{name.replace("_", " "): (name,) for name in LOCALIZATIONS if name != "membrane"},
}
"""A tool's name of a place, in lower case without punctuation, and the localizations that it may mean."""

PEERS: Mapping[str, tuple[str, ...]] = {
    "MultiLoc2": ("Cytoplasmic", "Mitochondrial", "Nuclear", "Secretory pathway"),
    "DeepLoc 1.0": (
        *("Nucleus", "Cytoplasm", "Extracellular", "Mitochondrion", "Cell membrane"),
        *("Endoplasmic reticulum", "Plastid", "Golgi apparatus", "Lysosome/Vacuole", "Peroxisome"),
    ),
    "DeepLoc 2": (
        *("Cytoplasm", "Nucleus", "Extracellular", "Cell membrane", "Mitochondrion", "Plastid"),
        *("Endoplasmic reticulum", "Lysosome/Vacuole", "Golgi apparatus", "Peroxisome"),
    ),
    "BUSCA": (
        *("Nucleus", "Extracellular", "Organelle membrane", "Endomembrane system", "Lysosome"),
        *("Cytoplasm", "Mitochondrion", "Peroxisome", "Plasma membrane"),
    ),
    "MULocDeep": (
        *("Nucleus", "Cytoplasm", "Secreted", "Mitochondrion", "Membrane"),
        *("Endoplasmic", "Plastid", "Golgi_apparatus", "Lysosome", "Peroxisome"),
    ),
    "LAProtT5": (
        *("Cell.membrane", "Cytoplasm", "Endoplasmic.reticulum", "Golgi.apparatus", "Lysosome/Vacuole"),
        *("Mitochondrion", "Nucleus", "Peroxisome", "Plastid", "Extracellular"),
    ),
}
"""The classes of each tool as it writes them."""

NUCLEAR = frozenset(CLASS_SETS["mini"].classes["nucleoplasm"]) | {
    "nucleolus_gc",
    "nucleolus_fc_dfc",
    "nuclear_membrane",
}
"""Localizations in the nucleus of a tool that has one class for it."""

_TWO = CLASS_SETS["single-2"].slugs


def normalised_name(name: str) -> str:
    """Return a name of a place in lower case, without punctuation and the Gene Ontology's ``C:``."""
    return " ".join(re.split(r"[^a-z]+", re.sub(r"^[CFP]:", "", name).lower())).strip()


def is_place(name: str) -> bool:
    """Return whether a name is that of a place."""
    return normalised_name(name) in PLACES


def map_classes(peer_classes: Sequence[str], classes: Sequence[str]) -> Mask:
    """Map a tool's classes onto ours.

    Parameters
    ----------
    peer_classes
        P names, as a tool writes them.
    classes
        K of our class slugs; of a known class set, or localizations.

    Returns
    -------
    (P, K)
        Whether a tool's class counts for one of ours; each for at most one. For ``cytoplasmic`` and
        ``nucleoplasm`` alone, every class but the nuclear ones counts for ``cytoplasmic``, as in the paper.

    Raises
    ------
    InputError
        If a name is not a place, or its localizations lie in several of our classes.
    """
    unknown = [name for name in peer_classes if not is_place(name)]
    if unknown:
        raise InputError(
            f"Class '{unknown[0]}' of a peer is not a known place; rename it to one such as 'Nucleus' or "
            "'Golgi apparatus'."
        )
    if set(classes) == set(_TWO):
        nuclear = np.array([NUCLEAR.issuperset(PLACES[normalised_name(name)]) for name in peer_classes])
        return np.stack([nuclear if slug == "nucleoplasm" else ~nuclear for slug in classes], axis=1)
    members = _members(classes)
    return np.array([_row(name, classes, members) for name in peer_classes])


def _row(name: str, classes: Sequence[str], members: Sequence[frozenset[str]]) -> list[bool]:
    places = PLACES[normalised_name(name)]
    touched = [slug for slug, inside in zip(classes, members, strict=True) if not inside.isdisjoint(places)]
    if len(touched) > 1:
        raise InputError(
            f"Class '{name}' of a peer may be '{touched[0]}' or '{touched[1]}'; compare it on cytoplasmic "
            "and nucleoplasm alone."
        )
    return [inside.issuperset(places) for inside in members]


def _members(classes: Sequence[str]) -> list[frozenset[str]]:
    """Localizations of each of our classes, by the class set that has them all."""
    for known in CLASS_SETS.values():
        if set(classes) <= set(known.slugs):
            return [frozenset(known.classes[slug]) for slug in classes]
    unknown = [slug for slug in classes if slug not in LOCALIZATIONS]
    raise InputError(
        f"Class '{(unknown or list(classes))[0]}' belongs to no class set; peers are compared on the classes "
        f"of {', '.join(CLASS_SETS)}."
    )
