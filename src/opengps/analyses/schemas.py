"""Requests and responses about explanations and variants; part of ``/api/v1/openapi.json``."""

from pydantic import Field

from opengps.schemas import EvidenceRow, Status, StrictModel


class VariantsRequest(StrictModel):
    """Which variants of the protein of a result to compare, as JSON or as the fields of a form."""

    changes: list[str] = Field(default=[], examples=[["p.Arg389Gly", "R389*", "n+NLS"]])
    """Changes such as `R389Q`, `p.Arg389Gly`, `R389*` (truncation), `1-30del` and `n+NLS` (fusion); those of
    one variant are joined by commas. In a form, separated by spaces or lines."""
    scan: str = Field("", max_length=40, examples=["10-60"])
    """A region of which every substitution is made."""
    images: bool = True
    """Whether to draw the variants into the cell of the result, with its seed; a scan is not drawn."""


class SignalRow(StrictModel):
    """A sorting signal of a sequence."""

    signal: str
    """Its kind: `SP`, `MT`, `CH`, `TH`, `TM`, `PTS`, `NLS`, `NES`, `GPI`, `ER` or `LIPID`."""
    name: str
    start: int
    end: int
    """First and last residue, from 1."""
    score: float
    known_from: str
    """What it was found with."""


class Explanation(StrictModel):
    """Why a protein was predicted where it was, without its own record."""

    protein_id: str
    length: int
    sentence: str
    """What the prediction rests on."""
    localizations: list[str]
    """The localizations that are explained."""
    probabilities: dict[str, float]
    signals: list[SignalRow]
    importance: dict[str, list[float]]
    """By localization, how far its logit falls when a window around each residue is masked."""
    noise_floor: dict[str, float]
    """By localization; importance below it is no more than random masks cause."""
    window: int
    """Residues of a masked window."""
    evidence: list[EvidenceRow]
    """The nearest annotated proteins."""
    model: str
    version: str


class VariantRow(StrictModel):
    """What one variant changes."""

    change: str
    """As it was written."""
    text: str
    """What becomes of the answer, the most changed probability and the signals, in a sentence."""
    localizations: list[str]
    probabilities: dict[str, float]
    changes: dict[str, float]
    """The probabilities minus those of the unchanged protein."""
    signals_lost: list[SignalRow]
    """In residues of the unchanged protein."""
    signals_gained: list[SignalRow]
    """In residues of the variant."""
    moves: float | None
    """The score of single substitutions, 0 to 1; null for other changes."""
    image_change: float | None
    """Mean absolute difference from the image of the unchanged protein; null if it is not drawn."""
    image: str | None
    """Name of its image, `NUMBER.png`; null if it is not drawn."""


class Comparison(StrictModel):
    """Variants of a protein beside the unchanged one, predicted without its own record."""

    protein_id: str
    length: int
    limits: str
    """What such a comparison can and cannot tell."""
    localizations: list[str]
    """Of the unchanged protein, as what follows."""
    probabilities: dict[str, float]
    signals: list[SignalRow]
    noise_floor: dict[str, float]
    """By localization; 19 of 20 silent changes change its probability by less."""
    image: str | None
    """Name of the image of the unchanged protein; null if it is not drawn."""
    image_noise_floor: float | None
    """Largest change of the image by a few silent changes."""
    variants: list[VariantRow]
    """The strongest change first."""
    heat_map: str | None
    """Name of the heat map of a scan; null if there is none."""
    model: str
    version: str


class AnalysisStatus(StrictModel):
    """An explanation or a comparison, and how far it is."""

    number: int
    """Its place in its address."""
    status: Status
    changes: list[str]
    scan: str
    created_at: str
    finished_at: str | None
    error: str | None
    """Why it failed."""
    links: dict[str, str]
    """Addresses of it, of its page and of its files."""


class ExplanationStatus(AnalysisStatus):
    """An explanation; null until it is finished."""

    explanation: Explanation | None


class ComparisonStatus(AnalysisStatus):
    """A comparison of variants; null until it is finished."""

    comparison: Comparison | None
