"""Download from a server that behaves like OpenCell and the Human Protein Atlas."""

import csv
import gzip
import hashlib
import io
import json

import numpy as np
import pytest
import tifffile

from deepgps.datasets.annotation.hpa import annotate_hpa
from deepgps.datasets.fetch import download
from deepgps.datasets.fetch.download import Client, UnreachableError
from deepgps.datasets.fetch.folder import FIELD_COLUMNS
from deepgps.datasets.fetch.hpa import fetch_hpa
from deepgps.datasets.fetch.opencell import fetch_opencell
from deepgps.errors import InputError
from fake_content import Content
from fake_sources import BUCKET, serving


class RecordedProgress:
    def __init__(self):
        self.stages = []

    def begin(self, what, total):
        self.stages.append([what, total, 0])

    def advance(self):
        self.stages[-1][2] += 1

    def add_bytes(self, count):
        pass


@pytest.fixture(scope="module")
def running():
    with serving() as sources:
        yield sources


@pytest.fixture
def sources(running, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.forget()
    return running


def opencell(sources, folder, progress=None, **options):
    urls = {"bucket": sources.url + BUCKET, "portal": sources.url + "/opencell-portal"}
    return fetch_opencell(folder, Client(retries=2), progress or RecordedProgress(), **urls, **options)


def hpa(sources, folder, **options):
    urls = {"site": sources.url + "/hpa", "images": sources.url + "/hpa-images"}
    return fetch_hpa(folder, Client(retries=2), RecordedProgress(), **urls, **options)


def rows(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def downloads(sources):
    return [path for path in sources.bodies("/") if "list-type" not in path]


def test_a_part_of_opencell(sources, tmp_path):
    progress = RecordedProgress()
    fetched = opencell(sources, tmp_path, progress, limit=3)
    assert (fetched.proteins, fetched.fields, fetched.problems) == (3, 6, [])
    fields = rows(tmp_path / "fields.csv")
    assert list(fields[0]) == list(FIELD_COLUMNS)
    assert [row["gene_symbol"] for row in fields] == ["A-HYPHEN1"] * 2 + ["ACYT1"] * 2 + ["AERT1"] * 2
    assert fields[0]["accession"] == "P09000"
    pixels = tifffile.imread(tmp_path / fields[0]["nucleus"])
    assert (pixels.shape, pixels.dtype) == ((2, 600, 600), np.uint16)
    assert progress.stages[-1] == ["fields", 6, 6]
    assert not list(tmp_path.rglob("*.part*"))
    assert not (tmp_path / "problems.csv").exists()


def test_the_manifest_has_url_hash_and_size_of_every_file(sources, tmp_path):
    opencell(sources, tmp_path, limit=1)
    document = manifest(tmp_path)
    assert document["fetched"]["opencell"]["complete"] is True
    assert document["fetched"]["opencell"]["limit"] == 1
    assert set(document["files"]) > {"annotations.csv", "library.csv"}
    for name, file in document["files"].items():
        content = (tmp_path / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
        assert file["url"].startswith(sources.url)


def test_a_limit_requests_only_the_pages_it_needs(sources, tmp_path):
    opencell(sources, tmp_path, limit=1)
    assert len(sources.bodies("list-type")) == 1


def test_a_second_run_downloads_and_changes_nothing(sources, tmp_path):
    opencell(sources, tmp_path, limit=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    sources.forget()
    again = opencell(sources, tmp_path, limit=2)
    assert downloads(sources) == []
    assert (again.new, again.existing, again.fields) == (0, 6, 4)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_more_proteins_can_be_added_to_a_folder(sources, tmp_path):
    opencell(sources, tmp_path, limit=1)
    sources.forget()
    opencell(sources, tmp_path, ids=["zgolg1"])
    assert len(downloads(sources)) == 1
    assert [row["gene_symbol"] for row in rows(tmp_path / "fields.csv")] == ["A-HYPHEN1"] * 2 + ["ZGOLG1"]


def test_a_damaged_file_is_downloaded_again(sources, tmp_path):
    opencell(sources, tmp_path, ids=["ZGOLG1"])
    image = tmp_path / rows(tmp_path / "fields.csv")[0]["nucleus"]
    whole = image.read_bytes()
    image.write_bytes(whole[:1000])
    assert opencell(sources, tmp_path, ids=["ZGOLG1"]).new == 1
    assert image.read_bytes() == whole


def test_proteins_are_selected_by_any_id_and_unknown_ids_reported(sources, tmp_path):
    fetched = opencell(sources, tmp_path, ids=["ENSG00090000027.3", "P69265", "NOPE"])
    assert sorted(row["gene_symbol"] for row in rows(tmp_path / "fields.csv")) == ["ZFAINT1", "ZGOLG1"]
    assert fetched.unknown == ["NOPE"]
    (problem,) = rows(tmp_path / "problems.csv")
    assert (problem["protein"], problem["reason"]) == ("NOPE", "no such protein in the source")
    with pytest.raises(InputError, match="None of the 2 requested proteins is in OpenCell"):
        opencell(sources, tmp_path, ids=["NOPE", "NEITHER"])


def test_an_annotated_protein_without_an_image_is_a_problem(sources, tmp_path, monkeypatch):
    fewer = {path: content for path, content in sources.files.items() if "ZGOLG1_" not in path}
    monkeypatch.setattr(sources, "files", fewer)
    fetched = opencell(sources, tmp_path, ids=["ZGOLG1", "ZFAINT1"])
    assert fetched.proteins == 1
    assert [problem["reason"] for problem in fetched.problems] == [
        "annotated, but without an image in the bucket"
    ]


def test_server_errors_do_not_change_the_result(sources, tmp_path):
    opencell(sources, tmp_path / "undisturbed", limit=3)
    images = [path for path in sources.files if "CYT1_" in path and path.endswith("_proj.tif")][:2]
    listing, table = f"{BUCKET}/", "/opencell-portal/opencell-library-metadata.csv"
    sources.faults = {images[0]: ["429:0", "truncated"], images[1]: ["500", "slow"], listing: ["503"]}
    sources.faults[table] = ["truncated", "429"]
    sources.piece_s = 0.001
    assert opencell(sources, tmp_path / "disturbed", limit=3).failed == 0
    for name in ("fields.csv", "annotations.csv", "library.csv"):
        assert (tmp_path / "undisturbed" / name).read_bytes() == (tmp_path / "disturbed" / name).read_bytes()
    assert manifest(tmp_path / "undisturbed") == manifest(tmp_path / "disturbed")


def test_a_failed_file_is_reported_and_downloaded_by_the_next_run(sources, tmp_path):
    image = next(path for path in sources.files if "ACYT1_" in path and path.endswith("_proj.tif"))
    sources.faults[image] = ["500"] * 3
    fetched = opencell(sources, tmp_path, limit=2)
    assert (fetched.failed, fetched.fields) == (1, 3)
    assert "in 3 attempts (status 500)" in rows(tmp_path / "problems.csv")[0]["reason"]
    fetched = opencell(sources, tmp_path, limit=2)
    assert (fetched.new, fetched.failed, fetched.fields) == (1, 0, 4)
    assert not (tmp_path / "problems.csv").exists()


def test_a_download_stops_after_ten_failures_in_a_row(sources, tmp_path):
    sources.faults = {path: ["500"] * 3 for path in sources.files if path.endswith("_proj.tif")}
    with pytest.raises(UnreachableError, match="10 files in a row have failed"):
        opencell(sources, tmp_path)
    assert len(sources.bodies("_proj.tif")) < 3 * 20
    assert manifest(tmp_path)["fetched"]["opencell"]["complete"] is False


def test_denied_access_does_not_count_as_withdrawn(sources, tmp_path):
    image = "/hpa-images/1000/40_A1_1_blue.tif.gz"
    sources.faults[image] = ["403"]
    fetched = hpa(sources, tmp_path, limit=1)
    assert (fetched.failed, fetched.fields) == (1, 1)
    assert manifest(tmp_path)["absent"] == {}
    fetched = hpa(sources, tmp_path, limit=1)
    assert (fetched.failed, fetched.fields) == (0, 2)
    sources.faults = {path: ["403"] for path in sources.files if path.endswith("_proj.tif")}
    with pytest.raises(UnreachableError, match="status 403"):
        opencell(sources, tmp_path)


def test_single_failures_do_not_stop_a_download(sources, tmp_path, monkeypatch):
    client = Client(connections=1, retries=0)
    images = sorted(path for path in sources.files if path.endswith("_proj.tif"))
    small = {path: Content(lambda: b"abc", 3) for path in images}
    monkeypatch.setattr(sources, "files", {**sources.files, **small})
    sources.faults = {path: ["500"] for path in images[::2]}
    urls = {"bucket": sources.url + BUCKET, "portal": sources.url + "/opencell-portal"}
    fetched = fetch_opencell(tmp_path, client, RecordedProgress(), **urls)
    assert fetched.failed > 10
    assert fetched.new > 10


def test_a_file_without_a_record_is_recognised(sources, tmp_path):
    opencell(sources, tmp_path, limit=1)
    complete = manifest(tmp_path)["files"]
    (tmp_path / "manifest.json").unlink()
    sources.forget()
    opencell(sources, tmp_path, limit=1)
    assert downloads(sources) == []
    assert manifest(tmp_path)["files"] == complete


def test_another_manifest_and_a_file_are_refused(sources, tmp_path):
    (tmp_path / "manifest.json").write_text('{"my": "own"}')
    with pytest.raises(InputError, match="not a manifest"):
        opencell(sources, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        opencell(sources, tmp_path / "manifest.json")


def test_hpa_falls_back_to_worse_images_and_reports_withdrawn_fields(sources, tmp_path):
    requested = ["DCYT1", "DVES1", "EVES1", "FNUC1"]
    fetched = hpa(sources, tmp_path, ids=requested)
    fields = {row["field"]: row for row in rows(tmp_path / "fields.csv")}
    assert fetched.proteins == 4
    assert len(fields) == 7
    assert {row["cell_line"] for row in fields.values()} == {"U-2 OS"}
    best, jpeg, composite = (fields[name] for name in ("1000_40_A1_1", "1003_43_A1_1", "1007_47_A1_1"))
    assert (best["nucleus"], best["note"]) == ("images/1000/40_A1_1_blue.tif.gz", "")
    assert (jpeg["protein"], jpeg["note"]) == ("images/1003/43_A1_1_green.jpg", "jpeg")
    assert composite["note"].startswith("composite")
    assert composite["nucleus"] == composite["protein"] == "images/1007/47_A1_1_blue_red_green.jpg"
    problems = {row["file"]: row["reason"] for row in rows(tmp_path / "problems.csv")}
    assert problems["1010_50_A1_1"] == "withdrawn: no image in any format (status 400)"
    assert "1010_50_A1_1" not in fields
    assert problems[composite["nucleus"]].startswith("only a composite")
    pixels = tifffile.imread(io.BytesIO(gzip.decompress((tmp_path / best["nucleus"]).read_bytes())))
    assert (pixels.ndim, pixels.dtype) == (2, np.uint16)
    assert (tmp_path / "subcellular_location.tsv").read_text().startswith("Gene\tGene name")
    assert len(list((tmp_path / "xml").iterdir())) == 4
    sources.forget()
    again = hpa(sources, tmp_path, ids=requested)
    assert sources.asked == []
    assert (again.new, again.fields, len(again.problems)) == (0, 7, len(fetched.problems))


def test_a_busy_server_does_not_cause_a_worse_image(sources, tmp_path):
    sources.faults["/hpa-images/1000/40_A1_1_green.tif.gz"] = ["503"] * 3
    fetched = hpa(sources, tmp_path, limit=1)
    assert [row["field"] for row in rows(tmp_path / "fields.csv")] == ["1000_40_A1_2"]
    assert fetched.failed == 1
    assert not any(path.endswith(".jpg") for path in sources.bodies("40_A1_1"))


def test_another_cell_line_and_one_without_images(sources, tmp_path):
    fetched = hpa(sources, tmp_path, cell_line="a431", limit=2)
    assert {row["cell_line"] for row in rows(tmp_path / "fields.csv")} == {"A-431"}
    assert fetched.fields == 2
    fetched = hpa(sources, tmp_path / "none", cell_line="HeLa", limit=2)
    assert fetched.fields == 0
    assert {row["reason"] for row in fetched.problems} == {"no immunofluorescence in HeLa"}


def test_two_sources_can_share_a_folder(sources, tmp_path):
    hpa(sources, tmp_path, ids=["EVES1"])
    problems = rows(tmp_path / "problems.csv")
    opencell(sources, tmp_path, ids=["ZGOLG1", "NOPE"])
    assert {row["source"] for row in rows(tmp_path / "fields.csv")} == {"hpa", "opencell"}
    assert rows(tmp_path / "problems.csv")[:-1] == problems
    assert set(manifest(tmp_path)["fetched"]) == {"hpa", "opencell"}


def test_hpa_fetches_the_images_of_wanted_locations_only(sources, tmp_path):
    fetched = hpa(sources, tmp_path, class_set_name="single-2")
    labelled = {each.protein_id: each.single_class for each in annotated(tmp_path).proteins}
    wanted = {gene for gene, place in labelled.items() if place in ("cytoplasmic", "nucleoplasm")}
    assert 0 < len(wanted) < len(labelled)
    assert {path.stem for path in (tmp_path / "xml").iterdir()} == wanted
    assert {row["ensembl_gene_id"] for row in rows(tmp_path / "fields.csv")} <= wanted
    assert fetched.fields
    with pytest.raises(InputError, match="'single-9'"):
        hpa(sources, tmp_path / "other", class_set_name="single-9")


def test_hpa_takes_a_table_of_images_instead_of_xmls(sources, tmp_path):
    images = tmp_path / "kaggle.csv"
    base = "https://images.proteinatlas.org"
    lines = [
        f"{base}/1000/40_A1_1,Nucleoplasm,U-2 OS,False,0",
        f'{base}/1000/40_A1_2,"Nucleoplasm,Cytosol",U-2 OS,False,0|16',
        f"{base}/1000/80_B2_1,Nucleoplasm,A-431,False,0",
        f"{base}/777777/1_A1_1,Nucleoplasm,U-2 OS,False,0",
        "unknown,Nucleoplasm,U-2 OS,False,0",
    ]
    images.write_text("Image,Label,Cellline,in_trainset,Label_idx\n" + "\n".join(lines) + "\n")
    hpa(sources, tmp_path / "all", image_table=images)
    assert [row["field"] for row in rows(tmp_path / "all" / "fields.csv")] == ["1000_40_A1_1", "1000_40_A1_2"]
    assert all(row["accession"] for row in rows(tmp_path / "all" / "fields.csv"))
    assert not (tmp_path / "all" / "xml").exists()
    hpa(sources, tmp_path / "some", image_table=images, class_set_name="single-2")
    assert [row["field"] for row in rows(tmp_path / "some" / "fields.csv")] == ["1000_40_A1_1"]


def annotated(folder):
    return annotate_hpa([folder / "subcellular_location.tsv"], "U-2 OS")
