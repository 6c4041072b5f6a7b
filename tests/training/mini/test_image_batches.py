import numpy as np
import pytest
import torch

from deepgps.training.mini import image_batches
from deepgps.training.mini.image_batches import (
    ImageExamples,
    coarse_image,
    crowd,
    one_hot,
    plain_batch,
    turned,
    varied_nucleus,
)
from deepgps.training.mini.image_pack import UNKNOWN_DOMAIN, ImagePack
from mini_packs import EDGE, small_pack

SHARES = {"opencell_crops": 0.7, "hpa_u2os_cells": 0.3}
SIZE = 16


def examples(pack: ImagePack | None = None, **options) -> ImageExamples:
    return ImageExamples(pack or small_pack(), SIZE, SHARES, **options)


def with_domain(pack: ImagePack, domain: int) -> ImagePack:
    return ImagePack(dict(pack.arrays) | {"domain": np.full(4, domain)}, pack.examples)


def test_a_batch_is_a_function_of_its_seed():
    first, again, other = (examples().batch(8, seed) for seed in ([0, 1], [0, 1], [0, 2]))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first.protein, other.protein)


def test_batches_are_of_the_training_split_and_in_range():
    made = examples()
    assert set(made.pack.fields(made.rows)) == {0, 1, 2}
    batch = made.batch(64, [0])
    assert batch.protein.shape == (64, 1, SIZE, SIZE)
    assert batch.images.shape == (64, 3, SIZE, SIZE)
    for images in (batch.protein, batch.images):
        assert (images.dtype, float(images.min()) >= 0, float(images.max()) <= 1) == (
            torch.float32,
            True,
            True,
        )


def test_sources_have_their_shares_and_landmarks_a_tenth():
    made = examples()
    weights = made._by_source(SHARES)
    channels = made.pack.examples[made.rows, 1]
    sources = made.pack.arrays["source"][made.pack.fields(made.rows)]
    total = 0.1 + sum(SHARES.values())
    assert weights[channels != 1].sum() == pytest.approx(0.1 / total)
    for source, share in SHARES.items():
        assert weights[(channels == 1) & (sources == source)].sum() == pytest.approx(share / total)


def test_over_all_sources_rare_localizations_come_more_often():
    made = examples()
    plain = np.array([0.1, 0.2, 0.3, 0.0, 0.4, 0.0, 0.0])[: len(made.rows)]
    plain = plain / plain.sum()
    balanced = made._balanced(plain)
    classes = np.stack([made.pack.labels(int(row))[0] > 0 for row in made.rows])
    before, after = plain @ classes, balanced @ classes
    assert balanced.sum() == pytest.approx(1)
    assert (after[before < 0.5] > before[before < 0.5]).any()
    assert after[np.argmax(before)] < before.max()


def test_of_a_source_rare_localizations_come_more_often_than_their_number():
    pack = small_pack()
    pack.arrays["source"][:] = "hpa_u2os_cells"  # one image of the ER and two of the cytoskeleton
    weights = examples(pack).weights[:3]
    assert 1 < weights[0] / weights[1] < 2


def test_a_source_without_a_share_is_never_chosen():
    made = ImageExamples(small_pack(), SIZE, {"opencell_crops": 1.0})
    channels = made.pack.examples[made.rows, 1]
    sources = made.pack.arrays["source"][made.pack.fields(made.rows)]
    assert not made.weights[(channels == 1) & (sources != "opencell_crops")].any()


def test_what_is_known_is_dropped_by_chance():
    batch = examples().batch(400, [0])
    landmarks = batch.given[:, 1:].mean(0)
    assert (batch.given[:, 0] == 1).all()
    assert ((landmarks > 0) & (landmarks < 0.5)).all()
    classes, known = batch.condition[:, :3], batch.condition[:, 3]
    assert 0.5 < known.mean() < 0.95
    assert not classes[known == 0].any()
    assert 0 < batch.condition[:, -4].mean() < 0.6  # words
    domains = batch.condition[:, -3:].sum(1)
    assert 0.8 < domains.mean() < 0.97


def test_the_channel_that_is_drawn_is_not_given():
    pack = small_pack()
    microtubules = np.flatnonzero((pack.examples == (1, 2)).all(1))
    batch = plain_batch(pack, microtubules, SIZE, landmarks=True)
    assert batch.given.tolist() == [[1, 0, 1]]
    assert torch.equal(batch.protein[0, 0], torch.from_numpy(pack.window(1, SIZE)[2]))
    assert plain_batch(pack, microtubules, SIZE).given.tolist() == [[1, 0, 0]]


def test_two_proteins_of_a_cell_become_one_now_and_then(monkeypatch):
    monkeypatch.setattr(image_batches, "MIXED_SHARE", 1.0)
    made = ImageExamples(small_pack(), SIZE, {"hpa_u2os_cells": 1.0})
    batch = made.batch(200, [0])
    known = batch.condition[batch.condition[:, 3] > 0]
    both = (known[:, [0, 1]] >= 0.5).all(1)
    # A cytoskeletal protein beside the ER, or the ER beside microtubules.
    assert 0.3 < both.float().mean() < 1


def test_some_images_of_the_er_serve_as_secreted_proteins():
    batch = ImageExamples(small_pack(), SIZE, {"opencell_crops": 1.0}).batch(300, [0])
    secreted = (batch.condition[:, 2] >= 0.5).float().mean()
    assert 0.03 < secreted < 0.3


def test_crops_of_an_unknown_domain_are_of_any():
    pack = with_domain(small_pack(), UNKNOWN_DOMAIN)
    domains = examples(pack).batch(300, [0]).condition[:, -3:]
    counts = [int((domains.sum(1) == 0).sum()), *domains.sum(0).int().tolist()]
    assert sum(counts) == 300
    assert min(counts) > 40
    assert one_hot(pack, UNKNOWN_DOMAIN).tolist() == [0, 0, 0]
    assert plain_batch(pack, pack.rows("test"), SIZE).condition[:, -3:].tolist() == [[0, 0, 0]]


def test_the_grain_is_given_the_coarse_image():
    pack = small_pack()
    batch = plain_batch(pack, pack.rows("train")[:2], SIZE, grain=True)
    wide = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(batch.protein, 2), scale_factor=2.0, mode="bilinear"
    )
    torch.testing.assert_close(batch.images[:, 1:], wide)
    assert batch.given.tolist() == [[1, 1]] * 2
    trained = examples(grain=True).batch(8, [0])
    assert trained.images.shape == (8, 2, SIZE, SIZE)


def test_coarse_images_are_changed_by_chance_as_drawn_ones_may_be():
    images = torch.rand(64, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    plain, changed = coarse_image(images), coarse_image(images, np.random.default_rng(0))
    same = (plain - changed).abs().amax((1, 2, 3)) < 1e-5
    assert 0.15 < same.float().mean() < 0.6


def test_turning_keeps_the_channels_aligned():
    shape = torch.zeros(64, 2, 48, 48)
    shape[:, :, 16:32, 18:24] = shape[:, :, 26:32, 18:40] = 1
    moved = turned(shape, 32, np.random.default_rng(0))
    assert moved.shape == (64, 2, 32, 32)
    torch.testing.assert_close(moved[:, 0], moved[:, 1])
    assert len({each.numpy().tobytes() for each in moved}) > 30


def test_the_nucleus_varies_as_microscopes_do():
    nucleus = torch.full((200, 1, SIZE, SIZE), 0.5)
    varied = varied_nucleus(nucleus, np.random.default_rng(0))
    assert varied.mean((1, 2, 3)).std() > 0.05
    assert float(varied.min()) >= 0 and float(varied.max()) <= 1


def test_a_crowd_shows_every_cell_that_was_put_into_it_once():
    cell = np.zeros((2, EDGE, EDGE), np.float32)
    cell[0, 18:22, 18:22] = cell[1, 12:28, 12:28] = 1
    for seed in range(20):
        field = crowd([cell, cell, cell], np.random.default_rng(seed))
        assert (field.shape, field.dtype) == (cell.shape, np.float32)
        assert 0 < field[0].sum() <= 3 * cell[0].sum()
        assert 0.69 < field.max() <= 1
    assert len({crowd([cell], np.random.default_rng(seed)).tobytes() for seed in range(5)}) == 5


def test_masked_cells_of_one_kind_are_crowded_and_no_others(monkeypatch):
    crowds = []

    def spy(cells, rng):
        crowds.append(len(cells))
        return cells[0]

    monkeypatch.setattr(image_batches, "crowd", spy)
    examples(crowded=0).batch(40, [0])
    examples(small_pack(masked=False), crowded=1).batch(40, [0])
    assert not crowds
    made = examples(crowded=1)
    made.batch(40, [0])
    assert set(crowds) == {3, 4}
    # The cytoskeleton as protein and as landmark, and the ER landmark; the unmasked crop is in no group.
    assert sorted(map(len, made.alike.values())) == [2, 2, 2]
