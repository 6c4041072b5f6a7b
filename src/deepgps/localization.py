"""The vocabulary: where in the cell a protein can be, in the words of OpenCell, HPA and UniProt.

A *localization* is one of OpenCell's 17 categories or one of two that OpenCell cannot see
(``extracellular``, ``plastid``). A *class set* is what one model predicts: named classes, each a group of
localizations.
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

# UniProt's "Nucleus" does not say which part of it: nucleoplasm is the likely reading, nucleolus stays open.
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
    """What one model predicts.

    Attributes
    ----------
    name
        The model family it belongs to, such as ``single-2``.
    classes
        Class slug to the localizations it stands for; the order is the order of every probability vector.
    multi_label
        Whether a protein may belong to several classes at once.
    """

    name: str
    classes: Mapping[str, tuple[str, ...]]
    multi_label: bool

    @property
    def slugs(self) -> tuple[str, ...]:
        """The classes' names, in order."""
        return tuple(self.classes)

    def of(self, localizations: Iterable[str]) -> frozenset[str]:
        """Map localizations onto the classes that stand for them."""
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
    """Look up a class set by name.

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
    """Apply the paper's grade rule: the localizations of the highest grade available, 3 else 2.

    Grade 1 never counts; exactly one major localization makes a protein single-localized.
    """
    return tuple(grade_3) or tuple(grade_2)
