import zipfile

import polars as pl
import pytest

from deepgps.cli.app import run
from deepgps.datasets.annotation.hpa import annotate_hpa
from deepgps.datasets.annotation.proteins import cell_line_name, proteins_table
from deepgps.errors import InputError

HEADER = "Gene\tGene name\tReliability\tMain location\tAdditional location\tUncertain"


def gene_table(folder, *rows):
    path = folder / "subcellular_location.tsv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def xml(folder, gene, *antibodies):
    """Antibodies as lists of (cell line, locations)."""
    antibody_xml = "".join(
        '<antibody id="HPA1"><cellExpression source="HPA" technology="ICC/IF"><subAssay type="human">'
        + "".join(
            f"<data><cellLine>{line}</cellLine>{''.join(f'<location>{p}</location>' for p in places)}</data>"
            for line, places in antibody
        )
        + '</subAssay></cellExpression><cellExpression technology="WB"><subAssay><data>'
        + "<cellLine>U-2 OS</cellLine><location>Golgi apparatus</location>"
        + "</data></subAssay></cellExpression></antibody>"
        for antibody in antibodies
    )
    identifier = f'<identifier id="{gene}"><xref id="P1" db="Uniprot/SWISSPROT"/></identifier>'
    path = folder / f"{gene}.xml"
    path.write_text(
        f"<proteinAtlas><entry><name>G-{gene}</name>{identifier}{antibody_xml}</entry></proteinAtlas>"
    )
    return path


def columns(found, *names):
    return proteins_table(found.proteins).select(names).rows()


def test_main_locations_are_major_and_one_name_alone_is_single(tmp_path):
    path = gene_table(
        tmp_path,
        "E1\tA\tEnhanced\tCytosol\t\t",
        "E2\tB\tApproved\tNucleoplasm\tVesicles\t",
        "E3\tC\tApproved\tVesicles;Nucleoli\t\t",
        "E4\tD\tApproved\tNuclear speckles;Nuclear bodies\t\t",
        "E5\tE\tApproved\tCytoplasmic bodies\t\t",
    )
    found = annotate_hpa([path], "U-2 OS")
    assert columns(found, "protein_id", "localizations", "single_localized", "single_2", "cell_line") == [
        ("E1", "cytoplasmic", True, "cytoplasmic", None),
        ("E2", "nucleoplasm", False, None, None),
        ("E3", "nucleolus_gc|vesicles", False, None, None),
        ("E4", "nuclear_punctae", False, None, None),
        ("E5", "cytoplasmic", True, None, None),
    ]


def test_cell_lines_are_distinguished_in_any_spelling(tmp_path):
    xml(tmp_path, "E1", [("U-2 OS", ["cytosol"]), ("A-431", ["nucleoplasm"])])
    xml(tmp_path, "E2", [("U2OS", ["Nucleoplasm"])], [("U-2 OS", ["Vesicles"])])
    xml(tmp_path, "E3", [("A-431", ["Nucleoplasm"])])
    xml(tmp_path, "E4", [("U2OS", [])])
    found = annotate_hpa([tmp_path], "u2 os")
    assert columns(found, "protein_id", "localizations", "single_2", "cell_line") == [
        ("E1", "cytoplasmic", "cytoplasmic", "U-2 OS"),
        ("E2", "nucleoplasm|vesicles", None, "U-2 OS"),
    ]
    assert [each.reason for each in found.problems] == [
        "Gene 'E3' was not imaged in U-2 OS; it has A-431.",
        "Gene 'E4' has no location in U-2 OS.",
    ]
    assert columns(annotate_hpa([tmp_path], "A-431"), "single_2") == [("nucleoplasm",), ("nucleoplasm",)]


def test_an_xml_replaces_the_row_of_the_table_even_without_locations(tmp_path):
    table = gene_table(tmp_path, *(f"E{i}\tA\tApproved\tVesicles\t\t" for i in (1, 2, 3)))
    with_location, without_location = (
        xml(tmp_path, "E1", [("U2OS", ["Cytosol"])]),
        xml(tmp_path, "E2", [("A-431", ["Cytosol"])]),
    )
    found = annotate_hpa([table, with_location, without_location], "U-2 OS")
    assert columns(found, "protein_id", "localizations") == [("E1", "cytoplasmic"), ("E3", "vesicles")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("E1\tA\tApproved\tCytosol;Primary cilium\t\t", "'Primary cilium'"),
        ("E1\tA\tApproved\t\t\t", "no location"),
        ("\tA\tApproved\tCytosol\t\t", "Row 1 has no 'Gene'"),
    ],
)
def test_rows_that_cannot_be_labelled_are_left_out_with_a_reason(tmp_path, row, expected):
    found = annotate_hpa([gene_table(tmp_path, row, "E9\tB\tApproved\tCytosol\t\t")], "U-2 OS")
    assert [each.protein_id for each in found.proteins] == ["E9"]
    assert expected in found.problems[0].reason


def test_a_broken_xml_is_one_problem(tmp_path):
    (tmp_path / "E0.xml").write_text("<proteinAtlas><entry>")
    xml(tmp_path, "E1", [("U2OS", ["Cytosol"])])
    found = annotate_hpa([tmp_path], "U-2 OS")
    assert len(found.proteins) == len(found.problems) == 1
    assert "fetch it again" in found.problems[0].reason


@pytest.mark.parametrize("name", ["U-2 OS", "U2OS", "u-2os", " U-2 OS "])
def test_cell_line_names_have_a_standard_spelling(name):
    assert cell_line_name(name) == "U-2 OS"


def test_the_command_reads_the_zip_of_hpa(tmp_path, capsys):
    path = gene_table(tmp_path, "E1\tA\tApproved\tCytosol\t\t")
    archive_path = tmp_path / "subcellular_location.tsv.zip"
    with zipfile.ZipFile(archive_path, "w") as archive:
        archive.write(path, path.name)
    out = tmp_path / "proteins.parquet"
    second = xml(tmp_path, "E2", [("U2OS", ["Nucleoplasm"])])
    assert run(["data", "annotate", "hpa", str(archive_path), str(second), "--out", str(out)]) == 0
    assert "1 in the cytosol only, 1 in the nucleoplasm only" in capsys.readouterr().out
    assert pl.read_parquet(out)["protein_id"].to_list() == ["E2", "E1"]


def test_a_damaged_zip_is_refused(tmp_path):
    archive_path = tmp_path / "subcellular_location.tsv.zip"
    with zipfile.ZipFile(archive_path, "w") as archive:
        archive.writestr("subcellular_location.tsv", f"{HEADER}\nE1\tA\tApproved\tCytosol\t\t\n")
    content = bytearray(archive_path.read_bytes())
    content[60:70] = b"x" * 10
    archive_path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        annotate_hpa([archive_path], "U-2 OS")


def test_real_gene_table(shared_data):
    found = annotate_hpa([shared_data / "sequences" / "hpa_localizations.csv.gz"], "U-2 OS")
    frame = proteins_table(found.proteins)
    assert found.problems == []
    assert frame.height == 8573
    assert frame["single_2"].drop_nulls().value_counts(sort=True).rows() == [
        ("nucleoplasm", 1195),
        ("cytoplasmic", 623),
    ]
