import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from deepgps.datasets.labels import LabelledProteins
from deepgps.errors import InputError
from deepgps.proteins.features import sequence_features
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.mini import labels as training
from deepgps.training.mini.labels import HELD_OUT, REGIMES, fit_labels, load_encoder, read_held_out
from deepgps.training.recipe import LabelSettings
from deepgps.training.thresholds import best_thresholds

SETTINGS = LabelSettings(folds=2, epochs=6, batch_size=16, widths=(8,), members=2)


@pytest.fixture(scope="module")
def proteins() -> LabelledProteins:
    """Two kinds of protein: basic ones in the nucleus, acidic ones in the cytoplasm."""
    rng = np.random.default_rng(0)
    count = 80
    basic = np.arange(count) % 2 == 0
    sequences = tuple("".join(rng.choice(list("KRGSAL" if b else "DEGSAL"), 60)) for b in basic)
    labels = np.stack([basic, ~basic], axis=1).astype(np.float32)
    names = np.array([f"P{i}" for i in range(count)])
    ones = np.ones(count, np.float32)
    mask = np.ones((count, 2), bool)
    return LabelledProteins(
        names,
        sequences,
        ("nuc", "cyt"),
        labels,
        mask,
        np.stack([labels, labels], axis=1),
        np.stack([mask, ~mask], axis=1),
        ones,
        np.arange(count),
        np.array(["hpa"] * count),
    )


@pytest.fixture(scope="module")
def trained(proteins, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    fit_labels(proteins, SETTINGS, folder)
    return folder


def logits(folder, sequence: str) -> torch.Tensor:
    votes = NeighbourIndex.load(folder / "neighbours.npz").votes(sequence)
    with torch.no_grad():
        return load_encoder(folder)(
            torch.from_numpy(sequence_features(sequence))[None], torch.from_numpy(votes)[None]
        )[0]


def test_it_learns_what_is_there_to_learn(trained):
    basic, acidic = logits(trained, "MKRGKRSALK" * 6), logits(trained, "MDEGDESALE" * 6)
    assert basic[0] > basic[1]
    assert acidic[1] > acidic[0]


def test_it_leaves_four_files_and_says_what_they_are(trained):
    files = {"encoder.safetensors", "encoder.json", "neighbours.npz", "held_out.safetensors"}
    assert {path.name for path in trained.iterdir()} == files
    about = json.loads((trained / "encoder.json").read_text())
    assert (about["classes"], about["votes"], about["proteins"]) == (["nuc", "cyt"], 5, 80)
    assert all(0 <= value <= 1 for value in about["calibration_ece"].values())


def test_what_a_microscope_saw_outweighs_what_curators_wrote(proteins):
    view_labels, view_mask = proteins.view_labels.copy(), proteins.view_mask.copy()
    view_labels[0] = [[1, 0], [0, 1]]
    view_mask[0], view_mask[1], view_mask[2] = True, [[False], [True]], False
    labels, weight = training._targets(replace(proteins, view_labels=view_labels, view_mask=view_mask))
    assert labels[0].tolist() == [1, 0]
    assert labels[1].tolist() == proteins.view_labels[1, 1].tolist()
    assert weight[:3, 0].tolist() == pytest.approx([1, 0.1, 0])


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_the_same(proteins, trained, tmp_path, monkeypatch):
    fit_mlp, calls = training.fit_mlp, []

    def dies_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit_mlp(*arguments)

    monkeypatch.setattr(training, "fit_mlp", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit_labels(proteins, SETTINGS, tmp_path)
    assert not (tmp_path / "encoder.json").exists()
    fit_labels(proteins, SETTINGS, tmp_path)
    assert len(calls) == 3 + 4  # 2 folds and the final fit of 2 members are 6, and 2 were there already
    first, second = load_encoder(trained).state_dict(), load_encoder(tmp_path).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_is_not_run_again(proteins, trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.setattr(training, "fit_mlp", None)
    fit_labels(proteins, SETTINGS, folder)
    with pytest.raises(TypeError):
        fit_labels(proteins, SETTINGS.model_copy(update={"seed": 1}), folder)


def test_other_settings_do_not_take_up_an_old_run(proteins, tmp_path):
    left = tmp_path / "parts" / training._fingerprint(proteins, SETTINGS)
    other = tmp_path / "parts" / training._fingerprint(proteins, SETTINGS.model_copy(update={"seed": 1}))
    assert left != other


def test_held_out_answers_come_with_the_votes_of_all_but_the_protein_itself(proteins, trained):
    said = read_held_out(trained)
    assert list(said) == list(REGIMES)
    index = NeighbourIndex.load(trained / "neighbours.npz")
    similar = index.similarities(proteins.sequences[5])
    similar[5] = 0
    for each in said.values():
        assert each.logits.shape == (80, 2)
        assert each.votes.shape == (80, 5)
        np.testing.assert_allclose(each.votes[5], index.vote(similar), rtol=1e-6)


def test_a_folder_of_an_earlier_version_is_named(trained, tmp_path):
    kept = load_file(trained / HELD_OUT)
    save_file({name: kept[name] for name in REGIMES}, tmp_path / HELD_OUT)
    with pytest.raises(InputError, match="was trained by an earlier deepGPS; remove it"):
        read_held_out(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="train it first"):
        load_encoder(tmp_path)


def test_thresholds_part_yes_from_no():
    chance = torch.tensor([[0.9], [0.8], [0.3], [0.2]])
    label = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    assert best_thresholds(chance, label, torch.ones(4, 1)) == [0.21]
    assert best_thresholds(chance, 1 - label, torch.tensor([[1.0], [1.0], [0.0], [0.0]])) == [0.05]


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="learning_rat"):
        LabelSettings(learning_rat=1)
