import pytest

from deepgps.errors import InputError
from deepgps.explain.changes import FUSIONS, parse_variant, scan, silent_changes

SEQUENCE = "MAKKKRKVLDGSTAWQRN"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("K3T", "MATKKRKVLDGSTAWQRN"),
        ("p.Lys3Thr", "MATKKRKVLDGSTAWQRN"),
        ("p.(Lys3Thr)", "MATKKRKVLDGSTAWQRN"),
        ("K3T,K4T", "MATTKRKVLDGSTAWQRN"),
        ("[K4T;K3T]", "MATTKRKVLDGSTAWQRN"),
        ("S12*", "MAKKKRKVLDG"),
        ("p.Ser12Ter", "MAKKKRKVLDG"),
        ("K3del", "MAKKRKVLDGSTAWQRN"),
        ("K3_V8del", "MALDGSTAWQRN"),
        ("3-8del", "MALDGSTAWQRN"),
        ("p.Lys3_Val8delinsGlySer", "MAGSLDGSTAWQRN"),
        ("K3_K4insRS", "MAKRSKKRKVLDGSTAWQRN"),
        ("K3_K4dup", "MAKKKKKRKVLDGSTAWQRN"),
        ("c+KDEL", SEQUENCE + "KDEL"),
        ("n+NLS", "M" + FUSIONS["NLS"] + SEQUENCE),
        ("n+MT", FUSIONS["MT"] + SEQUENCE),
        ("c+GSGS", SEQUENCE + "GSGS"),
    ],
)
def test_changes_are_read_as_people_write_them(text, changed):
    assert parse_variant(text, SEQUENCE).sequence == changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("R3T", "expects R at residue 3, where the sequence has K"),
        ("K99T", "names residue 99 of a sequence of 18"),
        ("K3J", "cannot be read"),
        ("hello", "cannot be read"),
        ("", "is empty"),
        ("K3T,K3A", "changes residue 3 twice"),
        ("A2*", "at least 10"),
        ("K4_K3del", "ends before it starts"),
        ("K3_K5insGS", "between two neighbours"),
        ("K3delins", "inserts nothing"),
        ("n+xyz", "in which"),
        ("0-3del", "names residues 0-3"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(text, said):
    with pytest.raises(InputError, match=said):
        parse_variant(text, SEQUENCE)


def test_a_scan_makes_every_substitution_of_a_region():
    found = list(scan(SEQUENCE, 2, 4))
    assert len(found) == len({each.sequence for each in found}) == 3 * 19
    assert all(parse_variant(each.name, SEQUENCE).sequence == each.sequence for each in found)
    with pytest.raises(InputError, match="not in the sequence of 18"):
        list(scan(SEQUENCE, 10, 19))


def test_silent_changes_change_one_residue_each():
    found = silent_changes(SEQUENCE * 3, 5)
    assert len(found) == 5
    assert all(sum(a != b for a, b in zip(each, SEQUENCE * 3, strict=True)) == 1 for each in found)
