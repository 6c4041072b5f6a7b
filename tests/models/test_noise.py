import pytest
import torch

from deepgps.models.noise import SIZES, TEXTURES, TILE, Noise
from deepgps.training.mini.grain import coherence_error

EDGE = 64


@pytest.fixture(scope="module")
def noise() -> Noise:
    return Noise()


def test_noise_is_the_nucleus_s_own_and_no_other_s(noise):
    nuclei = torch.rand(2, 1, EDGE, EDGE, generator=torch.Generator().manual_seed(0))
    fields = noise(nuclei)
    assert fields.shape == (2, TEXTURES + 1, EDGE, EDGE)
    assert torch.equal(fields, Noise()(nuclei))
    assert torch.equal(fields[1:], noise(nuclei[1:]))
    assert not torch.equal(fields[0], fields[1])


def test_every_texture_has_mean_0_and_variance_1_and_knows_nothing_of_the_others(noise):
    flat = noise.tiles[:TEXTURES].flatten(1)
    alike = flat @ flat.T / flat.shape[1]
    torch.testing.assert_close(flat.mean(1), torch.zeros(TEXTURES), atol=1e-3, rtol=0)
    torch.testing.assert_close(alike.diagonal(), torch.ones(TEXTURES), atol=1e-2, rtol=0)
    assert float((alike - alike.diagonal().diag()).abs().max()) < 0.1


def test_every_texture_is_normally_distributed(noise):
    # The coarsest is left out: a tile holds few of its grains.
    below = [float((tile < 1.282).float().mean()) for tile in (*noise.tiles[:5], *noise.tiles[6:8])]
    assert below == pytest.approx([0.9] * len(below), abs=0.02)


def test_grains_are_as_coarse_as_they_are_called(noise):
    grains = noise.tiles[: len(SIZES)]
    near, far = (
        [float((tile * tile.roll(times * size, 0)).mean()) for tile, size in zip(grains, SIZES, strict=True)]
        for times in (1, 4)
    )
    assert all(-0.4 < each < 0.4 for each in near)
    assert all(abs(each) < 0.15 for each in far)
    next_to = [float((tile * tile.roll(1, 0)).mean()) for tile in grains]
    assert next_to == sorted(next_to)


def test_filaments_have_a_direction_and_grain_of_their_size_has_none(noise):
    zones = torch.ones(1, 1, TILE, TILE)
    tiles = 0.2 * noise.tiles[:, None, None] + 0.5
    grain, filaments = tiles[2], tiles[TEXTURES - 1]
    apart = float(coherence_error(grain, filaments, zones))
    assert apart > 0.2
    assert float(coherence_error(grain, tiles[2].transpose(2, 3), zones)) < 0.02


def test_a_tile_goes_on_at_its_other_side(noise):
    steps = (noise.tiles - noise.tiles.roll(1, 1)).abs().mean(2)
    across, within = steps[:, 0], steps[:, 1:].mean(1)
    assert bool((across < 2 * within).all())
