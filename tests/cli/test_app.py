import subprocess
import sys

import pytest

from deepgps import __version__
from deepgps.cli import app as cli
from deepgps.cli.app import run


def loaded_by(*tokens):
    """Modules that a command loads in a process of its own."""
    code = (
        "import sys\n"
        "from deepgps.cli.app import run\n"
        f"code = run({list(tokens)!r})\n"
        "print('LOADED', code, *sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return int(last[1]), set(last[2:])


HEAVY = {"torch", "lightning", "onnxruntime", "numpy", "pydantic", "scipy", "skimage", "biotite", "PIL"}


@pytest.mark.parametrize("tokens", [["--help"], ["predict", "--help"], ["models", "--help"], ["--version"]])
def test_help_is_light(tokens):
    code, modules = loaded_by(*tokens)
    assert code == 0
    assert not modules & HEAVY


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "tokens",
    [
        ["nonsense"],
        ["predict", "--nonsense"],
        ["predict", "-x", "file"],
        ["predict", "x.fa", "--threads", "many"],
        ["models", "info"],
    ],
)
def test_usage_errors_end_with_2_and_a_word(tokens, capsys):
    assert run(tokens) == 2
    assert capsys.readouterr().err.strip()


def test_a_missing_extra_is_named_with_the_remedy(monkeypatch, capsys):
    def needs_torch(*_, **__):
        raise ImportError("cannot import") from ModuleNotFoundError(
            "No module named 'torch'", name="torch.nn"
        )

    monkeypatch.setattr(cli, "app", needs_torch)
    assert run(["train", "mini"]) == 1
    assert "pip install 'deepgps[train]'" in capsys.readouterr().err


def test_an_import_error_of_our_own_is_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise ModuleNotFoundError("No module named 'deepgps.nonsense'", name="deepgps.nonsense")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ModuleNotFoundError):
        run(["train"])


def test_failures_of_the_system_are_a_sentence(monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "out/results.csv")

    monkeypatch.setattr(cli, "app", full)
    assert run(["predict"]) == 1
    assert capsys.readouterr().err == (
        "deepgps: Cannot read or write 'out/results.csv': No space left on device.\n"
    )


def test_a_reader_that_goes_away_is_no_traceback():
    done = subprocess.run(
        f"{sys.executable} -c 'from deepgps.cli import main; main()' --help | true",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
