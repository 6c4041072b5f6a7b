"""The Human Protein Atlas's table, XML and names."""

import io
import zipfile

import pytest

from deepgps.datasets.fetch.folder import SourceProtein
from deepgps.datasets.fetch.hpa import HpaField, field_row, read_gene, read_table, unpack_table
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


@pytest.mark.parametrize("asked", ["U-2 OS", "U2OS", "u-2 os"])
def test_fields_of_one_cell_line_are_found_in_any_spelling(asked):
    content = xml(
        cells("U2OS", "8797/175_G3_1_blue_red_green.jpg", "8797/175_G3_1_red_green.jpg"),
        cells("U-2 OS", "8797/1855_AB12_31_red_green.jpg"),
        cells("A-431", "8797/176_G3_1_blue_red_green.jpg"),
    )
    target, views = read_gene(content, TARGET, asked)
    assert target.accession == "Q9UER7"
    assert views == [
        HpaField("HPA008797", "U-2 OS", "8797/175_G3_1"),
        HpaField("HPA008797", "U-2 OS", "8797/1855_AB12_31"),
    ]


def test_other_technologies_and_odd_addresses_are_passed_over():
    assert read_gene(xml(cells("U2OS", "8797/1_A_1_3.jpg")), TARGET, "U2OS")[1] == []
    view = cells("U2OS", "8797/175_G3_1_blue_red_green.jpg")
    assert read_gene(xml(view, technology="IHC"), TARGET, "U2OS")[1] == []


def test_a_broken_xml_is_refused():
    with pytest.raises(DeepGPSError, match="The XML of ENSG1 cannot be read"):
        read_gene(b"<proteinAtlas><entry>", TARGET, "U2OS")


def test_files_are_asked_for_best_first():
    asked = [names for names, _ in HpaField("HPA1", "U-2 OS", "1/2_A1_1").files()]
    assert asked == [
        ["1/2_A1_1_blue.tif.gz", "1/2_A1_1_green.tif.gz"],
        ["1/2_A1_1_blue.jpg", "1/2_A1_1_green.jpg"],
        ["1/2_A1_1_blue_red_green.jpg"],
    ]


def test_the_channels_of_a_composite_are_named():
    view = HpaField("HPA1", "U-2 OS", "1/2_A1_1")
    row = field_row(view, TARGET, ["images/c.jpg"], "composite")
    assert (row["nucleus"], row["nucleus_channel"]) == ("images/c.jpg", "2")
    assert (row["protein"], row["protein_channel"]) == ("images/c.jpg", "1")
    row = field_row(view, TARGET, ["b.tif.gz", "g.tif.gz"], "")
    assert (row["nucleus"], row["nucleus_channel"]) == ("b.tif.gz", "")
    assert (row["protein"], row["protein_channel"]) == ("g.tif.gz", "")
    assert (row["field"], row["pixel_size_um"]) == ("1_2_A1_1", "0.08")


def test_the_table_is_taken_out_of_its_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("subcellular_location.tsv", "Gene\tGene name\nENSG1\tDAXX\n")
    assert read_table(unpack_table(file.getvalue()).decode()) == [TARGET]
    with pytest.raises(DeepGPSError, match="cannot be read"):
        unpack_table(file.getvalue()[:30])
    with pytest.raises(DeepGPSError, match="has no columns"):
        read_table("ENSG\tName\n")
