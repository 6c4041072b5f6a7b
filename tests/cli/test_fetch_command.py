"""``deepgps data fetch``, as a user runs, repeats and kills it."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from deepgps.cli.app import run
from deepgps.datasets.fetch import download
from fake_sources import BUCKET, serving


@pytest.fixture(scope="module")
def running():
    with serving() as sources:
        yield sources


@pytest.fixture
def sources(running, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.chdir(tmp_path)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    running.forget()
    return running


OPENCELL = ["data", "fetch", "opencell", "--out", "raw", "--limit", "1"]


def images_of(sources, gene):
    return sorted(path for path in sources.files if f"{gene}_" in path and path.endswith("_proj.tif"))


def slow_fetch(sources, tmp_path):
    """A process that is in the middle of its first image."""
    for image in images_of(sources, "A-HYPHEN1"):
        sources.faults[image] = ["slow"]
    sources.piece_s = 0.3
    command = [sys.executable, "-c", "from deepgps.cli import main; main()", *OPENCELL]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    limit = time.monotonic() + 30
    while not any(path.stat().st_size for path in tmp_path.rglob("*_proj.tif.part")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    return process


def assert_goes_on(sources, tmp_path):
    """Half-written is nothing under its name; the same command ends with whole files."""
    assert not list(tmp_path.rglob("*_proj.tif"))
    sources.forget()
    assert run(OPENCELL) == 0
    images = images_of(sources, "A-HYPHEN1")
    assert any(asked.startswith("bytes=") for _, asked in sources.asked)
    for image in images:
        name = image.removeprefix(f"{BUCKET}/microscopy/raw/")
        assert (tmp_path / "raw" / "images" / name).read_bytes() == sources.files[image].body
    assert not list(tmp_path.rglob("*.part*"))
    with (tmp_path / "raw" / "fields.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(images)


def test_a_killed_fetch_goes_on(sources, tmp_path):
    process = slow_fetch(sources, tmp_path)
    process.kill()
    process.communicate()
    assert_goes_on(sources, tmp_path)


@pytest.mark.slow
def test_an_interrupted_fetch_ends_soon_says_so_and_goes_on(sources, tmp_path):
    process = slow_fetch(sources, tmp_path)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Finished work is kept: the same command continues." in said
    assert "Interrupted." in said
    assert "Traceback" not in said
    assert_goes_on(sources, tmp_path)


def test_a_second_fetch_at_the_same_time_is_refused(sources, tmp_path, capsys):
    process = slow_fetch(sources, tmp_path)
    try:
        assert run(OPENCELL) == 2
    finally:
        process.kill()
        process.communicate()
    assert "Another deepGPS process is writing to 'raw'" in capsys.readouterr().err


def test_a_summary_and_no_progress_bar_where_nobody_looks(sources, capsys):
    assert run(OPENCELL) == 0
    out, err = capsys.readouterr()
    assert (
        out.splitlines()[0] == "1 proteins, 2 fields: 4 files fetched (2.9 MB), 0 already there, 0 problems"
    )
    assert out.splitlines()[1:] == ["raw/fields.csv", "raw/annotations.csv", "raw/library.csv"]
    assert err == ""


def test_proteins_come_from_a_file(sources, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("gene_symbol\nZGOLG1\nNOPE\n")
    assert run(["data", "fetch", "opencell", "--out", "raw", "--proteins", "mine.csv"]) == 3
    out, err = capsys.readouterr()
    assert "1 proteins, 1 fields" in out
    assert "raw/problems.csv" in out
    assert "Unknown in the source: 'NOPE'." in err


def test_what_could_not_be_had_is_exit_code_one(sources, capsys):
    sources.faults[images_of(sources, "A-HYPHEN1")[0]] = ["500"] * 2
    assert run([*OPENCELL, "--retries", "1"]) == 1
    err = capsys.readouterr().err
    assert "status 500; retrying in 0 s" in err
    assert "1 files could not be fetched; the same command tries them again." in err
    assert run([*OPENCELL, "--retries", "1"]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_full_disk_is_a_sentence(sources, tmp_path, capsys):
    image = images_of(sources, "A-HYPHEN1")[0].removeprefix(f"{BUCKET}/microscopy/raw/")
    part = tmp_path / "raw" / "images" / f"{image}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    assert run(OPENCELL) == 1
    err = capsys.readouterr().err
    assert f"Cannot read or write 'raw/images/{image}.part': No space left on device." in err
    assert not (part.parent / part.stem).exists()
    part.unlink()
    assert run(OPENCELL) == 0


def test_the_atlas_structures_and_sequences(sources, capsys):
    assert run(["data", "fetch", "hpa", "--out", "hpa", "--limit", "1"]) == 0
    assert run(["data", "fetch", "structures", "hpa/fields.csv", "--out", "raw"]) == 0
    assert run(["data", "fetch", "sequences", "hpa/fields.csv", "P09000", "--out", "raw"]) == 0
    out = capsys.readouterr().out
    assert "hpa/xml/\n" in out
    assert "raw/structures.csv" in out
    assert "2 proteins: 2 files fetched" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["structures", "--out", "raw"], "Nothing to fetch"),
        (["sequences", "TP53", "--out", "raw"], "'TP53' is not a UniProt accession"),
        (["opencell", "--out", "raw", "--bucket", "s3://x"], "'s3://x' is not a web address"),
        (["hpa", "--out", "raw", "--proteins", "none.csv"], "was not found"),
    ],
)
def test_bad_usage_is_refused_before_anything_is_made(sources, tmp_path, capsys, arguments, said):
    assert run(["data", "fetch", *arguments]) in {1, 2}
    assert said in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()
    assert sources.asked == []


def test_a_server_that_is_not_there_is_a_sentence(sources, capsys):
    assert run([*OPENCELL, "--portal", "http://127.0.0.1:9", "--retries", "1"]) == 1
    assert "could not be fetched in 2 attempts (no connection)" in capsys.readouterr().err
