"""Cells to look at, chosen by rank and by chance, never by hand."""

import base64
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.evaluation.images.measuring import (
    DRAWN,
    NOBODY,
    WRONG_CLASS,
    Artist,
    Measured,
    other_proteins,
)
from deepgps.evaluation.report.tables import text
from deepgps.evaluation.subjects import Subjects

EACH, RANDOM = 4, 12
_QUALITY = 88

GALLERY_STYLE = """
.cells{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(29rem,100%),1fr));gap:.75rem}
figure{margin:0;break-inside:avoid}
figure img{display:block;width:100%;height:auto;border-radius:.3rem}
figcaption{font-size:.8rem;color:var(--faint)}
"""


def choose(likeness: Doubles, seed: int) -> dict[str, Ints]:
    """Choose cells by the Pearson r (N,) of the drawn image: best, median, worst, and by chance."""
    known = np.flatnonzero(np.isfinite(likeness))
    order = known[np.argsort(-likeness[known], kind="stable")]
    middle = max((len(order) - EACH) // 2, 0)
    chance = np.random.default_rng(seed).permutation(known)[:RANDOM]
    return {
        f"Drawn by chance (seed {seed})": np.sort(chance),
        "Best by Pearson r": order[:EACH],
        "Median": order[middle : middle + EACH],
        "Worst": order[::-1][:EACH],
    }


def gallery_section(subjects: Subjects, measured: Measured, artist: Artist, seed: int) -> str:
    """Show nucleus, real image, drawn image, and one drawn from a protein of another class."""
    likeness = measured.measure(DRAWN, "pearson")
    wrong = other_proteins(subjects, seed)[WRONG_CLASS]
    show = _shower(subjects, artist, likeness, wrong)
    parts = [
        '<h2 id="gallery">Cells to look at</h2>\n<p>From left to right: nucleus; real protein image; drawn; '
        "drawn from a protein of another class (the control). Intensities as they are, 0 black and 1 white, "
        "nothing stretched. Chosen by rank and by chance, none by hand.</p>\n"
    ]
    for title, rows in choose(likeness, seed).items():
        parts.append(f'<h3>{title}</h3>\n<div class="cells">\n{"".join(show(row) for row in rows)}</div>\n')
    return "".join(parts)


def _shower(subjects: Subjects, artist: Artist, likeness: Doubles, wrong: Ints) -> Callable[[int], str]:
    assert subjects.store is not None
    store = subjects.store

    def show(number: int) -> str:
        row, owner = subjects.rows[number], subjects.owner[number]
        nucleus, real = store.images([row])[0]
        drawn, control = artist.draw(np.stack([nucleus, nucleus]), np.array([owner, wrong[number]], np.int64))
        control = np.zeros_like(real) if wrong[number] == NOBODY else control
        named = subjects.subjects[owner].protein
        caption = f"{named.id}: {subjects.shown[number]}; r {likeness[number]:.2f}"
        other = subjects.subjects[wrong[number]].class_name if wrong[number] != NOBODY else "none"
        source = jpeg([nucleus, real, drawn, control])
        return (
            f'<figure><img alt="{text(caption)}" loading="lazy" src="{source}">'
            f"<figcaption>{text(caption)} · control: {text(other)}</figcaption></figure>\n"
        )

    return show


def jpeg(panels: list[Floats]) -> str:
    """Lay images (H, W) in [0, 1] side by side, as the address of an embedded JPEG."""
    gap = np.full((panels[0].shape[0], 4), 0.35, np.float32)
    whole = np.hstack([part for panel in panels for part in (panel, gap)][:-1])
    buffer = io.BytesIO()
    Image.fromarray((np.clip(whole, 0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
