"""The report's part on images."""

from collections.abc import Mapping

import numpy as np

from deepgps.arrays import Doubles
from deepgps.bundle import Metric
from deepgps.evaluation.images.figures import EFFECTS, SHOWN_KINDS, ImageFigures
from deepgps.evaluation.images.measuring import (
    DRAWN,
    READ_KINDS,
    REAL,
    WRONG_CLASS,
    Measured,
    Trained,
)
from deepgps.evaluation.images.structure import BANDS, FEATURES, PROFILE, PROFILE_EDGES_UM, SPECTRUM_EDGES
from deepgps.evaluation.report.plots import lines, round_axis, scatter, unit_axis, whiskers
from deepgps.evaluation.report.tables import cell, figures_table, text
from deepgps.evaluation.subjects import MANY, Subjects

LIKENESS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "pearson": ("Pearson r", 3),
    "intranuclear_r": ("intranuclear r", 2),
    "intranuclear_mae": ("intranuclear MAE", 3),
}
STRUCTURE = {
    "profile_error": ("profile error", 3),
    "fine_detail": ("fine detail (log2)", 2),
    "read_back": ("read back", 2),
    "read_back_balanced": ("balanced", 2),
    "place": ("place read", 2),
    "place_balanced": ("balanced", 2),
    "distance": ("distance", 1),
}
BY_CLASS = {
    "psnr": ("PSNR (dB)", 2),
    "psnr_class_mean": ("PSNR of class mean", 2),
    "pearson": ("Pearson r", 3),
    "sequence_effect": ("sequence_effect", 3),
    "intranuclear_mae": ("intranuclear MAE", 3),
    "read_back": ("read back", 2),
    "read_back_real": ("… real", 2),
    "place": ("place read", 2),
    "place_real": ("… real", 2),
}
ORACLES = "own mean, own nuclear mask"
_POINTS = 600


def image_section(
    figures: ImageFigures, measured: Measured, trained: Trained, subjects: Subjects, seed: int
) -> str:
    """Set everything found of images."""
    rows = [(kind, figures.kinds[kind]) for kind in SHOWN_KINDS]
    structured = [(kind, figures.kinds[kind]) for kind in SHOWN_KINDS if kind in READ_KINDS]
    by_class = [
        (f"{name.replace(MANY, ', ')} ({int((subjects.shown == name).sum()):,})", row)
        for name, row in figures.by_class.items()
    ]
    effect, same = (figures.effects[name] for name in EFFECTS)
    return (
        '<h2 id="images">Images</h2>\n'
        f"<p>{len(subjects.rows):,} crops; means over crops, 95 % bootstrap intervals over "
        f"{len(np.unique(subjects.groups)):,} {_units(subjects)}. Data range 1. The rows below the controls "
        f"cost nothing; {ORACLES} are oracles, which know the very image they are compared with.</p>\n"
        f"<p><strong>sequence_effect {cell(effect, 3)}</strong>: Pearson r of the drawn image less that of "
        "one drawn into the same nucleus from a protein of another class; from another protein of the same "
        f"class {cell(same, 3)}.</p>\n"
        f"{figures_table('image', LIKENESS, rows)}"
        f"{_whiskers(figures)}"
        "<h3>Structure</h3>\n"
        f"<p>{_about_reader(trained, figures)} Distance: Fréchet, as in FID, in the classifier's "
        "standardised features, to the real images; in the row of the real images, to the real training "
        "images. Fine detail: log2 of the share of variance below 2 µm over that of the real image; 0 is "
        "as sharp, -1 half as much.</p>\n"
        f"{figures_table('image', STRUCTURE, [*structured, (REAL, figures.kinds[REAL])])}"
        f"{_plots(measured, subjects, seed)}"
        "<h3>Class by class</h3>\n"
        f"{figures_table('shown (crops)', BY_CLASS, by_class, marked=None)}"
    )


def _units(subjects: Subjects) -> str:
    whole = len(np.unique(subjects.owner)) == len(np.unique(subjects.groups))
    return "proteins" if whole else "groups of crops (fields that were cut from one image)"


def _whiskers(figures: ImageFigures) -> str:
    def of(name: str) -> dict[str, Metric]:
        found = {kind: figures.kinds[kind].get(name) for kind in SHOWN_KINDS}
        return {kind: m for kind, m in found.items() if m is not None and np.isfinite(m.value)}

    return (
        f'<div class="columns">\n<div>{whiskers(of("pearson"), "Pearson r", include=0)}</div>\n'
        f"<div>{whiskers(of('psnr'), 'PSNR (dB)')}</div>\n</div>\n"
    )


def _about_reader(trained: Trained, figures: ImageFigures) -> str:
    if trained.readers is None:
        return "There is no classifier of images, so nothing is read back (see above)."
    known = ", ".join(
        f"{text(name)} {count:,}"
        for name, count in zip(trained.readers[0].classes, trained.readers[0].counts, strict=True)
    )
    ceiling, place = (figures.kinds[REAL].get(name) for name in ("read_back", "place"))
    weak = (
        " <strong>It reads fewer than half of the real images right: read back says little here.</strong>"
        if ceiling is not None and ceiling.value < 0.5
        else ""
    )
    return (
        "Read back: the share of images in which a classifier reads the class shown. The classifier (a "
        f"support vector machine on {FEATURES} features of profile, spectrum, granularity and contrast) was "
        f"trained on real training images only ({known}); on the real held-out images it is right in "
        f"{cell(ceiling)}, which is the ceiling. Images of several classes, or of a class it does not "
        f"know, are not read.{weak} Place read: the same by a classifier of the profile around the nucleus "
        f"alone, blind to texture and sharpness; on the real held-out images it is right in {cell(place)}. "
        "The first asks whether a drawn image looks like a real one of its class, the second whether the "
        "protein is where it should be."
    )


def _plots(measured: Measured, subjects: Subjects, seed: int) -> str:
    profile, spectrum = _mean_curves(measured)
    middles = (PROFILE_EDGES_UM[:-1] + PROFILE_EDGES_UM[1:]) / 2
    periods = np.log10(1 / np.sqrt(SPECTRUM_EDGES[:-1] * SPECTRUM_EDGES[1:]))
    profiles = {kind: (middles, curve) for kind, curve in profile.items()}
    spectra = {kind: (-periods, curve) for kind, curve in spectrum.items()}
    x = round_axis("distance from the nuclear outline (µm)", middles, include=0)
    y = round_axis("intensity over mean", np.stack(list(profile.values())), include=0)
    scale = round_axis("log10 of periods per µm", -periods)
    power = round_axis("log10 of share of variance", np.stack(list(spectrum.values())))
    groups = _fractions(measured, subjects, seed)
    return (
        '<div class="columns">\n'
        f"<div><h4>Profile around the nucleus, mean of crops</h4>{lines(profiles, x, y, guide_x=0)}</div>\n"
        f"<div><h4>Sharpness: radial power spectrum</h4>{lines(spectra, scale, power)}</div>\n"
        "<div><h4>Intranuclear fraction, crop by crop</h4>"
        f"{scatter(groups, unit_axis('real'), unit_axis('drawn'), diagonal=True)}</div>\n</div>\n"
    )


def _mean_curves(measured: Measured) -> tuple[Mapping[str, Doubles], Mapping[str, Doubles]]:
    """Mean profile and mean log spectrum of the kinds worth a line."""
    profile, spectrum = {}, {}
    for kind in (REAL, DRAWN, WRONG_CLASS, "nuclear mask"):
        sums, counts = np.zeros(PROFILE + BANDS), np.zeros(PROFILE + BANDS)
        for start in range(0, len(measured.records), 4096):
            part = measured.features(kind, slice(start, start + 4096))[:, : PROFILE + BANDS]
            sums += np.nansum(part, 0)
            counts += np.isfinite(part).sum(0)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        profile[kind], spectrum[kind] = mean[:PROFILE], mean[PROFILE:]
    return profile, spectrum


def _fractions(measured: Measured, subjects: Subjects, seed: int) -> dict[str, tuple[Doubles, Doubles]]:
    real, drawn = (measured.measure(kind, "intranuclear") for kind in (REAL, DRAWN))
    chosen = np.random.default_rng(seed).permutation(len(real))[:_POINTS]
    names = subjects.shown[chosen]
    return {
        str(name).replace(MANY, ", "): (real[chosen][names == name], drawn[chosen][names == name])
        for name in np.unique(names)
    }
