import pytest

from deepgps.comparison.differences import Row, agreement, control_bound, totals
from deepgps.comparison.sides import Side
from deepgps.comparison.table import cells, columns, table
from deepgps.results.table import Record


def side(name="A", classes=("cytoplasmic", "nucleoplasm"), multi_label=False) -> Side:
    return Side(name, name, "1", name, "HeLa", tuple(classes), multi_label, 208, 0.206)


def record(named=("cytoplasmic",), fraction: float | None = 0.2, warnings=(), **chances) -> Record:
    return Record(
        protein_id="P",
        sequence_sha256="0" * 64,
        length=9,
        localizations=list(named),
        probabilities=chances,
        confidence=None,
        intranuclear_fraction=fraction,
        model="A",
        version="1",
        nucleus="one",
        images="P",
        evidence=[],
        warnings=list(warnings),
    )


def row(*records, controls=(0.0, 0.0), likeness=(0.5,)) -> Row:
    return Row(tuple(records), tuple(controls), tuple(likeness), "P")


SINGLE = side()
FOUR = side("B", ("cytoplasmic", "nucleoplasm", "vesicles"))
MULTI = side("C", ("nucleoplasm", "cytoplasmic", "er"), multi_label=True)
DRAWING = side("D", ())


@pytest.mark.parametrize(
    ("one", "other", "named", "agree"),
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
def test_models_agree_on_what_both_can_name(one, other, named, agree):
    both = row(*(record(each) for each in named))
    assert agreement(both, (one, other), 1) is agree
    assert both.agree((one, other)) is agree


def test_of_three_models_one_that_differs_is_enough():
    three = row(record(), record(["vesicles"]), record(["nucleoplasm"]), controls=(0, 0, 0), likeness=(1, 1))
    assert three.agree((SINGLE, FOUR, FOUR)) is False
    undecided = row(record(), record(["vesicles"]), record(), controls=(0, 0, 0), likeness=(1, 1))
    assert undecided.agree((SINGLE, FOUR, FOUR)) is True


def test_differences_are_of_the_other_less_the_first_and_of_shared_classes_only():
    both = row(
        record(fraction=0.6, cytoplasmic=0.3, nucleoplasm=0.7),
        record(fraction=0.1, cytoplasmic=0.5, vesicles=0.4),
    )
    assert both.fraction_difference(1) == pytest.approx(-0.5)
    assert both.probability_differences(1) == pytest.approx({"cytoplasmic": 0.2})
    assert both.largest() == pytest.approx(0.5)


def test_a_difference_counts_beyond_every_control():
    far = row(record(fraction=0.2), record(fraction=0.5), controls=(0.1, 0.2))
    assert far.beyond(1, 0.25) is True
    assert far.beyond(1, 0.35) is False
    own = row(record(fraction=0.2), record(fraction=0.5), controls=(0.1, 0.4))
    assert own.beyond(1, 0.25) is False
    assert row(record(fraction=None), record()).beyond(1, 0.0) is None
    assert far.beyond(1, None) is None


def test_the_bound_is_a_control_that_few_exceed_and_of_few_proteins_the_largest():
    few = [row(record(), record(), controls=(0.01 * k, 0.02 * k)) for k in range(5)]
    assert control_bound(few, 1) == pytest.approx(0.08)
    many = [row(record(), record(), controls=(0.001 * k, 0.001 * k)) for k in range(1000)]
    assert control_bound(many, 1) == pytest.approx(0.95, abs=0.002)
    assert control_bound([row(record(), record(), controls=(None, None))], 1) is None


def test_the_sums_count_what_can_be_compared():
    rows = [
        row(record(fraction=0.2), record(fraction=0.3), controls=(0.02, 0.02)),
        row(record(fraction=0.2), record(["nucleoplasm"], fraction=0.9), controls=(0.04, 0.04)),
        row(record(fraction=None), record(["vesicles"]), controls=(None, 0.0)),
    ]
    found = totals(rows, (SINGLE, FOUR), 1)
    assert (found.agreeing, found.decided, found.beyond, found.measured) == (1, 2, 2, 2)
    assert found.fraction == pytest.approx(0.4)
    assert found.control == pytest.approx(0.024)
    assert found.probability is None
    assert not found.within


def test_as_many_beyond_the_control_as_the_control_itself_has_are_within_it():
    near = [row(record(), record(), controls=(0.1, 0.1))] * 19
    far = [row(record(fraction=0.2), record(fraction=0.9), controls=(0.1, 0.1))]
    assert totals([*near, *far], (SINGLE, FOUR), 1).within
    assert not totals([*near[:10], *far], (SINGLE, FOUR), 1).within


def test_a_row_has_a_cell_for_each_column_and_none_where_there_is_nothing_to_say():
    sides = (SINGLE, FOUR, DRAWING)
    three = row(
        record(cytoplasmic=0.3, nucleoplasm=0.7, warnings=["long"]),
        record(cytoplasmic=0.5, nucleoplasm=0.1, vesicles=0.4, warnings=["long"]),
        record([], fraction=None),
        controls=(0.1, 0.2, None),
        likeness=(0.5, None),
    )
    found = dict(zip(columns(sides), cells(three, sides, [0.05, None]), strict=True))
    assert found["cytoplasmic/B/Difference"] == "0.2000"
    assert found["Localizations/D"] == found["Intranuclear_Fraction/D/Difference"] == ""
    assert (found["Beyond_Control/B"], found["Beyond_Control/D"], found["Pearson/D"]) == ("no", "", "")
    assert found["Warnings"] == "long"
    assert not any(name.startswith("vesicles") for name in found)


def test_a_table_without_rows_is_its_header():
    assert table([], (SINGLE, FOUR), "\t").decode().split("\t")[:2] == ["Protein_ID", "Agree"]
