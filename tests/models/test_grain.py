import pytest
import torch

from deepgps.models.deepgps import MiniGenerator
from deepgps.models.grain import LEVELS, GrainMaps, grain_field, grained, intensities
from deepgps.models.noise import TEXTURES, Noise

SIZE = 64


def maps(reach: float = 9.0, textures: tuple[float, ...] = (1,), batch: int = 1) -> GrainMaps:
    """A grain that is the same everywhere: quantiles 0.2, 0.4 … of the mean, and weights of the textures."""
    flat = torch.ones(batch, 1, SIZE, SIZE)
    weights = torch.tensor([*textures, *[0.0] * (TEXTURES - len(textures))])[None, :, None, None] * flat
    return GrainMaps(reach * flat, 0.2 * flat.expand(-1, len(LEVELS), -1, -1), weights)


def fields(batch: int = 64) -> torch.Tensor:
    return Noise()(torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))


def test_intensities_follow_the_quantiles_that_were_told():
    drawn = intensities(maps(batch=64), fields()[:, :1])
    for number, level in enumerate(LEVELS, 1):
        below = float((drawn <= 0.2 * number + 1e-6).float().mean())
        assert below == pytest.approx(level, abs=0.01)


def test_textures_are_mixed_by_their_weights_and_vary_as_much_as_each():
    noise = fields()
    assert torch.equal(grain_field(maps(batch=64), noise), noise[:, :1])
    mixed = grain_field(maps(textures=(0.6, 0.8), batch=64), noise)
    torch.testing.assert_close(mixed, 0.6 * noise[:, :1] + 0.8 * noise[:, 1:2])
    assert float(mixed.std()) == pytest.approx(1, abs=0.05)


def test_the_outline_strays_but_what_is_sure_stays():
    smooth = torch.full((64, 1, SIZE, SIZE), 0.5)
    inside, outside, between = (
        grained(smooth, maps(reach=reach, batch=64), fields()) for reach in (9.0, -9.0, 0.0)
    )
    assert float((inside > 0.02).float().mean()) > 0.99
    assert float(outside.max()) < 0.05
    kept = (between > 0.05).float().mean((1, 2, 3))
    assert 0.3 < float(kept.mean()) < 0.9
    assert float(kept.std()) > 0.05


def test_two_proteins_in_one_nucleus_share_the_noise_and_an_image_is_drawn_alike_in_any_batch():
    torch.manual_seed(0)
    generator, nuclei = MiniGenerator(3, widths=(8, 8), latent_dim=8).eval(), torch.rand(2, 1, SIZE, SIZE)
    proteins = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])
    with torch.no_grad():
        tokens = generator.tokens(proteins)
        together = generator.unet(nuclei, tokens)
        alone = torch.cat([generator.unet(n[None], t[None]) for n, t in zip(nuclei, tokens, strict=True)])
        smooth, _ = generator(nuclei, proteins)
    torch.testing.assert_close(together, alone)
    assert together.shape == smooth.shape
    assert not torch.allclose(together, smooth)
