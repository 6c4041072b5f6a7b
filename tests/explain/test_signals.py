import csv
import gzip
import hashlib
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.explain import signals
from deepgps.explain.signals import SIGNALS, find_signals, open_taggers
from known_proteins import CALR, COX8A, EGFP, HRAS_END, INSULIN, NPM1, NPM1C

ROOT = Path(__file__).parents[2]


def found(sequence):
    return {each.kind: (each.start, each.end) for each in find_signals([sequence])[0]}


def test_the_file_of_the_taggers_is_small_and_checked(monkeypatch):
    content = (resources.files("deepgps.explain") / signals.TAGGERS_FILE).read_bytes()
    assert len(content) < 1_000_000
    assert hashlib.sha256(content).hexdigest() == signals.TAGGERS_SHA256
    monkeypatch.setattr(signals, "TAGGERS_SHA256", "0" * 64)
    with pytest.raises(BundleError, match="wrong sha256"):
        open_taggers.__wrapped__()


@pytest.fixture(scope="module")
def human(shared_data):
    """Sequences of human proteins by gene symbol."""
    with gzip.open(shared_data / "sequences" / "human_proteome.csv.gz", "rt", encoding="utf-8") as lines:
        wanted = {"TP53", "LMNA", "HRAS", "THY1"}
        return {r["gene_symbol"]: r["sequence"] for r in csv.DictReader(lines) if r["gene_symbol"] in wanted}


def test_signals_of_known_proteins():
    assert found(CALR) == {"SP": (1, 17), "ER": (414, 417)}
    # A presequence of 25 residues.
    assert abs(found(COX8A)["MT"][1] - 25) <= 4
    assert found(NPM1)["NLS"] == (141, 157)
    kinds = found(INSULIN)
    assert kinds["SP"] == (1, 24)
    assert not {"NLS", "NES"} & set(kinds)


def test_signals_of_more_known_proteins(human):
    assert found(human["TP53"])["NLS"] == (305, 321)
    assert found(human["TP53"])["NES"][0] in range(338, 343)
    assert found(human["LMNA"])["LIPID"] == (661, 664)
    assert any(each.kind == "NLS" and 410 < each.start < 420 for each in find_signals([human["LMNA"]])[0])
    assert found(human["HRAS"])["LIPID"] == (186, 189)
    assert abs(found(human["THY1"])["SP"][1] - 19) <= 1
    assert found(human["THY1"])["GPI"][1] == 161


def test_the_mutant_c_of_npm1_gains_an_nes():
    assert "NES" not in found(NPM1)
    start, end = found(NPM1C)["NES"]
    assert start >= 280
    assert end >= 293


def test_green_fluorescent_protein_has_no_signal():
    assert found(EGFP) == {}


def test_signals_that_are_added_are_found():
    assert found("MPKKKRKV" + EGFP)["NLS"][0] <= 3
    assert found(EGFP + "SKL")["PTS"] == (240, 242)
    assert "MT" in found(COX8A[:29] + EGFP)
    kinds = found(CALR[:17] + EGFP[1:] + "KDEL")
    assert set(kinds) == {"SP", "ER"}
    assert kinds["SP"][1] in range(17, 23)
    assert kinds["ER"] == (256, 259)
    assert found(EGFP + HRAS_END)["LIPID"] == (256, 259)


def test_many_sequences_give_what_each_gives_alone():
    sequences = [CALR, NPM1, COX8A, "MAAKRPAATK"]
    assert find_signals(sequences) == [find_signals([each])[0] for each in sequences]


def test_unusual_and_short_sequences_are_searched():
    for sequence in ("MXXXXXXXXX", "UOBZXUOBZX", "M" * 10, "ACDEFGHIKL", "X" * 400, "K" * 70):
        for each in find_signals([sequence])[0]:
            assert each.kind in SIGNALS
            assert 1 <= each.start <= each.end <= len(sequence)
            assert 0 < each.score <= 1


def test_likelihoods_of_the_markov_models_are_those_of_all_paths():
    model = open_taggers().models["OTHER"]
    codes = np.array([[10, 0, 5]])
    states = range(len(model.start))
    total = 0.0
    for a in states:
        for b in states:
            for c in states:
                path = model.start[a] * model.transitions[a, b] * model.transitions[b, c]
                total += path * np.prod(
                    [model.emissions[s, x] for s, x in zip((a, b, c), codes[0], strict=True)]
                )
    assert model.log_likelihoods(codes)[0] == pytest.approx(np.log(total))


def test_cuts_are_probabilities():
    model = open_taggers().models["SP"]
    codes = signals._padded_codes([CALR, NPM1], model.length)
    cuts = model.cut_probabilities(codes)
    assert cuts.shape == (1, 2, 70)
    assert (cuts >= 0).all()
    assert (cuts.sum(2) <= 1 + 1e-6).all()
    assert cuts[0, 0].argmax() == 17


def test_the_collection_is_found_as_well_as_the_page_says(shared_data):
    sys.path.insert(0, str(ROOT / "experiments" / "signals"))
    try:
        from measure_signals import KINDS, measure, read_collection
    finally:
        sys.path.pop(0)
    sequences, known = read_collection(shared_data / "signals" / "sorting_signals.csv")
    some = dict(list(sequences.items())[::3])
    spans = {kind: {} for kind in KINDS}
    for name, each in zip(some, find_signals(list(some.values())), strict=True):
        for signal in each:
            spans.get(signal.kind, {}).setdefault(name, []).append((signal.start - 1, signal.end))
    lowest = {"SP": 0.8, "MT": 0.6, "PTS": 0.55, "GPI": 0.4, "NLS": 0.2}
    for kind, least in lowest.items():
        own = {name: spans_ for name, spans_ in known[kind].items() if name in some}
        assert measure(some, own, spans[kind])["mcc"] >= least, kind
