"""`paper-exact` against the formulas of the paper's code, written anew, with weights at random."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from deepgps.models.deepgps import DeepGPS
from deepgps.training.joint.data import Batch
from deepgps.training.joint.task import JointTask, build_model
from deepgps.training.recipe import JointRecipe, load_recipe

WIDTHS = (64, 128, 256, 512, 1024)
LATENT, EMBEDDING = 1024, 1280
VARIANTS = {
    "single-2": [],
    "single-4": ["class_set=single-4"],
    "all": ["class_set=all", "losses.label=0"],
    "structure": ["protein.inputs=[structure]"],
    "both": ["protein.inputs=[sequence, structure]"],
}


def exact(name: str) -> JointRecipe:
    recipe = load_recipe("paper-exact", VARIANTS[name])
    assert isinstance(recipe, JointRecipe)
    return recipe


@pytest.fixture(scope="module", params=VARIANTS)
def network(request) -> tuple[str, DeepGPS]:
    """A network in evaluation mode; biases and statistics have left where they begin."""
    torch.manual_seed(0)
    model = build_model(exact(request.param), EMBEDDING).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.ndim == 1 and name.endswith(("weight", "bias", "running_mean")):
                value.add_(torch.randn_like(value) * 0.1)
    return request.param, model


# ---- the formulas ----


def norm(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Batch normalisation with the running statistics."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    centred = (x - w["running_mean"].view(shape)) / (w["running_var"].view(shape) + 1e-5).sqrt()
    return centred * w["weight"].view(shape) + w["bias"].view(shape)


def part(w: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def double_conv(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    for conv, after in (("0.", "1."), ("3.", "4.")):
        x = F.conv2d(x, w[f"{conv}weight"], w[f"{conv}bias"], padding=1)
        x = norm(x, part(w, after)).clamp(min=0)
    return x


def attention(image: Tensor, tokens: Tensor, w: dict[str, Tensor]) -> Tensor:
    """softmax(Q Kᵀ / √d) V W + b of the places against the tokens, one head."""
    places = image.flatten(2).transpose(1, 2)
    q, k, v = (
        given @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        for name, given in (("query", places), ("key", tokens), ("value", tokens))
    )
    scores = torch.exp(q @ k.transpose(1, 2) / math.sqrt(WIDTHS[-1]))
    fused = (scores / scores.sum(2, keepdim=True)) @ v @ w["out.weight"].T + w["out.bias"]
    return fused.transpose(1, 2).reshape(image.shape)


def generator(nucleus: Tensor, tokens: Tensor, w: dict[str, Tensor]) -> Tensor:
    levels = [double_conv(nucleus, part(w, "down.0."))]
    for depth in range(1, 5):
        halved = levels[-1].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        levels.append(double_conv(halved, part(w, f"down.{depth}.")))
    x = attention(levels[4], tokens, part(w, "fusion."))
    for step, skip in enumerate(levels[3::-1]):
        x = F.conv_transpose2d(x, w[f"up.{step}.weight"], w[f"up.{step}.bias"], stride=2)
        x = double_conv(torch.cat([skip, x], 1), part(w, f"merge.{step}."))
    return 1 / (1 + torch.exp(-F.conv2d(x, w["head.weight"], w["head.bias"])))


def dense(x: Tensor, w: dict[str, Tensor], *names: str) -> Tensor:
    for conv, after in zip(names[::2], names[1::2], strict=True):
        x = torch.einsum("oi,bin->bon", w[f"{conv}.weight"][..., 0], x) + w[f"{conv}.bias"][None, :, None]
        x = norm(x, part(w, f"{after}.")).clamp(min=0)
    return x


def transform(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    whole = dense(x, part(w, "points."), "0", "1", "3", "4", "6", "7").amax(2, keepdim=True)
    whole = dense(whole, part(w, "whole."), "0", "1", "3", "4")[..., 0]
    edge = x.shape[1]
    return (whole @ w["matrix.weight"].T + w["matrix.bias"]).reshape(-1, edge, edge)


def pointnet(points: Tensor, w: dict[str, Tensor]) -> Tensor:
    turned = points @ transform(points.transpose(1, 2), part(w, "input_transform."))
    low = dense(turned.transpose(1, 2), part(w, "low."), "0", "1").transpose(1, 2)
    x = (low @ transform(low.transpose(1, 2), part(w, "feature_transform."))).transpose(1, 2)
    high = part(w, "high.")
    x = dense(x, high, "0", "1")
    x = torch.einsum("oi,bin->bon", high["3.weight"][..., 0], x) + high["3.bias"][None, :, None]
    return norm(x, part(high, "4.")).amax(2)


def by_hand(nucleus: Tensor, protein: dict[str, Tensor], w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Image, and probabilities of the classes where there are any."""
    tokens = []
    if "sequence.project.0.weight" in w:
        dim = w["sequence.project.0.weight"], w["sequence.project.0.bias"]
        tokens.append((protein["embedding"] @ dim[0].T + dim[1]).clamp(min=0))
    if "structure.pointnet.low.0.weight" in w:
        tokens.append(pointnet(protein["points"], part(w, "structure.pointnet.")))
    x = sum(tokens) / len(tokens)
    for layer in (0, 2, 4):
        if f"classifier.{layer}.weight" in w:
            x = x @ w[f"classifier.{layer}.weight"].T + w[f"classifier.{layer}.bias"]
            x = x.clamp(min=0) if layer < 4 else torch.exp(x) / torch.exp(x).sum(1, keepdim=True)
    return generator(nucleus, torch.stack(tokens, 1), part(w, "generator.")), x


# ---- against them ----


@torch.no_grad()
def test_outputs_and_loss_are_those_of_the_formulas(network):
    name, model = network
    recipe, classes = exact(name), {"single-4": 4, "all": 17}.get(name, 2)
    torch.manual_seed(1)
    pairs = torch.randint(0, 256, (2, 2, 64, 64), dtype=torch.uint8)
    elements = torch.eye(3)[torch.randint(3, (2, 50))]
    protein = {
        "embedding": torch.randn(2, EMBEDDING),
        "points": torch.cat([torch.randn(2, 50, 3) * 2, elements], 2),
    }
    targets = torch.eye(classes)[[0, 1]]
    nucleus, real = pairs[:, :1] / 255, pairs[:, 1:] / 255
    image, chances = by_hand(nucleus, protein, model.state_dict())
    drawn = model(nucleus, protein)
    torch.testing.assert_close(drawn.image, image, rtol=1e-3, atol=1e-4)
    assert image.std() > 0.01
    loss = (image - real).abs().mean()
    if name != "all":
        torch.testing.assert_close(drawn.logits.softmax(1), chances, rtol=1e-3, atol=1e-4)
        assert (chances[0] - chances[1]).abs().max() > 1e-3
        twice = torch.exp(chances) / torch.exp(chances).sum(1, keepdim=True)
        loss = loss - (targets * torch.log(twice)).sum(1).mean()
    data = SimpleNamespace(rows={"train": np.arange(64)})
    task = JointTask(recipe, data, None, model, None)
    found = task.losses(model, Batch(pairs, protein, targets))[0]
    torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-4)
    assert task.loss_names == (("loss", "mae") if name == "all" else ("loss", "mae", "label"))


def conv(inputs: int, outputs: int, edge: int) -> int:
    return inputs * outputs * edge**2 + outputs


def expected_weights(name: str) -> int:
    """Weights of the layers that the paper's code uses, layer by layer."""

    def two_convs(inputs: int, outputs: int) -> int:
        return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + 4 * outputs

    def points(*widths: int) -> int:
        return sum(conv(inputs, outputs, 1) + 2 * outputs for inputs, outputs in pairwise(widths))

    def turned(edge: int) -> int:
        return points(edge, 64, 128, 1024) + points(1024, 512, 256) + conv(256, edge**2, 1)

    down = two_convs(1, 64) + sum(two_convs(w, 2 * w) for w in WIDTHS[:-1])
    up = sum(conv(w, w // 2, 2) + two_convs(w, w // 2) for w in WIDTHS[1:])
    weights = down + up + conv(64, 1, 1) + 4 * LATENT * (LATENT + 1)
    if name != "structure":
        weights += EMBEDDING * LATENT + LATENT
    if name in ("structure", "both"):
        weights += turned(6) + turned(64) + points(6, 64) + points(64, 128, 1024)
    if name != "all":
        weights += conv(1024, 512, 1) + conv(512, 256, 1) + conv(256, 4 if name == "single-4" else 2, 1)
    return weights


def test_weights_are_as_many_as_in_the_papers_code(network):
    name, model = network
    assert sum(each.numel() for each in model.parameters()) == expected_weights(name)
    assert expected_weights("single-2") == 37_209_155


def test_fresh_weights_are_drawn_as_in_the_papers_code():
    torch.manual_seed(0)
    fresh = dict(build_model(exact("single-2"), EMBEDDING).generator.named_parameters())
    # Kaiming-uniform for ReLU: bound √(6 / fan-in); a transposed convolution's fan-in has its outputs.
    bounds = {
        "down.2.0.weight": math.sqrt(6 / (128 * 9)),
        "up.0.weight": math.sqrt(6 / (512 * 4)),
        "head.weight": math.sqrt(6 / 64),
        "fusion.key.weight": math.sqrt(6 / (1024 + 3 * 1024)),
        "fusion.out.weight": 1 / math.sqrt(1024),
    }
    for name, bound in bounds.items():
        assert 0.9 * bound < float(fresh[name].detach().abs().max()) <= bound
        assert float(fresh[name].detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
    norms = {name for name in fresh if name.endswith((".1.weight", ".4.weight")) and "up" not in name}
    assert all(bool((fresh[name] == 1).all()) for name in norms)
    assert all(bool((value == 0).all()) for name, value in fresh.items() if name.endswith("bias"))


def test_the_optimiser_is_that_of_the_papers_code():
    recipe = exact("single-2")
    data = SimpleNamespace(rows={"train": np.arange(64)})
    task = JointTask(recipe, data, None, torch.nn.Linear(2, 2), None)
    (group,) = task.optimizer().param_groups
    assert (group["lr"], group["eps"], group["weight_decay"]) == (2e-4, 1e-6, 0)
    assert (group["betas"], task.accumulate, task.steps) == ((0.9, 0.999), 4, 2)
    assert [task.schedule(step)["lr"] for step in (0, 1, 2, 99)] == pytest.approx(
        [2e-4, 2e-4, 1.8e-4, 2e-4 * 0.9**49]
    )
