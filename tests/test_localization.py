import re
from collections import Counter

import pytest

from deepgps.errors import InputError
from deepgps.localization import (
    CLASS_SETS,
    HPA_TO_LOCALIZATIONS,
    LOCALIZATIONS,
    OPENCELL_CATEGORIES,
    UNIPROT_TO_LOCALIZATIONS,
    class_set,
    major_localizations,
)


def test_the_vocabulary_is_opencells_17_categories_and_the_two_it_cannot_see():
    assert len(OPENCELL_CATEGORIES) == 17
    assert set(LOCALIZATIONS) - set(OPENCELL_CATEGORIES) == {"extracellular", "plastid"}
    assert len(set(LOCALIZATIONS)) == len(LOCALIZATIONS) == 19
    assert all(re.fullmatch("[a-z_]+", slug) for slug in LOCALIZATIONS)


@pytest.mark.parametrize("names", [HPA_TO_LOCALIZATIONS, UNIPROT_TO_LOCALIZATIONS], ids=["HPA", "UniProt"])
def test_every_foreign_name_maps_into_the_vocabulary(names):
    for name, localizations in names.items():
        assert localizations, name
        assert set(localizations) <= set(LOCALIZATIONS), name


@pytest.mark.parametrize("chosen", CLASS_SETS.values(), ids=CLASS_SETS)
def test_class_sets_are_made_of_the_vocabulary_and_no_localization_is_in_two_classes(chosen):
    members = Counter(each for group in chosen.classes.values() for each in group)
    assert set(members) <= set(LOCALIZATIONS)
    assert set(members.values()) == {1}
    assert chosen.slugs == tuple(chosen.classes)


def test_the_papers_class_sets():
    assert class_set("single-2").slugs == ("cytoplasmic", "nucleoplasm")
    assert class_set("single-4").slugs == ("cytoplasmic", "nucleoplasm", "vesicles", "er")
    assert class_set("all").slugs == OPENCELL_CATEGORIES
    assert {name for name in CLASS_SETS if class_set(name).multi_label} == {"all", "mini"}


def test_mini_has_a_class_for_whatever_a_human_protein_is_annotated_with():
    mini = class_set("mini")
    assert all(mini.of([slug]) for slug in LOCALIZATIONS if slug != "plastid")
    assert mini.of(["plastid"]) == frozenset()


def test_localizations_become_the_classes_that_stand_for_them():
    mini = class_set("mini")
    assert mini.of(["nucleolus_gc", "nucleolus_fc_dfc", "er"]) == {"nucleolus", "er"}
    assert mini.of([]) == frozenset()
    assert class_set("single-2").of(["golgi"]) == frozenset()


def test_an_unknown_class_set_lists_the_known_ones():
    with pytest.raises(InputError, match="'single-3' is unknown; use one of single-2, single-4, all, mini"):
        class_set("single-3")


def test_the_grade_rule_takes_the_highest_grade_there_is_and_never_mixes_two():
    assert major_localizations(["er"], ["golgi", "vesicles"]) == ("er",)
    assert major_localizations([], ["golgi", "vesicles"]) == ("golgi", "vesicles")
    assert major_localizations([], []) == ()


def test_the_papers_counts_of_single_localized_proteins(shared_data):
    from deepgps.datasets.labels import read_sequence_table

    def parts(row, grade):
        return filter(None, (row[f"annotations_grade_{grade}"] or "").split(";"))

    rows = read_sequence_table(shared_data, "opencell_targets").to_dicts()
    majors = [major_localizations(parts(row, 3), parts(row, 2)) for row in rows]
    single = Counter(major[0] for major in majors if len(major) == 1)
    counts = {"cytoplasmic": 222, "vesicles": 140, "nucleoplasm": 135, "er": 78}
    assert {slug: single[slug] for slug in counts} == counts
    assert single.total() == 871
    assert set().union(*majors) == set(OPENCELL_CATEGORIES)


def test_every_name_in_the_real_tables_is_known(shared_data):
    from deepgps.datasets.labels import read_sequence_table

    hpa, swissprot = (
        read_sequence_table(shared_data, f"{name}_localizations") for name in ("hpa", "swissprot")
    )
    for column in ("main_location", "additional_location", "uncertain"):
        names = {name for cell in hpa[column].drop_nulls() for name in cell.split(";")} - {""}
        assert names <= set(HPA_TO_LOCALIZATIONS)
    names = {name for cell in swissprot["localizations"] for name in cell.split("|")}
    assert names == set(UNIPROT_TO_LOCALIZATIONS)
