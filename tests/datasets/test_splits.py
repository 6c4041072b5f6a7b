import random
from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.datasets.annotation.opencell import add_sequences, annotate_opencell, drop_longer
from deepgps.datasets.annotation.proteins import proteins_table
from deepgps.datasets.splits import MULTI, PARTS, UNKNOWN, class_counts, class_targets, split_proteins
from deepgps.errors import InputError

CLASSES = ("cytoplasmic", "nucleoplasm", "er", "golgi", "er|golgi")


@st.composite
def tables(draw, min_size=1):
    """Proteins of up to five classes in clusters of up to a few, some of one sequence."""
    size = draw(st.integers(min_size, 120))
    rng = random.Random(draw(st.integers(0, 2**32)))
    crowding = draw(st.sampled_from([2, 10, 200]))
    weights = [rng.random() ** 3 + 0.01 for _ in CLASSES]
    return pl.DataFrame(
        {
            "protein_id": [f"E{i}" for i in range(size)],
            "localizations": rng.choices(CLASSES, weights, k=size),
            "cluster": [rng.randrange(crowding) for _ in range(size)],
            "sequence": [f"M{rng.randrange(60)}" if rng.random() < 0.3 else f"K{i}" for i in range(size)],
        }
    )


def name_of(localizations):
    return MULTI if "|" in localizations else localizations


@given(tables(), st.integers(0, 99))
def test_every_protein_and_every_sequence_is_in_one_part(table, seed):
    parts = split_proteins(table, "protein", seed).parts
    assert set(parts) == set(table["protein_id"])
    assert set(parts.values()) <= set(PARTS)
    parts_of = defaultdict(set)
    for protein, sequence in table.select("protein_id", "sequence").rows():
        parts_of[sequence].add(parts[protein])
    assert all(len(each) == 1 for each in parts_of.values())


@given(tables(), st.integers(0, 99))
def test_every_cluster_and_every_sequence_is_in_one_part(table, seed):
    parts = split_proteins(table, "cluster", seed).parts
    parts_of = defaultdict(set)
    for protein, sequence, cluster in table.select("protein_id", "sequence", "cluster").rows():
        parts_of[sequence].add(parts[protein])
        parts_of[cluster].add(parts[protein])
    assert set(parts) == set(table["protein_id"])
    assert all(len(each) == 1 for each in parts_of.values())


@given(tables(), st.integers(0, 99))
def test_every_class_is_in_every_part_if_large_enough(table, seed):
    by_protein = split_proteins(table.drop("sequence"), "protein", seed)
    for row in class_counts(by_protein).values():
        size = sum(row)
        assert [count > 0 for count in row] == [True, size > 2, size > 1]


@given(tables(), st.integers(0, 99))
def test_a_class_with_three_clusters_of_its_own_is_in_every_part(table, seed):
    table = table.drop("sequence")
    split = split_proteins(table, "cluster", seed)
    classes_of = defaultdict(set)
    for localizations, cluster in table.select("localizations", "cluster").rows():
        classes_of[cluster].add(name_of(localizations))
    own = Counter(name for names in classes_of.values() if len(names) == 1 for name in names)
    for name, row in class_counts(split).items():
        if own[name] >= 3:
            assert all(row), (name, row)


@given(tables(), st.integers(0, 99), st.sampled_from(["protein", "cluster"]), st.randoms())
def test_the_split_does_not_depend_on_the_order_of_rows(table, seed, by, rng):
    order = list(range(table.height))
    rng.shuffle(order)
    assert split_proteins(table, by, seed).parts == split_proteins(table[order], by, seed).parts


@given(tables(min_size=60), st.integers(0, 99))
def test_another_seed_gives_another_split(table, seed):
    several = [split_proteins(table, "protein", seed + i).parts for i in range(4)]
    assert any(parts != several[0] for parts in several)


@given(st.dictionaries(st.sampled_from("abcdefghijklmnopqr"), st.integers(1, 500), min_size=1))
def test_75_to_90_percent_of_a_class_and_4_to_1_overall_are_for_training(sizes):
    targets = class_targets(sizes)
    assert {name: sum(row) for name, row in targets.items()} == sizes
    for name, (train, validation, test) in targets.items():
        if sizes[name] >= 4:
            assert 0.75 <= (train + validation) / sizes[name] <= 0.9
            assert 1 <= validation <= max(1, round(0.1 * (train + validation)))
        assert test >= (sizes[name] > 1)
    # Each class is rounded to whole proteins, the smallest up to a whole one.
    tested = sum(row[2] for row in targets.values())
    assert abs(tested - 0.2 * sum(sizes.values())) <= len(sizes)


def test_the_training_fraction_rises_with_class_size():
    targets = class_targets({"small": 100, "middle": 1000, "large": 10_000})
    fractions = [1 - targets[name][2] / sum(targets[name]) for name in ("small", "middle", "large")]
    assert fractions[0] == 0.75
    assert fractions == sorted(fractions)
    assert sum(row[2] for row in targets.values()) == pytest.approx(0.2 * 11_100, abs=3)


def test_a_large_cluster_that_fits_only_training_is_for_training():
    rows = [(f"E{i}", "er", 0 if i < 40 else i) for i in range(80)]
    table = pl.DataFrame(rows, schema=["protein_id", "localizations", "cluster"], orient="row")
    for seed in range(20):
        split = split_proteins(table, "cluster", seed)
        assert split.parts["E0"] == "train"
        assert class_counts(split) == {"er": (58, 6, 16)}


def test_three_clusters_of_a_class_are_spread_even_if_none_fits():
    rows = [(f"E{i}", "er", i // 3) for i in range(9)]
    table = pl.DataFrame(rows, schema=["protein_id", "localizations", "cluster"], orient="row")
    assert class_counts(split_proteins(table, "cluster", 0)) == {"er": (3, 3, 3)}


def test_rows_of_a_protein_stay_together_and_different_ones_make_it_multi_localized():
    table = pl.DataFrame(
        {
            "protein_id": ["A", "A", "B", "B", None, "C", "D", "E"],
            "localizations": ["er", "er", "er", "golgi", "er", "er", None, ""],
            "single_localized": [True, None, True, True, True, False, None, None],
        }
    )
    split = split_proteins(table, "protein", 0)
    assert split.classes == {"A": "er", "B": MULTI, "C": MULTI, "D": UNKNOWN, "E": UNKNOWN}
    assert set(split.parts) == set("ABCDE")


def test_proteins_without_a_cluster_are_in_no_part():
    table = pl.DataFrame(
        {"protein_id": ["A", "B"], "localizations": ["er", "er"], "cluster": [1, None]},
    )
    split = split_proteins(table, "cluster", 0)
    assert (set(split.parts), split.left_out) == ({"A"}, ("B",))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"protein_id": ["A"]}, "'localizations'"),
        ({"localizations": ["er"]}, "'protein_id'"),
        ({"protein_id": pl.Series([], dtype=pl.String), "localizations": []}, "no protein"),
    ],
)
def test_tables_that_cannot_be_split_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        split_proteins(pl.DataFrame(table), "protein", 0)


@pytest.mark.parametrize("by", ["protein", "cluster"])
def test_real_opencell_is_split_nearly_as_in_the_paper(shared_data, by):
    found = add_sequences(annotate_opencell(shared_data / "sequences" / "opencell_targets.csv.gz"))
    table = proteins_table(drop_longer(found, 2700).proteins)
    counts = class_counts(split_proteins(table, by, 0))
    training = {name: row[0] + row[1] for name, row in counts.items()}
    # The paper: 182/40, 112/28, 109/23, 64/14; 1,051/250 of all.
    assert {name: (training[name], counts[name][2]) for name in ("cytoplasmic", "vesicles")} == {
        "cytoplasmic": (178, 43),
        "vesicles": (112, 28),
    }
    assert {name: (training[name], counts[name][2]) for name in ("nucleoplasm", "er")} == {
        "nucleoplasm": (106, 26),
        "er": (62, 16),
    }
    assert (sum(training.values()), sum(row[2] for row in counts.values())) == (1042, 258)
    assert all(all(row) for row in counts.values())
    assert len(counts) == 18
