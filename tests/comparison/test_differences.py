import pytest

from deepgps.comparison.differences import (
    ComparedModel,
    ComparedProtein,
    control_bound,
    difference_columns,
    difference_row,
    difference_table,
    summarize,
)
from deepgps.results.records import Record


def model(name="A", classes=("cytoplasmic", "nucleoplasm"), multi_label=False) -> ComparedModel:
    return ComparedModel(name, name, "1", name, "HeLa", tuple(classes), multi_label, 208, 0.206)


def record(
    localizations=("cytoplasmic",), fraction: float | None = 0.2, warnings=(), **probabilities
) -> Record:
    return Record(
        protein_id="P",
        accession=None,
        gene_symbol=None,
        sequence_sha256="0" * 64,
        length=9,
        localizations=list(localizations),
        probabilities=probabilities,
        confidence=None,
        prediction_set=None,
        known=None,
        predicted={},
        intranuclear_fraction=fraction,
        model="A",
        version="1",
        nucleus="one",
        images="P",
        evidence=[],
        warnings=list(warnings),
    )


def protein(*records, controls=(0.0, 0.0), pearson=(0.5,)) -> ComparedProtein:
    return ComparedProtein(tuple(records), tuple(controls), tuple(pearson), "P")


SINGLE = model()
FOUR = model("B", ("cytoplasmic", "nucleoplasm", "vesicles"))
MULTI = model("C", ("nucleoplasm", "cytoplasmic", "er"), multi_label=True)
DRAWING = model("D", ())


@pytest.mark.parametrize(
    ("one", "other", "localizations", "agree"),
    [
        (SINGLE, FOUR, (["cytoplasmic"], ["cytoplasmic"]), True),
        (SINGLE, FOUR, (["cytoplasmic"], ["nucleoplasm"]), False),
        (SINGLE, FOUR, (["cytoplasmic"], ["vesicles"]), None),
        (SINGLE, MULTI, (["cytoplasmic"], ["er", "cytoplasmic"]), True),
        (SINGLE, MULTI, (["cytoplasmic"], ["er", "nucleoplasm"]), False),
        (MULTI, MULTI, (["er", "cytoplasmic"], ["cytoplasmic", "er"]), True),
        (MULTI, MULTI, (["er", "cytoplasmic"], ["cytoplasmic"]), False),
        (SINGLE, DRAWING, (["cytoplasmic"], []), None),
    ],
)
def test_models_agree_on_the_classes_that_both_have(one, other, localizations, agree):
    both = protein(*(record(each) for each in localizations))
    assert both.labels_agree((one, other), 1) is agree
    assert both.all_labels_agree((one, other)) is agree


def test_of_three_models_one_that_differs_is_enough():
    three = protein(
        record(), record(["vesicles"]), record(["nucleoplasm"]), controls=(0, 0, 0), pearson=(1, 1)
    )
    assert three.all_labels_agree((SINGLE, FOUR, FOUR)) is False
    undecided = protein(record(), record(["vesicles"]), record(), controls=(0, 0, 0), pearson=(1, 1))
    assert undecided.all_labels_agree((SINGLE, FOUR, FOUR)) is True


def test_differences_are_the_other_minus_the_first_for_shared_classes_only():
    both = protein(
        record(fraction=0.6, cytoplasmic=0.3, nucleoplasm=0.7),
        record(fraction=0.1, cytoplasmic=0.5, vesicles=0.4),
    )
    assert both.fraction_difference(1) == pytest.approx(-0.5)
    assert both.probability_differences(1) == pytest.approx({"cytoplasmic": 0.2})
    assert both.largest_difference() == pytest.approx(0.5)


def test_a_difference_must_exceed_every_control():
    far = protein(record(fraction=0.2), record(fraction=0.5), controls=(0.1, 0.2))
    assert far.exceeds_control(1, 0.25) is True
    assert far.exceeds_control(1, 0.35) is False
    own = protein(record(fraction=0.2), record(fraction=0.5), controls=(0.1, 0.4))
    assert own.exceeds_control(1, 0.25) is False
    assert protein(record(fraction=None), record()).exceeds_control(1, 0.0) is None
    assert far.exceeds_control(1, None) is None


def test_the_bound_is_a_control_that_few_exceed_or_the_largest_of_few():
    few = [protein(record(), record(), controls=(0.01 * k, 0.02 * k)) for k in range(5)]
    assert control_bound(few, 1) == pytest.approx(0.08)
    many = [protein(record(), record(), controls=(0.001 * k, 0.001 * k)) for k in range(1000)]
    assert control_bound(many, 1) == pytest.approx(0.95, abs=0.002)
    assert control_bound([protein(record(), record(), controls=(None, None))], 1) is None


def test_the_summary_counts_what_can_be_compared():
    rows = [
        protein(record(fraction=0.2), record(fraction=0.3), controls=(0.02, 0.02)),
        protein(record(fraction=0.2), record(["nucleoplasm"], fraction=0.9), controls=(0.04, 0.04)),
        protein(record(fraction=None), record(["vesicles"]), controls=(None, 0.0)),
    ]
    found = summarize(rows, (SINGLE, FOUR), 1)
    assert (found.agreeing, found.comparable, found.exceeding, found.measured) == (1, 2, 2, 2)
    assert found.fraction == pytest.approx(0.4)
    assert found.control == pytest.approx(0.024)
    assert found.probability is None
    assert not found.is_within_control


def test_a_few_proteins_may_exceed_the_control():
    near = [protein(record(), record(), controls=(0.1, 0.1))] * 19
    far = [protein(record(fraction=0.2), record(fraction=0.9), controls=(0.1, 0.1))]
    assert summarize([*near, *far], (SINGLE, FOUR), 1).is_within_control
    assert not summarize([*near[:10], *far], (SINGLE, FOUR), 1).is_within_control


def test_a_row_has_a_value_for_each_column_or_nothing():
    models = (SINGLE, FOUR, DRAWING)
    three = protein(
        record(cytoplasmic=0.3, nucleoplasm=0.7, warnings=["long"]),
        record(cytoplasmic=0.5, nucleoplasm=0.1, vesicles=0.4, warnings=["long"]),
        record([], fraction=None),
        controls=(0.1, 0.2, None),
        pearson=(0.5, None),
    )
    found = dict(zip(difference_columns(models), difference_row(three, models, [0.05, None]), strict=True))
    assert found["cytoplasmic/B/Difference"] == "0.2000"
    assert found["Localizations/D"] == found["Intranuclear_Fraction/D/Difference"] == ""
    assert (found["Exceeds_Control/B"], found["Exceeds_Control/D"], found["Pearson/D"]) == ("no", "", "")
    assert found["Warnings"] == "long"
    assert not any(name.startswith("vesicles") for name in found)


def test_a_table_without_rows_is_its_header():
    assert difference_table([], (SINGLE, FOUR), "\t").decode().split("\t")[:2] == ["Protein_ID", "Agree"]
