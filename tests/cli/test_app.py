import os
import subprocess
import sys

import pytest

from deepgps import __version__
from deepgps.bundle import write_bundle
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


SEQUENCE = "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(100)])
@pytest.mark.parametrize("name", ["encoder.onnx", "generator.onnx"])
def test_a_graph_that_is_none_is_a_sentence(tiny_bundle, tmp_path, capsys, name, content):
    files = {each: tiny_bundle.read(each) for each in tiny_bundle.metadata.files}
    fields = tiny_bundle.metadata.model_dump(mode="json", exclude={"schema_version", "files"})
    broken = write_bundle(tmp_path / "broken", fields, {**files, name: content})
    out = str(tmp_path / "out")
    assert run(["predict", "--sequence", SEQUENCE, "--model", str(broken.path), "--out", out]) == 2
    assert "A graph of the model cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), ImportError("x.so")]
)
def test_too_little_memory_is_a_sentence(monkeypatch, capsys, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(cli, "app", failing)
    assert run(["models", "list"]) == 1
    assert "memory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
# At some limits between these, OpenBLAS never gives up asking for memory while it is loaded.
@pytest.mark.parametrize("megabytes", [150, 300, 600])
def test_a_machine_with_too_little_memory_gets_no_traceback(tmp_path, megabytes):
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({megabytes}_000_000,) * 2)\n"
        "from deepgps.cli.app import run\n"
        f"raise SystemExit(run(['predict', '--sequence', '{SEQUENCE}', '--out', 'out']))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 1
    assert "too little memory" in done.stderr
    assert "Traceback" not in done.stderr
