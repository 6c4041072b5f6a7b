"""Well-known proteins read as an expert would say them, by name and without a network."""

import csv

import pytest

from deepgps.cli.app import run
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.records import table_columns, table_row, to_record

NUCLEUS = {"nucleoplasm"}
CYTOSKELETON = {"cytoskeleton", "cytoplasmic"}
SECRETED = {"extracellular"}
EXPECTED = {
    # symbol: the first localization is one of the first set, and no other is named than those of both
    "H2BC21": (NUCLEUS, set()),
    "H3-3A": (NUCLEUS, set()),
    "H4C1": (NUCLEUS, set()),
    "H2AX": (NUCLEUS, {"centrosome"}),
    "LMNB1": ({"nuclear_membrane"}, NUCLEUS),
    "LMNA": ({"nuclear_membrane", *NUCLEUS}, set()),
    "LBR": ({"nuclear_membrane"}, {"er"}),
    "NUP98": ({"nuclear_membrane", *NUCLEUS}, NUCLEUS),
    "NUP153": ({"nuclear_membrane"}, NUCLEUS),
    "FBL": ({"nucleolus"}, NUCLEUS),
    "NPM1": ({"nucleolus"}, {"centrosome", "cytoplasmic", *NUCLEUS}),
    "NCL": ({"nucleolus"}, {"cytoplasmic", *NUCLEUS}),
    "TP53": (NUCLEUS, {"cytoplasmic", "mitochondria", "er", "centrosome", "vesicles"}),
    "MYC": (NUCLEUS, {"nucleolus", "cytoplasmic"}),
    "RELA": ({"cytoplasmic", *NUCLEUS}, set()),
    "PCNA": (NUCLEUS, {"cytoplasmic"}),
    "SRSF2": (NUCLEUS, {"cytoplasmic"}),
    "POLR2A": (NUCLEUS, {"cytoplasmic"}),
    "CTCF": (NUCLEUS, set()),
    "ACTB": (CYTOSKELETON, {"nucleoplasm", "membrane", *CYTOSKELETON}),
    "TUBA1B": (CYTOSKELETON, CYTOSKELETON),
    "TUBB": (CYTOSKELETON, CYTOSKELETON),
    "VIM": (CYTOSKELETON, {"membrane", *NUCLEUS, *CYTOSKELETON}),
    "KRT18": (CYTOSKELETON, {"nucleolus", *NUCLEUS, *CYTOSKELETON}),
    "GAPDH": ({"cytoplasmic"}, {"membrane", "cytoskeleton", "vesicles", *NUCLEUS}),
    "EEF2": ({"cytoplasmic"}, {"membrane", *NUCLEUS}),
    "HSP90AB1": ({"cytoplasmic"}, {"membrane", "extracellular", *NUCLEUS}),
    "CYCS": ({"mitochondria"}, {"cytoplasmic"}),
    "TOMM20": ({"mitochondria"}, set()),
    "COX4I1": ({"mitochondria"}, set()),
    "HSPD1": ({"mitochondria"}, {"cytoplasmic"}),
    "ATP5F1A": ({"mitochondria"}, {"membrane"}),
    "CANX": ({"er"}, {"mitochondria", "membrane", "vesicles"}),
    "CALR": ({"er"}, {"cytoplasmic", "extracellular", "membrane", "vesicles"}),
    "HSPA5": ({"er"}, {"cytoplasmic", "vesicles", "membrane"}),
    "SEC61B": ({"er"}, set()),
    "GOLGA2": ({"golgi"}, {"cytoskeleton", "centrosome"}),
    "TGOLN2": ({"golgi"}, {"membrane", "vesicles", *NUCLEUS}),
    "LAMP1": ({"vesicles"}, {"membrane"}),
    "EEA1": ({"vesicles"}, {"cytoplasmic"}),
    "RAB5A": ({"vesicles"}, {"membrane", "cytoplasmic"}),
    "CAT": ({"vesicles"}, {"cytoplasmic", "mitochondria"}),
    "PEX14": ({"vesicles"}, {"nucleoplasm"}),
    "EGFR": ({"membrane"}, {"vesicles", "golgi", "er", "extracellular", "cell_contact", *NUCLEUS}),
    "TFRC": ({"membrane", "vesicles"}, {"membrane", "vesicles", "extracellular", "golgi"}),
    "ATP1A1": ({"membrane"}, {"vesicles"}),
    "CAV1": ({"membrane", "golgi"}, {"vesicles"}),
    "CTNNB1": (
        {"membrane", "cytoplasmic"},
        {"membrane", "cytoplasmic", "cytoskeleton", "centrosome", *NUCLEUS},
    ),
    "CDH1": ({"membrane"}, {"vesicles", "golgi", "cytoplasmic"}),
    "CETN2": ({"centrosome"}, NUCLEUS | {"cytoplasmic", "nuclear_membrane"}),
    "PCNT": ({"centrosome"}, {"cytoplasmic", "golgi"}),
    "INS": (SECRETED, {"vesicles", "golgi", "er"}),
    "TF": (SECRETED, {"er", "golgi", "vesicles"}),
    "APOA1": (SECRETED, {"er", "golgi", "vesicles", "cytoplasmic"}),
    "COL4A1": (SECRETED, {"er", "golgi", "vesicles"}),
    "FN1": (SECRETED, {"er", "golgi", "vesicles"}),
}


@pytest.fixture(scope="module")
def answers():
    predictor = Predictor.load(threads=1)
    found = {symbol: predictor.known.named(symbol) for symbol in EXPECTED}
    proteins = [
        Protein(name, each.sequence, each.gene_symbol, each.accession) for name, each in found.items()
    ]
    return {each.protein.id: each for each in predictor.predict(proteins, images=False)}


@pytest.mark.parametrize("symbol", EXPECTED)
def test_a_well_known_protein_is_where_an_expert_says(answers, symbol):
    first, others = EXPECTED[symbol]
    named = answers[symbol].localizations
    assert named[0] in first
    assert set(named) <= first | others


@pytest.mark.parametrize("symbol", EXPECTED)
def test_no_class_is_named_below_the_bound_without_a_source_or_out_of_order(answers, symbol):
    answer = answers[symbol]
    probabilities = [answer.probabilities[slug] for slug in answer.localizations]
    unnamed = [p for slug, p in answer.probabilities.items() if slug not in answer.localizations]
    assert min(probabilities) >= max(unnamed)
    assert answer.known.gene_symbol == symbol and answer.known.identical


def test_a_row_of_the_table_says_what_is_known_and_by_whom(answers):
    record = to_record(answers["LMNB1"])
    columns = table_columns(answers["LMNB1"].probabilities)
    row = dict(zip(columns, table_row(record, list(answers["LMNB1"].probabilities)), strict=True))
    assert (row["Accession"], row["Gene"], row["Length"]) == ("P20700", "LMNB1", "586")
    assert row["Known"].split("|")[0] == "nuclear_membrane"
    assert row["Known_Sources"].startswith("nuclear membrane: UniProt, HPA supported, OpenCell 3")
    assert row["Nearest"] not in ("", "P20700") and float(row["Similarity"]) < 0.6


def test_names_resolve_offline_from_the_index_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    names = ["LMNB1", "P06748", "H2BC21", "NOBODY"]
    assert run(["predict", *names, "--offline", "--no-images", "--out", str(out)]) == 3
    with (out / "results.csv").open(newline="") as file:
        rows = [(row["Protein_ID"], row["Accession"], row["Gene"]) for row in csv.DictReader(file)]
    assert rows == [
        ("LMNB1", "P20700", "LMNB1"),
        ("P06748", "P06748", "NPM1"),
        ("H2BC21", "Q16778", "H2BC21"),
    ]
    assert "deepgps data fetch human" in (out / "rejected.csv").read_text()


def test_a_lookup_never_passes_for_a_prediction(answers):
    for answer in answers.values():
        own = {answer.known.accession, *answer.known.others}
        assert not own & {near.accession for near in answer.evidence}
        assert answer.predicted != answer.probabilities
