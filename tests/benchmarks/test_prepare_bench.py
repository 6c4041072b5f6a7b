import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fields_are_of_opencells_format_and_the_same_each_time(bench):
    field = bench.draw_field(3)
    assert (field.shape, field.dtype) == ((2, 600, 600), np.uint16)
    np.testing.assert_array_equal(field, bench.draw_field(3))
    assert (field != bench.draw_field(4)).any()


@pytest.mark.slow
def test_what_is_measured_is_a_whole_run(bench, tmp_path):
    bench.write_fields(tmp_path, 3)
    found = bench.prepare_once(tmp_path, 3, 1)
    assert found["crops"] > 3 * 4
    assert min(found["speed"], found["cpu"], found["main"]) > 0
