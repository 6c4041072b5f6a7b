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

# How pages show a slug; others are shown with blanks for underscores.
_DISPLAY_NAMES: Mapping[str, str] = {
    "er": "ER",
    "golgi": "Golgi",
    "nucleolus_gc": "nucleolus (granular component)",
    "nucleolus_fc_dfc": "nucleolus (fibrillar centre)",
    "membrane": "plasma membrane",
    "cytoplasmic": "cytoplasm",
}


def display_name(slug: str) -> str:
    """Return the name under which pages and reports show a localization or class.

    Parameters
    ----------
    slug
        The slug.

    Returns
    -------
    str
        Its name; the slug with blanks for underscores if it has no other.

    Examples
    --------
    >>> from deepgps.localization import display_name
    >>> display_name("membrane")
    'plasma membrane'
    """
    return _DISPLAY_NAMES.get(slug, slug.replace("_", " "))


def localization_slug(name: str) -> str | None:
    """Return the slug of a localization, given the slug or its display name in either case.

    Parameters
    ----------
    name
        The slug or name.

    Returns
    -------
    str or None
        The slug; None if it is neither.

    Examples
    --------
    >>> from deepgps.localization import localization_slug
    >>> localization_slug("Plasma membrane"), localization_slug("membrane")
    ('membrane', 'membrane')
    """
    key = name.strip().casefold().replace("-", " ").replace("_", " ")
    return _SLUGS.get(key)


_SLUGS: Mapping[str, str] = {
    shown.casefold().replace("_", " "): slug
    for slug in LOCALIZATIONS
    for shown in (slug, _DISPLAY_NAMES.get(slug, slug))
}

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

_SAME_WORD = {
    "Nucleoplasm": "nucleoplasm",
    "Nucleoli": "nucleolus_gc",
    "Nucleoli fibrillar center": "nucleolus_fc_dfc",
    "Nuclear membrane": "nuclear_membrane",
    "Cytosol": "cytoplasmic",
    "Plasma membrane": "membrane",
    "Cell Junctions": "cell_contact",
    "Focal adhesion sites": "focal_adhesions",
    "Vesicles": "vesicles",
    "Centrosome": "centrosome",
    "Mitochondria": "mitochondria",
    "Golgi apparatus": "golgi",
    "Endoplasmic reticulum": "er",
}
HPA_TO_WORDS: Mapping[str, str] = {
    **{name: _SAME_WORD.get(name, name) for name in HPA_TO_LOCALIZATIONS},
    "Vesicles and punctate cytosolic patterns": "vesicles",
}
"""The annotation word of each location of the HPA."""
WORDS = (*OPENCELL_CATEGORIES, *(name for name in HPA_TO_LOCALIZATIONS if name not in _SAME_WORD))
"""Annotation words: OpenCell's categories and the locations of the HPA that mean none of them."""


def localizations_of(words: Iterable[str]) -> tuple[str, ...]:
    """Return the localizations that annotation words (`WORDS`) stand for, each once."""
    return tuple(dict.fromkeys(place for word in words for place in HPA_TO_LOCALIZATIONS.get(word, (word,))))


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


# UniProt's subcellular locations, by the most specific part of the name that is listed here. Those of one
# kind of cell that no other has, such as a dendrite, are not in the vocabulary.
_UNIPROT_PARTS: Mapping[str, tuple[str, ...]] = {
    part: localizations
    for localizations, parts in (
        (
            ("nucleoplasm",),
            "nucleus,nucleoplasm,nucleus matrix",
        ),
        (("nucleolus_gc",), "nucleolus"),
        (
            ("nuclear_punctae",),
            "nucleus speckle,nuclear body,pml body,cajal body,gem,kinetochore,telomere,nuclear speckle",
        ),
        (("chromatin",), "chromosome,centromere"),
        (
            ("nuclear_membrane",),
            "nucleus membrane,nucleus envelope,nucleus lamina,nucleus inner membrane,nucleus outer membrane,"
            "nuclear pore complex",
        ),
        (
            ("cytoplasmic",),
            "cytoplasm,cytosol,perinuclear region,p-body,stress granule,cytoplasmic granule,"
            "cytoplasmic ribonucleoprotein granule,sarcoplasm",
        ),
        (
            ("cytoskeleton",),
            "cytoskeleton,spindle,cell cortex,myofibril,sarcomere,z line,m line,i band,a band,stress fiber,"
            "cilium axoneme,flagellum axoneme,midbody,midbody ring,cleavage furrow",
        ),
        (
            ("centrosome",),
            "microtubule organizing center,centrosome,centriole,centriolar satellite,cilium basal body,"
            "flagellum basal body,spindle pole,spindle pole body",
        ),
        (
            ("membrane",),
            "cell membrane,apical cell membrane,basolateral cell membrane,basal cell membrane,"
            "lateral cell membrane,apicolateral cell membrane,presynaptic cell membrane,"
            "postsynaptic cell membrane,synaptic cell membrane,sarcolemma,t-tubule,cell surface,"
            "membrane raft,caveola,clathrin-coated pit,coated pit,ruffle,ruffle membrane,lamellipodium,"
            "lamellipodium membrane,filopodium,filopodium membrane,microvillus,microvillus membrane,"
            "cilium membrane,bleb,phagocytic cup",
        ),
        (
            ("cell_contact",),
            "cell junction,tight junction,adherens junction,gap junction,desmosome,hemidesmosome,"
            "paranodal septate junction",
        ),
        (("focal_adhesions",), "focal adhesion,podosome,invadopodium"),
        (
            ("mitochondria",),
            "mitochondrion,mitochondrion membrane,mitochondrion inner membrane,mitochondrion outer membrane,"
            "mitochondrion matrix,mitochondrion intermembrane space,mitochondrion nucleoid",
        ),
        (
            ("er",),
            "endoplasmic reticulum,endoplasmic reticulum membrane,endoplasmic reticulum lumen,"
            "rough endoplasmic reticulum,rough endoplasmic reticulum membrane,"
            "rough endoplasmic reticulum lumen,smooth endoplasmic reticulum,"
            "smooth endoplasmic reticulum membrane,sarcoplasmic reticulum,sarcoplasmic reticulum membrane,"
            "sarcoplasmic reticulum lumen,microsome,microsome membrane,"
            "endoplasmic reticulum-golgi intermediate compartment,"
            "endoplasmic reticulum-golgi intermediate compartment membrane",
        ),
        (
            ("golgi",),
            "golgi apparatus,golgi apparatus membrane,golgi apparatus lumen,golgi stack,golgi stack membrane,"
            "trans-golgi network,trans-golgi network membrane,cis-golgi network,cis-golgi network membrane",
        ),
        (
            ("vesicles",),
            "lysosome,lysosome membrane,lysosome lumen,vacuole,vacuole membrane,endosome,endosome membrane,"
            "endosome lumen,early endosome,early endosome membrane,late endosome,late endosome membrane,"
            "late endosome lumen,recycling endosome,recycling endosome membrane,multivesicular body,"
            "multivesicular body membrane,cytoplasmic vesicle,cytoplasmic vesicle membrane,"
            "cytoplasmic vesicle lumen,vesicle,autophagosome,autophagosome membrane,autolysosome,"
            "autolysosome membrane,phagosome,phagosome membrane,preautophagosomal structure,"
            "preautophagosomal structure membrane,melanosome,melanosome membrane,peroxisome,"
            "peroxisome membrane,peroxisome matrix,lipid droplet,cytolytic granule,"
            "cytolytic granule membrane,zymogen granule,zymogen granule membrane,acrosome",
        ),
        (
            ("extracellular",),
            "secreted,extracellular space,extracellular matrix,basement membrane,surface film,"
            "extracellular exosome,extracellular vesicle,extracellular vesicle membrane",
        ),
    )
    for part in parts.split(",")
}


def uniprot_localizations(location: str) -> tuple[str, ...]:
    """Return the localizations of a subcellular location of UniProt.

    Parameters
    ----------
    location
        A location as UniProt writes it, the general part first, such as ``Nucleus, nucleolus``.

    Returns
    -------
    tuple of str
        Those of its most specific part that the vocabulary has; empty if it has none.

    Examples
    --------
    >>> from deepgps.localization import uniprot_localizations
    >>> uniprot_localizations("Cytoplasm, cytoskeleton, spindle pole")
    ('centrosome',)
    """
    parts = [part.strip().lower() for part in location.split(",")]
    return next((_UNIPROT_PARTS[part] for part in reversed(parts) if part in _UNIPROT_PARTS), ())


# What a coarse word leaves undecided, in lower case.
_IN_NUCLEUS = ("nucleolus_fc_dfc", "nucleolus_gc", "nuclear_punctae", "chromatin", "nuclear_membrane")
_IN_CYTOPLASM = ("cytoskeleton", "centrosome", "big_aggregates")
_UNDECIDED: Mapping[str, tuple[str, ...]] = {
    "nucleus": _IN_NUCLEUS,
    "nucleus/chromatin": _IN_NUCLEUS,
    "mostly nuclear": _IN_NUCLEUS,
    "cytoplasm": _IN_CYTOPLASM,
    "mostly cytosolic": _IN_CYTOPLASM,
    "cell membrane": ("cell_contact", "focal_adhesions"),
}


def undecided_localizations(word: str) -> tuple[str, ...]:
    """Return the localizations that a coarse word, such as ``Nucleus``, neither says nor excludes."""
    return _UNDECIDED.get(word.lower(), ())


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
