import json

import numpy as np
import polars as pl
import pytest

from deepgps.cli.app import run
from deepgps.datasets.crops.store import write_crops
from deepgps.datasets.splits import read_split
from deepgps.errors import InputError


@pytest.fixture
def proteins(tmp_path):
    path = tmp_path / "proteins.parquet"
    rows = [(f"E{i}", "er" if i % 3 else "golgi", i // 2) for i in range(60)]
    pl.DataFrame(rows, schema=["protein_id", "localizations", "cluster"], orient="row").write_parquet(path)
    return path


def test_the_command_splits_a_table(proteins, tmp_path, capsys):
    out = tmp_path / "new" / "split.csv"
    assert run(["data", "split", str(proteins), "--by", "cluster", "--seed", "3", "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "protein_id,split"
    assert lines[1:] == sorted(lines[1:])
    assert len(read_split(out)) == 60
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert table["proteins"][3] == "60"
    manifest = json.loads((tmp_path / "new" / "split.manifest.json").read_text())
    assert (manifest["by"], manifest["seed"], list(manifest["inputs"])) == (
        "cluster",
        3,
        ["proteins.parquet"],
    )
    assert manifest["proteins"]["er"]["train"] == int(table["er"][0])


def test_the_command_splits_a_crop_store_by_its_proteins(tmp_path, capsys):
    store = tmp_path / "store"
    rows = [{"protein_id": f"E{i // 5}" if i < 95 else None, "localizations": "er"} for i in range(100)]
    write_crops(store, (np.zeros((2, 8, 8), np.uint8) for _ in rows), rows, {})
    out = tmp_path / "split.csv"
    assert run(["data", "split", str(store), "--out", str(out)]) == 0
    assert set(read_split(out)) == {f"E{i}" for i in range(19)}
    output = capsys.readouterr().out
    assert "5 rows without a 'protein_id' are in no part." in output
    crops = next(line.split() for line in output.splitlines() if line.startswith("crops"))
    proteins = next(line.split() for line in output.splitlines() if line.startswith("proteins"))
    assert [int(each) for each in crops[1:5]] == [5 * int(each) for each in proteins[1:5]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "was not found"),
        (lambda path: path.write_text("protein_id\n"), "not a Parquet table"),
        (lambda path: path.mkdir(), "not a complete crop store"),
    ],
)
def test_another_file_than_a_table_is_refused(tmp_path, capsys, make, message):
    make(tmp_path / "x")
    assert run(["data", "split", str(tmp_path / "x"), "--out", str(tmp_path / "s.csv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("protein,split\nA,train\n", "not a split"),
        ("protein_id,split\nA,train\nB,training\n", "Line 3"),
        ("protein_id,split\nA,train\nA,test\n", "'A' is in two splits"),
    ],
)
def test_an_invalid_split_is_refused(tmp_path, text, message):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_split(path)


def test_a_missing_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="data split"):
        read_split(tmp_path / "split.csv")
