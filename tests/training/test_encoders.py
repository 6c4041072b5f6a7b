"""Encoders prepared for prediction without torch."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from deepgps.errors import DeepGPSError, InputError
from deepgps.models.esm2 import load_esm2
from deepgps.proteins.embedding import embed_sequences, list_encoders, prepared_encoder, read_info
from deepgps.training import encoders
from deepgps.training.encoders import prepare_encoder

pytestmark = pytest.mark.slow

SEQUENCES = ["MKVLAAGIVGLCAKWDEYHR", "MKV", "ACDEFGHIKL" * 20]


@pytest.fixture(scope="module")
def prepared(tiny_esm2, tmp_path_factory):
    """The folder that `DEEPGPS_ENCODERS` names, with the tiny encoder in it."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPGPS_ENCODERS", str(folder))
        prepare_encoder(str(tiny_esm2), offline=True)
    return folder


@pytest.fixture
def home(prepared, monkeypatch):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(prepared))
    return prepared


@pytest.fixture
def quick_export(prepared, monkeypatch):
    """Exports copy the graph that is there: one takes ten seconds."""
    monkeypatch.setattr(encoders, "_export", lambda _, path: copy_graph(prepared, path))


def copy_graph(prepared, path):
    for file in (prepared / "tiny_esm2").glob("encoder.onnx*"):
        shutil.copy(file, path.parent)


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("level", ["protein", "residue"])
def test_it_answers_as_the_torch_module_does(home, tiny_esm2, level):
    torch_one = load_esm2(str(tiny_esm2), offline=True, precision="float32")
    graph = prepared_encoder("tiny_esm2", torch_one.fingerprint, threads=1)
    pairs = zip(
        embed_sequences(SEQUENCES, torch_one, level=level),
        embed_sequences(SEQUENCES, graph, level=level),
        strict=True,
    )
    assert max(np.abs(one - other).max() for one, other in pairs) <= 1e-5
    assert (graph.dimension, graph.max_length, graph.precision) == (24, 60, "float32")


def test_it_needs_no_torch(home):
    code = """
        import sys
        from deepgps.proteins.embedding import embed_sequences, prepared_encoder
        embed_sequences(["MKVLAAGIVG"], prepared_encoder("tiny_esm2"))
        assert not {"torch", "transformers", "polars"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_weights_lie_beside_the_graph(home):
    info = read_info(home / "tiny_esm2")
    assert set(info.files) == {"encoder.onnx", "encoder.onnx.data"}
    assert 0 <= info.parity <= 1e-4


def test_one_that_is_not_there_is_refused_with_the_command(empty_home):
    with pytest.raises(InputError, match=r"not prepared .*'deepgps encoders prepare esm2_t6_8M_UR50D'"):
        prepared_encoder("esm2_t6_8M_UR50D")


def test_one_of_other_weights_is_refused(home):
    with pytest.raises(InputError, match=r"has other weights .* than the model was trained with \(0000"):
        prepared_encoder("tiny_esm2", "0" * 64)


@pytest.mark.parametrize("file", ["encoder.onnx", "encoder.onnx.data", "encoder.json"])
def test_a_torn_one_is_refused(prepared, empty_home, file):
    (empty_home / "tiny_esm2").mkdir()
    for path in (prepared / "tiny_esm2").iterdir():
        content = path.read_bytes()
        (empty_home / "tiny_esm2" / path.name).write_bytes(content[:-7] if path.name == file else content)
    with pytest.raises(InputError, match="'deepgps encoders prepare tiny_esm2' again"):
        prepared_encoder("tiny_esm2")
    assert "prepare tiny_esm2' again" in str(list_encoders()[0][1])


def test_a_graph_that_answers_otherwise_is_not_kept(quick_export, empty_home, tiny_esm2, monkeypatch):
    monkeypatch.setattr(encoders, "TOLERANCE", -1.0)
    with pytest.raises(DeepGPSError, match="differs from the network by"):
        prepare_encoder(str(tiny_esm2), offline=True)
    assert list_encoders() == []
    assert [path.name for path in empty_home.iterdir()] == [".deepgps.lock"]


KILLED = """
    import os, pathlib, shutil, signal, sys
    from deepgps.training import encoders
    def export(_, path):
        for file in pathlib.Path(sys.argv[2]).glob("encoder.onnx*"):
            shutil.copy(file, path.parent)
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    encoders._export, encoders._parity = export, die
    encoders.prepare_encoder(sys.argv[1], offline=True)
"""


def test_a_kill_leaves_no_half_encoder(quick_export, prepared, empty_home, tiny_esm2):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tiny_esm2), str(prepared / "tiny_esm2")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    left = [path for path in empty_home.iterdir() if path.is_dir()]
    assert len(left) == 1
    assert list_encoders() == []
    folder, info = prepare_encoder(str(tiny_esm2), offline=True)
    assert [path for path in empty_home.iterdir() if path.is_dir()] == [folder]
    assert json.loads((folder / "encoder.json").read_text())["fingerprint"] == info.fingerprint


def test_one_that_is_there_is_replaced(quick_export, home, tiny_esm2):
    (home / "tiny_esm2" / "stray").touch()
    folder, _ = prepare_encoder(str(tiny_esm2), offline=True)
    assert not (folder / "stray").exists()
    assert prepared_encoder("tiny_esm2").dimension == 24
    assert [name for name, _ in list_encoders()] == ["tiny_esm2"]
