"""The models that are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

from deepgps.images.processing import SAME_SIZE
from deepgps.prediction import Predictor
from deepgps.results.names import FileNames


@dataclass(frozen=True, slots=True)
class Side:
    """One of the models.

    Attributes
    ----------
    name
        What it is called in tables and images; no two have the same.
    stem
        Name of its folder below ``models/``.
    version, sha256, cell_line
        Those of its bundle.
    classes, multi_label
        What it may name, and whether several at once.
    size_px, pixel_size_um
        Its crops.
    """

    name: str
    stem: str
    version: str
    sha256: str
    cell_line: str
    classes: tuple[str, ...]
    multi_label: bool
    size_px: int
    pixel_size_um: float

    @property
    def field_um(self) -> float:
        """Edge of its crops in micrometres."""
        return self.size_px * self.pixel_size_um


def sides_of(predictors: Sequence[Predictor]) -> tuple[Side, ...]:
    """Describe models, those of the same name told apart by a number."""
    taken: set[str] = set()
    stems, sides = FileNames(), []
    for predictor in predictors:
        about = predictor.bundle.metadata
        numbered = (about.name, *(f"{about.name}-{number}" for number in range(2, len(taken) + 2)))
        name = next(each for each in numbered if each not in taken)
        taken.add(name)
        sides.append(
            Side(
                name=name,
                stem=stems.name(name),
                version=about.version,
                sha256=predictor.bundle.sha256,
                cell_line=about.cell_line,
                classes=about.classes,
                multi_label=about.multi_label,
                size_px=about.crop.size_px,
                pixel_size_um=about.crop.pixel_size_um,
            )
        )
    return tuple(sides)


def frame_note(first: Side, other: Side) -> str | None:
    """Say that two models do not see the same piece of the image, where they do not."""
    if abs(other.field_um / first.field_um - 1) <= SAME_SIZE:
        return None
    return (
        f"Crops of {other.name} are {other.field_um:.0f} µm wide and those of {first.name} "
        f"{first.field_um:.0f} µm: part of what their intranuclear fractions differ by is due to the frame"
    )
