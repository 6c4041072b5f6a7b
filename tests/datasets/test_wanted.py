"""Which proteins a user wants."""

import pytest

from deepgps.datasets.fetch.folder import ACCESSION, SourceProtein, match_ids, read_ids
from deepgps.errors import InputError


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("TP53\nHLA-A\n", ["TP53", "HLA-A"]),
        ("\ufeff# mine\n\n TP53 \nTP53\n", ["TP53"]),
        ("name,ensg_id\nx,ENSG00000141510\ny,\n", ["ENSG00000141510"]),
        ("gene_symbol\taccession\nTP53\tP04637\n", ["P04637"]),
        ('id,"why, then"\nTP53,"a, b"\n', ["id", "TP53"]),
        ("TP53,P04637\nEEF2,P13639\n", ["TP53", "EEF2"]),
    ],
)
def test_ids_are_read_from_lines_and_from_a_column(tmp_path, text, ids):
    path = tmp_path / "ids.csv"
    path.write_text(text, encoding="utf-8")
    assert read_ids(path) == ids


def test_the_column_is_the_one_that_is_asked_for(tmp_path):
    path = tmp_path / "library.csv"
    path.write_text("ensg_id,uniprot_id\nENSG1,P04637\nENSG2,P04637\n")
    assert read_ids(path) == ["ENSG1", "ENSG2"]
    assert read_ids(path, ACCESSION) == ["P04637"]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"accession\n", b"\xff\xfe\x00"])
def test_a_file_without_ids_is_refused(tmp_path, content):
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match="one "):
        read_ids(tmp_path / "ids")


def test_targets_are_known_by_any_of_their_ids():
    targets = [
        SourceProtein("ENSG1", "HLA-A", "P1"),
        SourceProtein("ENSG2", "TP53", ""),
        SourceProtein("ENSG3", "EEF2", "P3"),
    ]
    chosen, unknown = match_ids(targets, ["ensg1.12", "tp53", "P9"])
    assert [target.gene for target in chosen] == ["HLA-A", "TP53"]
    assert unknown == ["P9"]
    assert match_ids(targets, None) == (targets, [])
