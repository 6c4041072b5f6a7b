import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from conftest import round_nucleus
from deepgps.cli.app import run

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
FASTA = ">sp|P1|A first\nMKVLAAGIVGLCAKWDEYHR\n>b\nMSTNPKPQRKTKRNTNRRPQ\n"


def fasta(n):
    return "".join(
        f">P{i}\nM{''.join(LETTERS[(i * 7 + k * k + i * k) % 20] for k in range(900))}\n" for i in range(n)
    )


@pytest.fixture
def predict(tiny_bundle, tmp_path, capsys):
    def call(*tokens, out=tmp_path / "out"):
        model = [] if "--model" in tokens else ["--model", str(tiny_bundle.path)]
        code = run(["predict", *map(str, tokens), *model, "--out", str(out)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def proteins_file(tmp_path):
    path = tmp_path / "in.fasta"
    path.write_text(FASTA)
    return path


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_becomes_a_folder_of_results(predict, proteins_file, tmp_path):
    code, out, err = predict(proteins_file)
    assert (code, err) == (0, "")
    assert [row["Protein_ID"] for row in rows(tmp_path / "out/results.csv")] == ["sp|P1|A", "b"]
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == {
        *("sp_P1_A.png", "sp_P1_A.ome.tif", "b.png", "b.ome.tif")
    }
    assert "2 predicted, 0 rejected" in out
    assert str(tmp_path / "out/report.html") in out


def test_bad_records_are_named_the_others_predicted_and_the_code_is_3(predict, proteins_file, tmp_path):
    proteins_file.write_text(FASTA + ">bad\nMKVLAAGJVGLCAKWDEYHR\n")
    code, out, err = predict(proteins_file, "--no-images")
    assert code == 3
    assert "'bad'" in err
    assert "'J'" in err
    assert "2 predicted, 1 rejected" in out
    assert [row["Protein_ID"] for row in rows(tmp_path / "out/rejected.csv")] == ["bad"]


def test_an_option_is_no_folder(predict, proteins_file):
    code, _, err = predict(proteins_file, out="--format")
    assert code == 2
    assert "--out '--format' is an option and no folder" in err


def test_without_any_usable_record_the_code_is_2(predict, proteins_file):
    proteins_file.write_text(">bad\nMJJJJJJJJJJJ\n>worse\nMJ\n")
    code, out, _ = predict(proteins_file, "--no-images")
    assert code == 2
    assert "0 predicted, 2 rejected" in out


@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_a_table_is_printed_and_nothing_is_written(
    predict, proteins_file, tmp_path, monkeypatch, kind, delimiter
):
    monkeypatch.chdir(tmp_path)
    proteins_file.write_text(FASTA + ">bad\nMKVLAAGJVGLCAKWDEYHR\n")
    code, out, err = predict(proteins_file, "--format", kind, out="-")
    assert code == 3
    assert "'J'" in err
    printed = list(csv.DictReader(out.splitlines(), delimiter=delimiter))
    assert [row["Protein_ID"] for row in printed] == ["sp|P1|A", "b"]
    predict(proteins_file, "--format", kind, "--no-images")
    assert printed == list(
        csv.DictReader((tmp_path / f"out/results.{kind}").open(encoding="utf-8"), delimiter=delimiter)
    )
    assert not (tmp_path / "-").exists()


def test_json_lines_are_printed_sorted_and_cut(predict, proteins_file):
    proteins_file.write_text(fasta(6))
    code, out, _ = predict(proteins_file, "--format", "json", "--sort", "golgi", "--top", "3", out="-")
    values = [json.loads(line)["probabilities"]["golgi"] for line in out.splitlines()]
    assert code == 0
    assert len(values) == 3
    everything = predict(proteins_file, "--format", "json", out="-")[1].splitlines()
    golgi = [json.loads(line)["probabilities"]["golgi"] for line in everything]
    assert values == sorted(golgi, reverse=True)[:3]
    assert golgi != sorted(golgi, reverse=True)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["--format", "parquet"], "--format parquet is a file"),
        (["--nucleus", "hek-1"], "prints the table alone, so --nucleus"),
        (["--sort", "height"], "--sort 'height' is unknown; use one of confidence"),
    ],
)
def test_what_cannot_be_printed_is_refused(predict, proteins_file, tokens, said):
    code, out, err = predict(proteins_file, *tokens, out="-")
    assert (code, out) == (2, "")
    assert said in err


def test_the_summary_is_sorted_and_counts_what_is_unclear(predict, proteins_file, tmp_path):
    proteins_file.write_text(fasta(6))
    _, out, _ = predict(proteins_file, "--no-images", "--sort", "confidence", "--top", "2")
    shown = [line.split("\t") for line in out.splitlines()[1:3]]
    written = rows(tmp_path / "out/results.csv")
    best = sorted((float(row["Confidence"]) for row in written), reverse=True)
    assert [float(line[2]) for line in shown] == pytest.approx(best[:2], abs=0.006)
    assert "…" in out
    unclear = sum(row["Localizations"] == "unclear" for row in written)
    assert (f"{unclear} unclear" in out) == bool(unclear)


def test_doubtful_predictions_are_counted_once_for_each_protein():
    from deepgps.cli.console import _Tally

    far = {"localizations": ["unclear"], "warnings": ["no annotated relative (similarity 0.01): x"]}
    near = {"localizations": ["er"], "warnings": []}
    tally = _Tally()
    list(tally.count([{**each, "nucleus": name} for each in (far, near) for name in ("a", "b")]))
    assert (tally.rows, str(tally)) == (4, ", 1 unclear, 1 unlike any annotated protein")
    assert str(_Tally()) == ""


def test_many_bad_records_do_not_flood_the_terminal(predict, proteins_file):
    proteins_file.write_text(FASTA + "".join(f">bad{i}\nMJJJJJJJJJJJ\n" for i in range(50)))
    _, _, err = predict(proteins_file, "--no-images")
    assert len(err.splitlines()) < 15
    assert "40 more" in err


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([], "nothing to predict"),
        (["missing.fasta"], "missing.fasta"),
        (["IN", "--nucleus", "nowhere.png"], "nowhere.png"),
        (["IN", "--nucleus", "IN"], "in.fasta"),
        (["IN", "--no-images", "--nucleus", "hek-1"], "--no-images"),
        (["IN", "--no-images", "--mean"], "--mean"),
        (["IN", "--threads", "0"], "--threads"),
        (["--sequence", "MK"], "2"),
    ],
)
def test_input_that_cannot_be_used_ends_with_2_and_a_sentence(predict, proteins_file, tokens, said):
    code, _, err = predict(*[proteins_file if token == "IN" else token for token in tokens])
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_an_unknown_model_is_refused_before_anything_is_read_or_written(tmp_path, capsys):
    code = run(["predict", "-", "--model", "no-such-model", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "no-such-model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sequence_and_json(predict, tmp_path):
    code, _, _ = predict("--sequence", "mkvlaagivg lcakwdeyhr*", "--no-images", "--format", "json")
    assert code == 0
    (line,) = (tmp_path / "out/results.jsonl").read_text().splitlines()
    assert json.loads(line)["length"] == 20


def test_the_examples_come_with_the_package(predict, tmp_path):
    code, out, _ = predict("example", "--no-images")
    assert code == 0
    assert {"GAPDH", "NPM1"} <= {row["Protein_ID"] for row in rows(tmp_path / "out/results.csv")}
    assert "GAPDH" in out


def test_nuclei_by_file_and_by_name_two_of_one_name_told_apart(predict, proteins_file, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pixels = (round_nucleus("x", 40).nucleus * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "cell.png")
    nuclei = [tmp_path / "a/cell.png", tmp_path / "b/cell.png", "hek-1"]
    code, _, _ = predict(proteins_file, "--nucleus", *nuclei, "--pixel-size-um", "0.206")
    assert code == 0
    assert [row["Nucleus"] for row in rows(tmp_path / "out/results.csv")] == ["cell", "cell-2", "hek-1"] * 2


def test_the_same_command_continues_and_overwrite_starts_anew(predict, proteins_file):
    predict(proteins_file, "--no-images")
    assert "(2 by an earlier run)" in predict(proteins_file, "--no-images")[1]
    code, _, err = predict(proteins_file, "--no-images", "--format", "tsv")
    assert code == 2
    assert "--overwrite" in err
    code, out, _ = predict(proteins_file, "--no-images", "--format", "tsv", "--overwrite")
    assert code == 0
    assert "earlier" not in out


def test_a_record_cannot_steer_the_terminal(predict, tmp_path):
    good = "MKVLAAGIVGLCAKWDEYHR" * 10
    (tmp_path / "in.csv").write_text(f"id,sequence\n\x1b[31mred,{good}\nbad\x1b[2J,MJ{good}\n")
    _, out, err = predict(tmp_path / "in.csv", "--no-images")
    assert "red" in out
    assert "\x1b" not in out + err


def test_a_terminal_without_utf_8_is_no_failure(tiny_bundle, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from deepgps.cli import main; main()", "predict", "example"),
            *("--no-images", "--model", tiny_bundle.path, "--out", tmp_path / "größe"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_made_is_a_sentence(predict, proteins_file, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = predict(proteins_file, "--no-images", out=tmp_path / "file" / "out")
    assert code == 1
    assert "file" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("stop", "ends_with"), [(KeyboardInterrupt, 130), (OSError(28, "No space left on device"), 1)]
)
def test_a_run_that_stops_says_how_to_go_on(predict, tmp_path, monkeypatch, stop, ends_with):
    from deepgps.prediction import Predictor

    encode, calls = Predictor.encode, []

    def stopping(self, sequences):
        calls.append(sequences)
        if len(calls) > 1:
            raise stop
        return encode(self, sequences)

    (tmp_path / "in.fasta").write_text(fasta(70))
    monkeypatch.setattr(Predictor, "encode", stopping)
    code, _, err = predict(tmp_path / "in.fasta", "--no-images")
    assert code == ends_with
    assert "the same command continues" in err
    assert "Traceback" not in err


def test_gzip_counts_and_predicts(predict, tmp_path):
    path = tmp_path / "in.fa.gz"
    path.write_bytes(gzip.compress(FASTA.encode()))
    assert predict(path, "--no-images")[0] == 0


@pytest.mark.slow
def test_a_killed_run_resumes_to_what_an_undisturbed_one_gives(tiny_bundle, tmp_path):
    text = fasta(160)

    def command(out):
        return [
            *(sys.executable, "-c", "from deepgps.cli import main; main()"),
            *("predict", "-", "--no-images", "--threads", "1"),
            *("--model", tiny_bundle.path, "--out", tmp_path / out),
        ]

    killed = subprocess.Popen(command("killed"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    table = tmp_path / "killed/results.csv"
    assert killed.stdin is not None
    killed.stdin.write(text[: len(text) // 2])
    killed.stdin.flush()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (table.exists() and table.read_text().count("\n") > 20):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdin.close()
    left = table.read_bytes()
    for out in ("killed", "whole"):
        subprocess.run(command(out), input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    whole = (tmp_path / "whole/results.csv").read_bytes()
    assert 20 < left.count(b"\n") < 160
    assert whole.startswith(left)
    assert table.read_bytes() == whole


def test_predict_loads_no_torch_and_no_network(tiny_bundle, proteins_file, tmp_path):
    code = (
        "import sys\nfrom deepgps.cli.app import run\n"
        f"code = run(['predict', {str(proteins_file)!r}, '--model', {str(tiny_bundle.path)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}])\n"
        "assert code == 0\n"
        "heavy = ('torch', 'lightning', 'polars', 'sklearn', 'requests', 'matplotlib')\n"
        "print('LOADED', *(module for module in heavy if module in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_what_would_draw_is_refused_without_images(predict, proteins_file, tmp_path):
    code, _, err = predict(proteins_file, "--no-images", "--image-format", "zarr")
    assert (code, "--no-images draws nothing, so --image-format has no effect" in err) == (2, True)
    code, _, err = predict(proteins_file, "--workers", "0")
    assert code == 2


def test_all_that_a_proteome_is_asked_for_at_once(predict, proteins_file, tmp_path):
    polars, zarr = pytest.importorskip("polars"), pytest.importorskip("zarr")
    options = (
        "--format",
        "parquet",
        "--image-format",
        "zarr",
        "--nucleus",
        "hek-1",
        "u2os-1",
        "--workers",
        "2",
    )
    code, out, err = predict(proteins_file, *options)
    assert (code, err) == (0, "")
    table = polars.read_parquet(tmp_path / "out/results.parquet")
    assert table["protein_id"].to_list() == ["sp|P1|A", "sp|P1|A", "b", "b"]
    assert zarr.open_group(tmp_path / "out/images.zarr", mode="r")["protein"].shape == (4, 208, 208)
    assert str(tmp_path / "out/images.zarr") in out


def test_landmarks_and_a_seed_are_recorded(predict, proteins_file, tmp_path, tiny_flow_bundle):
    pixels = (round_nucleus("x", 40).nucleus * 255).astype(np.uint8)
    for name in ("cell", "mt", "er"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    code, _, _ = predict(
        *(proteins_file, "--nucleus", tmp_path / "cell.png", "--pixel-size-um", "0.206", "--seed", "3"),
        *("--microtubules", tmp_path / "mt.png", "--er", tmp_path / "er.png"),
        *("--model", tiny_flow_bundle.path),
    )
    assert code == 0
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["seed"], run["options"]["landmarks"]) == (3, {"cell": ["microtubules", "er"]})
    assert "cell drawn with its microtubules and er" in (tmp_path / "out/report.html").read_text()
    with tifffile.TiffFile(next((tmp_path / "out/images").glob("*.ome.tif"))) as file:
        assert file.series[0].shape == (4, 208, 208)


def test_landmarks_are_one_for_each_nucleus(predict, proteins_file, tmp_path):
    Image.fromarray(np.zeros((208, 208), np.uint8)).save(tmp_path / "mt.png")
    code, _, err = predict(proteins_file, "--microtubules", tmp_path / "mt.png")
    assert code == 2
    assert "--microtubules gives 1 images and --nucleus 0" in err


def test_a_model_that_does_not_use_landmarks_refuses_them(predict, proteins_file, tmp_path):
    pixels = (round_nucleus("x", 40).nucleus * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cell.png")
    code, _, err = predict(proteins_file, "--nucleus", tmp_path / "cell.png", "--er", tmp_path / "cell.png")
    assert code == 2
    assert "does not use" in err


def test_proteins_after_the_nuclei_are_proteins(predict, proteins_file, tmp_path):
    disc = np.where(np.hypot(*(np.indices((200, 200)) - 100)) < 40, 30_000, 200)
    tifffile.imwrite(tmp_path / "n.tif", disc.astype(np.uint16))
    code, out, _ = predict("--pixel-size-um", "0.2", "--nucleus", tmp_path / "n.tif", proteins_file)
    assert code == 0
    assert "2 predicted, 0 rejected" in out
    assert {row["Nucleus"] for row in rows(tmp_path / "out/results.csv")} == {"n"}


def test_dna_is_told_on_the_console(predict, tmp_path):
    code, _, err = predict("--sequence", "ACGT" * 12, "--no-images")
    assert code == 0
    assert "'sequence' looks like nucleotides (100% of its letters" in err


@pytest.mark.parametrize("checks", [True, False])
def test_the_checks_of_images_can_be_skipped_and_the_run_says_so(predict, proteins_file, tmp_path, checks):
    bright = np.where(np.hypot(*(np.indices((200, 200)) - 100)) < 40, 200, 30_000)
    tifffile.imwrite(tmp_path / "n.tif", bright.astype(np.uint16))
    option = [] if checks else ["--no-image-checks"]
    nucleus = ["--nucleus", tmp_path / "n.tif", "--pixel-size-um", "0.2"]
    code, _, err = predict(proteins_file, *nucleus, *option)
    if checks:
        assert code == 2
        assert "transmitted light" in err
    else:
        assert code == 0
        assert "without checks of its stain and scale" in err
        assert json.loads((tmp_path / "out/run.json").read_text())["options"]["image_checks"] is False


def test_a_command_without_stdout_ends_as_it_should(proteins_file, tmp_path, tiny_bundle):
    command = f"exec '{sys.executable}' -c 'from deepgps.cli import main; main()' models list >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
