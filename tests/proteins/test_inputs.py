import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest

from deepgps.errors import InputError
from deepgps.proteins import uniprot
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import read_proteins

SEQUENCE = "MEEPQSDPSVEPPLSQETFSDLWKLL"
OTHER = "MSKGEELFTGVVPILVELDGDVNGHK"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for UniProt, which knows TP53 and P04637; gives what it was asked."""
    queries: list[str] = []

    def answer(query: str, **_: object) -> Protein:
        queries.append(query)
        if query not in {"TP53", "P04637", "NKX2.5"}:
            raise InputError(f"UniProt has no entry '{query}'.")
        return Protein(query, SEQUENCE, "TP53", "P04637")

    monkeypatch.setattr(uniprot, "fetch_protein", answer)
    return queries


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fasta").write_text(f">P1\n{SEQUENCE}\n>bad\nMEEPJ\n")
    (tmp_path / "b.csv").write_text(f"id,sequence\nP1,{SEQUENCE}\nP2,{OTHER}\n")
    (tmp_path / "empty.fasta").write_text("")
    (tmp_path / "TP53").mkdir()
    return tmp_path


def test_everything_is_chained_in_order(folder: Path, asked: list[str]) -> None:
    stdin = io.BytesIO(f">P3\n{OTHER}\n".encode())
    items = list(read_proteins(["a.fasta", "TP53", "-", "b.csv"], sequence=SEQUENCE.lower(), stdin=stdin))
    assert [(type(item), item.id) for item in items] == [
        (Protein, "P1"),
        (Rejection, "bad"),
        (Protein, "TP53"),
        (Protein, "P3"),
        (Rejection, "P1"),
        (Protein, "P2"),
        (Protein, "sequence"),
    ]
    assert items[2] == Protein("TP53", SEQUENCE, "TP53", "P04637")
    assert items[-1] == Protein("sequence", SEQUENCE)
    assert asked == ["TP53"]


def test_an_id_used_in_two_files_names_both_places(folder: Path) -> None:
    duplicate = list(read_proteins(["a.fasta", "b.csv"]))[2]
    assert isinstance(duplicate, Rejection)
    assert duplicate.source == "b.csv"
    assert "record 1 in 'b.csv' was used by record 1 in 'a.fasta' for the same sequence" in duplicate.reason


def test_the_same_file_or_symbol_twice_is_predicted_once(folder: Path, asked: list[str]) -> None:
    items = list(read_proteins(["b.csv", "TP53", "b.csv", "TP53"]))
    assert [item.id for item in items if isinstance(item, Protein)] == ["P1", "P2", "TP53"]
    assert [item.id for item in items if isinstance(item, Rejection)] == ["P1", "P2", "TP53"]


def test_pasted_fasta(folder: Path) -> None:
    items = list(read_proteins([], sequence=f"\n>P8 x\r\n{SEQUENCE}\r\n>P9\n{OTHER}"))
    assert items == [Protein("P8", SEQUENCE), Protein("P9", OTHER)]


def test_a_bad_bare_sequence_is_rejected() -> None:
    assert list(read_proteins([], sequence="MEEP1SDPSV")) == [
        Rejection(
            "sequence",
            "--sequence",
            "Sequence 'sequence' has '1' at residue 5; use the 20 amino acids, U, O, B, Z or X.",
        )
    ]


@pytest.mark.parametrize(
    "given", ["foo.fasta", "dir/TP53", "./TP53x", "data.FA", "x.fasta.gz", r"C:\TP53", "~TP53"]
)
def test_a_missing_path_is_not_asked_of_uniprot(folder: Path, asked: list[str], given: str) -> None:
    with pytest.raises(InputError, match="was not found"):
        read_proteins(["a.fasta", given])
    assert asked == []


@pytest.mark.parametrize("given", ["TP53", "P04637", "NKX2.5"])
def test_a_folder_or_a_dot_does_not_hide_a_symbol(folder: Path, asked: list[str], given: str) -> None:
    assert [item.id for item in read_proteins([given])] == [given]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "nothing to predict"),
        (["-", "-"], "given twice"),
        (["./TP53"], "is a folder"),
        ([SEQUENCE * 200], "--sequence"),
        ([f">P1\n{SEQUENCE}"], "--sequence"),
    ],
)
def test_wrong_use_is_said_at_once(folder: Path, asked: list[str], inputs: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_proteins(inputs)
    assert asked == []


def test_the_only_input_raises_what_spoils_it(folder: Path, asked: list[str]) -> None:
    with pytest.raises(InputError, match=r"'empty\.fasta' is empty"):
        list(read_proteins(["empty.fasta"]))
    with pytest.raises(InputError, match="no entry 'NOGENE'"):
        list(read_proteins(["NOGENE"]))


def test_one_of_several_inputs_does_not_spoil_the_others(folder: Path, asked: list[str]) -> None:
    items = list(read_proteins(["empty.fasta", "NOGENE", "b.csv"]))
    assert [(type(item), item.id) for item in items] == [
        (Rejection, "empty.fasta"),
        (Rejection, "NOGENE"),
        (Protein, "P1"),
        (Protein, "P2"),
    ]


def test_what_is_left_of_a_cut_file_is_a_rejection_after_its_proteins(folder: Path) -> None:
    whole = "".join(f">p{i}\n{SEQUENCE}{'ACDEFGHIKLMNPQRSTVWY'[i % 20] * (i % 97)}\n" for i in range(6000))
    (folder / "cut.gz").write_bytes(gzip.compress(whole.encode(), 1)[:-200])
    *proteins, last = read_proteins(["cut.gz"])
    assert len(proteins) > 100
    assert isinstance(last, Rejection)
    assert "damaged or incomplete gzip" in last.reason


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("biotite", "numpy", "ssl", "requests", "http", "platformdirs")
    code = f"import sys, deepgps.proteins.reading; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
