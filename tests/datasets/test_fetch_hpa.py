"""The table, XML and file names of the Human Protein Atlas."""

import io
import zipfile

import pytest

from deepgps.datasets.fetch.folder import SourceProtein
from deepgps.datasets.fetch.hpa import HpaField, hpa_field_row, read_gene, read_hpa_table, unpack_table
from deepgps.errors import DeepGPSError

TARGET = SourceProtein("ENSG1", "DAXX")
URL = "http://images.proteinatlas.org"


def cells(line, *images):
    inner = "".join(f"<image><imageUrl>{URL}/{image}</imageUrl></image>" for image in images)
    return f"<data><cellLine>{line}</cellLine><assayImage>{inner}</assayImage></data>"


def xml(*data, technology="ICC/IF"):
    return (
        "<proteinAtlas><entry><identifier id='ENSG1'><xref id='Q9UER7' db='Uniprot/SWISSPROT'/></identifier>"
        f"<antibody id='HPA008797'><cellExpression technology='{technology}'><subAssay>{''.join(data)}"
        "</subAssay></cellExpression></antibody></entry></proteinAtlas>"
    ).encode()


@pytest.mark.parametrize("spelling", ["U-2 OS", "U2OS", "u-2 os"])
def test_fields_of_one_cell_line_are_found_in_any_spelling(spelling):
    content = xml(
        cells("U2OS", "8797/175_G3_1_blue_red_green.jpg", "8797/175_G3_1_red_green.jpg"),
        cells("U-2 OS", "8797/1855_AB12_31_red_green.jpg"),
        cells("A-431", "8797/176_G3_1_blue_red_green.jpg"),
    )
    protein, fields = read_gene(content, TARGET, spelling)
    assert protein.accession == "Q9UER7"
    assert fields == [
        HpaField("HPA008797", "U-2 OS", "8797/175_G3_1"),
        HpaField("HPA008797", "U-2 OS", "8797/1855_AB12_31"),
    ]


def test_other_technologies_and_unknown_urls_are_ignored():
    assert read_gene(xml(cells("U2OS", "8797/1_A_1_3.jpg")), TARGET, "U2OS")[1] == []
    data = cells("U2OS", "8797/175_G3_1_blue_red_green.jpg")
    assert read_gene(xml(data, technology="IHC"), TARGET, "U2OS")[1] == []


def test_a_broken_xml_is_refused():
    with pytest.raises(DeepGPSError, match="The XML of ENSG1 cannot be read"):
        read_gene(b"<proteinAtlas><entry>", TARGET, "U2OS")


def test_alternative_files_are_tried_best_first():
    alternatives = [names for names, _ in HpaField("HPA1", "U-2 OS", "1/2_A1_1").alternatives()]
    assert alternatives == [
        ["1/2_A1_1_blue.tif.gz", "1/2_A1_1_green.tif.gz"],
        ["1/2_A1_1_blue.jpg", "1/2_A1_1_green.jpg"],
        ["1/2_A1_1_blue_red_green.jpg"],
    ]


def test_rows_name_the_channels_of_a_composite():
    field = HpaField("HPA1", "U-2 OS", "1/2_A1_1")
    row = hpa_field_row(field, TARGET, ["images/c.jpg"], "composite")
    assert (row["nucleus"], row["nucleus_channel"]) == ("images/c.jpg", "2")
    assert (row["protein"], row["protein_channel"]) == ("images/c.jpg", "1")
    row = hpa_field_row(field, TARGET, ["b.tif.gz", "g.tif.gz"], "")
    assert (row["nucleus"], row["nucleus_channel"]) == ("b.tif.gz", "")
    assert (row["protein"], row["protein_channel"]) == ("g.tif.gz", "")
    assert (row["field"], row["pixel_size_um"]) == ("1_2_A1_1", "0.08")


def test_the_table_is_read_from_its_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("subcellular_location.tsv", "Gene\tGene name\nENSG1\tDAXX\n")
    assert read_hpa_table(unpack_table(file.getvalue()).decode()) == [TARGET]
    with pytest.raises(DeepGPSError, match="cannot be read"):
        unpack_table(file.getvalue()[:30])
    with pytest.raises(DeepGPSError, match="has no columns"):
        read_hpa_table("ENSG\tName\n")
