"""OpenCell's bucket listing, file names and tables."""

import pytest

from deepgps.datasets.fetch.folder import SourceProtein
from deepgps.datasets.fetch.opencell import (
    file_url,
    listing_url,
    opencell_field_row,
    read_annotated_proteins,
    read_page,
)
from deepgps.errors import DeepGPSError, InputError

FIELD = "OC-FOV_HLA-A_ENSG00000206503_CID000367_FID00030311_proj.tif"


def page(*keys, token=""):
    entries = "".join(f"<Contents><Key>{key}</Key><Size>7</Size></Contents>" for key in keys)
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return f"<?xml version='1.0'?><ListBucketResult {space}>{more}{entries}</ListBucketResult>".encode()


def test_a_gene_with_a_hyphen_is_read_from_the_file_name():
    (found,), token = read_page(page(f"microscopy/raw/HLA-A_ENSG00000206503/{FIELD}", token="a+b/="))
    assert (found.gene, found.ensg, found.size) == ("HLA-A", "ENSG00000206503", 7)
    assert found.field == FIELD.removesuffix("_proj.tif")
    assert found.path == f"images/HLA-A_ENSG00000206503/{FIELD}"
    assert token == "a+b/="
    assert listing_url("http://x", token).endswith("&continuation-token=a%2Bb%2F%3D")


@pytest.mark.parametrize(
    "name",
    [
        FIELD.replace("proj", "stack"),
        FIELD.replace("_CID000367", ""),
        FIELD.replace("ENSG", "X"),
        "README.txt",
        "OC-FOV_A_B_ENSG00000206503_CID000367_FID00030311_proj.tif",
    ],
)
def test_other_files_are_ignored(name):
    assert read_page(page(f"microscopy/raw/HLA-A_ENSG00000206503/{name}")) == ([], None)


@pytest.mark.parametrize(
    "content", [b"", b"<html><p>Sorry</html>", b'{"error": 1}', b"<html><p>Sorry</p></html>"]
)
def test_another_response_than_a_listing_is_refused(content):
    with pytest.raises(DeepGPSError, match="did not return a listing"):
        read_page(content)


def test_file_urls_are_quoted():
    assert file_url("http://x", "a/b c+d.tif") == "http://x/a/b%20c%2Bd.tif"


ANNOTATIONS = "target_name,ensg_id,annotations_grade_3\nHLA-A,ENSG1.4,x\nOLD,ENSG2,\n"


def test_tables_are_joined_by_ensembl_id_not_by_gene_symbol():
    library = "\ufeffensg_id,target_name,uniprot_id\nENSG2,NEW,P2\nENSG1,HLA-A,P1\nENSG9,OLD,P9\n"
    proteins = read_annotated_proteins(ANNOTATIONS, library)
    assert proteins == [SourceProtein("ENSG1", "HLA-A", "P1"), SourceProtein("ENSG2", "OLD", "P2")]


def test_a_table_without_a_required_column_is_refused():
    with pytest.raises(InputError, match=r"library-metadata\.csv has no column 'uniprot_id'"):
        read_annotated_proteins(ANNOTATIONS, "ensg_id\nENSG1\n")


def test_the_gene_symbol_of_a_row_is_from_the_table_not_the_file_name():
    (found,), _ = read_page(page(f"microscopy/raw/HLA-A_ENSG00000206503/{FIELD}"))
    row = opencell_field_row(found, SourceProtein(found.ensg, "NEWNAME", "P1"))
    assert (row["gene_symbol"], row["accession"], row["pixel_size_um"]) == ("NEWNAME", "P1", "0.206349")
    assert (row["nucleus"], row["nucleus_channel"]) == (found.path, "0")
    assert (row["protein"], row["protein_channel"]) == (found.path, "1")
