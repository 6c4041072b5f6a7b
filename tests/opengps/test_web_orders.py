import pytest
from visitor import API, SEQUENCE, error_of, fasta, visit

from deepgps.proteins.protein import Protein, Rejection
from opengps.orders import Upload, read_order
from opengps.problems import RefusedError
from opengps.schemas import PredictionRequest
from opengps.settings import Settings


def order(text="", file=None, images=(), settings=None, **fields):
    request = PredictionRequest(proteins=text, **fields)
    return read_order(request, file, images, settings or Settings())


def ids(entries):
    return [each if isinstance(each, str) else each.id for each in entries]


def refusal(*args, **fields):
    with pytest.raises(RefusedError) as caught:
        order(*args, **fields)
    return [(problem.code, problem.where) for problem in caught.value.problems]


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
    (protein,) = order(text).entries
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
    assert order(text).entries == [Protein("a", SEQUENCE)]


@pytest.mark.parametrize("text", ["P04637 NPM1", "P04637,NPM1", "P04637\nNPM1\nP04637\n", " P04637 ; NPM1 "])
def test_names_to_look_up(text):
    assert order(text).entries == ["P04637", "NPM1"]


def test_names_that_are_none_are_rejected_and_the_others_taken():
    entries = order("P04637 what?ever/ NPM1").entries
    assert ids(entries) == ["P04637", "what?ever/", "NPM1"]
    assert isinstance(entries[1], Rejection)


def test_without_lookups_names_are_no_proteins():
    assert refusal("P04637", settings=Settings(lookups=False)) == [("unusable_protein", "proteins")]


@pytest.mark.parametrize("text", ["", "  \n ", ">a\n", "?!", "id,name\na,b", "id,sequence\n"])
def test_what_holds_no_protein_is_refused(text):
    ((_, where),) = refusal(text)
    assert where == "proteins"


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n", b"\x1f\x8bbroken", b">a\nMK", b"PK\x03\x04\x00"]
)
def test_a_file_that_holds_no_protein_is_refused_by_its_own_name(content):
    with pytest.raises(RefusedError) as caught:
        order(file=Upload("my proteins.fasta", content))
    (problem,) = caught.value.problems
    assert problem.where == "file"
    assert "/tmp" not in problem.message
    assert "my proteins.fasta" in problem.message or "Sequence" in problem.message


def test_a_text_and_a_file_are_one_too_many():
    assert refusal(SEQUENCE, file=Upload("x", fasta(1).encode())) == [("two_inputs", "proteins")]


def test_the_limits_hold():
    few = Settings(max_proteins=3, max_residues=50, max_total_residues=130, max_nuclei=2, max_rows=4)
    assert len(order(fasta(3), settings=few).entries) == 3
    assert refusal(fasta(4), settings=few) == [
        ("too_many_proteins", "proteins"),
        ("too_many_residues", "proteins"),
    ]
    assert refusal(SEQUENCE + SEQUENCE, settings=few) == [("unusable_protein", "proteins")]
    three = [f">{i}\n{SEQUENCE}\n" for i in range(3)]
    assert refusal("".join(three), settings=few) == [("too_many_residues", "proteins")]
    assert refusal(SEQUENCE, nuclei=["hek-1", "hek-2", "hek-3"], settings=few) == [
        ("too_many_nuclei", "nuclei")
    ]
    assert refusal(fasta(3), nuclei=["hek-1", "hek-2"], settings=few) == [("too_many_images", "nuclei")]


def test_no_more_of_a_file_is_read_than_the_limit(monkeypatch):
    read = []
    monkeypatch.setattr("opengps.orders._short_enough", lambda each, _: read.append(each) or each)
    refusal(fasta(500), settings=Settings(max_proteins=10))
    assert len(read) == 11


def test_what_contradicts_itself_is_refused():
    assert refusal(SEQUENCE, images=False, nuclei=["hek-1"]) == [("nothing_to_draw", "nuclei")]
    assert refusal(SEQUENCE, images=False, mean=True) == [("nothing_to_draw", "mean")]
    assert refusal(SEQUENCE, pixel_size_um=0.2) == [("no_image", "nucleus_images")]
    assert order(SEQUENCE, images=False).cells == []


def test_the_first_default_nucleus_is_taken_where_none_is_named():
    assert [cell.name for cell in order(SEQUENCE).cells] == ["hek-1"]


def test_two_images_of_one_name_are_told_apart(visitor):
    from test_web_guard import image

    files = [("nucleus_images", ("a.png", image())), ("nucleus_images", ("a.tif", image("TIFF")))]
    answer = visitor.client.post(
        f"{API}/predictions", data={"model": "tiny", "proteins": SEQUENCE}, files=files
    )
    assert answer.json()["nuclei"] == ["a", "a-2"]


def test_a_form_with_an_unknown_field_or_too_much_text_is_refused(tmp_path, visitor):
    answer = visitor.client.post(f"{API}/predictions", data={"proteins": SEQUENCE, "colour": "red"})
    assert error_of(answer, 422)["where"] == "colour"
    small = visit(tmp_path / "small", max_table_bytes=1000)
    files = {"file": ("a.fasta", b">a\nMK")}
    answer = small.client.post(f"{API}/predictions", data={"proteins": "M" * 2000}, files=files)
    assert error_of(answer, 413)["code"] == "too_large"
