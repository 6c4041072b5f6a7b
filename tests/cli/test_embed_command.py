"""``deepgps embed`` and ``deepgps encoders``, with a tiny ESM2."""

import json

import numpy as np
import polars as pl
import pytest

from deepgps.cli.app import run
from deepgps.errors import DeepGPSError
from deepgps.proteins.embedding import EncoderDescription, embed_sequences, prepared_encoder
from deepgps.training import embedding

SEQUENCES = {"a": "MKVLAAGIVGLCAKWDEYHR", "b": "ACDEFGHIKL" * 9, "c": "MKVLAAGIVG"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with `proteins.fasta` and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path / "cache"))
    lines = [f">{id}\n{sequence}\n" for id, sequence in SEQUENCES.items()]
    (tmp_path / "proteins.fasta").write_text("".join(lines))
    return tmp_path


@pytest.fixture(scope="module")
def encoder(tiny_esm2):
    from deepgps.models.esm2 import load_esm2

    return load_esm2(str(tiny_esm2), offline=True, precision="float32")


@pytest.fixture
def calls(monkeypatch):
    """Groups of sequences that were encoded."""
    real, seen = embedding.encode_group, []

    def counted(encoder, group, **how):
        seen.append(group)
        return real(encoder, group, **how)

    monkeypatch.setattr(embedding, "encode_group", counted)
    return seen


def embedded(tiny_esm2, *more):
    return run(["embed", *more, "--encoder", str(tiny_esm2), "--precision", "float32"])


def test_anndata_has_the_vectors(folder, tiny_esm2, capsys):
    anndata = pytest.importorskip("anndata")
    assert embedded(tiny_esm2, "proteins.fasta", "--out", "e.h5ad") == 0
    found = anndata.read_h5ad("e.h5ad")
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    table = pl.read_parquet("embeddings.parquet")
    np.testing.assert_array_equal(found.X, table["embedding"].to_numpy())
    assert list(found.obs_names) == table["protein_id"].to_list()
    assert list(found.obs["length"]) == table["length"].to_list()
    assert embedded(tiny_esm2, "proteins.fasta", "--level", "residue", "--out", "e.h5ad") == 2
    assert "residues do not fit into 'e.h5ad'" in capsys.readouterr().err


def test_proteins_become_a_table(folder, tiny_esm2, encoder, capsys):
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    table = pl.read_parquet("embeddings.parquet")
    assert table["protein_id"].to_list() == ["a", "b", "c"]
    assert table["length"].to_list() == [20, 90, 10]
    assert table["windows"].to_list() == [1, 2, 1]
    expected = np.stack(embed_sequences(list(SEQUENCES.values()), encoder))
    assert np.abs(table["embedding"].to_numpy() - expected).max() <= 1e-5
    made = json.loads(pl.read_parquet_metadata("embeddings.parquet")["deepgps"])
    assert made["encoder"]["fingerprint"] == encoder.fingerprint
    assert (made["encoder"]["precision"], made["level"]) == ("float32", "protein")
    said = capsys.readouterr().out
    assert "3 proteins, 3 computed" in said
    assert "1 of more than 60 residues were encoded in windows" in said


def test_residues_lie_beside_the_table(folder, tiny_esm2, encoder):
    assert embedded(tiny_esm2, "proteins.fasta", "--level", "residue", "--out", "some/residues.parquet") == 0
    assert "embedding" not in pl.read_parquet("some/residues.parquet").columns
    with np.load("some/residues.npz") as arrays:
        assert {id: arrays[id].shape for id in arrays} == {
            id: (len(sequence), 24) for id, sequence in SEQUENCES.items()
        }
        (expected,) = embed_sequences([SEQUENCES["b"]], encoder, level="residue")
        assert np.abs(arrays["b"] - expected).max() <= 1e-5


def test_nothing_is_computed_twice(folder, tiny_esm2, calls, capsys):
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    first = pl.read_parquet("embeddings.parquet")
    calls.clear()
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    assert calls == []
    assert "0 computed" in capsys.readouterr().out
    assert pl.read_parquet("embeddings.parquet").equals(first)
    (folder / "proteins.fasta").write_text(">a\nMKVLAAGIVGLCAKWDEYHR\n>d\nMMMMMMMMMMKK\n")
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    assert calls == [["MMMMMMMMMMKK"]]


@pytest.mark.slow
def test_what_a_kill_left_is_gone_on_with(folder, tiny_esm2, calls, monkeypatch):
    real, done = embedding.encode_group, []

    def breaks(*given, **how):
        if done:
            raise KeyboardInterrupt
        done.append(given)
        return real(*given, **how)

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "encode_group", breaks)
        assert embedded(tiny_esm2, "proteins.fasta", "--token-budget", "1") == 130
    assert not (folder / "embeddings.parquet").exists()
    calls.clear()
    assert embedded(tiny_esm2, "proteins.fasta", "--token-budget", "1") == 0
    assert sorted(map(len, sum(calls, []))) == [10, 20]  # noqa: RUF017


def test_another_precision_is_computed_anew(folder, tiny_esm2, calls):
    embedded(tiny_esm2, "proteins.fasta")
    run(["embed", "proteins.fasta", "--encoder", str(tiny_esm2), "--precision", "bfloat16"])
    assert sum(map(len, calls)) == 6


def test_a_cache_may_be_named(folder, tiny_esm2):
    assert embedded(tiny_esm2, "proteins.fasta", "--cache", "mine") == 0
    assert len(list((folder / "mine" / "embeddings").glob("tiny_esm2-*/*/*.npy"))) == 3
    assert not (folder / "cache").exists()


def test_records_that_cannot_be_used_are_listed(folder, tiny_esm2, capsys):
    (folder / "proteins.fasta").write_text(">a\nMKVLAAGIVGLCAKWDEYHR\n>bad\nMJMJMJMJMJMJ\n")
    assert embedded(tiny_esm2, "proteins.fasta") == 3
    assert "'bad' has 'J' at residue 2" in capsys.readouterr().err
    assert pl.read_csv("embeddings_rejected.csv")["id"].to_list() == ["bad"]
    assert pl.read_parquet("embeddings.parquet")["protein_id"].to_list() == ["a"]
    (folder / "proteins.fasta").write_text(">a\nMKVLAAGIVGLCAKWDEYHR\n")
    assert embedded(tiny_esm2, "proteins.fasta") == 0
    assert not (folder / "embeddings_rejected.csv").exists()


def write_store(path):
    path.mkdir()
    rows = {
        "protein_id": ["E1", "E1", "E2", "E3"],
        "gene_symbol": ["G1", "G1", None, "G3"],
        "sequence": [SEQUENCES["a"], SEQUENCES["a"], SEQUENCES["b"], None],
        "source": ["opencell", "hpa", "hpa", "hpa"],
    }
    pl.DataFrame(rows).write_parquet(path / "proteins.parquet")


@pytest.mark.parametrize("given", ["store", "store/proteins.parquet"])
def test_a_crop_store_and_its_table_are_read(folder, tiny_esm2, given, capsys):
    write_store(folder / "store")
    assert embedded(tiny_esm2, given) == 3
    assert "Protein 'E3' has no sequence" in capsys.readouterr().err
    table = pl.read_parquet("embeddings.parquet")
    assert table.select("protein_id", "gene_symbol").rows() == [("E1", "G1"), ("E2", None)]


def test_an_id_of_a_table_is_used_once(folder, tiny_esm2, capsys):
    write_store(folder / "store")
    (folder / "proteins.fasta").write_text(">E1\nMKVLAAGIVGLCAKWDEYHR\n>z\nMKVLAAGIVG\n")
    assert embedded(tiny_esm2, "proteins.fasta", "store") == 3
    assert "Id 'E1' is in 'store' too" in capsys.readouterr().err
    assert pl.read_parquet("embeddings.parquet")["protein_id"].to_list() == ["E1", "E2", "z"]


def test_the_hand_made_features_are_an_encoder(folder, capsys):
    from deepgps.proteins.features import sequence_features

    assert run(["embed", "proteins.fasta", "--encoder", "segments-1"]) == 0
    table = pl.read_parquet("embeddings.parquet")
    assert (table["embedding"].to_numpy()[1] == sequence_features(SEQUENCES["b"])).all()
    assert table["windows"].to_list() == [1, 1, 1]
    assert run(["embed", "proteins.fasta", "--encoder", "segments-1", "--level", "residue"]) == 2
    assert "has no vectors of residues" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("nothing.fasta",), "was not found"),
        (("no-store",), "'no-store/proteins.parquet' was not found"),
        (("broken.parquet",), "'broken.parquet' cannot be read as Parquet"),
        (("other.parquet",), "'other.parquet' has no column 'protein_id'"),
        (("proteins.fasta", "--out", "table.csv"), "'table.csv' does not end in .parquet"),
        (("proteins.fasta", "--scheduler", "tcp://127.0.0.1:9"), "cannot be reached"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, tiny_esm2, more, reason, capsys, monkeypatch):
    monkeypatch.setattr("deepgps.parallel._CONNECT_S", 0.5)
    (folder / "no-store").mkdir()
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    pl.DataFrame({"x": [1]}).write_parquet(folder / "other.parquet")
    assert embedded(tiny_esm2, *more) == 2
    assert reason in capsys.readouterr().err
    assert not (folder / "embeddings.parquet").exists()


def test_an_unknown_encoder_is_refused_with_the_nearest(folder, capsys):
    assert run(["embed", "proteins.fasta", "--encoder", "esm2_t30_150M"]) == 2
    assert "the nearest is 'esm2_t30_150M_UR50D'." in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_what_one_gives(folder, tiny_esm2):
    assert embedded(tiny_esm2, "proteins.fasta", "--cache", "one") == 0
    one = pl.read_parquet("embeddings.parquet")
    two = ("--cache", "two", "--workers", "2", "--token-budget", "60")
    assert embedded(tiny_esm2, "proteins.fasta", *two) == 0
    both = pl.read_parquet("embeddings.parquet")
    assert both.drop("embedding").equals(one.drop("embedding"))
    assert np.abs(both["embedding"].to_numpy() - one["embedding"].to_numpy()).max() <= 1e-5


@pytest.mark.slow
def test_a_dask_cluster_loads_the_encoder_once_a_worker(folder, tiny_esm2, encoder, monkeypatch):
    from distributed import LocalCluster

    import deepgps.models.esm2 as room

    loads, real = [], room.load_esm2
    monkeypatch.setattr(room, "load_esm2", lambda *given, **how: loads.append(given) or real(*given, **how))
    embedding._loaded.cache_clear()
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        more = ("--scheduler", cluster.scheduler_address, "--token-budget", "30")
        assert embedded(tiny_esm2, "proteins.fasta", *more) == 0
    assert len(loads) == 1
    expected = np.stack(embed_sequences(list(SEQUENCES.values()), encoder))
    found = pl.read_parquet("embeddings.parquet")["embedding"].to_numpy()
    assert np.abs(found - expected).max() <= 1e-5


def test_a_worker_with_other_weights_is_noticed():
    options = embedding.EmbeddingOptions("segments-1")
    identity = embedding._identify(options, 1, None)
    other = EncoderDescription("segments-1", "0" * 64, "float32", identity.dimension, identity.max_length)
    with pytest.raises(DeepGPSError, match="other weights of 'segments-1'"):
        list(embedding._encode_groups(options, other, 1, None, [["MKVLAAGIVG"]]))


@pytest.mark.parametrize("missing", ["transformers", "polars"])
def test_a_missing_package_is_named_with_the_extra(folder, tiny_esm2, missing, monkeypatch, capsys):
    import sys

    for name in [each for each in sys.modules if each.startswith("deepgps.models.esm2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "deepgps.training.embedding", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert embedded(tiny_esm2, "proteins.fasta") == 1
    assert f"needs '{missing}'" in (said := capsys.readouterr().err)
    assert "pip install 'deepgps[train]'" in said


@pytest.mark.slow
def test_encoders_are_prepared_and_listed(folder, tiny_esm2, monkeypatch, capsys):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(folder / "encoders"))
    assert run(["encoders", "list"]) == 0
    assert "No encoder is prepared" in capsys.readouterr().out
    assert run(["encoders", "prepare", str(tiny_esm2), "--offline"]) == 0
    assert "tiny_esm2 is in" in capsys.readouterr().out
    assert run(["encoders", "list"]) == 0
    name, fingerprint, dimension, _, where = capsys.readouterr().out.strip().split("\t")
    assert (name, dimension, where) == ("tiny_esm2", "24", str(folder / "encoders" / "tiny_esm2"))
    assert prepared_encoder("tiny_esm2").fingerprint.startswith(fingerprint)
    (folder / "encoders" / "tiny_esm2" / "encoder.onnx").unlink()
    assert run(["encoders", "list"]) == 0
    assert "tiny_esm2\tdamaged: " in capsys.readouterr().out
