"""Localizations in the vocabularies of OpenCell, HPA and UniProt, and class sets.

A *localization* is one of OpenCell's 17 categories, or ``extracellular`` or ``plastid``, which OpenCell
cannot see. A *class set* is the set of classes that a model predicts; each is a group of localizations.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deepgps.errors import InputError

OPENCELL_CATEGORIES = (
    "nucleoplasm",
    "nucleolus_fc_dfc",
    "nucleolus_gc",
    "nuclear_punctae",
    "chromatin",
    "nuclear_membrane",
    "cytoplasmic",
    "cytoskeleton",
    "membrane",
    "cell_contact",
    "focal_adhesions",
    "vesicles",
    "centrosome",
    "mitochondria",
    "golgi",
    "er",
    "big_aggregates",
)
LOCALIZATIONS = (*OPENCELL_CATEGORIES, "extracellular", "plastid")

HPA_TO_LOCALIZATIONS: Mapping[str, tuple[str, ...]] = {
    "Actin filaments": ("cytoskeleton",),
    "Aggresome": ("big_aggregates",),
    "Cell Junctions": ("cell_contact",),
    "Centriolar satellite": ("centrosome",),
    "Centrosome": ("centrosome",),
    "Cleavage furrow": ("cytoskeleton",),
    "Cytokinetic bridge": ("cytoskeleton",),
    "Cytoplasmic bodies": ("cytoplasmic",),
    "Cytosol": ("cytoplasmic",),
    "Endoplasmic reticulum": ("er",),
    "Endosomes": ("vesicles",),
    "Focal adhesion sites": ("focal_adhesions",),
    "Golgi apparatus": ("golgi",),
    "Intermediate filaments": ("cytoskeleton",),
    "Kinetochore": ("nuclear_punctae",),
    "Lipid droplets": ("vesicles",),
    "Lysosomes": ("vesicles",),
    "Microtubule ends": ("cytoskeleton",),
    "Microtubule organizing center": ("centrosome",),
    "Microtubules": ("cytoskeleton",),
    "Midbody": ("cytoskeleton",),
    "Midbody ring": ("cytoskeleton",),
    "Mitochondria": ("mitochondria",),
    "Mitotic chromosome": ("chromatin",),
    "Mitotic spindle": ("cytoskeleton",),
    "Nuclear bodies": ("nuclear_punctae",),
    "Nuclear membrane": ("nuclear_membrane",),
    "Nuclear speckles": ("nuclear_punctae",),
    "Nucleoli": ("nucleolus_gc",),
    "Nucleoli fibrillar center": ("nucleolus_fc_dfc",),
    "Nucleoli rim": ("nucleolus_gc",),
    "Nucleoplasm": ("nucleoplasm",),
    "Peroxisomes": ("vesicles",),
    "Plasma membrane": ("membrane",),
    "Rods & Rings": ("big_aggregates",),
    "Vesicles": ("vesicles",),
}

# UniProt's "Nucleus" does not say which part: nucleoplasm is the most likely one.
UNIPROT_TO_LOCALIZATIONS: Mapping[str, tuple[str, ...]] = {
    "Nucleus": ("nucleoplasm",),
    "Cytoplasm": ("cytoplasmic",),
    "Cell membrane": ("membrane",),
    "Extracellular": ("extracellular",),
    "Mitochondrion": ("mitochondria",),
    "Endoplasmic reticulum": ("er",),
    "Golgi apparatus": ("golgi",),
    "Lysosome/Vacuole": ("vesicles",),
    "Peroxisome": ("vesicles",),
    "Plastid": ("plastid",),
}


@dataclass(frozen=True, slots=True)
class ClassSet:
    """The classes that a model predicts.

    Attributes
    ----------
    name
        Name, such as ``single-2``.
    classes
        The localizations of each class, by slug, in the order of the probabilities.
    multi_label
        Whether a protein may belong to several classes at once.
    """

    name: str
    classes: Mapping[str, tuple[str, ...]]
    multi_label: bool

    @property
    def slugs(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return tuple(self.classes)

    def of(self, localizations: Iterable[str]) -> frozenset[str]:
        """Return the classes that contain any of the localizations."""
        wanted = set(localizations)
        return frozenset(slug for slug, members in self.classes.items() if wanted & set(members))


def _one_to_one(name: str, slugs: Iterable[str], *, multi_label: bool) -> ClassSet:
    return ClassSet(name, {slug: (slug,) for slug in slugs}, multi_label)


CLASS_SETS: Mapping[str, ClassSet] = {
    set_.name: set_
    for set_ in (
        _one_to_one("single-2", ("cytoplasmic", "nucleoplasm"), multi_label=False),
        _one_to_one("single-4", ("cytoplasmic", "nucleoplasm", "vesicles", "er"), multi_label=False),
        _one_to_one("all", OPENCELL_CATEGORIES, multi_label=True),
        ClassSet(
            "mini",
            {
                "nucleoplasm": ("nucleoplasm", "nuclear_punctae", "chromatin"),
                "nucleolus": ("nucleolus_gc", "nucleolus_fc_dfc"),
                "nuclear_membrane": ("nuclear_membrane",),
                "cytoplasmic": ("cytoplasmic", "big_aggregates"),
                "cytoskeleton": ("cytoskeleton",),
                "centrosome": ("centrosome",),
                "membrane": ("membrane", "cell_contact", "focal_adhesions"),
                "er": ("er",),
                "golgi": ("golgi",),
                "vesicles": ("vesicles",),
                "mitochondria": ("mitochondria",),
                "extracellular": ("extracellular",),
            },
            multi_label=True,
        ),
    )
}


def class_set(name: str) -> ClassSet:
    """Return a class set by name.

    Parameters
    ----------
    name
        Name of the class set, such as ``single-2``.

    Returns
    -------
    ClassSet
        One of `CLASS_SETS`.

    Raises
    ------
    InputError
        If there is no class set of that name.
    """
    try:
        return CLASS_SETS[name]
    except KeyError:
        raise InputError(f"Class set '{name}' is unknown; use one of {', '.join(CLASS_SETS)}.") from None


def major_localizations(grade_3: Iterable[str], grade_2: Iterable[str]) -> tuple[str, ...]:
    """Return a protein's major localizations by the paper's rule: those of grade 3, or else of grade 2.

    Grade 1 never counts; a protein with exactly one major localization is single-localized.

    Parameters
    ----------
    grade_3, grade_2
        Localizations of each grade.

    Returns
    -------
    tuple of str
        The major localizations; empty if there are none of grade 2 or 3.
    """
    return tuple(grade_3) or tuple(grade_2)
