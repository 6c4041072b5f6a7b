"""The human proteome in the cache: fetched in parts, resumed, and resolved offline."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from deepgps.cli.app import run
from deepgps.errors import DeepGPSError, InputError
from deepgps.proteins import human
from deepgps.proteins.human import fetch_human, find_human, human_file
from deepgps.proteins.uniprot import fetch_protein

P53, PXN, HLA = "MEEPQSDPSVEPPLSQETFSDLWKLL", "MDDLDALLADLESTTSHISKRPVFL", "MAVMAPRTLLLLLSGALALTQTWAG"
FASTA = (
    f">sp|P04637|P53_HUMAN Tumor antigen OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4\n{P53}\n"
    f">sp|P04637-2|P53_HUMAN Isoform 2 of p53 OS=Homo sapiens OX=9606 GN=TP53\n{P53[:20]}\n"
    f">sp|P49023|PAXI_HUMAN Paxillin OS=Homo sapiens OX=9606 GN=PXN PE=1 SV=3\n{PXN}\n"
    f">sp|P04439|HLAA_HUMAN HLA OS=Homo sapiens OX=9606 GN=HLA-A PE=1 SV=2\n{HLA}\n"
)
NAMES = (
    "Entry\tGene Names (primary)\tGene Names (synonym)\n"
    "P04637\tTP53\tP53 SHARED\nP49023\tPXN\tPAX SHARED\nP04439\tHLA-A\tHLAA\n"
)
MERGED = "Secondary AC        Primary AC\n__________\nP01892              P04439\nQ99999     P00000\n"


class UniProt(BaseHTTPRequestHandler):
    """Answers as rest.uniprot.org and its list of merged accessions do."""

    asked: list[str]
    fail_at: int | None = None

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.fail_at is not None and len(self.asked) > self.fail_at:
            self._answer(400, "no")
            return
        fields = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "merged" in self.path:
            self._answer(200, MERGED)
        elif "[1 TO 149]" not in fields["query"]:
            self._answer(200, "" if fields["format"] == "fasta" else NAMES.partition("\n")[0])
        else:
            self._answer(200, FASTA if fields["format"] == "fasta" else NAMES)

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def uniprot() -> Iterator[tuple[str, type[UniProt]]]:
    handler = type("Handler", (UniProt,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def fetch(base: str, folder: Path) -> human.HumanSummary:
    return fetch_human(cache_dir=folder, base_url=base, merged_url=f"{base}/merged.txt")


@pytest.fixture
def fetched(uniprot, tmp_path) -> Path:
    summary = fetch(uniprot[0], tmp_path)
    assert (summary.path, summary.proteins, summary.isoforms, summary.merged) == (
        *(human_file(tmp_path), 3, 1, 1),
    )
    assert not human_file(tmp_path).with_suffix(".parts").exists()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "accession", "note"),
    [
        ("TP53", "P04637", ""),
        ("tp53", "P04637", ""),
        ("P04637", "P04637", ""),
        ("P53", "P04637", "P53 is a synonym: TP53 (P04637) was taken"),
        ("PAX", "P49023", "PAX is a synonym: PXN (P49023) was taken"),
        ("P01892", "P04439", "P01892 was merged into another entry: HLA-A (P04439) was taken"),
        ("P04637-2", "P04637-2", "P04637-2 is isoform 2 of TP53 (P04637)"),
        ("P04637-1", "P04637", "P04637-1 is isoform 1 of TP53 (P04637), the canonical sequence"),
    ],
)
def test_every_name_resolves_offline_and_the_entry_is_named(fetched, name, accession, note):
    found = fetch_protein(name, cache_dir=fetched, offline=True)
    assert (found.id, found.accession, found.notes) == (name, accession, (note,) if note else ())
    assert found.sequence in FASTA


def test_a_synonym_of_several_is_refused_with_the_choices(fetched):
    assert find_human("SHARED", fetched) == ("P04637 (TP53)", "P49023 (PXN)")
    with pytest.raises(InputError, match=r"several entries: P04637 \(TP53\), P49023 \(PXN\)"):
        fetch_protein("SHARED", cache_dir=fetched, offline=True)


def test_an_unknown_name_says_what_would_help(tmp_path):
    with pytest.raises(InputError, match="deepgps data fetch human"):
        fetch_protein("TP53", cache_dir=tmp_path, offline=True)


def test_a_stopped_fetch_continues_where_it_stopped(uniprot, tmp_path):
    base, handler = uniprot
    handler.fail_at = 5
    with pytest.raises(DeepGPSError, match=r"status 400.*run the same command again"):
        fetch(base, tmp_path)
    assert find_human("TP53", tmp_path) == ()
    handler.fail_at, first = None, list(handler.asked[:5])
    handler.asked.clear()
    assert fetch(base, tmp_path).proteins == 3
    assert not set(first) & set(handler.asked)


def test_the_command_says_what_it_fetched(uniprot, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path))
    base = uniprot[0]
    assert run(["data", "fetch", "human", "--site", base, "--merged", f"{base}/merged.txt"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["3 human proteins, 1 isoforms, 1 merged accessions", str(human_file(tmp_path))]


def test_without_the_list_of_merged_accessions_all_else_resolves(uniprot, tmp_path, monkeypatch):
    monkeypatch.setattr(human, "HUMAN_ATTEMPTS", 1)
    summary = fetch_human(cache_dir=tmp_path, base_url=uniprot[0], merged_url="http://127.0.0.1:9/none")
    assert (summary.proteins, summary.merged) == (3, 0)
