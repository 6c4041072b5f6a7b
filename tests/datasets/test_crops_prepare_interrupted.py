"""`deepgps data prepare` killed, out of disk, out of rights, out of workers."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from deepgps.cli.app import _fail
from deepgps.datasets.crops.prepare import prepare_fields
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.datasets.crops.store import CropStoreWriter, open_crops
from prepared_fields import RULES, SIZE, UM, write_fields

pytestmark = pytest.mark.slow

FIELDS = 24


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    write_fields(folder, FIELDS)
    return folder


@pytest.fixture(scope="module")
def complete_store(fields):
    settings = PrepareSettings(size_px=SIZE, pixel_size_um=UM)
    prepare_fields(fields / "fields.csv", fields / "proteins.parquet", fields / "store", settings, workers=1)
    return content(fields / "store")


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != ".deepgps.lock"}


def command(fields: Path, out: Path, *options: str) -> list[str]:
    tokens = [str(fields / "fields.csv"), "--proteins", str(fields / "proteins.parquet"), "--out", str(out)]
    run = "import sys; from deepgps.cli.app import run; sys.exit(run(sys.argv[1:]))"
    return [sys.executable, "-c", run, "data", "prepare", *tokens, *RULES, *options]


def start(*arguments, **options) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), **pipes, **options)


def journal(out: Path) -> int:
    path = out / ".deepgps-fields.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in /proc")


@linux
def test_a_killed_run_is_resumed_and_leaves_no_worker(fields, complete_store, tmp_path):
    process = start(fields, tmp_path, "--workers", "2")
    wait_until(lambda: journal(tmp_path) >= 3, process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert workers
    assert 3 <= journal(tmp_path) < FIELDS
    end = time.monotonic() + 20
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers)
    again = start(fields, tmp_path, "--workers", "1")
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert "by an earlier run" in out
    assert content(tmp_path) == complete_store


@linux
def test_a_killed_worker_neither_loses_nor_repeats_crops(fields, complete_store, tmp_path):
    process = start(fields, tmp_path, "--workers", "2")
    wait_until(lambda: journal(tmp_path) >= 2, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert content(tmp_path) == complete_store


def test_an_interrupted_run_says_how_to_resume(fields, complete_store, tmp_path):
    process = start(fields, tmp_path, "--workers", "2")
    wait_until(lambda: journal(tmp_path) >= 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines() == ["Finished work is kept: the same command continues.", "deepgps: Interrupted."]


def test_a_full_disk_gives_a_message_and_loses_nothing(fields, complete_store, tmp_path):
    # A limit on the size of a file is as good as a disk's: a write stops in the middle.
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = start(fields, tmp_path, "--workers", "1", preexec_fn=limit)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "Cannot read or write" in err
    assert "crops.npy" in err
    assert "Finished work is kept: the same command continues." in err
    assert 5 < journal(tmp_path) < FIELDS
    again = start(fields, tmp_path, "--workers", "1")
    assert again.wait() == 0
    assert content(tmp_path) == complete_store


def test_a_disk_that_fills_up_at_the_end_loses_nothing(fields, complete_store, tmp_path, monkeypatch):
    import polars as pl

    def full(self, path, *_, **__):
        Path(path).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device", str(path))

    arguments = (fields / "fields.csv", fields / "proteins.parquet", tmp_path)
    settings = PrepareSettings(size_px=SIZE, pixel_size_um=UM)
    with monkeypatch.context() as patch:
        patch.setattr(pl.LazyFrame, "sink_parquet", full)
        with pytest.raises(OSError, match="No space left"):
            prepare_fields(*arguments, settings, workers=1)
    assert prepare_fields(*arguments, settings, workers=1).resumed == FIELDS
    assert content(tmp_path) == complete_store


@pytest.mark.skipif(sys.platform == "win32", reason="rights are different there")
def test_a_read_only_folder_gives_a_message(capsys):
    # Root may write anywhere: somebody else tries.
    me, nobody = os.geteuid(), 65534
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        os.seteuid(nobody if me == 0 else me)
        try:
            with pytest.raises(OSError, match="Permission denied") as caught:
                CropStoreWriter(Path(folder) / "store", {})
            with pytest.raises(OSError, match="Permission denied"):
                CropStoreWriter(Path(folder), {})
        finally:
            os.seteuid(me)
        assert list(Path(folder).iterdir()) == []
        Path(folder).chmod(0o755)
    assert _fail(caught.value) == 1
    said = f"deepgps: Cannot read or write '{Path(folder) / 'store'}': Permission denied.\n"
    assert capsys.readouterr().err == said


def test_two_simultaneous_runs_in_one_folder(fields, complete_store, tmp_path):
    first = start(fields, tmp_path, "--workers", "1")
    wait_until(lambda: journal(tmp_path) >= 1, first)
    first.send_signal(signal.SIGSTOP)
    second = start(fields, tmp_path, "--workers", "1")
    _, err = second.communicate()
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert (
        err.rstrip()
        == f"deepgps: Another deepGPS process is writing to '{tmp_path}'; wait for it, or use another --out."
    )
    assert first.wait() == 0
    assert content(tmp_path) == complete_store


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(2, **options, silence_logs=50) as cluster:
        yield cluster


def test_a_cluster_gives_the_same_store(cluster, fields, complete_store, tmp_path):
    settings = PrepareSettings(size_px=SIZE, pixel_size_um=UM)
    killed = []

    def kill_a_worker(*_):
        if not killed:
            killed.append(next(iter(cluster.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)

    done = prepare_fields(
        fields / "fields.csv",
        fields / "proteins.parquet",
        tmp_path,
        settings,
        scheduler=cluster.scheduler_address,
        on_field=kill_a_worker,
    )
    assert killed
    assert done.fields == FIELDS
    assert content(tmp_path) == complete_store
    assert len(open_crops(tmp_path).index) == 2 * FIELDS
