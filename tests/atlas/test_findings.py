"""What many proteins show together, on made-up ones."""

from dataclasses import replace

import numpy as np
import pytest

from deepgps.atlas.entries import Entry, Said, stem_of
from deepgps.atlas.findings import (
    candidates,
    differing_pairs,
    disagreements,
    hit_rates,
    map_positions,
    rate_of,
    source_conflicts,
)
from deepgps.prediction.overall import Overall, SourceReliability

CLASSES = ("nucleoplasm", "er", "mitochondria")


def entry(name, predicted=(0.0, 0.0, 0.0), known=(), **changed):
    top = CLASSES[int(np.argmax(predicted))]
    whole = Entry(
        key=name,
        protein_id=name,
        gene_symbol=None,
        accession=name,
        synonyms=(),
        stem=stem_of(name),
        length=100,
        known=known,
        said=tuple(Said("UniProt", "experimental", (slug,), ()) for slug in known),
        predicted=(top,),
        overall=known or (top,),
        probabilities=predicted,
        predicted_probabilities=predicted,
        agreement="nothing known" if not known else "agree" if top in known else "differ",
        sources_differ=False,
        signals=(),
        words=(),
        relatives=(),
        sequence_sha256=name,
    )
    return replace(whole, **changed)


def test_a_hit_rate_counts_the_known_proteins_of_its_bin():
    entries = [
        *(entry(f"H{n}", (0.9, 0.1, 0.0), ("nucleoplasm",)) for n in range(8)),
        *(entry(f"M{n}", (0.9, 0.1, 0.0), ("er",)) for n in range(2)),
        entry("LOW", (0.0, 0.6, 0.1), ("er",)),
        entry("NEW", (0.9, 0.0, 0.0)),
        entry("NEAR", (0.9, 0.0, 0.0), ("er",), relatives=(("H0", 0.2),)),
    ]
    rates = hit_rates(entries, CLASSES, has_relative=False)
    here = rate_of(0.9, rates)
    assert (here.lowest, here.highest, here.count, here.hits, here.rate) == (0.85, 0.95, 10, 8, 0.8)
    # The interval of Wilson for 8 of 10.
    assert (here.low, here.high) == pytest.approx((0.490, 0.943), abs=0.001)
    assert sum(each.count for each in rates) == 11
    assert [each.count for each in hit_rates(entries, CLASSES, has_relative=True)] == [0, 0, 0, 0, 1, 0]
    assert rate_of(1.0, rates).rate is None


def test_the_most_confident_contradiction_comes_first():
    entries = [
        entry("A", (0.9, 0.2, 0.0), ("er",)),
        entry("B", (0.95, 0.0, 0.0), ("er",)),
        entry("C", (0.99, 0.0, 0.0), ("nucleoplasm",)),
        entry("D", (0.99, 0.0, 0.0)),
    ]
    assert [(each.entry.protein_id, round(each.score, 2)) for each in disagreements(entries, CLASSES)] == [
        ("B", 0.95),
        ("A", 0.7),
    ]


def test_candidates_are_unknown_and_clear():
    entries = [
        entry("A", (0.7, 0.0, 0.0)),
        entry("B", (0.8, 0.0, 0.0)),
        replace(entry("C", (0.3, 0.0, 0.0)), predicted=("unclear",)),
        entry("D", (0.9, 0.0, 0.0), ("er",)),
    ]
    assert [each.protein_id for each in candidates(entries)] == ["B", "A"]


def conflicting(name, *said, predicted=(0.9, 0.0, 0.0)):
    return replace(entry(name, predicted), said=tuple(said))


def test_conflicts_of_reliable_sources_come_first_and_name_whom_the_prediction_backs():
    nucleus = Said("OpenCell", "grade 3", ("nucleoplasm",), ())
    weak = Said("HPA", "approved", ("er",), ())
    strong = Said("HPA", "enhanced", ("er",), ())
    overall = Overall(
        {},
        [
            SourceReliability("OpenCell grade 3", None, "HPA", 10, 0.8),
            SourceReliability("HPA approved", None, "OpenCell", 10, 0.5),
            SourceReliability("HPA enhanced", None, "OpenCell", 30, 0.9),
            SourceReliability("HPA enhanced", None, "UniProt", 10, 0.5),
        ],
    )
    found = source_conflicts([conflicting("A", nucleus, weak), conflicting("B", nucleus, strong)], overall)
    assert [each.entry.protein_id for each in found] == ["B", "A"]
    assert found[0].score == pytest.approx(0.8 * 0.8)
    assert found[0].backed == "OpenCell"


def test_a_word_that_leaves_a_class_open_does_not_contradict_it():
    wide = Said("UniProt", "experimental", ("nucleoplasm",), ("nucleolus",))
    narrow = Said("HPA", "enhanced", ("nucleolus",), ())
    assert not wide.contradicts(narrow) and not narrow.contradicts(wide)
    assert wide.contradicts(Said("HPA", "enhanced", ("er",), ()))


def test_isoforms_and_near_relatives_that_go_elsewhere_are_paired_once():
    entries = [
        entry("P1", (1.0, 0.0, 0.0), relatives=(("P2", 0.5), ("P3", 0.1))),
        entry("P2", (0.0, 1.0, 0.0), relatives=(("P1", 0.5),)),
        entry("P3", (0.0, 1.0, 0.0)),
        entry("P1-2", (0.0, 0.0, 1.0)),
        replace(entry("P2-2", (0.0, 0.9, 0.0)), relatives=()),
    ]
    pairs = {(each.one.protein_id, each.other.protein_id, each.kind) for each in differing_pairs(entries)}
    assert pairs == {("P1", "P1-2", "isoforms"), ("P1", "P2", "paralogs")}


def test_the_map_puts_like_to_like():
    rng = np.random.default_rng(0)
    entries = [
        entry(f"{place}{n}", tuple(np.clip(np.eye(3)[place] + 0.05 * rng.random(3), 0, 1).tolist()))
        for place in range(3)
        for n in range(5)
    ]
    places = map_positions(entries)
    assert places.min() >= 0 and places.max() <= 1
    centres = places.reshape(3, 5, 2).mean(1)
    within = np.abs(places.reshape(3, 5, 2) - centres[:, None]).max()
    between = min(np.abs(centres[a] - centres[b]).max() for a, b in ((0, 1), (0, 2), (1, 2)))
    assert between > 3 * within


def test_a_model_without_classes_has_no_map():
    assert map_positions([replace(entry("A"), probabilities=())]).tolist() == [[0, 0]]


def test_a_stem_depends_on_the_id_alone_and_differs_where_case_is_ignored():
    assert stem_of("P04637").endswith("/P04637")
    names = ["p04637", "P04637", "P04637 ", "../P04637", "", "con", "CON"]
    stems = [stem_of(name).lower().rpartition("/")[2] for name in names]
    assert len(set(stems)) == len(names)
