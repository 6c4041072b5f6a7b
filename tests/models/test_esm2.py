"""A tiny ESM2 of random weights, loaded by the code that loads the real ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deepgps.errors import InputError
from deepgps.models.esm2 import NAMES, canonical_name, load_esm2, resolve_precision
from deepgps.proteins.embedding import embed_sequences, tokenize

RESIDUES = "ACDEFGHIKLMNPQRSTVWYXUBZO"


@pytest.fixture(scope="module")
def encoder(tiny_esm2):
    return load_esm2(str(tiny_esm2), offline=True, precision="float32")


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(1)
    return ["".join(rng.choice(list(RESIDUES), length)) for length in (1, 5, 59, 60, 61, 33, 200, 34)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def add_to_hub_cache(hub: Path, name: str, source: Path) -> None:
    """Store a model in the cache of the hub, as a download does."""
    folder = hub / f"models--facebook--{name}"
    shutil.copytree(source, folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")


def test_the_encoder_says_what_it_is(encoder):
    assert (encoder.name, encoder.precision, encoder.dimension) == ("tiny_esm2", "float32", 24)
    assert encoder.max_length == 60
    assert len(encoder.fingerprint) == 64


@pytest.mark.parametrize("level", ["protein", "residue"])
def test_padded_unpadded_batched_and_single_runs_agree(encoder, sequences, level):
    batched = embed_sequences(sequences, encoder, level=level)
    single = embed_sequences(sequences, encoder, level=level, token_budget=1)
    alone = [embed_sequences([sequence], encoder, level=level)[0] for sequence in sequences]
    backwards = embed_sequences(sequences[::-1], encoder, level=level, token_budget=150)[::-1]
    for others in (single, alone, backwards):
        for one, other in zip(batched, others, strict=True):
            assert np.abs(one - other).max() <= 1e-5


def test_padding_to_any_length_changes_nothing(encoder):
    tokens, mask = tokenize(["MKVLAAGIVG"])
    wide_tokens, wide_mask = tokenize(["MKVLAAGIVG", "A" * 60])
    plain, padded = encoder(tokens, mask)[0], encoder(wide_tokens, wide_mask)[0]
    assert np.abs(plain - padded[: len(plain)]).max() <= 1e-5


def test_the_vectors_are_those_of_transformers_as_it_is_documented(encoder, tiny_esm2):
    from transformers import EsmModel

    tokens, mask = tokenize(["MKVLAAGIVG", "MKV"])
    model = EsmModel.from_pretrained(tiny_esm2, add_pooling_layer=False).eval()
    with torch.no_grad():
        states = model(torch.from_numpy(tokens), torch.from_numpy(mask).long()).last_hidden_state.numpy()
    protein = embed_sequences(["MKVLAAGIVG", "MKV"], encoder)
    assert np.abs(protein[0] - states[0, 1:11].mean(0)).max() <= 1e-5
    assert np.abs(protein[1] - states[1, 1:4].mean(0)).max() <= 1e-5


def test_a_residue_depends_on_the_others(encoder):
    one, other = embed_sequences(["MKVLAAGIVG", "MKVLAAGIVW"], encoder, level="residue")
    assert np.abs(one[0] - other[0]).max() > 1e-3


def test_bfloat16_is_near(encoder, tiny_esm2, sequences):
    bfloat16 = load_esm2(str(tiny_esm2), offline=True, precision="bfloat16")
    assert bfloat16.fingerprint == encoder.fingerprint
    pairs = zip(embed_sequences(sequences, encoder), embed_sequences(sequences, bfloat16), strict=True)
    differences = [np.abs(one - other).max() for one, other in pairs]
    assert 0 < max(differences) < 0.1


def test_auto_is_bfloat16_only_where_the_machine_has_units_for_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for amx, avx, expected in (
        (True, True, "bfloat16"),
        (False, True, "bfloat16"),
        (False, False, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert resolve_precision("auto") == expected
    assert resolve_precision("float32") == "float32"


@pytest.mark.parametrize("name", NAMES)
def test_the_names_are_understood_short_and_long(name):
    short = name.removeprefix("esm2_").removesuffix("_UR50D")
    assert canonical_name(name) == canonical_name(f"facebook/{name}") == canonical_name(short) == name


@pytest.mark.parametrize("name", ["esm2_t30_150M_UR50D", "facebook/esm2_t30_150M_UR50D", "t30_150M"])
def test_a_name_is_found_in_the_cache_of_the_hub(name, hub, tiny_esm2, encoder):
    add_to_hub_cache(hub, "esm2_t30_150M_UR50D", tiny_esm2)
    found = load_esm2(name, offline=True, precision="float32")
    assert found.name == "esm2_t30_150M_UR50D"
    assert found.fingerprint == encoder.fingerprint


def test_offline_and_not_in_the_cache_is_refused(hub):
    with pytest.raises(InputError, match=r"Offline, and 'facebook/esm2_t6_8M_UR50D' is not in"):
        load_esm2("t6_8M", offline=True)


def test_a_hub_that_cannot_be_reached_is_refused(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # it is asked several times
    with pytest.raises(InputError, match="cannot be fetched"):
        load_esm2("t6_8M")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"the nearest is 'esm2_t33_650M_UR50D'\."):
        load_esm2("esm2_t33_650M")


@pytest.mark.parametrize("angles", [True, False])
def test_weights_as_they_are_published_are_the_same(tiny_esm2, encoder, tmp_path, angles):
    # The network under `esm.`, a head for masked residues, tables that rotary positions have no use for, and
    # in older files the angles of each layer.
    angle = "encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"
    found = load_file(tiny_esm2 / "model.safetensors")
    weights = {f"esm.{name}": tensor for name, tensor in found.items() if not name.endswith("inv_freq")}
    weights |= {"lm_head.dense.weight": torch.zeros(24, 24), "lm_head.bias": torch.zeros(33)}
    weights |= {"esm.embeddings.position_embeddings.weight": torch.zeros(64, 24)}
    if angles:
        weights |= {f"esm.{angle.format(i)}": 1 / 10000 ** (torch.arange(0, 8, 2) / 8) for i in range(2)}
    shutil.copy(tiny_esm2 / "config.json", tmp_path)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_esm2(str(tmp_path), offline=True, precision="float32")
    assert loaded.fingerprint == encoder.fingerprint
    assert (embed_sequences(["MKVLAAGIVG"], loaded)[0] == embed_sequences(["MKVLAAGIVG"], encoder)[0]).all()


def test_other_weights_and_other_settings_have_another_fingerprint(tiny_esm2, encoder, tmp_path):
    weights = load_file(tiny_esm2 / "model.safetensors")
    shutil.copytree(tiny_esm2, tmp_path / "weights")
    weights["encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(weights, tmp_path / "weights" / "model.safetensors", {"format": "pt"})
    shutil.copytree(tiny_esm2, tmp_path / "settings")
    config = json.loads((tiny_esm2 / "config.json").read_text())
    (tmp_path / "settings" / "config.json").write_text(json.dumps({**config, "token_dropout": False}))
    found = {load_esm2(str(tmp_path / name)).fingerprint for name in ("weights", "settings")}
    assert len(found | {encoder.fingerprint}) == 3


def test_a_folder_that_lacks_weights_is_refused(tiny_esm2, tmp_path):
    weights = load_file(tiny_esm2 / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    shutil.copy(tiny_esm2 / "config.json", tmp_path)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights, such as 'encoder.layer.1.output.dense.weight'"):
        load_esm2(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tiny_esm2, tmp_path):
    with pytest.raises(InputError, match="is no ESM2"):
        load_esm2(str(tmp_path))
    shutil.copytree(tiny_esm2, tmp_path / "bert")
    config = json.loads((tiny_esm2 / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(InputError, match="is no ESM2"):
        load_esm2(str(tmp_path / "bert"))


def test_a_damaged_file_of_weights_is_refused(tiny_esm2, tmp_path):
    shutil.copytree(tiny_esm2, tmp_path / "truncated")
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read as an ESM2"):
        load_esm2(str(tmp_path / "truncated"))
