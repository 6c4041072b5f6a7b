import torch

from deepgps.models.fusion import FiLMFusion


def taught() -> FiLMFusion:
    torch.manual_seed(0)
    fusion = FiLMFusion(6, 12)
    torch.nn.init.normal_(fusion.modulate.weight)
    return fusion


def test_it_starts_as_no_change():
    image = torch.rand(2, 6, 4, 5)
    torch.testing.assert_close(FiLMFusion(6, 12)(image, torch.rand(2, 3, 12)), image)


def test_a_protein_changes_every_position_alike():
    image, latent = torch.ones(1, 6, 4, 5), torch.rand(1, 3, 12)
    found = taught()(image, latent)
    assert (found - found[..., :1, :1]).abs().max() < 1e-6
    assert not torch.allclose(found, image)


def test_padding_does_not_count():
    fusion, image, latent = taught(), torch.rand(1, 6, 4, 5), torch.rand(1, 3, 12)
    padded = torch.cat([latent, 100 * torch.ones(1, 4, 12)], 1)
    mask = torch.arange(7)[None] < 3
    torch.testing.assert_close(fusion(image, padded, mask), fusion(image, latent))
