"""Structures and sequences by accession."""

import csv

import pytest

from deepgps.datasets.fetch import download
from deepgps.datasets.fetch.download import Client
from deepgps.datasets.fetch.proteins import fetch_sequences, fetch_structures, read_models
from deepgps.errors import DeepGPSError, InputError
from deepgps.proteins.reading import fasta_records
from fake_sources import serving


class NoProgress:
    def begin(self, what, total):
        pass

    advance = add_bytes = lambda *_: None


@pytest.fixture
def sources(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        yield running


def structures(sources, folder, accessions, **options):
    site = sources.url + "/alphafold"
    return fetch_structures(folder, Client(), NoProgress(), accessions, site=site, **options)


def sequences(sources, folder, accessions):
    return fetch_sequences(folder, Client(), NoProgress(), accessions, site=sources.url + "/uniprot")


def test_structures_are_found_by_the_api_without_isoforms(sources, tmp_path):
    fetched = structures(sources, tmp_path, ["p09000", "P19011", "P99999"])
    table = list(csv.DictReader((tmp_path / "structures.csv").open()))
    assert [row["accession"] for row in table] == ["P09000", "P19011"]
    assert table[0]["version"] == "6"
    assert table[0]["path"] == "structures/AF-P09000-F1-model_v6.pdb"
    assert (tmp_path / table[0]["path"]).read_text().startswith("ATOM")
    assert [(row["protein"], row["reason"]) for row in fetched.problems] == [
        ("P99999", "withdrawn or never available (status 404)")
    ]
    sources.forget()
    assert structures(sources, tmp_path, ["P09000", "P19011", "P99999"]).new == 0
    assert sources.asked == []


def test_structures_can_be_mmcif(sources, tmp_path):
    structures(sources, tmp_path, ["P09000"], format="cif")
    assert [path.suffix for path in (tmp_path / "structures").iterdir()] == [".cif"]


def test_the_fake_structures_can_be_read(sources, tmp_path):
    pdb = pytest.importorskip("biotite.structure.io.pdb")
    structures(sources, tmp_path, ["P09000"])
    atoms = pdb.PDBFile.read(next((tmp_path / "structures").iterdir())).get_structure(model=1)
    assert len(atoms) == 120
    assert set(atoms.element) == {"C", "N", "O"}


@pytest.mark.parametrize("content", [b"", b"[1]", b'[{"uniprotAccession": "P1", "pdbUrl": "x"}]', b"null"])
def test_a_response_of_another_format_is_refused(content):
    with pytest.raises(DeepGPSError, match="its format may have changed"):
        read_models(content, "P1", "pdb")


def test_sequences_are_in_the_requested_order(sources, tmp_path):
    fetched = sequences(sources, tmp_path, ["P19011", "P09000", "P19011"])
    records = list(fasta_records((tmp_path / "sequences.fasta").read_text().splitlines()))
    assert [record.accession for record in records] == ["P19011", "P09000"]
    assert records[1].gene_symbol == "A-HYPHEN1"
    assert (fetched.proteins, fetched.new) == (2, 2)


def test_an_empty_uniprot_entry_is_a_problem(sources, tmp_path, monkeypatch):
    content = sources.files["/uniprot/uniprotkb/P09000.fasta"]
    monkeypatch.setitem(content.__dict__, "body", b"")
    fetched = sequences(sources, tmp_path, ["P09000"])
    assert fetched.proteins == 0
    assert "no longer has a sequence of it" in fetched.problems[0]["reason"]


def test_a_merged_entry_keeps_the_requested_accession(sources, tmp_path, monkeypatch):
    content = sources.files["/uniprot/uniprotkb/P09000.fasta"]
    monkeypatch.setitem(content.__dict__, "body", b">sp|P04637|P53_HUMAN p53 GN=TP53\nMEEP\n")
    sequences(sources, tmp_path, ["P09000"])
    assert (tmp_path / "sequences.fasta").read_text().startswith(">P09000 sp|P04637|P53_HUMAN")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"<sorry>", "its format may have changed"),
        (b"[]", "AlphaFold DB has no pdb of it"),
        (b'[{"uniprotAccession": "P09000", "pdbUrl": null}]', "AlphaFold DB has no pdb of it"),
    ],
)
def test_one_unreadable_response_does_not_affect_the_others(sources, tmp_path, monkeypatch, response, reason):
    content = sources.files["/alphafold/api/prediction/P09000"]
    monkeypatch.setitem(content.__dict__, "body", response)
    fetched = structures(sources, tmp_path, ["P09000", "P19011"])
    assert fetched.proteins == 1
    assert reason in fetched.problems[0]["reason"]


def test_a_gene_symbol_is_refused(sources, tmp_path):
    for fetch in (structures, sequences):
        with pytest.raises(InputError, match="'TP53' is not a UniProt accession"):
            fetch(sources, tmp_path, ["P09000", "TP53"])
    assert list(tmp_path.iterdir()) == []
