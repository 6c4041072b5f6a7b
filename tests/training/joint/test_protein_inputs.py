import numpy as np
import pytest
import torch

from deepgps.errors import InputError
from deepgps.models.esm2 import load_esm2
from deepgps.proteins.embedding import embed_sequences
from deepgps.proteins.features import RESIDUE_DIMENSION, residue_features, sequence_features
from deepgps.training.joint.data import load_training_data
from deepgps.training.joint.protein_inputs import protein_inputs
from deepgps.training.joint.task import build_model
from joint_store import proteins, recipe, write_store
from structure_files import helix, pdb, save

PER_RESIDUE = {"model": {"widths": [4, 8], "latent_dim": 8, "heads": 2, "fusion": "per_residue"}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), proteins())


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    for number, row in enumerate(proteins()):
        save(folder / f"{row['accession']}.pdb", pdb(helix(["ALA", "LYS", "ARG"] * (number + 2))))
    return folder


def test_hand_made_features_need_no_weights(store):
    data = load_training_data(recipe(), store)
    inputs = protein_inputs(recipe(), data)
    assert inputs.spec == {
        "name": "segments-1",
        "kind": "features",
        "fingerprint": None,
        "max_length": 5000,
        "dimension": inputs.embedding_dim,
    }
    batch = inputs.batch(np.array([3, 0, 3]))
    assert set(batch) == {"embedding"}
    expected = np.stack([sequence_features(data.sequences[number]) for number in (3, 0, 3)])
    np.testing.assert_array_equal(batch["embedding"], expected)


def test_residues_are_padded_and_masked(store):
    settings = recipe(protein={"encoder": "residues-1"}, **PER_RESIDUE)
    data = load_training_data(settings, store)
    inputs = protein_inputs(settings, data)
    assert inputs.embedding_dim == RESIDUE_DIMENSION
    batch = inputs.batch(torch.tensor([0, 4]))
    lengths = [len(data.sequences[number]) for number in (0, 4)]
    assert batch["residues"].shape == (2, max(lengths), RESIDUE_DIMENSION)
    assert batch["mask"].dtype == torch.bool
    assert batch["mask"].sum(1).tolist() == lengths
    np.testing.assert_array_equal(batch["residues"][0, : lengths[0]], residue_features(data.sequences[0]))
    assert not batch["residues"][0, lengths[0] :].any()


@pytest.mark.parametrize("fusion", ["residual", "per_residue"])
def test_a_language_model_is_asked_once_for_each_sequence(store, tiny_esm2, tmp_path, fusion, monkeypatch):
    network = {"widths": [4, 8], "latent_dim": 8, "heads": 2, "fusion": fusion}
    settings = recipe(protein={"encoder": str(tiny_esm2)}, model=network)
    data = load_training_data(settings, store)
    inputs = protein_inputs(settings, data, cache=tmp_path, offline=True)
    encoder = load_esm2(str(tiny_esm2), offline=True)
    assert inputs.spec == {
        "name": encoder.name,
        "kind": "esm2",
        "fingerprint": encoder.fingerprint,
        "dimension": encoder.dimension,
        "max_length": encoder.max_length,
    }
    level = "residue" if fusion == "per_residue" else "protein"
    (expected,) = embed_sequences([data.sequences[4]], encoder, level=level)
    batch = inputs.batch([4])
    found = batch["residues" if fusion == "per_residue" else "embedding"][0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    monkeypatch.setattr(type(encoder), "__call__", lambda *_: pytest.fail("it was asked again"))
    again = protein_inputs(settings, data, cache=tmp_path, offline=True).batch([4])
    assert all(torch.equal(again[name], value) for name, value in batch.items())


@pytest.mark.parametrize("inputs", [["structure"], ["sequence", "structure"]])
def test_structures_are_batched_beside_what_else_is_looked_at(store, structures, inputs):
    settings = recipe(protein={"inputs": inputs, "encoder": "segments-1", "structure_points": 16})
    found = protein_inputs(settings, data := load_training_data(settings, store, structures=structures))
    batch = found.batch([1, 0])
    np.testing.assert_array_equal(batch["points"], data.points[[1, 0]])
    assert ("embedding" in batch) == ("sequence" in inputs)
    assert (found.embedding_dim is None) == ("sequence" not in inputs)
    assert found.spec["kind"] == ("features" if "sequence" in inputs else "structure")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"protein": {"encoder": "residues-1"}, **PER_RESIDUE},
        {"protein": {"inputs": ["structure"], "structure_points": 16}},
        {"protein": {"inputs": ["sequence", "structure"], "encoder": "segments-1", "structure_points": 16}},
    ],
)
def test_the_network_takes_a_batch(store, structures, fields):
    settings = recipe(**fields)
    given = structures if "structure" in settings.protein.inputs else None
    inputs = protein_inputs(settings, load_training_data(settings, store, structures=given))
    model = build_model(settings, inputs.embedding_dim).eval()
    with torch.no_grad():
        drawn = model(torch.rand(2, 1, 32, 32), inputs.batch([0, 5]))
    assert drawn.image.shape == (2, 1, 32, 32)
    assert drawn.logits.shape == (2, 2)


@pytest.mark.parametrize("fields", [{}, {"protein": {"encoder": "residues-1"}, **PER_RESIDUE}])
def test_standardised_vectors_have_mean_0_and_deviation_1(store, fields):
    settings = recipe(**fields)
    inputs = protein_inputs(settings, load_training_data(settings, store))
    chosen = [0, 2, 3, 7]
    mean, deviation = inputs.moments(chosen)
    batch = inputs.batch(chosen)
    if "embedding" in batch:
        scaled = (batch["embedding"] - mean) / deviation
        torch.testing.assert_close(scaled.mean(0), torch.zeros_like(mean), atol=1e-4, rtol=0)
        spread = scaled.std(0, correction=0)
        varies = batch["embedding"].std(0, correction=0) > 1e-5
        assert varies.any()
        torch.testing.assert_close(spread[varies], torch.ones(int(varies.sum())), atol=1e-2, rtol=0)
    else:
        each = [inputs.residues[number].mean(0) for number in chosen]
        np.testing.assert_allclose(mean, np.mean(each, 0), atol=1e-6)
    assert (deviation > 0).all()


def test_structures_alone_have_nothing_to_standardise(store, structures):
    settings = recipe(protein={"inputs": ["structure"], "structure_points": 16})
    inputs = protein_inputs(settings, load_training_data(settings, store, structures=structures))
    with pytest.raises(ValueError, match="nothing to standardise"):
        inputs.moments([0])


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [({"protein": {"encoder": "residues-1"}}, "segments-1"), (PER_RESIDUE, "residues-1")],
)
def test_hand_made_features_go_with_their_fusion(store, fields, remedy):
    settings = recipe(**fields)
    with pytest.raises(InputError, match=f"does not fit .*protein.encoder to '{remedy}'"):
        protein_inputs(settings, load_training_data(settings, store))
