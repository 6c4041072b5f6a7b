import base64
import io
import re

import pytest
from PIL import Image

from deepgps.results import report
from deepgps.results.labelled_images import HEADER, MARGIN, PANEL
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
        "prediction_set": ["er", "golgi", "vesicles"],
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


def test_it_shows_the_set_that_covers_the_truth_where_there_is_one(page):
    assert "Set that covers 90 %: ER, Golgi, vesicles" in page(record())
    assert "Set that covers 90 %:" not in page(record(prediction_set=None))


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
        *(
            "HPA (enhanced): Nuclear membrane [Isoform C]",
            "<h4>Overall</h4>",
            'LMNB1 · <a href="https://www.uniprot.org/uniprotkb/P20700"',
        ),
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
    assert "<script>alert" not in text and text.count("<script") == 1  # the page's own
    assert "script&gt;" in text


def test_nothing_is_loaded_from_elsewhere(page, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images/P0.png")
    text = page(record(images="P0"))
    assert text.count("data:image/jpeg;base64,") == 1
    linked = re.sub(r'href="https://www\.(uniprot|ensembl)\.org/[\w/]+"', "", text)
    assert not re.search(r"https?://|//cdn|<link|<script src|@import|url\(|fetch\(", linked)
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
    assert len(page(*(record(n) for n in range(10_000)))) < 4_500_000


def test_annotated_proteins_are_linked_to_their_database(page):
    near = [
        {"accession": "P00001", "localizations": ["er"], "similarity": 0.42},
        {"accession": "ENSP00000355759", "localizations": [], "similarity": 0.4},
    ]
    text = page(record(accession="Q9Y6K9-2", evidence=near))
    assert text.count('href="https://www.uniprot.org/uniprotkb/Q9Y6K9-2"') == 2  # table and card
    assert text.count('href="https://www.uniprot.org/uniprotkb/P00001"') == 2
    assert text.count('href="https://www.ensembl.org/id/ENSP00000355759"') == 1


def test_thresholds_are_marked_and_similarity_is_explained(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(json_line(record()))
    text = write_report(tmp_path, {"er": 0.4, "golgi": 0.35}).read_text(encoding="utf-8")
    assert re.findall(r'class="tick" x="([\d.]+)"', text) == ["39.6", "34.6"]
    assert "the threshold marked on its bar" in text
    assert text.count("Similarity is that of short stretches of sequence: 1 for the same protein") == 2
    plain = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'class="tick"' not in plain and "the threshold marked" not in plain


def test_the_gallery_shows_the_overlay_of_every_image_up_to_a_number(page, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_CARDS", 1)
    (tmp_path / "images").mkdir()
    width = 3 * PANEL + 4 * MARGIN
    image = Image.new("RGB", (width, 400))
    image.paste((250, 200, 10), (width - MARGIN - PANEL, HEADER, width - MARGIN, HEADER + PANEL))
    image.save(tmp_path / "images/P0.png")
    page(*(record(n, images="P0", gene_symbol=f"GENE{n}") for n in range(3)))
    text = write_report(tmp_path, max_tiles=2).read_text(encoding="utf-8")
    tiles = text.partition('<ul class="tiles">')[2].partition("</ul>")[0]
    assert re.findall(r'href="([^"]+)"', tiles) == ["#p0", "images/P0.png"]
    assert re.findall(r"<b>(\w+)</b>", tiles) == ["GENE0", "GENE1"]
    content = base64.b64decode(re.findall(r'src="data:image/jpeg;base64,([^"]+)"', tiles)[0])
    with Image.open(io.BytesIO(content)) as tile:
        corners = [tile.getpixel(place) for place in ((2, 2), (tile.width - 3, tile.height - 3))]
    assert all(red > 230 and 180 < green < 220 and blue < 40 for red, green, blue in corners)
    assert "1 more images are in" in text


def test_no_rows_make_a_page_too(page):
    assert "Table of 0 rows" in page()
