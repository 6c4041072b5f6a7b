import re

import pytest
from PIL import Image

from deepgps.results import report
from deepgps.results.records import Record, json_line
from deepgps.results.report import MAX_CARDS, write_report


def record(number=0, **changed) -> Record:
    fields = {
        "protein_id": f"P{number}",
        "accession": None,
        "gene_symbol": None,
        "sequence_sha256": "0" * 64,
        "length": 1234,
        "localizations": ["er", "golgi"],
        "probabilities": {"golgi": 0.51, "er": 0.93, "vesicles": 0.05},
        "confidence": 0.93,
        "known": None,
        "predicted": {"golgi": 0.51, "er": 0.93, "vesicles": 0.05},
        "intranuclear_fraction": 0.25,
        "model": "tiny",
        "version": "1",
        "nucleus": "one",
        "images": None,
        "evidence": [{"accession": "Q9", "localizations": ["er"], "similarity": 0.42}],
        "warnings": [],
    }
    return Record(**{**fields, **changed})


@pytest.fixture
def page(tmp_path):
    def render(*records):
        (tmp_path / "results.jsonl").write_bytes(b"".join(json_line(each) for each in records))
        return write_report(tmp_path).read_text(encoding="utf-8")

    return render


def test_it_shows_labels_bars_evidence_and_warnings(page):
    text = page(record(warnings=["5,000 residues were read in 3 windows"]))
    for said in ("P0", "ER, Golgi", "1,234 residues", "0.25", "Q9", "0.42", "5,000 residues were read"):
        assert said in text
    assert re.findall(r'class="share( named)?"><span>(\w+)', text) == [
        *((" named", "ER"), (" named", "Golgi"), ("", "vesicles"))
    ]


def test_it_shows_what_is_known_beside_what_is_predicted(page):
    statement = {
        "source": "HPA",
        "reliability": "enhanced",
        "word": "Nuclear membrane",
        "localizations": ["nuclear_membrane"],
        "part": "Isoform C",
    }
    known = {
        "accession": "P20700",
        "gene_symbol": "LMNB1",
        "human": True,
        "identity": 0.98,
        "coverage": 1.0,
        "match": "98.0 % identical to LMNB1 (P20700)",
        "others": [],
        "localizations": ["nuclear_membrane"],
        "agreement": "nuclear membrane: HPA enhanced",
        "statements": [statement],
    }
    text = page(record(known=known, accession="P20700", gene_symbol="LMNB1"), record(1))
    for said in (
        *("<h4>Known</h4>", "nuclear membrane: HPA enhanced", "This sequence is 98.0 % identical to LMNB1"),
        *("HPA (enhanced): Nuclear membrane [Isoform C]", "<h4>Overall</h4>", "LMNB1 · P20700"),
    ):
        assert text.count(said) >= 1
    assert text.count("Predicted without its own record") == text.count("<h4>Predicted</h4>") == 1


@pytest.mark.parametrize(
    "field", ["protein_id", "nucleus", "warnings", "localizations", "evidence", "images"]
)
def test_whatever_a_user_named_is_shown_as_text(page, field):
    attack = "\"'><script>alert(1)</script>"
    values = {
        "evidence": [{"accession": attack, "localizations": [attack], "similarity": 0.1}],
        "warnings": [attack],
        "localizations": [attack],
    }
    text = page(record(**{field: values.get(field, attack)}))
    assert "<script" not in text
    assert "script&gt;" in text


def test_nothing_is_loaded_from_elsewhere(page, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images/P0.png")
    text = page(record(images="P0"))
    assert text.count("data:image/jpeg;base64,") == 1
    assert not re.search(r"https?://|//cdn|<link|<script|@import|url\(", text)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))


def test_an_image_that_is_gone_or_elsewhere_is_said_to_be_missing(page, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    text = page(record(images="../secret"), record(1, images="P1"))
    assert text.count("is not there") == 2
    assert "base64" not in text


def test_only_the_first_rows_are_shown_in_full_and_the_page_says_so(page):
    text = page(*(record(n) for n in range(MAX_CARDS + 5)))
    assert text.count("<article") == MAX_CARDS
    assert f"All of {MAX_CARDS + 5} rows are listed" in text
    assert f"the first {MAX_CARDS} are shown in full" in text
    assert 'href="results.jsonl"' in text
    assert 'href="images/"' not in text
    assert f"<td>P{MAX_CARDS + 4}</td>" in text


def test_where_there_are_images_the_page_says_where_the_others_are(page, tmp_path):
    (tmp_path / "images").mkdir()
    assert 'href="images/"' in page(*(record(n) for n in range(MAX_CARDS + 1)))


def test_the_list_ends_too(page, monkeypatch):
    monkeypatch.setattr(report, "MAX_ROWS", 120)
    text = page(*(record(n) for n in range(130)))
    assert "120 of 130 rows are listed" in text
    assert "P119<" in text
    assert "P120<" not in text


def test_ten_thousand_rows_make_a_page_that_opens(page):
    assert len(page(*(record(n) for n in range(10_000)))) < 3_000_000


def test_no_rows_make_a_page_too(page):
    assert "Table of 0 rows" in page()
