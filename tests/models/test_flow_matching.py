"""Flow matching: the network, its loss, and how it draws."""

import hashlib

import pytest
import torch
from torch import Tensor, nn

from deepgps.models.flow_matching import (
    FlowMatchingUNet,
    between,
    condition,
    decode,
    draw,
    encode,
    mean_image,
    noise,
    velocity_loss,
)


@pytest.fixture(scope="module")
def network() -> FlowMatchingUNet:
    """A small network with weights that make every input count."""
    torch.manual_seed(0)
    made = FlowMatchingUNet(3, 6, (16, 24, 32), embedding=32)
    for weight in made.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.05)
    return made.eval()


def inputs(count: int = 2, size: int = 32) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "images": torch.rand(count, 3, size, size, generator=made),
        "given": torch.ones(count, 3),
        "condition": torch.rand(count, 6, generator=made),
    }


@pytest.mark.parametrize("size", [32, 52, 104])
def test_any_multiple_of_the_fold_keeps_its_size(network: FlowMatchingUNet, size: int) -> None:
    given = inputs(size=size)
    with torch.no_grad():
        drawn = network(noise([0, 1], size, size), torch.rand(2), mean=torch.zeros(2), **given)
    assert drawn.shape == (2, 1, size, size)


def test_a_landmark_that_is_not_given_does_not_count(network: FlowMatchingUNet) -> None:
    some = inputs()
    other = {**some, "images": some["images"].clone()}
    other["images"][:, 1:] = 0.5
    start = noise([0, 1], 32, 32)
    for given, counts in ((0.0, False), (1.0, True)):
        some["given"][:, 1:] = other["given"][:, 1:] = given
        drawn = [draw(network, start, **each, steps=2) for each in (some, other)]
        assert torch.equal(*drawn) != counts


def test_whether_a_landmark_is_given_counts(network: FlowMatchingUNet) -> None:
    some = inputs()
    some["images"][:, 1:] = 0.5  # what stands in its place is the same
    absent = {**some, "given": torch.tensor([[1.0, 0.0, 0.0]] * 2)}
    start = noise([0, 1], 32, 32)
    assert not torch.equal(draw(network, start, **some, steps=2), draw(network, start, **absent, steps=2))


def test_classes_that_are_unknown_do_not_count() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    words, domain = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    unknown = [
        condition(classes, zero, words, zero, domain) for classes in (torch.eye(3)[:1], torch.eye(3)[1:2])
    ]
    assert torch.equal(*unknown)
    known = condition(torch.eye(3)[:1], one, words, one, domain)
    assert known.tolist() == [[1, 0, 0, 1, 1, 0, 1, 0, 1]]


def test_the_loss_is_the_squared_error_of_the_velocity() -> None:
    clean, start = encode(torch.rand(3, 1, 8, 8)), noise(range(3), 8, 8)
    time = torch.tensor([0.0, 0.3, 0.8])
    predicted = clean + 0.1 * torch.randn(clean.shape)
    mixed = between(start, clean, time)
    left = (1 - time)[:, None, None, None]
    velocity = (predicted - mixed) / left
    expected = ((velocity - (clean - start)) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(velocity_loss(predicted, clean, time), expected, rtol=1e-4, atol=1e-5)
    assert velocity_loss(clean, clean, time).tolist() == [0, 0, 0]


def test_encoding_is_undone() -> None:
    image = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(decode(encode(image)), image)
    assert encode(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("steps", [1, 7])
def test_who_knows_the_image_draws_it(steps: int) -> None:
    image = torch.rand(2, 1, 32, 32)

    class Knows(nn.Module):
        def forward(self, *_: Tensor) -> Tensor:
            return encode(image)

    some = inputs()
    drawn = draw(
        Knows(), noise([0, 1], 32, 32), **some, unconditional=some["condition"], steps=steps, guidance=3
    )
    torch.testing.assert_close(drawn, image, rtol=1e-4, atol=1e-5)


def test_an_image_follows_from_its_seed(network: FlowMatchingUNet) -> None:
    some = inputs()
    second = {name: each[1:] for name, each in some.items()}
    drawn = draw(network, noise([3, 4], 32, 32), **some, steps=3)
    again = draw(network, noise([4], 32, 32), **second, steps=3)
    other = draw(network, noise([5], 32, 32), **second, steps=3)
    torch.testing.assert_close(drawn[1:], again, rtol=1e-4, atol=1e-5)
    assert (other - again).abs().max() > 0.01
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_guidance_goes_away_from_the_unconditional(network: FlowMatchingUNet) -> None:
    some, nothing = inputs(), torch.zeros(2, 6)
    start = noise([0, 1], 32, 32)
    plain = draw(network, start, **{**some, "condition": nothing}, steps=1)
    drawn = draw(network, start, **some, steps=1)
    guided = draw(network, start, **some, unconditional=nothing, steps=1, guidance=2)
    inside = (guided > 0) & (guided < 1) & (drawn > 0) & (plain > 0)
    expected = 2 * encode(drawn) - encode(plain)
    torch.testing.assert_close(encode(guided)[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_the_mean_image_knows_no_noise(network: FlowMatchingUNet) -> None:
    some, ones = inputs(), torch.ones(2)
    with torch.no_grad():
        means = [
            network(noise(seeds, 32, 32), torch.rand(2), mean=ones, **some) for seeds in ([0, 1], [2, 3])
        ]
    assert torch.equal(*means)
    torch.testing.assert_close(mean_image(network, **some), ((means[0] + 1) / 2).clamp(0, 1))


def test_state_dicts_are_pinned_so_that_weights_stay_loadable() -> None:
    with torch.device("meta"):
        structure, grain = FlowMatchingUNet(3, 57), FlowMatchingUNet(2, 57, (32, 48), attention=0)
    found = []
    for each in (structure, grain):
        lines = [f"{name} {tuple(value.shape)}" for name, value in each.state_dict().items()]
        found.append((len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]))
    assert found == PINNED


PINNED = [(172, "7e16c218f8f9"), (114, "b8ca5b7a3084")]
