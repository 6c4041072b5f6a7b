"""Counts of annotated proteins by class, compared with those of the paper."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from deepgps.datasets.annotation.proteins import AnnotatedProtein

PAPER_MAX_LENGTH = 2700
"""Longest sequence for which AlphaFold DB has a single structure; the paper left out longer ones."""

PAPER_OPENCELL: Mapping[str, int] = {
    "cytoplasmic": 222,
    "vesicles": 140,
    "nucleoplasm": 132,
    "er": 78,
    "single-localized": 865,
    "multi-localized": 436,
    "proteins": 1301,
    "single-2": 354,
    "single-4": 572,
}
"""Numbers of OpenCell proteins of at most `PAPER_MAX_LENGTH` residues in the paper (Fig. 2b)."""

PAPER_HPA_SINGLE_2 = 2087
"""Number of U-2 OS proteins in the paper whose only location is cytosol or nucleoplasm."""


def report_rows(protein: AnnotatedProtein) -> tuple[str, ...]:
    """Return the rows of the report that count a protein."""
    single = (protein.localizations[0], "single-localized") if protein.single_localized else ()
    sets = tuple(name for name in ("single-2", "single-4") if protein.class_in(name))
    return (*(single or ("multi-localized",)), "proteins", *sets)


def count_rows(proteins: Iterable[AnnotatedProtein]) -> Counter[str]:
    """Count proteins by row of the report."""
    return Counter(row for protein in proteins for row in report_rows(protein))


def is_within_paper_length(protein: AnnotatedProtein) -> bool:
    """Return whether the sequence of a protein is known and at most `PAPER_MAX_LENGTH` long."""
    return protein.sequence is not None and len(protein.sequence) <= PAPER_MAX_LENGTH


_TOTALS = ("single-localized", "multi-localized", "proteins", "single-2", "single-4")


def opencell_report(proteins: Sequence[AnnotatedProtein]) -> Iterator[str]:
    """Yield lines with the counts of OpenCell's proteins, all and filtered by length, and of the paper."""
    before, after = count_rows(proteins), count_rows(filter(is_within_paper_length, proteins))
    lengths = any(protein.sequence for protein in proteins)
    classes = sorted((name for name in before if name not in _TOTALS), key=lambda name: -before[name])
    header = ("all", f"up to {PAPER_MAX_LENGTH:,} residues" if lengths else "", "paper")
    yield f"{'':<18}{header[0]:>6}{header[1]:>24}{header[2]:>8}"
    for name in (*classes, *_TOTALS):
        short = f"{after[name]:,}" if lengths else ""
        paper = f"{PAPER_OPENCELL[name]:,}" if name in PAPER_OPENCELL else ""
        yield f"{name:<18}{before[name]:>6,}{short:>24}{paper:>8}".rstrip()
    unknown = sum(protein.sequence is None for protein in proteins)
    if lengths and unknown:
        yield f"{unknown:,} without a sequence, so of unknown length"
    # The counts of a part of the library differ anyway.
    elif lengths and len(proteins) >= PAPER_OPENCELL["proteins"]:
        yield from _differences(proteins, after)


def _differences(proteins: Sequence[AnnotatedProtein], after: Mapping[str, int]) -> Iterator[str]:
    longer = [protein for protein in proteins if protein.sequence and not is_within_paper_length(protein)]
    for name, paper in PAPER_OPENCELL.items():
        if after[name] != paper:
            named = [
                f"{each.gene_symbol} {len(each.sequence or ''):,}"
                for each in longer
                if name in report_rows(each)
            ]
            note = f" (longer: {', '.join(named)})" if named else ""
            yield f"{name}: {after[name]:,} here, {paper:,} in the paper{note}"


def hpa_report(proteins: Sequence[AnnotatedProtein]) -> Iterator[str]:
    """Yield lines with the counts of the Atlas's proteins; single-2 is compared with the paper."""
    counts = count_rows(proteins)
    classes = sorted((name for name in counts if name not in _TOTALS), key=lambda name: -counts[name])
    for name in (*classes, *_TOTALS):
        yield f"{name:<18}{counts[name]:>6,}"
    two = Counter(slug for each in proteins if (slug := each.class_in("single-2")))
    yield (
        f"single-2: {two['cytoplasmic']:,} in the cytosol only, {two['nucleoplasm']:,} in the nucleoplasm "
        f"only (the paper: {PAPER_HPA_SINGLE_2:,} of both)"
    )
