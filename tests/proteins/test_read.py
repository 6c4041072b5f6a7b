import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgps.errors import InputError
from deepgps.proteins.check import sequence_warnings
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import read_protein_file

SEQUENCE = "MEEPQSDPSVEPPLSQETFSDLWKLL"
OTHER = "MSKGEELFTGVVPILVELDGDVNGHK"
FASTA = f">P1 first\n{SEQUENCE}\n>P2\n{OTHER}\n"
TABLE = f"id,sequence\nP1,{SEQUENCE}\nP2,{OTHER}\n"
BOTH = [Protein("P1", SEQUENCE), Protein("P2", OTHER)]
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"

Write = Callable[[bytes | str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: bytes | str) -> Path:
        path = tmp_path / "input.dat"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def parsed(content: bytes | str) -> list[Protein | Rejection]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_protein_file("-", stdin=stream))


@pytest.mark.parametrize(
    "content",
    [
        FASTA,
        FASTA.replace("\n", "\r\n"),
        FASTA.replace("\n", "\r"),
        FASTA.lower().replace("p1", "P1").replace("p2", "P2"),
        FASTA.replace(f"{SEQUENCE}\n", f"{SEQUENCE}*\n"),
        f"\n\n>P1\n\n{SEQUENCE[:9]} {SEQUENCE[9:]}\n\n  >P2\n {OTHER[:5]}\n{OTHER[5:]}",
        TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", ";"),
        f'"Sequence","note","ID"\n"{SEQUENCE}","a, b","P1"\n\n,,\n'
        f'"{OTHER[:9]}\n{OTHER[9:]}","say ""x""",P2\n',
    ],
)
@pytest.mark.parametrize(
    "encoded",
    [
        str.encode,
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode()),
    ],
)
def test_every_way_to_write_two_proteins(write: Write, content: str, encoded: Callable[[str], bytes]) -> None:
    assert list(read_protein_file(write(encoded(content)))) == BOTH
    assert parsed(encoded(content)) == BOTH


def test_a_uniprot_header_gives_accession_and_gene(write: Write) -> None:
    header = ">sp|P04637|P53_HUMAN Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4"
    (protein,) = read_protein_file(str(write(f"{header}\n{SEQUENCE}\n")))
    assert protein == Protein("sp|P04637|P53_HUMAN", SEQUENCE, "TP53", "P04637")


def test_a_table_gives_accession_and_gene_where_it_has_them() -> None:
    columns = f"accession,id,gene_symbol,sequence\nP04637,a,TP53,{SEQUENCE}\n,b,,{OTHER}\n"
    assert parsed(columns) == [Protein("a", SEQUENCE, "TP53", "P04637"), Protein("b", OTHER)]


def test_latin_1_bytes_in_a_header_do_no_harm() -> None:
    assert parsed(f">Müller é\n{SEQUENCE}\n>µ2\n{OTHER}\n".encode("latin-1")) == [
        Protein("Müller", SEQUENCE),
        Protein("µ2", OTHER),
    ]


def test_merged_ncbi_headers_are_text() -> None:
    assert parsed(f">A1 one\x01B1 two\n{SEQUENCE}\n") == [Protein("A1", SEQUENCE)]


def test_records_without_an_id_are_called_by_their_place() -> None:
    assert [p.id for p in parsed(f">P1\n{SEQUENCE}\n>\n{OTHER}\n> P3\n{OTHER}\n")] == ["P1", "record_2", "P3"]
    assert [p.id for p in parsed(f"id,sequence\n,{SEQUENCE}\n")] == ["record_1"]


@pytest.mark.parametrize(
    ("content", "bad", "words"),
    [
        (f">bad\nMEEPJ\n{FASTA}", "bad", "'J' at residue 5"),
        (f">bad\nMEE-PQSDPSV\n{FASTA}", "bad", "'-' at residue 4"),
        (f">bad\nMEEP*QSDPSV\n{FASTA}", "bad", "'*' at residue 5"),
        (f">bad\nMEEP\n{FASTA}", "bad", "only 4 residues"),
        (f">bad\n{FASTA}", "bad", "is empty"),
        (TABLE.replace("P1", "bad,\nP1", 1), "bad", "is empty"),
        (TABLE.replace("P1", "bad\nP1", 1), "bad", "is empty"),
        (TABLE.replace("P1", f"bad,{SEQUENCE},more\nP1", 1), "bad", "3 cells for 2 columns"),
        (TABLE.replace("P1", f'"bad"x,{SEQUENCE}\nP1', 1), "record_1", "check their quotes"),
        (TABLE.replace("P1", f"bad,{'A' * 140_000}\nP1", 1), "bad", "more than 100,000 residues"),
        (f">bad\n{'ACGTACGTAC' * 20_000}\n{FASTA}", "bad", "more than 100,000 residues"),
    ],
)
def test_a_bad_record_is_set_apart_and_the_rest_goes_on(content: str, bad: str, words: str) -> None:
    rejection, *rest = parsed(content)
    assert isinstance(rejection, Rejection)
    assert (rejection.id, rejection.source) == (bad, "stdin")
    assert words in rejection.reason
    assert rest == BOTH


def test_an_open_quote_never_swallows_rows_without_a_word() -> None:
    items = parsed(f'id,note,sequence\nP1,"open,{SEQUENCE}\nP2,,{OTHER}\nP3,"x",{OTHER}\n')
    assert any(isinstance(item, Rejection) and "quotes" in item.reason for item in items)


def test_an_id_is_used_once() -> None:
    items = parsed(FASTA + f">P1\n{SEQUENCE.lower()}\n>P2\n{SEQUENCE}\n>P3\n{SEQUENCE}\n")
    assert items[:2] == BOTH
    same, other, third = items[2:]
    assert isinstance(same, Rejection)
    assert "record 3 in 'stdin' was used by record 1" in same.reason
    assert "same sequence" in same.reason
    assert isinstance(other, Rejection)
    assert "record 4 in 'stdin' was used by record 2" in other.reason
    assert "another sequence" in other.reason
    assert third == Protein("P3", SEQUENCE)


def test_a_rejected_record_does_not_take_its_id() -> None:
    assert parsed(f">P1\nMEEPJ\n>P1\n{SEQUENCE}\n")[1] == Protein("P1", SEQUENCE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (PNG, "not text but a PNG image"),
        (b"PK\x03\x04\x14\x00\x06\x00", "Excel"),
        (random.Random(0).randbytes(5000), "not text"),
        (gzip.compress(random.Random(0).randbytes(5000), mtime=0), "not text"),
        (random.Random(0).randbytes(5000).replace(b"\x00", b""), "not text"),
        (b"\x1f\x8b" + random.Random(0).randbytes(500), "damaged or incomplete gzip"),
        (gzip.compress(FASTA.encode(), mtime=0)[:-12], "damaged or incomplete gzip"),
        (gzip.compress(FASTA.encode(), mtime=0)[:-3], "damaged or incomplete gzip"),
        (SEQUENCE.encode(), "bare sequence"),
        (f"My proteins\n{FASTA}".encode(), "does not begin with '>'"),
        (b"accession,length\nP04637,393\n", "found: accession, length"),
        (b"id,sequence\n\n", "no records"),
        (b"A" * 10_000_001, "10,000,000 characters"),
    ],
)
def test_what_spoils_the_whole_source_is_an_input_error(write: Write, content: bytes, words: str) -> None:
    path = write(content)
    with pytest.raises(InputError, match=words) as caught:
        list(read_protein_file(path))
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="'stdin'"):
        parsed(content)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fasta' was not found"):
        list(read_protein_file(tmp_path / "none.fasta"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_protein_file(tmp_path))


def test_a_titin_of_40_000_residues_is_whole() -> None:
    titin = "".join(random.Random(1).choices("ACDEFGHIKLMNPQRSTVWY", k=40_000))
    lines = "\n".join(titin[i : i + 60] for i in range(0, len(titin), 60))
    assert parsed(f">titin\n{lines}\n") == [Protein("titin", titin)]
    assert parsed(f"id,sequence\ntitin,{titin}\n") == [Protein("titin", titin)]
    assert "40000 residues exceed 1022" in sequence_warnings(titin, 1022)[0]


def test_nucleotides_are_read_and_left_to_the_warnings() -> None:
    (protein,) = parsed(">gene\nATGGAGGAGCCGCAGTCAGATCCTAGCGTCGAGCC\n")
    assert isinstance(protein, Protein)
    assert "nucleotides" in sequence_warnings(protein.sequence, None)[0]


def test_every_opencell_target_is_usable(shared_data: Path) -> None:
    with gzip.open(shared_data / "sequences" / "opencell_targets.csv.gz", "rt") as table:
        renamed = table.read().replace("target_name", "id", 1)
    items = parsed(gzip.compress(renamed.encode()))
    assert len(items) == 1310
    assert all(isinstance(item, Protein) for item in items)
    assert not any("nucleotides" in str(sequence_warnings(p.sequence, None)) for p in items)


def test_a_table_without_an_id_names_its_columns(shared_data: Path) -> None:
    with pytest.raises(InputError, match="found: accession, sequence, localizations"):
        list(read_protein_file(shared_data / "sequences" / "swissprot_localizations.csv.gz"))


IDS = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters='">'), min_size=1, max_size=12
)
SEQUENCES = st.text("ACDEFGHIKLMNPQRSTVWYUOBZX", min_size=10, max_size=90)
PROTEINS = st.dictionaries(IDS, SEQUENCES, min_size=1, max_size=8)


@given(PROTEINS, st.integers(1, 80), st.sampled_from(["\n", "\r\n", "\r"]))
def test_fasta_written_is_fasta_read(proteins: dict[str, str], width: int, end: str) -> None:
    lines = []
    for id, sequence in proteins.items():
        lines += [f">{id} text", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    read = parsed(end.join(lines))
    assert [(p.id, p.sequence) for p in read if isinstance(p, Protein)] == list(proteins.items())


@given(PROTEINS, st.sampled_from([",", "\t", ";"]))
def test_a_table_written_is_a_table_read(proteins: dict[str, str], mark: str) -> None:
    rows = [f'"{id}"{mark}{sequence}' for id, sequence in proteins.items()]
    read = parsed("\n".join([f"id{mark}sequence", *rows]))
    assert [(p.id, p.sequence) for p in read if isinstance(p, Protein)] == list(proteins.items())


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_input_error(content: bytes) -> None:
    for tried in (content, b">" + content, b"id,sequence\n" + content, b"\x1f\x8b" + content):
        try:
            parsed(tried)
        except InputError as error:
            assert str(error).endswith(".")
