import pytest
import torch

from deepgps.models.deepgps import MiniGenerator
from deepgps.models.grain import (
    BANDS,
    LEVELS,
    GrainMaps,
    Noise,
    grain_field,
    grained,
    intensities,
    outline_field,
)

SIZE = 64


def maps(reach: float = 9.0, sizes: tuple[float, ...] = (1, 0, 0, 0), batch: int = 1) -> GrainMaps:
    """A grain that is the same everywhere: quantiles 0.2, 0.4 … of the mean, and weights of the sizes."""
    flat = torch.ones(batch, 1, SIZE, SIZE)
    weights = torch.tensor(sizes)[None, :, None, None] * flat
    return GrainMaps(reach * flat, 0.2 * flat.expand(-1, len(LEVELS), -1, -1), weights)


def white(batch: int = 64) -> torch.Tensor:
    return torch.randn(batch, BANDS + 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_intensities_follow_the_quantiles_that_were_told():
    drawn = intensities(maps(batch=64), white()[:, :1])
    for number, level in enumerate(LEVELS, 1):
        below = float((drawn <= 0.2 * number + 1e-6).float().mean())
        assert below == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("size", range(BANDS))
def test_grain_of_every_size_has_variance_one_and_is_so_coarse(size):
    sizes = tuple(float(k == size) for k in range(BANDS))
    field = grain_field(maps(sizes=sizes, batch=64), white())
    assert float(field.std()) == pytest.approx(1, abs=0.05)
    near = float((field[..., 1:] * field[..., :-1]).mean())
    assert (abs(near) < 0.02) if size == 0 else near > 1 - 0.8 / size


def test_the_outline_strays_but_what_is_sure_stays():
    smooth = torch.full((64, 1, SIZE, SIZE), 0.5)
    large = torch.randn(40, 1, 208, 208, generator=torch.Generator().manual_seed(2))
    assert float(outline_field(large).std()) == pytest.approx(1, abs=0.1)
    inside, outside, between = (
        grained(smooth, maps(reach=reach, batch=64), white()) for reach in (9.0, -9.0, 0.0)
    )
    assert float((inside > 0.02).float().mean()) > 0.99
    assert float(outside.max()) < 0.05
    kept = (between > 0.05).float().mean((1, 2, 3))
    assert 0.3 < float(kept.mean()) < 0.9
    assert float(kept.std()) > 0.05


def test_noise_is_the_nucleus_s_own_and_no_other_s():
    noise, nuclei = Noise(), torch.rand(2, 1, SIZE, SIZE)
    fields = noise(nuclei)
    assert fields.shape == (2, BANDS + 1, SIZE, SIZE)
    assert torch.equal(fields, noise(nuclei))
    assert torch.equal(fields[1:], noise(nuclei[1:]))
    assert not torch.equal(fields[0], fields[1])
    flat = fields[0].flatten(1)
    alike = (flat @ flat.T) / flat.shape[1]
    torch.testing.assert_close(alike.diagonal(), torch.ones(BANDS + 1), atol=0.1, rtol=0)
    assert float((alike - alike.diagonal().diag()).abs().max()) < 0.1


def test_two_proteins_in_one_nucleus_share_the_noise_and_a_picture_is_drawn_alike_in_any_batch():
    torch.manual_seed(0)
    generator, nuclei = MiniGenerator(3, widths=(8, 8), latent_dim=8).eval(), torch.rand(2, 1, SIZE, SIZE)
    proteins = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])
    with torch.no_grad():
        together = generator(nuclei, proteins)
        alone = torch.cat([generator(n[None], p[None]) for n, p in zip(nuclei, proteins, strict=True)])
        smooth, _ = generator.describe(nuclei, proteins)
    torch.testing.assert_close(together, alone)
    assert together.shape == smooth.shape
    assert not torch.allclose(together, smooth)
