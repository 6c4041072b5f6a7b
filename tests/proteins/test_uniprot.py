import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from deepgps.errors import InputError
from deepgps.proteins import uniprot
from deepgps.proteins.names import is_accession
from deepgps.proteins.uniprot import fetch_protein

P53 = "MEEPQSDPSVEPPLSQETFSDLWKLL"
ENTRIES = {
    "P04637": f">sp|P04637|P53_HUMAN Tumor antigen OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4\n{P53}\n",
    "P04637-2": f">sp|P04637-2|P53_HUMAN Isoform 2 of p53 OS=Homo sapiens OX=9606 GN=TP53\n{P53[:20]}\n",
    "P42771": ">sp|P42771|CDN2A_HUMAN Inhibitor OS=Homo sapiens OX=9606 GN=CDKN2A PE=1 SV=2\nMEPAAGSSMEPS\n",
    "Q8N726": ">sp|Q8N726|ARF_HUMAN Suppressor OS=Homo sapiens OX=9606 GN=CDKN2A PE=1 SV=2\nMVRRFLVTLRIR\n",
    "P46531": ">sp|P46531|NOTC1_HUMAN Notch 1 OS=Homo sapiens OX=9606 GN=NOTCH1 PE=1 SV=4\nMPPLLAPLLCLA\n",
    "P02340": ">sp|P02340|P53_MOUSE p53 OS=Mus musculus OX=10090 GN=Tp53 PE=1 SV=4\nMTAMEESQSDIS\n",
}
SEARCHES = {
    ("TP53", "9606"): ["P04637"],
    ("TP53", "10090"): ["P02340"],
    ("P53X", "9606"): ["P04637"],
    ("NOTCH1", "9606"): ["P46531"],
    ("CDKN2A", "9606"): ["P42771", "Q8N726"],
    ("CALLED", "9606"): ["P04637", "P46531"],
    ("notch1", "9606"): ["P04637", "P46531"],
    ("C9orf3", "9606"): ["P46531"],
}
STATUSES = {"Q99999": 404, "Q88888": 400, "Q77777": 500, "Q66666": 429, "Q55555": 503}


class UniProt(BaseHTTPRequestHandler):
    """Answers as rest.uniprot.org does."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        url = urlsplit(self.path)
        if url.path == "/uniprotkb/search":
            self._search(parse_qs(url.query))
            return
        accession = url.path.removeprefix("/uniprotkb/").removesuffix(".fasta")
        match accession:
            case "Q44444":
                time.sleep(1)
                self._answer(200, "")
            case "Q33333":
                self._answer(200, "<html>Please log in to the hotel network</html>")
            case "Q22222":
                self._answer(200, "")
            case "Q11111":
                self.send_response(303)
                self.send_header("Location", "/uniprotkb/P04637.fasta")
                self.end_headers()
            case "Q12121":
                self.send_response(200)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(b">sp|Q12121|CUT\nMEEP")
            case _:
                status = 200 if accession in ENTRIES else STATUSES.get(accession, 404)
                self._answer(status, ENTRIES.get(accession, '{"messages": ["no"]}'))

    def _search(self, fields: dict[str, list[str]]) -> None:
        for (symbol, organism), found in SEARCHES.items():
            if fields["query"] == [
                f'(gene_exact:"{symbol}") AND (organism_id:{organism}) AND (reviewed:true)'
            ] and fields["format"] == ["fasta"]:
                self._answer(200, "".join(ENTRIES[accession] for accession in found))
                return
        self._answer(200, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server:
    def __init__(self, url: str, asked: list[str]) -> None:
        self.url = url
        self.asked = asked


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked: list[str] = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (UniProt,), {"asked": asked}))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_port}", asked)
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.mark.parametrize(
    "query", ["P04637", "p04637", "Q9Y6K9", "A2BC19", "A0A023GPI8", "P04637-2", "O43521"]
)
def test_accessions(query: str) -> None:
    assert is_accession(query)


@pytest.mark.parametrize("query", ["TP53", "NOTCH1", "HLA-A", "C9orf3", "C9ORF3", "H2AC6", "H2BC21", "P0463"])
def test_gene_symbols_are_not_accessions(query: str) -> None:
    assert not is_accession(query)


def test_an_accession_gives_its_entry_under_the_users_name(server: Server) -> None:
    protein = fetch_protein("p04637", base_url=server.url)
    assert (protein.id, protein.sequence) == ("p04637", P53)
    assert (protein.accession, protein.gene_symbol) == ("P04637", "TP53")


def test_an_isoform_and_a_merged_entry_are_followed(server: Server) -> None:
    assert fetch_protein("P04637-2", base_url=server.url).sequence == P53[:20]
    merged = fetch_protein("Q11111", base_url=server.url)
    assert (merged.id, merged.accession) == ("Q11111", "P04637")


@pytest.mark.parametrize(
    ("query", "accession"),
    [
        ("TP53", "P04637"),
        ("NOTCH1", "P46531"),
        ("notch1", "P46531"),
        ("P53X", "P04637"),
        ("C9orf3", "P46531"),
    ],
)
def test_a_symbol_gives_the_reviewed_human_entry(server: Server, query: str, accession: str) -> None:
    protein = fetch_protein(query, base_url=server.url)
    assert (protein.id, protein.accession) == (query, accession)


def test_a_symbol_of_another_organism(server: Server) -> None:
    assert fetch_protein("TP53", organism_id=10090, base_url=server.url).accession == "P02340"


def test_a_symbol_of_several_entries_is_for_the_user_to_choose(server: Server) -> None:
    with pytest.raises(InputError, match=r"P42771 \(CDKN2A\), Q8N726 \(CDKN2A\); give an accession"):
        fetch_protein("CDKN2A", base_url=server.url)
    with pytest.raises(InputError, match="several entries"):
        fetch_protein("CALLED", base_url=server.url)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Q99999", "has no entry 'Q99999'"),
        ("Q88888", "has no entry 'Q88888'"),
        ("Q22222", "no sequence for 'Q22222'"),
        ("NOGENE", "reviewed entries of organism 9606"),
        ("Q77777", "status 500.*FASTA file"),
        ("Q66666", "status 429.*try again later"),
        ("Q55555", "status 503.*try again later"),
        ("Q33333", "proxy or login page"),
        ("Q12121", "cannot be reached.*FASTA file"),
        ("my protein", "neither a file nor a UniProt accession or gene symbol"),
        ('X") OR (a:b', "neither a file nor a UniProt accession or gene symbol"),
    ],
)
def test_what_uniprot_cannot_answer_is_said_and_not_cached(server: Server, query: str, words: str) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            fetch_protein(query, base_url=server.url)
    assert not list(Path(os.environ["DEEPGPS_CACHE"]).rglob("*.*"))


def test_a_slow_server_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniprot, "UNIPROT_TIMEOUT_S", 0.1)
    with pytest.raises(InputError, match=r"cannot be reached.*timed out.*FASTA file"):
        fetch_protein("Q44444", base_url=server.url)


def test_no_network_is_said_plainly(tmp_path: Path) -> None:
    # Port 9 of the loopback: nobody listens there.
    with pytest.raises(InputError, match=r"UniProt cannot be reached to look up 'TP53'.*FASTA file"):
        fetch_protein("TP53", cache_dir=tmp_path, base_url="http://127.0.0.1:9")


def test_the_second_time_comes_from_the_cache(server: Server, tmp_path: Path) -> None:
    first = fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url)
    assert fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url) == first
    assert fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url, offline=True) == first
    assert len(server.asked) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_offline_without_a_cached_answer_asks_nobody(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Offline, and 'TP53' is not in the cache; .*FASTA file"):
        fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url, offline=True)
    assert server.asked == []


def test_organisms_and_servers_do_not_share_answers(server: Server) -> None:
    fetch_protein("TP53", base_url=server.url)
    assert fetch_protein("TP53", organism_id=10090, base_url=server.url).accession == "P02340"
    with pytest.raises(InputError, match="Offline"):
        fetch_protein("TP53", offline=True)


def test_a_damaged_cache_is_asked_anew(server: Server, tmp_path: Path) -> None:
    first = fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url)
    (cached,) = tmp_path.rglob("*.fasta")
    cached.write_bytes(b"\xff\x00")
    assert fetch_protein("TP53", cache_dir=tmp_path, base_url=server.url) == first
    assert len(server.asked) == 2


def test_a_cache_that_cannot_be_written_keeps_nobody_from_an_answer(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert fetch_protein("TP53", cache_dir=tmp_path / "file", base_url=server.url).sequence == P53
