"""How the predictions of several models differ from those of the first model, protein by protein."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.files import safe_file_name, unique_names
from deepgps.images.processing import SAME_SIZE
from deepgps.prediction import Predictor
from deepgps.reporting.pages import yes_no
from deepgps.results.records import Record, table_line

CONTROL_SHARE = 0.95
"""A difference counts once it is larger than this share of all controls."""


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of the models.

    Attributes
    ----------
    name
        Name in tables and images, unique among the models.
    folder
        Name of its folder below ``models/``.
    version, sha256, cell_line
        Those of its bundle.
    classes, multi_label
        The classes it predicts, and whether it predicts several at once.
    size_px, pixel_size_um
        Its crops.
    """

    name: str
    folder: str
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

    def has_same_field(self, other: "ComparedModel") -> bool:
        """Whether crops of both models show the same part of an image."""
        return abs(other.field_um / self.field_um - 1) <= SAME_SIZE

    def has_same_scale(self, other: "ComparedModel") -> bool:
        """Whether images of both models can be compared pixel by pixel."""
        same_pixels = abs(self.pixel_size_um / other.pixel_size_um - 1) <= SAME_SIZE
        return same_pixels and self.size_px == other.size_px


@dataclass(frozen=True, slots=True)
class ComparedProtein:
    """One protein, predicted by every model.

    Attributes
    ----------
    records
        The record of each model, without evidence.
    controls
        For each model, the difference between the intranuclear fractions in two default cells; None where an
        image has no intensity.
    pearson
        For each model but the first, Pearson r of its image and that of the first; None where their crops
        have different scales or an image is constant.
    image
        Name of the image in ``images/``, without extension.
    """

    records: tuple[Record, ...]
    controls: tuple[float | None, ...]
    pearson: tuple[float | None, ...]
    image: str

    @property
    def protein_id(self) -> str:
        """Id of the protein."""
        return self.records[0]["protein_id"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of all models, each once."""
        return tuple(dict.fromkeys(warning for record in self.records for warning in record["warnings"]))

    def fraction_difference(self, other: int) -> float | None:
        """Intranuclear fraction of a model, by number, minus that of the first."""
        first, second = (self.records[k]["intranuclear_fraction"] for k in (0, other))
        return None if first is None or second is None else second - first

    def probability_differences(self, other: int) -> dict[str, float]:
        """Probabilities of the classes that a model shares with the first, minus those of the first."""
        first, second = (self.records[k]["probabilities"] for k in (0, other))
        return {slug: second[slug] - first[slug] for slug in first if slug in second}

    def largest_difference(self) -> float:
        """Largest difference in a probability or the intranuclear fraction, in [0, 1]."""
        differences = [0.0]
        for other in range(1, len(self.records)):
            differences += [abs(each) for each in self.probability_differences(other).values()]
            differences.append(abs(self.fraction_difference(other) or 0.0))
        return max(differences)

    def exceeds_control(self, other: int, bound: float | None) -> bool | None:
        """Whether the intranuclear fractions of a model and of the first differ by more than any control."""
        difference = self.fraction_difference(other)
        if difference is None or bound is None:
            return None
        return abs(difference) > max(bound, self.controls[0] or 0.0, self.controls[other] or 0.0)

    def labels_agree(self, models: Sequence[ComparedModel], other: int) -> bool | None:
        """Whether a model, by number, predicts the same classes as the first, among those that both have.

        A model of one class per protein agrees with one of several if its class is among them.

        Returns
        -------
        bool or None
            None where one of them predicts only classes that the other does not have.
        """
        first, second = models[0], models[other]
        shared = set(first.classes) & set(second.classes)
        one, two = (shared.intersection(self.records[k]["localizations"]) for k in (0, other))
        if not one or not two:
            return None
        return one == two if first.multi_label and second.multi_label else bool(one & two)

    def all_labels_agree(self, models: Sequence[ComparedModel]) -> bool | None:
        """Whether all models that can be compared with the first agree with it; None if none can."""
        answers = [self.labels_agree(models, other) for other in range(1, len(models))]
        return False if False in answers else True if True in answers else None


@dataclass(frozen=True, slots=True)
class DifferenceSummary:
    """All proteins together, for one model and the first.

    Attributes
    ----------
    name
        Name of the model.
    agreeing, comparable
        Proteins with the same labels, of those whose labels can be compared.
    probability, fraction
        Mean absolute difference in the probabilities of shared classes, and in the intranuclear fraction;
        None where there is none.
    control, bound
        Mean of both models' controls, and the value that `CONTROL_SHARE` of them do not exceed.
    exceeding, measured
        Proteins whose intranuclear fractions differ by more than the control, of those that have them.
    """

    name: str
    agreeing: int
    comparable: int
    probability: float | None
    fraction: float | None
    control: float | None
    bound: float | None
    exceeding: int
    measured: int

    @property
    def is_within_control(self) -> bool:
        """Whether no more proteins exceed the control than would by definition."""
        return self.exceeding <= (1 - CONTROL_SHARE) * self.measured


def describe_models(predictors: Sequence[Predictor]) -> tuple[ComparedModel, ...]:
    """Describe the models; those of the same name get a number."""
    metadata = [predictor.bundle.metadata for predictor in predictors]
    names = unique_names(each.name for each in metadata)
    folders = unique_names(map(safe_file_name, names))
    return tuple(
        ComparedModel(
            name=name,
            folder=folder,
            version=each.version,
            sha256=predictor.bundle.sha256,
            cell_line=each.cell_line,
            classes=each.classes,
            multi_label=each.multi_label,
            size_px=each.crop.size_px,
            pixel_size_um=each.crop.pixel_size_um,
        )
        for predictor, each, name, folder in zip(predictors, metadata, names, folders, strict=True)
    )


def control_bound(proteins: Sequence[ComparedProtein], other: int) -> float | None:
    """Return the value that `CONTROL_SHARE` of the controls of a model and of the first do not exceed."""
    controls = list(_controls(proteins, other))
    return float(np.quantile(controls, CONTROL_SHARE, method="higher")) if controls else None


def summarize(
    proteins: Sequence[ComparedProtein], models: Sequence[ComparedModel], other: int
) -> DifferenceSummary:
    """Count and average over all proteins."""
    answers = [protein.labels_agree(models, other) for protein in proteins]
    fractions = [abs(each) for row in proteins if (each := row.fraction_difference(other)) is not None]
    probabilities = [abs(each) for row in proteins for each in row.probability_differences(other).values()]
    bound = control_bound(proteins, other)
    return DifferenceSummary(
        name=models[other].name,
        agreeing=answers.count(True),
        comparable=len(answers) - answers.count(None),
        probability=_mean(probabilities),
        fraction=_mean(fractions),
        control=_mean(list(_controls(proteins, other))),
        bound=bound,
        exceeding=[protein.exceeds_control(other, bound) for protein in proteins].count(True),
        measured=len(fractions),
    )


def difference_warnings(
    summary: DifferenceSummary, first: ComparedModel, other: ComparedModel
) -> Iterator[str]:
    """Yield what a reader must know before interpreting the differences of two models."""
    if summary.measured and summary.is_within_control:
        yield (
            f"The intranuclear fractions of {other.name} and {first.name} differ no more than those of one "
            "model in two nuclei: do not interpret these differences biologically"
        )
    if not first.has_same_field(other):
        yield (
            f"Crops of {other.name} are {other.field_um:.0f} µm wide and those of {first.name} "
            f"{first.field_um:.0f} µm: part of the difference in intranuclear fraction is due to that"
        )


def shared_classes(models: Sequence[ComparedModel]) -> tuple[str, ...]:
    """Return the classes of the first model that another has, too."""
    others = {slug for model in models[1:] for slug in model.classes}
    return tuple(slug for slug in models[0].classes if slug in others)


def difference_columns(models: Sequence[ComparedModel]) -> list[str]:
    """Return the columns of the table of differences; a difference is a model's value minus the first's."""
    names = [model.name for model in models]
    columns = ["Protein_ID", "Agree", "Largest_Difference", *(f"Localizations/{name}" for name in names)]
    for slug in shared_classes(models):
        having = [model.name for model in models if slug in model.classes]
        columns += [f"{slug}/{name}" for name in having] + [
            f"{slug}/{name}/Difference" for name in having[1:]
        ]
    columns += [f"Intranuclear_Fraction/{name}" for name in names]
    columns += [f"Intranuclear_Fraction/{name}/Difference" for name in names[1:]]
    columns += [f"Control/{name}" for name in names]
    columns += [f"{what}/{name}" for what in ("Exceeds_Control", "Pearson") for name in names[1:]]
    return [*columns, "Image", "Warnings"]


def difference_row(
    protein: ComparedProtein, models: Sequence[ComparedModel], bounds: Sequence[float | None]
) -> list[str]:
    """Return a row of the table of differences.

    Parameters
    ----------
    protein, models
        The protein and the models.
    bounds
        `control_bound` of every model but the first.

    Returns
    -------
    list of str
        The cells, in the order of `difference_columns`.
    """
    others = range(1, len(models))
    records = protein.records
    row = [
        protein.protein_id,
        yes_no(protein.all_labels_agree(models)),
        _number(protein.largest_difference()),
        *("|".join(record["localizations"]) for record in records),
    ]
    for slug in shared_classes(models):
        having = [k for k in range(len(models)) if slug in models[k].classes]
        row += [_number(records[k]["probabilities"][slug]) for k in having]
        row += [_number(protein.probability_differences(k)[slug]) for k in having[1:]]
    row += [_number(record["intranuclear_fraction"]) for record in records]
    row += [_number(protein.fraction_difference(k)) for k in others]
    row += [_number(control) for control in protein.controls]
    row += [yes_no(protein.exceeds_control(k, bounds[k - 1])) for k in others]
    row += [_number(each) for each in protein.pearson]
    return [*row, f"{protein.image}.png", " | ".join(protein.warnings)]


def difference_table(
    proteins: Sequence[ComparedProtein], models: Sequence[ComparedModel], delimiter: str
) -> bytes:
    """Return the table of differences as text."""
    bounds = [control_bound(proteins, other) for other in range(1, len(models))]
    rows = [difference_columns(models), *(difference_row(each, models, bounds) for each in proteins)]
    return b"".join(table_line(row, delimiter) for row in rows)


def _controls(proteins: Sequence[ComparedProtein], other: int) -> Iterator[float]:
    return (each for row in proteins for k in (0, other) if (each := row.controls[k]) is not None)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
