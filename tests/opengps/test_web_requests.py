import pytest
from visitor import API, SEQUENCE, error_of, fasta, visit

from deepgps.proteins.protein import Protein, Rejection
from opengps.errors import RequestError
from opengps.requests import RequestFiles, check_request
from opengps.schemas import PredictionRequest
from opengps.settings import Settings
from opengps.uploads import Upload


def checked(text="", file=None, uploads=(), settings=None, **fields):
    request = PredictionRequest(proteins=text, **fields)
    return check_request(request, RequestFiles(file, uploads), settings or Settings())


def ids(records):
    return [each if isinstance(each, str) else each.id for each in records]


def errors_of(*args, **fields):
    with pytest.raises(RequestError) as caught:
        checked(*args, **fields)
    return [(error.code, error.field) for error in caught.value.errors]


@pytest.mark.parametrize(
    "text",
    [
        SEQUENCE,
        SEQUENCE.lower(),
        f"  {SEQUENCE[:20]}\n{SEQUENCE[20:]}*\n",
        " ".join(SEQUENCE[at : at + 10] for at in range(0, 46, 10)),
    ],
)
def test_a_bare_sequence(text):
    (protein,) = checked(text).records
    assert protein == Protein("sequence", SEQUENCE)


@pytest.mark.parametrize(
    "text",
    [
        f">a b\n{SEQUENCE}",
        f"\n\n>a\n{SEQUENCE}",
        f"id,sequence\na,{SEQUENCE}",
        f"Sequence\tID\n{SEQUENCE}\ta",
    ],
)
def test_fasta_and_tables(text):
    assert checked(text).records == [Protein("a", SEQUENCE)]


@pytest.mark.parametrize("text", ["P04637 NPM1", "P04637,NPM1", "P04637\nNPM1\nP04637\n", " P04637 ; NPM1 "])
def test_names_to_look_up(text):
    assert checked(text).records == ["P04637", "NPM1"]


def test_invalid_names_are_rejected_and_the_others_used():
    records = checked("P04637 what?ever/ NPM1").records
    assert ids(records) == ["P04637", "what?ever/", "NPM1"]
    assert isinstance(records[1], Rejection)


def test_names_are_rejected_without_lookups():
    assert errors_of("P04637", settings=Settings(lookups=False)) == [("invalid_protein", "proteins")]


@pytest.mark.parametrize("text", ["", "  \n ", ">a\n", "?!", "id,name\na,b", "id,sequence\n"])
def test_input_without_a_protein_is_refused(text):
    ((_, field),) = errors_of(text)
    assert field == "proteins"


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n", b"\x1f\x8bbroken", b">a\nMK", b"PK\x03\x04\x00"]
)
def test_a_file_without_a_protein_is_refused_by_its_name(content):
    with pytest.raises(RequestError) as caught:
        checked(file=Upload("my proteins.fasta", content))
    (error,) = caught.value.errors
    assert error.field == "file"
    assert "/tmp" not in error.message
    assert "my proteins.fasta" in error.message or "Sequence" in error.message


def test_a_text_and_a_file_conflict():
    assert errors_of(SEQUENCE, file=Upload("x", fasta(1).encode())) == [("conflicting_inputs", "proteins")]


def test_the_limits_hold():
    few = Settings(max_proteins=3, max_residues=50, max_total_residues=130, max_nuclei=2, max_images=4)
    assert len(checked(fasta(3), settings=few).records) == 3
    assert errors_of(fasta(4), settings=few) == [
        ("too_many_proteins", "proteins"),
        ("too_many_residues", "proteins"),
    ]
    assert errors_of(SEQUENCE + SEQUENCE, settings=few) == [("invalid_protein", "proteins")]
    three = [f">{i}\n{SEQUENCE}\n" for i in range(3)]
    assert errors_of("".join(three), settings=few) == [("too_many_residues", "proteins")]
    assert errors_of(SEQUENCE, nuclei=["hek-1", "hek-2", "hek-3"], settings=few) == [
        ("too_many_nuclei", "nuclei")
    ]
    assert errors_of(fasta(3), nuclei=["hek-1", "hek-2"], settings=few) == [("too_many_images", "nuclei")]


def test_no_more_of_a_file_is_read_than_the_limit(monkeypatch):
    read = []
    monkeypatch.setattr("opengps.protein_input._check_length", lambda each, _: read.append(each) or each)
    errors_of(fasta(500), settings=Settings(max_proteins=10))
    assert len(read) == 11


def test_contradictory_requests_are_refused():
    assert errors_of(SEQUENCE, images=False, nuclei=["hek-1"]) == [("images_disabled", "nuclei")]
    assert errors_of(SEQUENCE, images=False, mean=True) == [("images_disabled", "mean")]
    assert errors_of(SEQUENCE, pixel_size_um=0.2) == [("missing_image", "nucleus_images")]
    assert checked(SEQUENCE, images=False).cells == []


def test_the_first_default_nucleus_is_the_default():
    assert [cell.name for cell in checked(SEQUENCE).cells] == ["hek-1"]


def test_two_images_of_one_name_get_different_names(visitor):
    from test_web_security import image

    files = [("nucleus_images", ("a.png", image())), ("nucleus_images", ("a.tif", image("TIFF")))]
    answer = visitor.client.post(
        f"{API}/predictions", data={"model": "tiny", "proteins": SEQUENCE}, files=files
    )
    assert answer.json()["nuclei"] == ["a", "a-2"]


def test_a_form_with_an_unknown_field_or_too_much_text_is_refused(tmp_path, visitor):
    answer = visitor.client.post(f"{API}/predictions", data={"proteins": SEQUENCE, "colour": "red"})
    assert error_of(answer, 422)["field"] == "colour"
    small = visit(tmp_path / "small", max_table_bytes=1000)
    files = {"file": ("a.fasta", b">a\nMK")}
    answer = small.client.post(f"{API}/predictions", data={"proteins": "M" * 2000}, files=files)
    assert error_of(answer, 413)["code"] == "payload_too_large"
