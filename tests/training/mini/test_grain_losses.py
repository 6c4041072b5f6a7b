import pytest
import torch

from deepgps.models.grain import LEVELS, GrainMaps
from deepgps.models.noise import SIZES, TEXTURES, Noise
from deepgps.training.mini.grain import (
    FACTORS,
    coherence_error,
    energy_error,
    grain_losses,
    match_brightness,
    soft_zones,
)

SIZE = 64


@pytest.fixture(scope="module")
def nucleus() -> torch.Tensor:
    image = torch.zeros(4, 1, SIZE, SIZE)
    image[:, :, 20:44, 20:44] = 0.8
    return image


def speckles(seed: int, grain: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(4, 1, SIZE // grain, SIZE // grain, generator=generator)
    return drawn.repeat_interleave(grain, 2).repeat_interleave(grain, 3)


def test_zones_part_a_crop_into_the_nucleus_its_surroundings_and_the_rest(nucleus):
    zones = soft_zones(nucleus)
    torch.testing.assert_close(zones.sum(1), torch.ones(4, SIZE, SIZE))
    inside, around, far = zones[0]
    assert inside[32, 32] > 0.99
    assert around[32, 50] > 0.9
    assert far[2, 2] > 0.9


def test_the_mean_is_made_match_brightness_as_the_image_inside_of_nuclei_and_outside(nucleus):
    inside = soft_zones(nucleus)[:, :1]
    real = 0.8 * inside + 0.2 * (1 - inside)
    mean = match_brightness(torch.full_like(real, 0.4), real, torch.ones_like(real), inside)
    assert float((mean - real).abs().max()) < 0.1  # of a step of 0.6


def test_how_bright_the_mean_is_made_has_bounds(nucleus):
    cell = torch.ones_like(nucleus)
    faint, bright = (match_brightness(mean * cell, cell, cell, cell) for mean in (0.01, 1.0))
    torch.testing.assert_close(faint, FACTORS[1] * 0.01 * cell)
    torch.testing.assert_close(bright, cell, atol=1e-2, rtol=0)


def test_energies_are_of_the_size_of_the_speckles_not_of_where_they_lie(nucleus):
    zones = soft_zones(nucleus)
    alike, coarser, fainter = (
        float(energy_error(drawn, speckles(0, 1), zones))
        for drawn in (speckles(1, 1), speckles(2, 4), 0.3 * speckles(1, 1))
    )
    assert float(energy_error(speckles(0, 1), speckles(0, 1), zones)) == 0
    assert 3 * alike < min(coarser, fainter)


def test_coherence_is_of_lines_wherever_they_run_and_not_of_grain(nucleus):
    zones = torch.ones_like(nucleus)
    rows = torch.arange(SIZE)[:, None] + torch.zeros(SIZE)
    lines = (rows % 6 < 2).float().expand(4, 1, SIZE, SIZE)
    assert float(coherence_error(lines, lines.transpose(2, 3), zones)) < 0.02
    assert float(coherence_error(lines, speckles(0, 2), zones)) > 0.3


@pytest.mark.slow
def test_grain_is_learned_from_images_that_have_it(nucleus):
    told = [torch.zeros(1, channels, 1, 1, requires_grad=True) for channels in (1, len(LEVELS), TEXTURES)]
    noise, optimizer, losses = Noise(), torch.optim.Adam(told, 0.1), []
    for step in range(60):
        reach, steps, sizes = (each.expand(4, -1, SIZE, SIZE) for each in told)
        maps = GrainMaps(reach, torch.nn.functional.softplus(steps - 1), torch.softmax(sizes, 1).sqrt())
        real = speckles(step, 2)
        loss = grain_losses(torch.full_like(real, 0.5), maps, nucleus, real, noise(real))
        losses.append({name: float(each.detach()) for name, each in loss.items()})
        optimizer.zero_grad()
        sum(loss.values()).backward()
        optimizer.step()
    assert all(losses[-1][name] < losses[0][name] for name in ("reach", "spread", "energy"))
    # Speckles of 2 px are told to be coarser than single pixels; from 0 to twice their mean, evenly.
    steps, sizes = (each.detach()[0, :, 0, 0] for each in told[1:])
    assert sizes[0] < sizes[1 : len(SIZES)].max()
    median = torch.nn.functional.softplus(steps - 1).cumsum(0)[LEVELS.index(0.5)]
    assert float(median) == pytest.approx(1, abs=0.2)
