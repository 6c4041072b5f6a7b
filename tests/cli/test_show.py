from PIL import Image

from deepgps.cli.app import run
from deepgps.images.cell import DEFAULT_CELLS


def test_models_are_listed_with_version_and_place(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setenv("DEEPGPS_MODELS", str(tiny_bundle.path.parent))
    assert run(["models", "list"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny\t"))
    assert line.split("\t") == ["tiny", "0.0.1", "12 classes", str(tiny_bundle.path)]


def test_a_damaged_model_is_listed_as_such(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/bundle.json").write_text("{")
    monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path))
    assert run(["models", "list"]) == 0
    assert "broken\tdamaged\t" in capsys.readouterr().out


def test_info_shows_classes_quality_with_intervals_and_data(tiny_bundle, capsys):
    assert run(["models", "info", str(tiny_bundle.path)]) == 0
    out = capsys.readouterr().out
    for said in (
        "tiny 0.0.1",
        "mitochondria",
        "nothing  0.500 [0.400, 0.600]    3\n",
        "random weights",
        tiny_bundle.sha256,
    ):
        assert said in out


def test_info_of_an_unknown_model_ends_with_2(capsys):
    assert run(["models", "info", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_nuclei_are_listed_and_drawn(tmp_path, capsys):
    sheet = tmp_path / "nuclei.png"
    assert run(["nuclei", "list", "--out", str(sheet)]) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*DEFAULT_CELLS, str(sheet)]
    with Image.open(sheet) as image:
        assert image.width > 800
