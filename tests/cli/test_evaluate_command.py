import pytest

from deepgps.cli.app import run
from evaluated_store import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("command") / "store", train=2)


@pytest.mark.slow
def test_a_model_is_evaluated_by_command(tiny_bundle, store, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["evaluate", str(tiny_bundle.path), "--data", str(store), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "4 proteins, 6 crops evaluated" in said
    assert "Warning: The model carries no index" in said
    assert (out / "report.html").exists()


def test_and_crossed(tiny_bundle, store, tmp_path, capsys):
    command = ["evaluate", "cross", str(tiny_bundle.path), "--data", str(store), "--out", str(tmp_path)]
    assert run([*command, "--nuclei", "2", "--sequences", "2"]) == 0
    said = capsys.readouterr().out
    assert "intranuclear fraction: nucleus" in said
    assert (tmp_path / "grid.png").exists()


def test_data_that_are_not_there_are_an_input_error(tiny_bundle, tmp_path, capsys):
    assert run(["evaluate", str(tiny_bundle.path), "--data", str(tmp_path / "none.csv")]) == 2
    assert "was not found" in capsys.readouterr().err
