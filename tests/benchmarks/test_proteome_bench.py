import importlib.util
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "proteome.py"
    spec = importlib.util.spec_from_file_location("proteome_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_memory_is_that_of_all_processes(bench):
    code = "import sys; held = bytearray(50_000_000); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    alone = bench.memory_mib(os.getpid())
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in bench.tree(os.getpid())
        assert bench.memory_mib(os.getpid()) > alone + 40
        assert 45 < bench.memory_mib(child.pid) < 90
        child.communicate()


def test_proteins_are_real_and_their_names_are_used_once(bench, shared_data):
    some = list(islice(bench.sequences(), 30_000))
    assert len({name for name, _ in some}) == 30_000
    assert some[0][1] == some[28_090][1]
