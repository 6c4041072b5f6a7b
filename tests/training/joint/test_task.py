import pytest
import torch
from skimage.metrics import structural_similarity as reference
from torch.nn import functional as F  # noqa: N812

from deepgps.training.joint.task import label_loss, loss_terms, structural_similarity, weighted_sum


def images(count=3, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, count, 1, size, size, generator=generator)


@pytest.mark.parametrize("made", ["noise", "like", "flat", "equal"])
def test_ssim_is_that_of_scikit_image(made):
    real, drawn = images()
    if made == "like":
        drawn = 0.8 * real + 0.1
    elif made == "flat":
        drawn = torch.full_like(real, 0.3)
    elif made == "equal":
        drawn = real
    found = structural_similarity(real, drawn)
    for one, a, b in zip(found, real, drawn, strict=True):
        assert float(one) == pytest.approx(reference(a[0].numpy(), b[0].numpy(), data_range=1.0), abs=2e-5)


def test_ssim_of_an_image_that_is_no_square():
    real, drawn = images()[..., :17]
    wanted = reference(real[0, 0].numpy(), drawn[0, 0].numpy(), data_range=1.0)
    assert float(structural_similarity(real, drawn)[0]) == pytest.approx(wanted, abs=2e-5)


def test_the_gradient_of_ssim_is_right():
    real, drawn = images(1, 9).double()
    drawn.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: structural_similarity(real, image), drawn)


def test_descent_on_ssim_alone_finds_the_image():
    real, drawn = images(1, 12)
    drawn = drawn.clone().requires_grad_()
    optimiser = torch.optim.Adam([drawn], 0.02)
    for _ in range(300):
        optimiser.zero_grad()
        (1 - structural_similarity(real, drawn)).sum().backward()
        optimiser.step()
    assert float(structural_similarity(real, drawn.detach())) > 0.99


def test_the_label_loss_of_one_class_is_cross_entropy():
    logits, classes = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    found = label_loss(logits, F.one_hot(classes, 4).float(), multi_label=False)
    assert torch.allclose(found, F.cross_entropy(logits, classes, reduction="none"))


def test_the_label_loss_of_several_classes_is_binary():
    logits, targets = torch.randn(5, 4), (torch.rand(5, 4) > 0.5).float()
    chances = torch.sigmoid(logits)
    by_hand = -(targets * chances.log() + (1 - targets) * (1 - chances).log()).mean(1)
    assert torch.allclose(label_loss(logits, targets, multi_label=True), by_hand, atol=1e-6)


def test_what_weighs_nothing_is_left_out_and_the_rest_is_summed():
    real, drawn = images()
    logits, targets = torch.randn(3, 2), torch.eye(2)[[0, 1, 1]]
    weights = {"mae": 2, "ssim": 0.5}
    parts = loss_terms(drawn, logits, real, targets, weights, multi_label=False)
    assert list(parts) == ["mae", "ssim"]
    assert all(value.shape == (3,) for value in parts.values())
    by_hand = 2 * (real - drawn).abs().mean((1, 2, 3)) + 0.5 * (1 - structural_similarity(real, drawn))
    assert torch.allclose(weighted_sum(parts, weights), by_hand)


def test_nothing_is_lost_on_a_drawing_that_is_equal():
    real, _ = images()
    weights = {"mae": 1, "mse": 1, "ssim": 1}
    parts = loss_terms(real, torch.zeros(3, 0), real, torch.zeros(3, 2), weights, multi_label=False)
    assert weighted_sum(parts, weights).abs().max() < 1e-5
