import os
import signal
import time

import pytest

from deepgps.errors import InputError
from deepgps.parallel import WorkerDiedError, cores, parallel_map


def square(number):
    time.sleep(0.02 if number == 0 else 0)
    return number * number


def deadly(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def deadly_once(path):
    """Dies the first time that it sees a file, and knows by the file that it did."""
    if path.exists():
        path.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def who(_):
    return os.getpid()


def fails(number):
    raise ValueError(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_the_order_of_the_items(workers):
    assert list(parallel_map(square, range(20), workers=workers)) == [n * n for n in range(20)]


def test_one_worker_is_this_process_and_more_are_others():
    assert set(parallel_map(who, range(3), workers=1)) == {os.getpid()}
    assert os.getpid() not in set(parallel_map(who, range(3), workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_taken_as_they_are_needed(workers):
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = parallel_map(square, items(), workers=workers)
    assert next(results) == 0
    results.close() if workers > 1 else None
    assert len(taken) <= 8


@pytest.mark.slow
def test_an_item_that_kills_its_worker_is_named_and_the_others_go_on():
    results = list(parallel_map(deadly, range(8), workers=2))
    assert isinstance(results.pop(3), WorkerDiedError)
    assert results == [n * n for n in range(8) if n != 3]


@pytest.mark.slow
def test_a_worker_that_dies_once_loses_nothing(tmp_path):
    paths = [tmp_path / str(number) for number in range(6)]
    paths[2].touch()
    assert list(parallel_map(deadly_once, paths, workers=2)) == [path.name for path in paths]


def test_errors_of_the_function_are_the_callers():
    with pytest.raises(ValueError, match="0"):
        list(parallel_map(fails, range(3), workers=2))


def test_no_workers_are_refused():
    with pytest.raises(InputError, match="give 1 or more"):
        parallel_map(square, [1], workers=0)


def test_a_scheduler_that_is_not_there_is_refused(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("deepgps.parallel._CONNECT_S", 0.5)
    with pytest.raises(InputError, match="cannot be reached"):
        list(parallel_map(square, [1], scheduler="tcp://127.0.0.1:9"))


def test_cores_are_counted():
    assert 1 <= cores() <= (os.cpu_count() or 1)
