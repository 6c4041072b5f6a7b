import csv
import gzip
import json

import polars as pl
import pytest

from deepgps.cli.app import run
from deepgps.datasets.annotation.opencell import add_sequences, annotate_opencell
from deepgps.datasets.annotation.proteins import proteins_table
from deepgps.datasets.annotation.report import opencell_report
from deepgps.errors import InputError

HEADER = "target_name,ensg_id,annotations_grade_3,annotations_grade_2,annotations_grade_1"
SEQUENCE = "MKVLAAGIVGLCAKWDEYHR"


def table(folder, *rows, header=HEADER):
    path = folder / "annotations.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def annotated(folder, *rows, header=HEADER):
    return annotate_opencell(table(folder, *rows, header=header))


def columns(found, *names):
    return proteins_table(found.proteins).select(names).rows()


def test_the_highest_grade_of_3_and_2_is_major(tmp_path):
    found = annotated(
        tmp_path,
        "A,E1,cytoplasmic,er;golgi,vesicles",
        "B,E2,,vesicles; nucleoplasm,golgi",
        "C,E3,,er,",
    )
    assert columns(found, "protein_id", "gene_symbol", "localizations", "single_localized") == [
        ("E1", "A", "cytoplasmic", True),
        ("E2", "B", "nucleoplasm|vesicles", False),
        ("E3", "C", "er", True),
    ]
    assert set(columns(found, "source", "cell_line")) == {("opencell", "HEK293T")}


def test_class_sets_take_single_localized_proteins_only(tmp_path):
    found = annotated(
        tmp_path,
        "A,E1,cytoplasmic,,",
        "B,E2,nucleoplasm;er,,",
        "C,E3,er,,",
        "D,E4,golgi,,",
    )
    assert columns(found, "single_2", "single_4") == [
        ("cytoplasmic", "cytoplasmic"),
        (None, None),
        (None, "er"),
        (None, None),
    ]


def test_rows_that_cannot_be_labelled_are_reported(tmp_path):
    found = annotated(
        tmp_path,
        "A,E1,,,er",
        "B,E2,cytosol,,",
        "C,,er,,",
        "D,E4,er,,",
        "D2,E4,golgi,,",
        "F,E6,vesicles,,",
    )
    assert columns(found, "protein_id", "localizations") == [("E4", "er"), ("E6", "vesicles")]
    assert [(each.protein_id, each.left_out) for each in found.problems] == [
        ("E1", True),
        ("E2", True),
        ("row 3", True),
        ("E4", False),
    ]
    assert "'cytosol'" in found.problems[1].reason


def test_sequences_come_from_the_table_or_by_accession_or_gene(tmp_path):
    header = f"{HEADER},uniprot_id,sequence"
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text(f">sp|P00002|B_HUMAN x\n{SEQUENCE}A\n>E3\n{SEQUENCE}C\n")
    found = annotated(
        tmp_path,
        f"A,E1,er,,,P00001,{SEQUENCE.lower()}",
        "B,E2,er,,,P00002,",
        "C,E3,er,,,,",
        "D,E4,er,,,P00004,",
        "E,E5,er,,,P00005,MKV-",
        header=header,
    )
    with_sequences = add_sequences(found, [fasta])
    assert columns(with_sequences, "sequence", "length") == [
        (SEQUENCE, 20),
        (f"{SEQUENCE}A", 21),
        (f"{SEQUENCE}C", 21),
        (None, None),
        (None, None),
    ]
    assert [(each.protein_id, each.left_out) for each in with_sequences.problems] == [
        ("E4", False),
        ("E5", False),
    ]


def test_a_table_without_a_required_column_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="'target_name'"):
        annotate_opencell(path)


def test_the_command_writes_the_table_and_the_problems(tmp_path, capsys):
    path = table(tmp_path, "A,E1,er,,", "B,E2,,,er")
    (tmp_path / "library.csv").write_text("ensg_id,uniprot_id\nE1,P00001\n")
    (tmp_path / "sequences.fasta").write_text(f">P00001\n{SEQUENCE}A\n")
    (tmp_path / "s.csv").write_text(f"id,sequence\nP00001,{SEQUENCE}\n")
    out = tmp_path / "new" / "proteins.parquet"
    command = ["data", "annotate", "opencell", str(path), "--out", str(out)]
    assert run([*command, "--sequences", str(tmp_path / "s.csv")]) == 0
    assert "1 proteins" in capsys.readouterr().out
    frame = pl.read_parquet(out)
    assert frame.columns == [
        *("protein_id", "gene_symbol", "accession", "sequence", "length", "localizations"),
        *("single_localized", "single_2", "single_4", "cluster", "source", "cell_line"),
    ]
    assert frame.select("accession", "length").rows() == [("P00001", 20)]
    metadata = json.loads(pl.read_parquet_metadata(out)["deepgps"])
    assert set(metadata["inputs"]) == {"annotations.csv", "library.csv", "s.csv"}
    with (tmp_path / "new" / "proteins_problems.csv").open() as file:
        assert [row["protein_id"] for row in csv.DictReader(file)] == ["E2"]
    assert run([*command, "--sequences", str(tmp_path / "s.csv"), "--max-length", "19"]) == 0
    assert "20 residues, more than 19" in capsys.readouterr().out
    assert pl.read_parquet(out).height == 0
    assert run(command) == 0
    assert pl.read_parquet(out)["sequence"].to_list() == [f"{SEQUENCE}A"]


def test_a_part_of_the_library_is_not_compared_with_the_paper(tmp_path):
    rows = [f"A{i},E{i},er,,,{SEQUENCE}" for i in range(3)]
    found = add_sequences(annotated(tmp_path, *rows, "B,E9,er,,,", header=f"{HEADER},sequence"))
    lines = list(opencell_report(found.proteins))
    assert [line.split() for line in lines if line.startswith("er")] == [["er", "4", "3", "78"]]
    assert lines[-1] == "1 without a sequence, so of unknown length"
    assert not any("in the paper" in line for line in lines)
    without_sequences = list(opencell_report(annotated(tmp_path, "B,E9,er,,").proteins))
    assert [line.split() for line in without_sequences if line.startswith("er")] == [["er", "1", "78"]]


REAL = {
    "cytoplasmic": ("222", "221", "222"),
    "vesicles": ("140", "140", "140"),
    "nucleoplasm": ("135", "132", "132"),
    "er": ("78", "78", "78"),
    "single-localized": ("871", "863", "865"),
    "multi-localized": ("439", "437", "436"),
    "proteins": ("1,310", "1,300", "1,301"),
}


def test_real_opencell_has_the_counts_of_the_paper(shared_data):
    found = add_sequences(annotate_opencell(shared_data / "sequences" / "opencell_targets.csv.gz"))
    assert found.problems == []
    lines = list(opencell_report(found.proteins))
    rows = {name: tuple(cells) for name, *cells in map(str.split, lines[1:]) if name in REAL}
    assert rows == REAL
    text = "\n".join(lines)
    assert "cytoplasmic: 221 here, 222 in the paper (longer: AKAP13 2,813)" in text
    # The report names each of the ten proteins that the filter leaves out.
    longer = ["AKAP13", "APC", "ATM", "CEP350", "DYNC1H1", "MKI67", "PRKDC", "RANBP2", "TRRAP", "UTRN"]
    total = next(line for line in lines if line.startswith("proteins: "))
    assert [name for name in longer if f"{name} " in total] == longer


def test_a_gzip_table_is_read(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\nA,E1,er,,\n".encode()))
    assert len(annotate_opencell(path).proteins) == 1
