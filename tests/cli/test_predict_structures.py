"""``deepgps predict --structures``."""

import csv
import json

import pytest

from deepgps.cli.app import run
from structure_files import fold, pdb

FASTA = ">P1\nMKVLAAGIVGLCAKWDEYHR\n>P2\nMRRKRSPEEDDLKKAAQWYF\n>sp|P3|HEAD_HUMAN x\nMKVLAAGIVGLCAKWDEYHK\n"


@pytest.fixture
def proteins(tmp_path):
    path = tmp_path / "three.fasta"
    path.write_text(FASTA)
    return path


@pytest.fixture
def structures(tmp_path):
    """Of the first by its id and of the third by its accession; the second's is damaged."""
    folder = tmp_path / "structures"
    folder.mkdir()
    for name, seed in (("P1", 1), ("P3", 3)):
        (folder / f"AF-{name}-F1-model_v4.pdb").write_text(pdb(fold(20, seed)))
    (folder / "AF-P2-F1-model_v4.pdb").write_text("no structure at all")
    return folder


@pytest.fixture
def command(joint_export, proteins, tmp_path):
    model = str(joint_export("structure")[1].path)
    return ["predict", str(proteins), "--model", model, "--out", str(tmp_path / "out"), "--no-images"]


def ids(out):
    return [json.loads(line)["protein_id"] for line in (out / "results.jsonl").read_text().splitlines()]


def test_those_with_a_structure_are_predicted_and_the_others_rejected(command, structures, tmp_path, capsys):
    assert run([*command, "--structures", str(structures)]) == 3
    out = tmp_path / "out"
    assert ids(out) == ["P1", "sp|P3|HEAD_HUMAN"]
    with (out / "rejected.csv").open() as file:
        (row,) = csv.DictReader(file)
    said = "Structure 'AF-P2-F1-model_v4.pdb' is neither PDB nor mmCIF; give one of them, plain or gzip."
    assert row == {"Protein_ID": "P2", "Source": str(structures), "Reason": said}
    assert said in capsys.readouterr().err
    recorded = json.loads((out / "run.json").read_text())["inputs"]
    assert [each["source"] for each in recorded][1:] == [f"--structures {structures}"]


def test_other_structures_are_another_input(command, structures, tmp_path, capsys):
    assert run([*command, "--structures", str(structures)]) == 3
    moved = structures.rename(tmp_path / "moved")
    assert run([*command, "--structures", str(moved)]) == 3
    assert "(2 by an earlier run), 1 rejected" in capsys.readouterr().out
    (moved / "AF-P2-F1-model_v4.pdb").write_text(pdb(fold(40, 2)))
    assert run([*command, "--structures", str(moved)]) == 2
    assert "holds results made with another input" in capsys.readouterr().err
    assert run([*command, "--structures", str(moved), "--overwrite"]) == 0
    assert ids(tmp_path / "out") == ["P1", "P2", "sp|P3|HEAD_HUMAN"]


def test_a_model_says_whether_it_needs_structures(command, structures, proteins, tmp_path, capsys):
    assert run(command) == 2
    assert "Model 'toy' uses structures; give their folder with --structures." in capsys.readouterr().err
    assert run([*command, "--structures", str(tmp_path / "nowhere")]) == 2
    assert "nowhere' is not a folder of structures; check its name." in capsys.readouterr().err
    out = tmp_path / "out"
    blind = ["predict", str(proteins), "--out", str(out), "--structures", str(structures)]
    assert run(blind) == 2
    said = "Model 'deepgps-mini' uses no structures; leave --structures out."
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_models_info_tells_what_a_model_looks_at(command, capsys):
    assert run(["models", "info", command[3]]) == 0
    assert "structure:points, 64 atoms of the structure (--structures)" in capsys.readouterr().out
