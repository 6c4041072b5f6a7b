"""An atlas is built, killed, resumed, grown and hosted by strangers' names."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from conftest import round_nucleus
from deepgps import read_proteins
from deepgps.atlas import build_atlas
from deepgps.atlas.store import AtlasStore
from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from known_proteins import CALR, EGFP, INSULIN, NPM1

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
CELLS = (round_nucleus("one"), round_nucleus("two", 30))


def protein(number, length=60):
    return Protein(f"P{number}", "M" + "".join(LETTERS[(number * 7 + k * k) % 20] for k in range(length - 1)))


def proteins(count):
    return [protein(number) for number in range(count)]


@pytest.fixture(scope="module")
def tiny(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def mini():
    return Predictor.load(threads=1)


@pytest.fixture(scope="module")
def known_site(mini, tmp_path_factory):
    """An atlas of proteins that the bundled model knows, and of one that nobody knows."""
    site = tmp_path_factory.mktemp("known") / "site"
    given = [
        Protein("P27797", CALR, "CALR", "P27797"),
        Protein("NPM1", NPM1),
        Protein("P01308", INSULIN, "INS", "P01308"),
        Protein("EGFP", EGFP),
    ]
    build_atlas(mini, given, site, title="Known & <unknown>")
    return site


def files_of(site):
    """The content of every file, but of those with the time in them."""
    return {
        str(path.relative_to(site)): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and path.name != "manifest.json"
        and path.suffix != ".h5ad"
    }


def index_of(site):
    """The index, as the search reads it."""
    about = json.loads((site / "index" / "about.js").read_text()[len("deepgpsAtlas.start(") : -3])
    rows = []
    for number in range(about["shards"]):
        text = (site / "index" / f"{number}.js").read_text()
        rows += json.loads(text[text.index(",") + 1 : -3])
    return about, rows


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def elements(path):
    parser = Elements()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


def test_a_second_call_does_nothing_and_a_larger_one_only_what_is_new(tiny, tmp_path):
    first = build_atlas(tiny, proteins(5), tmp_path / "site", cells=CELLS[:1])
    assert (first.proteins, first.predicted, first.drawn, first.written) == (5, 5, 5, 5)
    before = files_of(tmp_path / "site")
    again = build_atlas(tiny, proteins(5), tmp_path / "site", cells=CELLS[:1])
    assert (again.proteins, again.predicted, again.drawn, again.written) == (5, 0, 0, 0)
    assert files_of(tmp_path / "site") == before
    more = build_atlas(tiny, proteins(7), tmp_path / "site", cells=CELLS[:1])
    assert (more.proteins, more.predicted, more.drawn, more.written) == (7, 2, 2, 2)


def test_another_nucleus_is_drawn_and_nothing_else(tiny, tmp_path):
    site = tmp_path / "site"
    build_atlas(tiny, proteins(3), site, cells=CELLS[:1])
    page = next(site.glob("p/*/P0.html"))
    image = page.with_name("P0.one.webp").read_bytes()
    more = build_atlas(tiny, proteins(3), site, cells=CELLS)
    assert (more.predicted, more.drawn, more.written) == (0, 3, 3)
    assert page.with_name("P0.one.webp").read_bytes() == image
    text = page.read_text()
    assert "P0.one.webp" in text and "P0.two.webp" in text


def test_a_changed_sequence_and_another_model_are_predicted_anew(tiny, mini, tmp_path):
    site = tmp_path / "site"
    build_atlas(tiny, proteins(3), site)
    other = [*proteins(2), Protein("P2", EGFP)]
    assert build_atlas(tiny, other, site).predicted == 1
    assert build_atlas(mini, other, site).predicted == 3
    assert json.loads((site / "manifest.json").read_text())["model"]["sha256"] == mini.bundle.sha256
    with AtlasStore(site) as store:
        assert len(store.answer_keys()) == 3


def test_what_no_protein_needs_is_removed(tiny, tmp_path):
    site = tmp_path / "site"
    build_atlas(tiny, proteins(4), site, cells=CELLS)
    build_atlas(tiny, proteins(2), site, cells=CELLS[:1])
    left = sorted(path.name for path in site.glob("p/*/*"))
    assert left == [f"P{n}.{kind}" for n in range(2) for kind in ("html", "json", "one.webp")]


def test_a_lost_image_or_page_is_made_again(tiny, tmp_path):
    site = tmp_path / "site"
    build_atlas(tiny, proteins(2), site, cells=CELLS[:1])
    before = files_of(site)
    next(site.glob("p/*/P0.one.webp")).unlink()
    next(site.glob("p/*/P1.html")).unlink()
    again = build_atlas(tiny, proteins(2), site, cells=CELLS[:1])
    assert (again.predicted, again.drawn, again.written) == (0, 1, 1)
    assert files_of(site) == before


def test_a_killed_build_continues_and_ends_like_an_uninterrupted_one(tiny_bundle, tiny, tmp_path):
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text("".join(f">{each.id}\n{each.sequence}\n" for each in proteins(200)))
    site = tmp_path / "site"
    command = ["atlas", str(fasta), "--out", str(site), "--no-images", "--model", str(tiny_bundle.path)]
    code = f"from deepgps.cli.app import run; run({command!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not _answers(site):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = _answers(site)
    assert done > 0
    summary = build_atlas(tiny, list(read_proteins(fasta)), site)
    assert (summary.proteins, summary.predicted) == (200, 200 - done)
    build_atlas(tiny, list(read_proteins(fasta)), tmp_path / "whole")
    assert files_of(site) == files_of(tmp_path / "whole")


def _answers(site):
    if not (site / ".atlas.sqlite").exists():
        return 0
    with AtlasStore(site) as store:
        return len(store.answer_keys())


@pytest.mark.slow
def test_workers_build_the_same(tiny, tmp_path):
    build_atlas(tiny, proteins(70), tmp_path / "one", cells=CELLS[:1])
    build_atlas(tiny, proteins(70), tmp_path / "two", cells=CELLS[:1], workers=2)
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if name.endswith((".html", ".js", ".csv")) and one[name] != two[name]] == []


def test_a_folder_of_something_else_is_refused(tiny, tmp_path):
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.doc"):
        build_atlas(tiny, proteins(1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_nothing_that_can_be_used_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="no protein"):
        build_atlas(tiny, [Rejection("a", "x.fasta", "It is no good.")], tmp_path / "site")


HOSTILE = (
    '"><script>alert(1)</script>',
    "../../../../tmp/escape",
    "..",
    "CON",
    "a/b\\c",
    "p53",
    "P53",
    "</script><!--",
    "\ud800",
    "x" * 300,
    "'; DROP TABLE answers; --",
    "{{ 7 * 7 }}",
    "javascript:alert(1)",
)


@pytest.fixture(scope="module")
def hostile_site(tiny, tmp_path_factory):
    site = tmp_path_factory.mktemp("hostile") / "inner" / "site"
    given = [
        Protein(name, protein(number).sequence, gene_symbol=name if number % 2 else None, accession=name)
        for number, name in enumerate(HOSTILE)
    ]
    build_atlas(tiny, given, site, title='</title><script>alert("title")</script>', cells=CELLS[:1])
    return site


def test_strange_ids_never_become_paths(hostile_site):
    assert [path.name for path in hostile_site.parent.parent.iterdir()] == ["inner"]
    assert [path.name for path in hostile_site.parent.iterdir()] == ["site"]
    pages = list(hostile_site.glob("p/*/*.html"))
    assert len(pages) == len(HOSTILE)
    assert len({page.name.lower() for page in pages}) == len(HOSTILE)
    assert all(
        re.fullmatch(r"p/[0-9a-f]{2}/[\w.-]+\.html", str(page.relative_to(hostile_site))) for page in pages
    )


def test_strange_ids_never_become_markup(hostile_site):
    for path in hostile_site.rglob("*.html"):
        for tag, attributes in elements(path):
            assert tag != "script" or re.fullmatch(r"(assets|index)/\w+\.js", attributes["src"])
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            assert not (attributes.get("href") or "").startswith("javascript:")
    for path in hostile_site.glob("index/*.js"):
        assert path.read_text().isascii()


def test_the_index_names_every_page_and_image(hostile_site):
    about, rows = index_of(hostile_site)
    assert about["count"] == len(rows) == len(HOSTILE)
    for row in rows:
        assert (hostile_site / "p" / f"{row[4]}.html").exists()
        assert (hostile_site / "p" / f"{row[4]}.{about['image']}.webp").exists()


def test_every_page_has_a_strict_policy_and_links_that_lead_somewhere(known_site):
    for path in known_site.rglob("*.html"):
        found = elements(path)
        [policy] = [each["content"] for tag, each in found if tag == "meta" and "http-equiv" in each]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        text = path.read_text()
        assert "CC BY" in text and "To cite" in text and "<style" not in text
        targets = [
            each.get("href") or each.get("src")
            for tag, each in found
            if tag in ("a", "link", "script", "img")
        ]
        for target in targets:
            assert target, path
            if "://" not in target and not target.startswith("#"):
                assert (path.parent / unquote(target.partition("#")[0])).exists(), f"{path}: {target}"


def test_a_page_tells_the_three_parts_with_sources_and_signals(known_site):
    [page] = known_site.glob("p/*/P27797.html")
    text = page.read_text()
    assert "https://www.uniprot.org/uniprotkb/P27797#subcellular_location" in text
    assert "https://www.proteinatlas.org/search/CALR" in text
    assert "Predicted without its own record" in text and "Threshold" in text
    assert "signal peptide" in text and "ER retention signal" in text
    document = json.loads(page.with_suffix(".json").read_text())
    assert document["sequence"] == CALR
    assert document["record"]["known"]["accession"] == "P27797"


def test_the_title_is_text(known_site):
    assert "Known &amp; &lt;unknown&gt;" in (known_site / "index.html").read_text()


def test_candidates_are_those_of_which_nothing_is_known(known_site):
    with (known_site / "tables" / "proteins.csv").open() as file:
        rows = {row["Protein_ID"]: row for row in csv.DictReader(file)}
    assert rows["EGFP"]["Agreement"] == "nothing known"
    assert rows["P27797"]["Known"].startswith("er") and rows["P27797"]["Gene"] == "CALR"
    assert rows["NPM1"]["Accession"] == "P06748"
    with (known_site / "tables" / "candidates.csv").open() as file:
        assert {row["Protein_ID"] for row in csv.DictReader(file)} <= {"EGFP"}


def test_tables_hold_the_same(known_site):
    polars = pytest.importorskip("polars")
    with (known_site / "tables" / "proteins.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = polars.read_parquet(known_site / "tables" / "proteins.parquet")
    assert table.columns == list(rows[0])
    assert table["Protein_ID"].to_list() == [row["Protein_ID"] for row in rows]
    assert table["er"].to_list() == pytest.approx([float(row["er"]) for row in rows], abs=1e-4)


def test_the_annotated_data_hold_the_same(known_site, mini):
    anndata = pytest.importorskip("anndata")
    data = anndata.read_h5ad(known_site / "tables" / "proteins.h5ad")
    assert list(data.var_names) == list(mini.classes)
    assert list(data.obs_names) == ["P27797", "NPM1", "P01308", "EGFP"]
    assert data.X.shape == data.layers["predicted"].shape == (4, len(mini.classes))
    place = data.var_names.get_loc("er")
    assert np.argmax(data.X[0]) == place


def test_the_manifest_names_model_inputs_and_versions(tiny, tmp_path):
    build_atlas(tiny, proteins(1), tmp_path / "site", inputs=[("x.fasta", "ab")], cells=CELLS[:1])
    manifest = json.loads((tmp_path / "site" / "manifest.json").read_text())
    assert manifest["inputs"] == [{"source": "x.fasta", "sha256": "ab"}]
    assert manifest["model"]["sha256"] == tiny.bundle.sha256
    assert [each["name"] for each in manifest["nuclei"]] == ["one"]
    assert {"numpy", "onnxruntime"} <= manifest["packages"].keys()
    assert manifest["finished"] >= manifest["started"]


def test_importance_is_a_track_where_it_is_wanted(tiny, tmp_path):
    build_atlas(tiny, proteins(1), tmp_path / "site", importance=True)
    document = json.loads(next((tmp_path / "site").glob("p/*/P0.json")).read_text())
    assert len(document["importance"]["values"]) == document["record"]["length"]
    assert "Signals and importance" in next((tmp_path / "site").glob("p/*/P0.html")).read_text()


def test_the_command_builds_the_examples_and_tells_what_it_did(tiny_bundle, tmp_path, capsys):
    site = tmp_path / "site"
    assert run(["atlas", "example", "--out", str(site), "--no-images", "--model", str(tiny_bundle.path)]) == 0
    printed = capsys.readouterr().out
    assert "6 proteins (6 predicted, 0 images drawn, 6 pages written by this run), 0 rejected" in printed
    manifest = json.loads((site / "manifest.json").read_text())
    assert manifest["inputs"][0]["sha256"] and Path(manifest["inputs"][0]["source"]).name == "proteins.fasta"


def test_human_needs_a_model_that_knows_proteins(tiny_bundle, tmp_path, capsys):
    assert run(["atlas", "human", "--out", str(tmp_path / "site"), "--model", str(tiny_bundle.path)]) == 2
    assert "no index of known proteins" in capsys.readouterr().err


def test_human_gives_every_human_protein_of_the_index(mini):
    from deepgps.cli.atlas import _human_proteins

    first = [next(found) for found in [_human_proteins(mini)] for _ in range(3)]
    assert all(each.accession == each.id and each.sequence for each in first)
    assert mini.known.named(first[0].id).sequence == first[0].sequence
