import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import round_nucleus
from deepgps.errors import InputError
from deepgps.models.esm2 import load_esm2
from deepgps.prediction import Predictor
from deepgps.prediction.encoder import sequence_reader
from deepgps.proteins.embedding import embed_sequences
from deepgps.proteins.features import residue_features, sequence_features
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.structures import read_structures, sample_points
from deepgps.training.encoders import prepare_encoder
from deepgps.training.export import bundle_parts, export_run
from deepgps.training.recipe import load_recipe
from joint_runs import joint_recipe, write_run
from structure_files import fold, mmcif, pdb

RNG = np.random.default_rng(3)
PROTEINS = [
    Protein(name, "M" + "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)), accession=accession)
    for name, length, accession in (("one", 57, "P10001"), ("two", 90, None), ("P10003", 57, None))
]


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    """Structures of the first protein, by accession, and of the third, by id; none of the second."""
    folder = tmp_path_factory.mktemp("structures")
    (folder / "AF-P10001-F1-model_v4.pdb").write_text(pdb(fold(40, seed=1)))
    (folder / "p10003.cif").write_text(mmcif(fold(12, seed=2)))
    return folder


@pytest.fixture(scope="module")
def prepared(tiny_esm2, tmp_path_factory):
    """The folder of prepared encoders, with the tiny ESM2 in it."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPGPS_ENCODERS", str(folder))
        prepare_encoder(str(tiny_esm2), offline=True)
    return folder


@pytest.fixture(scope="module")
def esm2(tiny_esm2):
    """The tiny ESM2 in torch."""
    return load_esm2(str(tiny_esm2), offline=True, precision="float32")


@pytest.fixture(scope="module")
def esm2_bundle(esm2, tmp_path_factory):
    """A bundle that looks at ESM2's residue vectors."""
    spec = {"name": esm2.name, "kind": "esm2", "fingerprint": esm2.fingerprint}
    folder, recipe = tmp_path_factory.mktemp("esm2"), joint_recipe(fusion="per_residue")
    write_run(folder / "run", recipe, {**spec, "dimension": 24, "max_length": 60})
    return export_run(folder / "run", folder / "bundle")


def answers(predictions) -> np.ndarray:
    return np.array([list(each.probabilities.values()) for each in predictions])


def assert_encoded_as(bundle, encodings, given) -> None:
    """Hold encodings against the module that the bundle's graph was made from, protein by protein."""
    run = bundle.path.parent / "run"
    module = bundle_parts(run, load_recipe(str(run / "recipe.yaml")), {}).encoder
    for encoding, arrays in zip(encodings, given, strict=True):
        with torch.no_grad():
            latent, logits = module(*(torch.from_numpy(array)[None] for array in arrays))
        np.testing.assert_allclose(encoding.latent, latent[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(encoding.logits, logits[0], rtol=1e-3, atol=1e-3)


def test_features_need_no_neighbours(joint_export):
    _, bundle = joint_export("sequence")
    encodings = Predictor(bundle, threads=1).encode(PROTEINS)
    assert_encoded_as(bundle, encodings, [[sequence_features(each.sequence)] for each in PROTEINS])
    assert all(each.evidence == () for each in encodings)
    assert np.ptp([each.latent for each in encodings], axis=0).max() > 1e-3


def test_residues_are_encoded_as_a_token_each_and_drawn_whatever_their_number(joint_export):
    _, bundle = joint_export("residues")
    predictor = Predictor(bundle, threads=1)
    encodings = predictor.encode(PROTEINS)
    assert [each.latent.shape for each in encodings] == [(58, 8), (91, 8), (58, 8)]
    assert_encoded_as(bundle, encodings, [[residue_features(each.sequence)] for each in PROTEINS])
    nuclei = [round_nucleus(f"n{radius}", radius) for radius in (20, 40)]
    together = list(predictor.predict(PROTEINS, nuclei))
    alone = [next(predictor.predict([protein], [nucleus])) for protein in PROTEINS for nucleus in nuclei]
    assert [each.protein.id for each in together] == ["one", "one", "two", "two", "P10003", "P10003"]
    np.testing.assert_allclose(answers(together), answers(alone), atol=1e-5)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=1e-5)
    assert np.abs(together[0].image - together[2].image).max() > 1e-4


@pytest.mark.parametrize("name", ["structure", "both"])
def test_structures_are_found_by_accession_or_id_and_sampled(joint_export, structures, name):
    _, bundle = joint_export(name)
    predictor = Predictor(bundle, threads=1, structures=structures)
    served = [PROTEINS[0], PROTEINS[2]]
    found, _ = read_structures(structures, ["P10001", "P10003"])
    clouds = [sample_points(cloud.points, 64) for cloud in found.values()]
    sequences = [[sequence_features(each.sequence)] if name == "both" else [] for each in served]
    given = [[*sequence, cloud] for sequence, cloud in zip(sequences, clouds, strict=True)]
    assert_encoded_as(bundle, predictor.encode(served), given)
    assert next(predictor.predict(served)).image.shape == (208, 208)


def test_a_protein_without_a_structure_is_rejected_with_the_reason_and_the_others_are_served(
    joint_export, structures
):
    predictor = Predictor(joint_export("structure")[1], threads=1, structures=structures)
    reason = f"There is no structure of 'two' in '{structures}'; fetch it with deepgps data fetch structures."
    other = Rejection("x", "y", "z")
    assert list(predictor.reject_unusable([*PROTEINS, other])) == [
        PROTEINS[0],
        Rejection("two", str(structures), reason),
        PROTEINS[2],
        other,
    ]
    with pytest.raises(InputError, match="There is no structure of 'two' in"):
        list(predictor.predict(PROTEINS, images=False))


def test_a_model_that_looks_at_no_structure_lets_every_protein_through(joint_export):
    assert list(Predictor(joint_export("sequence")[1], threads=1).reject_unusable(PROTEINS)) == PROTEINS


def test_structures_must_be_given_where_they_are_looked_at_and_only_there(joint_export, structures):
    with pytest.raises(InputError, match="'toy' uses structures; give their folder with --structures"):
        Predictor(joint_export("both")[1])
    with pytest.raises(InputError, match="'toy' uses no structures; leave --structures out"):
        Predictor(joint_export("sequence")[1], structures=structures)
    with pytest.raises(InputError, match="nowhere' is not a folder of structures"):
        Predictor(joint_export("structure")[1], structures=structures / "nowhere")


@pytest.mark.slow
def test_a_language_model_is_found_where_it_was_prepared(esm2, esm2_bundle, prepared, monkeypatch):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(prepared))
    predictor = Predictor(esm2_bundle, threads=1)
    vectors = embed_sequences([each.sequence for each in PROTEINS], esm2, level="residue")
    assert_encoded_as(esm2_bundle, predictor.encode(PROTEINS), [[each] for each in vectors])
    drawn = list(predictor.predict(PROTEINS))
    assert [each.warnings for each in drawn] == [(), ("91 residues exceed 60: is encoded in 2 windows",), ()]


@pytest.mark.slow
def test_an_embedding_of_the_whole_protein_is_its_mean(esm2, tiny_bundle, prepared, monkeypatch):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(prepared))
    update = {"kind": "esm2", "name": esm2.name, "fingerprint": esm2.fingerprint, "max_length": 60}
    spec = tiny_bundle.metadata.encoder.model_copy(update=update)
    bundle = replace(tiny_bundle, metadata=tiny_bundle.metadata.model_copy(update={"encoder": spec}))
    sequences = [each.sequence for each in PROTEINS]
    for given, vector in zip(
        sequence_reader(bundle, 1)(sequences), embed_sequences(sequences, esm2), strict=True
    ):
        assert list(given.arrays) == ["embedding"]
        np.testing.assert_allclose(given.arrays["embedding"], vector[None], atol=1e-5)


@pytest.mark.slow
def test_a_language_model_that_is_not_there_or_is_another_is_refused(
    esm2_bundle, prepared, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(tmp_path))
    with pytest.raises(InputError, match="run 'deepgps encoders prepare tiny_esm2'"):
        Predictor(esm2_bundle)
    monkeypatch.setenv("DEEPGPS_ENCODERS", str(prepared))
    spec = esm2_bundle.metadata.encoder.model_copy(update={"fingerprint": "0" * 64})
    metadata = esm2_bundle.metadata.model_copy(update={"encoder": spec})
    with pytest.raises(InputError, match="has other weights"):
        Predictor(replace(esm2_bundle, metadata=metadata))


@pytest.mark.slow
def test_predicting_keeps_torch_out_whatever_is_looked_at(joint_export, esm2_bundle, structures, prepared):
    blind = [joint_export(name)[1] for name in ("sequence", "residues", "image only")]
    paths = [str(bundle.path) for bundle in (*blind, esm2_bundle)]
    looking = str(joint_export("both")[1].path)
    code = f"""
import sys
from pathlib import Path
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
for path in {paths!r}:
    assert Predictor.load(path, threads=1).predict_one("MKVLAAGIVGLCAKWDEYHR").image is not None
predictor = Predictor.load({looking!r}, threads=1, structures=Path({str(structures)!r}))
assert next(predictor.predict([Protein("P10001", "MKVLAAGIVGLCAKWDEYHR")])).image is not None
print(sorted({{"torch", "transformers", "lightning", "polars", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            "DEEPGPS_ENCODERS": str(prepared),
            "PATH": "",
            "HOME": "/nonexistent",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        },
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_model_of_other_crops_draws_into_the_default_nucleus_too(tiny_bundle):
    crop = tiny_bundle.metadata.crop.model_copy(update={"pixel_size_um": 0.4})
    bundle = replace(tiny_bundle, metadata=tiny_bundle.metadata.model_copy(update={"crop": crop}))
    drawn = next(Predictor(bundle, threads=1).predict(PROTEINS[:1]))
    assert (drawn.cell.name, drawn.cell.pixel_size_um) == ("hek-1", 0.4)
    assert drawn.image.shape == (208, 208)
