"""Tables as people save them: read whole, or refused with the lines that cannot be read."""

import gzip
import zipfile
from pathlib import Path

import pytest

from deepgps.datasets.annotation.hpa import annotate_hpa
from deepgps.datasets.crops.fields import FieldRow, InvalidRow, read_fields
from deepgps.errors import InputError
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import read_proteins
from deepgps.tables import read_table, strict_rows

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVK"
PLAIN = "name,size um,note\na,0.2,x\nb,0.4,y\n"
ROWS = [("a", "0.2", "x"), ("b", "0.4", "y")]


def rows(path: Path, **options: object) -> list[tuple[str, ...]]:
    return [tuple(row.cells.values()) for row in strict_rows(read_table(path, **options), path)]


def zipped(content: bytes, name: str = "t.csv", *more: str) -> bytes:
    import io

    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, content)
            for each in more:
                archive.writestr(each, b"\0\5\x16\7 resource fork")
        return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        b'"sep=,"\n' + PLAIN.encode(),
        ("\ufeffsep=\t\n" + PLAIN.replace(",", "\t")).encode(),
        PLAIN.replace("size um", '"Size\num"').encode(),
        PLAIN.replace("note", '"Note, or\nremark"').encode(),
        b"\n\n" + PLAIN.encode() + b"\n,,\n",
        gzip.compress(PLAIN.encode(), mtime=0),
        zipped(PLAIN.encode()),
        zipped(PLAIN.encode("utf-8-sig"), "folder/t.csv", "__MACOSX/folder/._t.csv", "folder/.DS_Store"),
    ],
)
def test_every_way_to_save_a_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert rows(tmp_path / "t.csv") == ROWS


def test_long_notes_and_notes_over_several_lines(tmp_path: Path) -> None:
    note = "word " * 60_000
    (tmp_path / "t.csv").write_text(PLAIN.replace("x\n", f'"{note}"\n').replace(",y", ',"one\ntwo"'))
    assert [row[2] for row in rows(tmp_path / "t.csv")] == [note.strip(), "one\ntwo"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ('a,b,c\n1,"2,3\n4,5,6\n7,8,9\n', "Lines 2 to 4"),
        ('a,b,c\n1,2,3\n4,"5,6\n7,8",9\n', "Lines 3 to 4"),
        ('a,b,c\n1,"2\n4,5,"6\n7,8,9\n', "Lines 2 to 3"),
        ('a\tb\tc\n1\t"2\t3\n4\t5\t6\n', "Lines 2 to 3"),
        ('"a\n1",b,c\n1,"2,3\n4,5,6\n', "Lines 3 to 4"),
    ],
)
def test_a_lone_quote_never_swallows_rows(tmp_path: Path, content: str, lines: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=f"t.csv.*{lines} cannot be read.*check their quotes"):
        rows(tmp_path / "t.csv")


def test_a_zip_of_several_tables_and_a_workbook_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(b"a,b\n", "t.csv", "u.csv"))
    with pytest.raises(InputError, match="contains 2 files"):
        rows(tmp_path / "a.zip")
    (tmp_path / "a.xlsx").write_bytes(zipped(b"", "[Content_Types].xml", "xl/workbook.xml"))
    with pytest.raises(InputError, match="Excel workbook"):
        rows(tmp_path / "a.xlsx")


def test_missing_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(PLAIN)
    with pytest.raises(InputError, match=r"no column 'id' \(found: name, size um, note\)"):
        rows(tmp_path / "t.csv", required=("id",))


def test_fields_with_decimal_commas_and_a_lone_quote(tmp_path: Path) -> None:
    head = "field;ensembl_gene_id;nucleus;protein;pixel_size_um;note\n"
    body = 'f1;E1;a.tif;b.tif;0,206;"a lone quote\nf2;E2;a.tif;b.tif;0,3;\n'
    (tmp_path / "fields.csv").write_text(head + body.replace('"', ""), encoding="utf-8-sig")
    first, second = read_fields(tmp_path / "fields.csv")
    assert isinstance(first, FieldRow)
    assert isinstance(second, FieldRow)
    assert (first.pixel_size_um, second.pixel_size_um) == (0.206, 0.3)
    (tmp_path / "fields.csv").write_text(head + body)
    (lost,) = read_fields(tmp_path / "fields.csv")
    assert isinstance(lost, InvalidRow)
    assert "Lines 2 to 3 cannot be read" in lost.problem


def test_a_table_of_the_atlas_with_a_lone_quote_is_refused(tmp_path: Path) -> None:
    head = "Gene\tGene name\tReliability\tMain location\tAdditional location\n"
    body = 'E1\tA\t"x\tNucleoplasm\t\nE2\tB\tEnhanced\tCytosol\t\n'
    (tmp_path / "hpa.tsv").write_text(head + body)
    with pytest.raises(InputError, match="Lines 2 to 3 cannot be read"):
        annotate_hpa([tmp_path / "hpa.tsv"], "U-2 OS")


@pytest.mark.parametrize(
    "content",
    [
        f">a\n{SEQUENCE}\n\ufeff>b\r\n{SEQUENCE}K\r\n",
        f"\ufeff>a\n{SEQUENCE}\n>b\n\ufeff{SEQUENCE}K\n",
        f"sep=;\nid;sequence\na;{SEQUENCE}\nb;{SEQUENCE}K\n",
        f"id,sequence\ra,{SEQUENCE}\rb,{SEQUENCE}K\r",
    ],
)
def test_joined_files_of_windows_and_excels_tables(tmp_path: Path, content: str) -> None:
    (tmp_path / "p").write_bytes(content.encode())
    assert list(read_proteins(tmp_path / "p")) == [Protein("a", SEQUENCE), Protein("b", SEQUENCE + "K")]


@pytest.mark.parametrize(
    "content",
    [
        "P04637\r\nTP53\r\n",
        "\ufeffP04637\nTP53\n",
        "Entry\nP04637\nTP53\n",
        "Gene names\nP04637,\nTP53,\n",
        '"P04637"\n"TP53"\n',
        "P04637  # the first\n\nTP53\nTP53\n",
        "P04637\rTP53\r",
    ],
)
def test_a_list_of_names_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    import deepgps.proteins.uniprot as uniprot

    monkeypatch.setattr(uniprot, "fetch_protein", lambda name, **_: Protein(name, SEQUENCE[len(name) :]))
    (tmp_path / "names.txt").write_bytes(content.encode())
    with (tmp_path / "names.txt").open("rb") as stdin:
        for source in (tmp_path / "names.txt", "-"):
            found = list(read_proteins(source, stdin=stdin))
            assert [each.id for each in found] == ["P04637", "TP53"]
    assert [each.id for each in read_proteins(["P04637\r", " TP53 "])] == ["P04637", "TP53"]


def test_a_listed_name_that_is_not_found_is_a_rejection(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("P04637\nTP53\n")
    found = list(read_proteins(tmp_path / "names.txt", offline=True, cache_dir=tmp_path))
    assert [type(each) for each in found] == [Rejection, Rejection]
    assert "'P04637' is not in the cache" in found[0].reason
