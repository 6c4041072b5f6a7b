import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepgps.datasets.crops.store import CropStore, open_crops, write_crops
from deepgps.training.mini.images import (
    GrainTask,
    ImageBatches,
    MeanTask,
    augment,
    build_generator,
    crowd,
    fit_images,
    sampling_weights,
)
from deepgps.training.recipe import GrainSettings, ImageSettings

SIZE = 32
GRAIN = GrainSettings(max_epochs=2, batches=2, batch_size=2)
SETTINGS = ImageSettings(widths=(4, 8), latent_dim=8, max_epochs=2, batches=2, batch_size=2, grain=GRAIN)
SLUGS = ("er", "golgi", "vesicles")
# What the store holds: source, localizations, cell, split, and how many of it.
KINDS = [
    ("hpa_u2os_cells", "er", "shared", "train", 1),
    ("hpa_u2os_cells", "golgi", "shared", "train", 1),
    ("hpa_u2os_cells", "er", "own", "train", 8),
    ("hpa_fields", "er", "own", "train", 2),
    ("hpa_fields", "vesicles", "own", "train", 8),
    ("opencell_tiles", "er", "own", "test", 5),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CropStore:
    """Crops whose protein image is flat: of the grey 10 where they train, of 200 where they test."""
    rng, rows, crops = np.random.default_rng(0), [], []
    for source, localizations, cell, split, count in KINDS:
        for _ in range(count):
            name = cell if cell == "shared" else f"{cell}{len(rows)}"
            rows.append({"source": source, "localizations": localizations, "cell": name, "split": split})
            rows[-1]["accession"] = ""
            protein = np.full((SIZE, SIZE), 10 if split == "train" else 200, np.uint8)
            crops.append(np.stack([rng.integers(0, 256, (SIZE, SIZE), np.uint8), protein]))
    folder = tmp_path_factory.mktemp("crops")
    write_crops(folder, crops, rows, {})
    return open_crops(folder)


@pytest.fixture
def pairing():
    """Pairs an image with a protein that surely goes where it shows."""

    def draw(localizations, accession, rng):
        return np.array([0.9 if slug in localizations else 0.1 for slug in SLUGS], np.float32)

    return SimpleNamespace(classes=SimpleNamespace(slugs=SLUGS, of=set), draw=draw)


def fitted(store, pairing, folder, settings=SETTINGS) -> dict[str, torch.Tensor]:
    return {
        name: each.clone() for name, each in fit_images(store, pairing, settings, folder).state_dict().items()
    }


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class KilledError(BaseException):
    """What no handler of ordinary errors sees."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", [MeanTask, GrainTask])
@pytest.mark.parametrize("minutes", [10, 1e-9])
def test_a_stage_killed_in_its_second_epoch_resumes_and_ends_with_the_same_weights(
    stage, minutes, store, pairing, tmp_path, monkeypatch
):
    often = {"checkpoint_minutes": minutes}
    grain = SETTINGS.grain.model_copy(update=often)
    settings = SETTINGS.model_copy(update={**often, "grain": grain})
    whole = fitted(store, pairing, tmp_path / "whole")
    losses, steps = stage.losses, []

    def dies_at_the_fourth(task, model, batch):
        if type(task) is stage:
            steps.append(batch)
            if len(steps) == 4:
                raise KilledError
        return losses(task, model, batch)

    monkeypatch.setattr(stage, "losses", dies_at_the_fourth)
    with pytest.raises(KilledError):
        fit_images(store, pairing, settings, tmp_path / "killed")
    resumed = fitted(store, pairing, tmp_path / "killed")
    # The second epoch is repeated unless its first batch was kept; the first is not.
    assert len(steps) == (6 if minutes == 10 else 5)
    assert same(whole, resumed)
    assert not same(whole, build_generator(len(SLUGS), SETTINGS).state_dict())


def test_a_finished_run_is_taken_as_it_is(store, pairing, tmp_path, monkeypatch):
    first = fitted(store, pairing, tmp_path)
    monkeypatch.delattr(MeanTask, "losses")
    monkeypatch.delattr(GrainTask, "losses")
    assert same(first, fitted(store, pairing, tmp_path))


def test_the_seed_decides(store, pairing, tmp_path):
    torch.manual_seed(99)
    first = fitted(store, pairing, tmp_path / "first")
    torch.manual_seed(7)
    assert same(first, fitted(store, pairing, tmp_path / "again"))
    other = fitted(store, pairing, tmp_path / "other", SETTINGS.model_copy(update={"seed": 2}))
    assert not same(first, other)


def test_a_generator_learns_a_plain_grey_and_says_how_far_it_is(store, pairing, tmp_path, capsys):
    settings = SETTINGS.model_copy(update={"max_epochs": 4, "batches": 15, "learning_rate": 1e-2})
    generator = fit_images(store, pairing, settings, tmp_path)
    assert capsys.readouterr().out == ""
    with (tmp_path / "mean" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 4
    assert losses[-1] < 0.1 * losses[0]
    with torch.no_grad():
        drawn, _ = generator(torch.rand(1, 1, SIZE, SIZE), torch.tensor([[0.9, 0.1, 0.1]]))
    assert float(drawn.mean()) < 0.2


def batches(store, pairing, epoch=0, **changes):
    settings = SETTINGS.model_copy(update={"batch_size": 40, "batches": 3, **changes})
    return list(ImageBatches(store, pairing, settings, epoch))


def test_batches_hold_training_crops_alone(store, pairing):
    for nucleus, protein, probabilities in batches(store, pairing):
        assert nucleus.shape == protein.shape == (40, 1, SIZE, SIZE)
        assert probabilities.shape == (40, len(SLUGS))
        assert nucleus.dtype == protein.dtype == probabilities.dtype == torch.float32
        assert protein.max() < 0.1  # a test crop's is 200 / 255


def test_an_epoch_is_the_same_whenever_it_is_drawn_and_no_other_is(store, pairing):
    first, again, second = (batches(store, pairing, epoch) for epoch in (0, 0, 1))
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert not torch.equal(first[0][0], second[0][0])


def test_two_images_of_one_cell_now_and_then_become_one_dual_localized_protein(store, pairing):
    dual = 0
    for _, protein, probabilities in batches(store, pairing, batches=10, crowded=0):
        both = (probabilities[:, :2] > 0.5).all(1)
        # Only the cell with two images can be mixed: 0.6 times the sum of both.
        greys = torch.where(both, 0.6 * 20 / 255, 10 / 255)
        torch.testing.assert_close(protein.mean((1, 2, 3)), greys)
        dual += int(both.sum())
    assert 0 < dual < 60


def test_sampling_follows_the_sources_shares_and_favours_rare_localizations(store):
    rows = store.rows(split="train")
    weights = sampling_weights(store, rows, {"hpa_u2os_cells": 0.6, "hpa_fields": 0.2})
    assert weights.sum() == pytest.approx(1)
    table = store.index[rows.tolist()].with_row_index()
    groups = table.group_by("source", "localizations")
    share = {key: weights[group["index"].to_numpy()].sum() for key, group in groups}
    many, one = share["hpa_u2os_cells", "er"], share["hpa_u2os_cells", "golgi"]
    assert many + one == pytest.approx(0.75)
    assert 1 < many / one < 9  # 9 crops to 1: seen more often in all, less often each
    assert 1 < share["hpa_fields", "vesicles"] / share["hpa_fields", "er"] < 4  # 8 to 2


def test_a_source_without_a_share_is_never_drawn(store):
    rows = store.rows(split="train")
    weights = sampling_weights(store, rows, {"hpa_fields": 0.1, "hpa_dictionary": 0.9})
    assert weights.sum() == pytest.approx(1)
    assert set(store.index[rows[weights > 0].tolist()]["source"]) == {"hpa_fields"}


def test_augmentation_keeps_the_pair_aligned_and_in_range():
    shape = np.zeros((SIZE, SIZE), np.float32)
    shape[4:20, 6:10] = shape[16:20, 6:24] = 1  # an L: every turn and flip of it differs
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        pair = augment(np.stack([shape, shape]), rng)
        assert pair.dtype == np.float32
        assert pair.shape == (2, SIZE, SIZE)
        assert 0 <= pair.min() <= pair.max() <= 1
        assert ((pair[0] > 0.35) == (pair[1] > 0.35)).mean() > 0.995
        assert sorted(pair[1].ravel()) == sorted(shape.ravel())  # the protein's grey is never changed
        seen.add(pair[1].tobytes())
    assert len(seen) == 8


def test_augmentation_varies_the_nucleus_alone():
    pair, rng = np.full((2, SIZE, SIZE), 0.5, np.float32), np.random.default_rng(0)
    levels = [float(augment(pair, rng)[0].mean()) for _ in range(100)]
    assert np.std(levels) > 0.05
    np.testing.assert_array_equal(pair, np.float32(0.5))


def test_a_crowd_shows_every_cell_that_was_put_into_it_once():
    cell = np.zeros((2, SIZE, SIZE), np.float32)
    cell[0, 14:18, 14:18] = cell[1, 10:22, 10:22] = 1
    for seed in range(20):
        field = crowd([cell, cell, cell], np.random.default_rng(seed))
        assert field.shape == cell.shape
        assert field.dtype == np.float32
        assert 0 < field[0].sum() <= 3 * cell[0].sum()
        assert 0.69 < field.max() <= 1
    assert len({crowd([cell], np.random.default_rng(seed)).tobytes() for seed in range(5)}) == 5


def test_cells_cut_out_of_their_surroundings_are_crowded_and_no_others(store, pairing, monkeypatch):
    crowds = []

    def spy(pairs, rng):
        crowds.append(pairs)
        return pairs[0]

    monkeypatch.setattr("deepgps.training.mini.images.crowd", spy)
    batches(store, pairing, batches=6, source_shares={"hpa_fields": 1.0}, crowded=1)
    assert not crowds
    batches(store, pairing, batches=2, source_shares={"hpa_u2os_cells": 1.0}, crowded=1)
    assert crowds
    assert {len(pairs) for pairs in crowds} == {3, 4}


def test_the_first_stage_teaches_the_smooth_image_and_the_second_its_grain_alone(
    store, pairing, tmp_path, monkeypatch
):
    seen = []
    freeze = GrainTask.freeze

    def look(task):
        seen.append({name: each.clone() for name, each in task.module.state_dict().items()})
        freeze(task)

    monkeypatch.setattr(GrainTask, "freeze", look)
    after = fitted(store, pairing, tmp_path)
    fresh = build_generator(len(SLUGS), SETTINGS).state_dict()
    (before,) = seen
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.startswith("unet.grain.") for name in changed)
    assert after.keys() == fresh.keys()
