import hashlib

import pytest
import torch

from deepgps.models.unet import PAPER_WIDTHS, UNet

NARROW = (4, 8, 8, 16, 16)


def narrow(fusion: str, **options: object) -> UNet:
    torch.manual_seed(0)
    return UNet(NARROW, latent_dim=12, fusion=fusion, heads=2, **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("fusion", ["paper", "residual", "per_residue"])
@pytest.mark.parametrize("size", [(208, 208), (64, 96), (16, 16)])
def test_draws_an_image_of_the_nucleus_size(fusion, size):
    image = narrow(fusion)(torch.rand(2, 1, *size), torch.rand(2, 1, 12))
    assert image.shape == (2, 1, *size)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("fusion", ["paper", "residual", "per_residue", "film"])
def test_several_are_drawn_into_one_nucleus_as_each_alone(fusion):
    net, seen = narrow(fusion), []
    for weight in net.parameters():  # of which fresh ones let hardly a protein through
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    net.down[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    nuclei, latent, which = torch.rand(2, 1, 32, 32), torch.rand(5, 1, 12), torch.tensor([0, 1, 1, 0, 1])
    together = net(nuclei, latent, which=which)
    torch.testing.assert_close(together, net(nuclei[which], latent), atol=1e-3, rtol=0)
    assert seen == [2, 5]
    assert float((together[1] - together[2]).detach().abs().max()) > 1e-2


def test_a_size_that_cannot_be_halved_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="200 x 208 px; its edges must be multiples of 16"):
        narrow("residual")(torch.rand(1, 1, 200, 208), torch.rand(1, 1, 12))


def test_the_paper_network_has_the_published_shapes():
    with torch.device("meta"):
        net = UNet(fusion="paper")
    assert PAPER_WIDTHS == (64, 128, 256, 512, 1024)
    levels = UNet(NARROW, latent_dim=12).encode(torch.rand(1, 1, 208, 208))
    assert levels[-1].shape[-2:] == (13, 13)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["down.0.0.weight"] == (64, 1, 3, 3)
    assert shapes["down.4.3.weight"] == (1024, 1024, 3, 3)
    assert shapes["fusion.query.weight"] == (1024, 1024)
    assert shapes["up.0.weight"] == (1024, 512, 2, 2)
    assert shapes["head.weight"] == (1, 64, 1, 1)


def fingerprint(module: torch.nn.Module) -> tuple[int, str]:
    lines = [f"{name} {tuple(value.shape)}" for name, value in module.state_dict().items()]
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def test_state_dicts_are_pinned_so_that_weights_stay_loadable():
    with torch.device("meta"):
        residual = UNet()
    assert fingerprint(residual) == PINNED


def bottleneck(net: UNet, nucleus: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    return net.fusion(net.encode(nucleus)[-1], latent)


def test_paper_fusion_is_constant_over_positions_and_blind_to_the_nucleus():
    net, latent = narrow("paper"), torch.rand(1, 1, 12)
    fused = bottleneck(net, torch.rand(1, 1, 208, 208), latent)
    torch.testing.assert_close(fused, fused[:, :, :1, :1].expand_as(fused))
    torch.testing.assert_close(fused, bottleneck(net, torch.rand(1, 1, 208, 208), latent))


def test_paper_fusion_gives_the_deepest_block_and_the_query_no_gradient():
    net = narrow("paper").train()
    net(torch.rand(2, 1, 32, 32), torch.rand(2, 1, 12)).mean().backward()
    for name in ("down.4.0.weight", "fusion.query.weight", "fusion.key.weight"):
        assert net.get_parameter(name).grad.abs().max() < 1e-9
    assert net.get_parameter("fusion.out.weight").grad.abs().max() > 1e-9
    assert net.get_parameter("fusion.value.weight").grad.abs().max() > 1e-9


@pytest.mark.parametrize("fusion", ["residual", "per_residue"])
def test_the_other_fusions_vary_over_positions_and_with_both_inputs(fusion):
    net, nucleus, latent = narrow(fusion), torch.rand(1, 1, 208, 208), torch.rand(1, 5, 12)
    fused = bottleneck(net, nucleus, latent)
    assert fused.std((2, 3)).max() > 1e-3
    assert not torch.allclose(fused, bottleneck(net, torch.rand(1, 1, 208, 208), latent))
    assert not torch.allclose(fused, bottleneck(net, nucleus, torch.rand(1, 5, 12)), atol=1e-5)


def test_attention_chooses_between_tokens_by_position():
    net = narrow("residual")
    tokens = torch.randn(1, 2, 12) * 5
    features = torch.randn(1, 16, 13, 13)
    step = net.fusion(features, tokens) - net.fusion(features, tokens.mean(1, keepdim=True))
    assert step.std((2, 3)).max() > 1e-3


def test_per_residue_ignores_padding_but_not_order():
    net, nucleus = narrow("per_residue"), torch.rand(1, 1, 64, 64)
    latent = torch.rand(1, 6, 12)
    padded = torch.cat([latent, torch.full((1, 3, 12), 7.0)], 1)
    mask = torch.arange(9)[None] < 6
    torch.testing.assert_close(net(nucleus, padded, mask=mask), net(nucleus, latent))
    assert not torch.allclose(bottleneck(net, nucleus, latent), bottleneck(net, nucleus, latent.flip(1)))


def test_paper_fusion_chooses_between_two_tokens_by_position():
    net = narrow("paper")
    fused = net.fusion(torch.randn(1, 16, 13, 13) * 5, torch.randn(1, 2, 12) * 5)
    assert fused.std((2, 3)).max() > 1e-2


def test_biases_before_batch_norms_change_no_image():
    torch.manual_seed(0)
    bare, biased = narrow("paper"), narrow("paper", conv_bias=True)
    biased.load_state_dict(bare.state_dict(), strict=False)
    nuclei, latent, which = torch.rand(2, 1, 32, 32), torch.rand(3, 1, 12), torch.tensor([0, 1, 1])
    shifts = {
        f"{name}.bias": torch.randn(part.bias.shape)
        for name, part in biased.named_modules()
        if isinstance(part, torch.nn.Conv2d) and f"{name}.bias" not in bare.state_dict()
    }
    moved = {}
    for name, shift in shifts.items():
        place, number = name.removesuffix(".bias").rpartition(".")[::2]
        mean = f"{place}.{int(number) + 1}.running_mean"
        moved[mean] = bare.state_dict()[mean] + shift
    biased.load_state_dict(shifts | moved, strict=False)
    assert len(shifts) == 18
    expected = bare(nuclei, latent, which=which)
    torch.testing.assert_close(biased(nuclei, latent, which=which), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(biased(nuclei[which], latent), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["paper", "residual", "per_residue"])
def test_an_image_does_not_depend_on_the_rest_of_the_batch(fusion):
    net, nuclei, latents = narrow(fusion), torch.rand(5, 1, 64, 64), torch.rand(5, 1, 12)
    together = net(nuclei, latents)
    alone = torch.cat([net(n[None], z[None]) for n, z in zip(nuclei, latents, strict=True)])
    torch.testing.assert_close(together, alone)


def test_folding_and_a_margin_draw_at_full_resolution():
    net = UNet((8, 16), latent_dim=6, fold=4, margin=8).eval()
    assert net(torch.rand(1, 1, 40, 48), torch.rand(1, 2, 6)).shape == (1, 1, 40, 48)


def test_a_margin_spares_the_image_the_frame_of_zero_padding():
    torch.manual_seed(1)
    framed = UNet((8, 16), latent_dim=6, fold=4).eval()
    spared = UNet((8, 16), latent_dim=6, fold=4, margin=24).eval()
    spared.load_state_dict(framed.state_dict())
    flat, latent = torch.full((1, 1, 64, 64), 0.5), torch.rand(1, 2, 6)

    def spread(net: UNet) -> float:
        image = net(flat, latent)[0, 0]
        return float((image[0] - image[32]).detach().abs().max())

    assert spread(spared) < 0.2 * spread(framed)


PINNED = (134, "1504769a57a9")
