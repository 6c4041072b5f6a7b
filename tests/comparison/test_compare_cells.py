"""`deepgps compare-cells`, as a user calls it."""

import csv
import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from conftest import round_nucleus
from deepgps.bundle import write_bundle
from deepgps.cli.app import run
from deepgps.comparison.compare import CONTROLS, compare_cells
from deepgps.errors import InputError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from structure_files import fold, pdb

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SEQUENCES = {
    f"P{i}": f"M{''.join(LETTERS[(i * 7 + k * k + i * k) % 20] for k in range(60 + 9 * i))}" for i in range(4)
}
FASTA = "".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items())


@pytest.fixture(scope="session")
def variant(tiny_bundle, tmp_path_factory):
    """A model like the tiny one: its encoder's weights multiplied, its images dark inside nuclei or not."""

    def make(factor=1.0, *, dark=False, **changed):
        encoder = onnx.load_model_from_string(tiny_bundle.read("encoder.onnx"))
        for weights in encoder.graph.initializer:
            if weights.name.startswith("to_"):
                scaled = numpy_helper.to_array(weights) * np.float32(factor)
                weights.CopyFrom(numpy_helper.from_array(scaled, weights.name))
        generator = onnx.load_model_from_string(tiny_bundle.read("generator.onnx"))
        if dark:
            adding = next(node for node in generator.graph.node if node.op_type == "Add")
            adding.op_type = "Sub"
            adding.input[:] = ["level", "chosen"]
        files = {
            "encoder.onnx": encoder.SerializeToString(),
            "generator.onnx": generator.SerializeToString(),
            "CARD.md": tiny_bundle.read("CARD.md"),
        }
        about = tiny_bundle.metadata.model_dump(exclude={"schema_version", "files"})
        folder = tmp_path_factory.mktemp("variants") / "variant"
        return write_bundle(folder, about | changed, files)

    return make


@pytest.fixture(scope="session")
def negated(variant):
    """A model that says the opposite."""
    return variant(-1.0, name="negated", cell_line="U-2 OS")


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(FASTA)
    return path


@pytest.fixture
def compare(tmp_path, fasta, capsys):
    def call(*models, out=tmp_path / "out", inputs=(fasta,), more=()):
        chosen = [token for model in models for token in ("--model", str(getattr(model, "path", model)))]
        tokens = [*map(str, inputs), *chosen, "--out", str(out), "--threads", "1", *map(str, more)]
        code = run(["compare-cells", *tokens])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(tiny_bundle, negated, tmp_path_factory):
    """A finished comparison, to look at, and what was printed."""
    folder, said = tmp_path_factory.mktemp("compared"), io.StringIO()
    (folder / "in.fasta").write_text(FASTA)
    models = ["--model", str(tiny_bundle.path), "--model", str(negated.path)]
    with redirect_stdout(said):
        code = run(["compare-cells", str(folder / "in.fasta"), *models, "--out", str(folder / "out")])
    assert code == 0
    return folder / "out", said.getvalue()


def test_the_table_says_what_the_predictor_says(compared, tiny_bundle, negated):
    folder, _ = compared
    found = {row["Protein_ID"]: row for row in rows(folder / "differences.csv")}
    assert set(found) == set(SEQUENCES)
    proteins = [Protein(*each) for each in SEQUENCES.items()]
    fractions = []
    for bundle in (tiny_bundle, negated):
        predictor = Predictor(bundle, threads=1)
        nuclei = [predictor.load_cell(name) for name in CONTROLS]
        name = bundle.metadata.name
        answers = list(predictor.predict(proteins, nuclei))
        fractions.append(
            np.array([each.readouts["intranuclear_fraction"] for each in answers]).reshape(-1, 2)
        )
        for number, protein in enumerate(proteins):
            row, answer = found[protein.id], answers[2 * number]
            assert row[f"Localizations/{name}"].split("|") == list(answer.localizations)
            assert float(row[f"er/{name}"]) == pytest.approx(answer.probabilities["er"], abs=1e-4)
            here, there = fractions[-1][number]
            assert float(row[f"Intranuclear_Fraction/{name}"]) == pytest.approx(here, abs=1e-4)
            assert float(row[f"Control/{name}"]) == pytest.approx(abs(here - there), abs=1e-4)
    for number, protein in enumerate(proteins):
        row = found[protein.id]
        change = float(row["er/negated"]) - float(row["er/tiny"])
        assert float(row["er/negated/Difference"]) == pytest.approx(change, abs=2e-4)
        change = fractions[1][number, 0] - fractions[0][number, 0]
        assert float(row["Intranuclear_Fraction/negated/Difference"]) == pytest.approx(change, abs=1e-4)


def test_the_images_are_correlated_pixel_by_pixel(compared, tiny_bundle, negated):
    drawn = [
        Predictor(bundle, threads=1).predict_one(SEQUENCES["P1"]).image for bundle in (tiny_bundle, negated)
    ]
    r = np.corrcoef(*(image.ravel() for image in drawn))[0, 1]
    found = {row["Protein_ID"]: row for row in rows(compared[0] / "differences.csv")}
    assert float(found["P1"]["Pearson/negated"]) == pytest.approx(r, abs=2e-3)


def test_the_most_different_come_first_in_table_page_and_console(compared):
    folder, out = compared
    found = rows(folder / "differences.csv")
    largest = [float(row["Largest_Difference"]) for row in found]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > largest[-1] > 0
    order = [row["Protein_ID"] for row in found]
    page = (folder / "report.html").read_text()
    assert re.findall(r"<h3>(\w+)</h3>", page) == order
    assert [line.split("\t")[0] for line in out.splitlines()[1:5]] == order


def test_the_page_is_whole_and_names_models_cells_and_control(compared):
    page = (compared[0] / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(SEQUENCES)
    assert not re.search(r"https?://|<link|<script|@import|url\(", page)
    for said in ("U-2 OS", "models/negated/report.html", "hek-1 and hek-2", "several of 12 classes"):
        assert said in page
    assert "None" not in page.partition("<main>")[2]
    assert (compared[0] / "models" / "negated" / "report.html").exists()


def test_an_image_shows_the_nucleus_and_every_model(compare, tiny_bundle, variant, tmp_path):
    compare(tiny_bundle, variant(name="dark", dark=True), inputs=("--sequence", SEQUENCES["P0"]))
    with Image.open(tmp_path / "out" / "images" / "sequence.png") as image:
        grey = np.asarray(image.convert("L"), float)
    nucleus, bright, dark = (grey[60:280, left : left + 240].ravel() for left in (20, 292, 564))
    assert np.corrcoef(nucleus, bright)[0, 1] > 0.5
    assert np.corrcoef(nucleus, dark)[0, 1] < -0.5


def test_a_caution_is_printed_if_models_differ_no_more_than_the_control(compare, tiny_bundle, variant):
    twin = variant(1.001, name="twin")
    code, out, _ = compare(tiny_bundle, twin)
    assert code == 0
    assert "do not interpret these differences biologically" in out
    assert "twin and tiny: labels agree for 4 of 4" in out


def test_the_page_has_the_same_caution(compare, tiny_bundle, variant, tmp_path):
    compare(tiny_bundle, variant(1.001, name="twin"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        '<p class="note"><strong>The intranuclear fractions of twin and tiny differ no more than those'
        in page
    )


def test_there_is_no_caution_if_models_differ(compare, tiny_bundle, variant, tmp_path):
    code, out, _ = compare(tiny_bundle, variant(name="dark", dark=True))
    assert code == 0
    assert "4 of 4 proteins exceed it" in out
    for row in rows(tmp_path / "out" / "differences.csv"):
        assert row["Exceeds_Control/dark"] == "yes"
        assert float(row["Intranuclear_Fraction/dark/Difference"]) < 0
        assert row["Agree"] == "yes"
        assert float(row["Pearson/dark"]) < -0.9
    assert "biologically" not in out + (tmp_path / "out" / "report.html").read_text()


def test_a_model_that_only_draws_takes_part(compare, tiny_bundle, joint_export, tmp_path):
    code, out, _ = compare(tiny_bundle, joint_export("image only")[1])
    assert code == 0
    assert "labels cannot be compared" in out
    for row in rows(tmp_path / "out" / "differences.csv"):
        assert (row["Agree"], row["Localizations/toy"]) == ("", "")
        assert 0 < float(row["Intranuclear_Fraction/toy"]) < 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "images only, no labels" in page
    assert "not comparable" in page


def test_models_of_other_classes_are_compared_in_the_shared_ones(
    compare, tiny_bundle, joint_export, tmp_path
):
    toy = joint_export("sequence")[1]
    assert compare(toy, tiny_bundle)[0] == 0
    (row, *_) = rows(tmp_path / "out" / "differences.csv")
    shared = {name.partition("/")[0] for name in row if name.endswith("tiny/Difference")}
    assert shared == {"cytoplasmic", "nucleoplasm", "vesicles", "er", "Intranuclear_Fraction"}


def test_models_of_another_scale_draw_the_same_nucleus_at_their_own(compare, tiny_bundle, variant, tmp_path):
    finer = variant(name="finer", crop={"size_px": 208, "pixel_size_um": 0.103})
    pixels = (round_nucleus("x", 20).nucleus * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cell.png")
    code, out, err = compare(
        tiny_bundle, finer, more=("--nucleus", tmp_path / "cell.png", "--pixel-size-um", "0.206")
    )
    assert (code, err) == (0, "")
    found = rows(tmp_path / "out" / "differences.csv")
    assert {row["Pearson/finer"] for row in found} == {""}
    said = "Crops of finer are 21 µm wide and those of tiny 43 µm"
    assert said in out
    assert said in (tmp_path / "out" / "report.html").read_text()
    shares = []
    for name in ("tiny", "finer"):
        table = rows(tmp_path / "out" / "models" / name / "results.csv")
        assert [row["Nucleus"] for row in table[:3]] == ["cell", *CONTROLS]
        stem = json.loads((tmp_path / "out" / "models" / name / "results.jsonl").read_text().splitlines()[0])[
            "images"
        ]
        import tifffile

        stored = tifffile.imread(tmp_path / "out" / "models" / name / "images" / f"{stem}.ome.tif")[0]
        shares.append((stored > stored.max() / 2).mean())
    # Half the pixel size, twice the diameter.
    assert shares[1] / shares[0] == pytest.approx(4, rel=0.1)


def test_a_nucleus_that_is_one_of_the_control_is_drawn_into_once(compare, tiny_bundle, negated, tmp_path):
    assert compare(tiny_bundle, negated, more=("--nucleus", "hek-2"))[0] == 0
    table = rows(tmp_path / "out" / "models" / "tiny" / "results.csv")
    assert [row["Nucleus"] for row in table[:2]] == ["hek-2", "hek-1"]


def test_a_file_of_the_name_of_a_default_nucleus_is_told_apart(compare, tiny_bundle, negated, tmp_path):
    Image.fromarray((round_nucleus("x").nucleus * 255).astype(np.uint8)).save(tmp_path / "hek-1.png")
    code, _, _ = compare(tiny_bundle, negated, more=("--nucleus", tmp_path / "hek-1.png"))
    assert code == 0
    table = rows(tmp_path / "out" / "models" / "tiny" / "results.csv")
    assert [row["Nucleus"] for row in table[:3]] == ["hek-1-own", *CONTROLS]


def test_three_models_and_two_of_one_name(compare, tiny_bundle, negated, variant, tmp_path):
    code, out, _ = compare(tiny_bundle, variant(0.5), negated, more=("--format", "tsv"))
    assert code == 0
    header = (tmp_path / "out" / "differences.tsv").read_text().splitlines()[0].split("\t")
    assert {"Localizations/tiny", "Localizations/tiny-2", "er/negated/Difference"} <= set(header)
    assert "tiny-2 and tiny:" in out
    assert "negated and tiny:" in out


def test_rejected_records_are_named_once_and_the_code_is_3(compare, fasta, tiny_bundle, negated, tmp_path):
    fasta.write_text(FASTA + ">bad\nMKVLAAGJVGLCAKWDEYHR\n")
    code, out, err = compare(tiny_bundle, negated)
    assert code == 3
    assert err.count("'bad'") == 1
    assert "4 compared, 1 rejected" in out
    assert [row["Protein_ID"] for row in rows(tmp_path / "out" / "rejected.csv")] == ["bad"]
    fasta.write_text(">bad\nMKVLAAGJVGLCAKWDEYHR\n")
    code, out, _ = compare(tiny_bundle, negated, out=tmp_path / "none")
    assert code == 2
    assert "0 compared, 1 rejected" in out
    assert "None" not in out + (tmp_path / "none" / "report.html").read_text().partition("<main>")[2]


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        ((), (), "model"),
        (("tiny",), (), "A comparison needs two models or more"),
        (("tiny", "tiny"), (), "Model 'tiny' is given twice"),
        (("tiny", "no-such-model"), (), "no-such-model"),
        (("tiny", "negated"), ("--nucleus", "nowhere.png"), "nowhere.png"),
        (("tiny", "negated"), ("missing.fasta",), "missing.fasta"),
        (("tiny", "negated"), ("--colour",), "--colour"),
    ],
)
def test_what_cannot_be_used_ends_with_2_and_leaves_no_folder(
    compare, tiny_bundle, negated, tmp_path, models, more, said
):
    known = {"tiny": tiny_bundle, "negated": negated}
    code, _, err = compare(*(known.get(name, name) for name in models), more=more)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_the_same_command_continues_and_another_one_is_refused(
    compare, tiny_bundle, negated, variant, tmp_path
):
    folder = tmp_path / "out"
    assert compare(tiny_bundle, negated)[0] == 0
    before = (folder / "differences.csv").read_bytes()
    assert "4 compared (4 predicted by an earlier run), 0 rejected" in compare(tiny_bundle, negated)[1]
    assert (folder / "differences.csv").read_bytes() == before
    for call in (
        lambda: compare(negated, tiny_bundle),
        lambda: compare(tiny_bundle, variant(2.0)),
        lambda: compare(tiny_bundle, negated, more=("--nucleus", "hek-3")),
        lambda: compare(tiny_bundle, negated, more=("--format", "tsv")),
    ):
        code, _, err = call()
        assert code == 2
        assert "use --overwrite to start again" in err
    (folder / "notes.txt").write_text("mine")
    assert compare(tiny_bundle, negated, more=("--format", "tsv", "--overwrite"))[0] == 0
    assert (folder / "notes.txt").exists()
    assert (folder / "differences.tsv").exists()
    assert not (folder / "differences.csv").exists()


def test_overwriting_leaves_no_image_of_what_was_there(compare, fasta, tiny_bundle, negated, tmp_path):
    assert compare(tiny_bundle, negated)[0] == 0
    fasta.write_text(FASTA.replace("P3", "Q3"))
    assert compare(tiny_bundle, negated)[0] == 2
    assert compare(tiny_bundle, negated, more=("--overwrite",))[0] == 0
    assert {path.stem for path in (tmp_path / "out" / "images").iterdir()} == {"P0", "P1", "P2", "Q3"}


def test_predictions_of_another_kind_are_not_written_over(compare, fasta, tiny_bundle, negated, tmp_path):
    out = tmp_path / "out"
    assert run(["predict", str(fasta), "--model", str(tiny_bundle.path), "--out", str(out)]) == 0
    code, _, err = compare(tiny_bundle, negated)
    assert code == 2
    assert "--overwrite" in err
    assert not (out / "models").exists()


def test_a_run_that_stops_between_the_models_goes_on(compare, tiny_bundle, negated, tmp_path, monkeypatch):
    encode, calls = Predictor.encode, []

    def stopping(self, proteins):
        calls.append(self.bundle.metadata.name)
        if calls == ["tiny", "negated"]:
            raise KeyboardInterrupt
        return encode(self, proteins)

    monkeypatch.setattr(Predictor, "encode", stopping)
    code, _, err = compare(tiny_bundle, negated)
    assert code == 130
    assert "the same command continues" in err
    assert not (tmp_path / "out" / "differences.csv").exists()
    code, out, _ = compare(tiny_bundle, negated)
    assert code == 0
    assert "4 compared, 0 rejected" in out
    assert calls == ["tiny", "negated", "negated"]


def test_two_models_are_needed_in_python_too(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match="two models"):
        compare_cells([Predictor(tiny_bundle, threads=1)], [Protein("a", "M" * 30)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ids_of_any_kind_are_text_on_the_page(compare, fasta, tiny_bundle, negated, tmp_path):
    fasta.write_text(f"><script>alert(1)</script>\n{SEQUENCES['P0']}\n>../up\n{SEQUENCES['P1']}\n")
    assert compare(tiny_bundle, negated)[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "script&gt;" in page
    assert not (tmp_path / "up.png").exists()
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_it_needs_no_torch(tiny_bundle, negated, fasta, tmp_path):
    code = (
        "import sys\nfrom deepgps.cli.app import run\n"
        f"code = run(['compare-cells', {str(fasta)!r}, '--model', {str(tiny_bundle.path)!r}, "
        f"'--model', {str(negated.path)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "assert code == 0\n"
        "heavy = ('torch', 'lightning', 'polars', 'sklearn', 'requests', 'matplotlib')\n"
        "print('LOADED', *(module for module in heavy if module in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_a_protein_that_one_model_cannot_take_is_rejected_for_all(
    compare, tiny_bundle, joint_export, tmp_path
):
    folder = tmp_path / "structures"
    folder.mkdir()
    for name in ("P0", "P2"):
        (folder / f"AF-{name}-F1-model_v4.pdb").write_text(pdb(fold(20, 1)))
    models = tiny_bundle, joint_export("structure")[1]
    code, out, _ = compare(*models, more=("--structures", folder))
    assert code == 3
    assert "2 compared, 2 rejected" in out
    for name in ("tiny", "toy"):
        table = rows(tmp_path / "out" / "models" / name / "results.csv")
        assert [row["Protein_ID"] for row in table[::2]] == ["P0", "P2"]
    assert [row["Protein_ID"] for row in rows(tmp_path / "out" / "rejected.csv")] == ["P1", "P3"]
    code, _, err = compare(*models, out=tmp_path / "none")
    assert code == 2
    assert "Model 'toy' uses structures" in err


def test_structures_that_no_model_looks_at_are_refused(compare, tiny_bundle, negated, tmp_path):
    code, _, err = compare(tiny_bundle, negated, more=("--structures", tmp_path))
    assert code == 2
    assert "--structures" in err
    assert not (tmp_path / "out").exists()
