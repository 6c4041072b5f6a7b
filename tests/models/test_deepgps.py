import hashlib

import pytest
import torch
from torch import Tensor

from deepgps.models.deepgps import DeepGPS
from deepgps.models.latents import SequenceLatent, StructureLatent
from deepgps.models.unet import UNet
from deepgps.training.joint.task import build_model
from deepgps.training.recipe import JointRecipe

E, D = 20, 16
INPUTS = [("sequence",), ("structure",), ("sequence", "structure")]


def recipe(inputs=("sequence",), fusion="residual", label=1.0, **model) -> JointRecipe:
    tokens = 1 if fusion == "paper" else 4
    settings = {"widths": (4, 8, 16), "latent_dim": D, "latent_tokens": tokens, "heads": 2, "fusion": fusion}
    return JointRecipe.model_validate(
        {
            "kind": "joint",
            "name": "tiny",
            "version": "1",
            "class_set": "single-4",
            "protein": {"inputs": inputs},
            "model": {**settings, **model},
            "losses": {"label": label},
        }
    )


def built(*args, **options) -> DeepGPS:
    torch.manual_seed(0)
    return build_model(recipe(*args, **options), E).eval()


def proteins(batch: int, *, residues: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(1)
    if residues is not None:
        return {"residues": torch.randn(batch, residues, E)}
    return {"embedding": torch.randn(batch, E), "points": torch.randn(batch, 30, 6)}


def of(protein: dict[str, Tensor], rows) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in protein.items()}


@pytest.mark.parametrize("fusion", ["paper", "residual"])
@pytest.mark.parametrize("inputs", INPUTS)
def test_one_model_takes_any_list_of_inputs(inputs, fusion):
    model = built(inputs, fusion)
    image, logits, penalty = model(torch.rand(3, 1, 32, 48), proteins(3))
    assert image.shape == (3, 1, 32, 48)
    assert 0 <= image.min() <= image.max() <= 1
    assert logits.shape == (3, 4)
    assert penalty.shape == ()
    tokens = model.encode(proteins(3)).tokens
    assert tokens.shape == (3, len(inputs) * (1 if fusion == "paper" else 4), D)


def test_residues_are_latents_of_their_own():
    model = built(fusion="per_residue")
    encoded = model.encode(proteins(2, residues=7))
    assert encoded.tokens.shape == (2, 7, D)
    assert encoded.logits.shape == (2, 4)


@pytest.mark.parametrize("inputs", INPUTS)
def test_every_input_reaches_the_label_and_the_image(inputs):
    model, protein, nucleus = built(inputs), proteins(2), torch.rand(2, 1, 32, 32)
    image, logits, _ = model(nucleus, protein)
    for name, value in protein.items():
        other_image, other_logits, _ = model(nucleus, {**protein, name: value.flip(0)})
        looked_at = {"embedding": "sequence", "points": "structure"}[name] in inputs
        assert torch.equal(image, other_image) != looked_at
        assert torch.equal(logits, other_logits) != looked_at


def test_the_penalty_is_that_of_the_feature_transform_and_zero_without_structures():
    assert built()(torch.rand(1, 1, 32, 32), proteins(1)).penalty == 0
    model = built(("structure",))
    assert model.encode(proteins(2)).penalty < 1e-6  # transforms begin as the identity
    model.structure.pointnet.feature_transform.matrix.bias.data *= 2
    # |I - 4 I|² = 3² for each of the 64 on the diagonal.
    torch.testing.assert_close(model.encode(proteins(2)).penalty, torch.tensor(64 * 9.0))


def test_without_a_label_loss_there_is_no_classifier():
    model = built(label=0)
    assert model(torch.rand(2, 1, 32, 32), proteins(2)).logits.shape == (2, 0)
    assert not [name for name in model.state_dict() if name.startswith("classifier")]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("fusion", ["paper", "residual"])
def test_an_answer_does_not_depend_on_the_rest_of_the_batch(inputs, fusion):
    model, protein, nuclei = built(inputs, fusion), proteins(4), torch.rand(4, 1, 32, 32)
    together = model(nuclei, protein)
    for row in range(4):
        alone = model(nuclei[row : row + 1], of(protein, slice(row, row + 1)))
        torch.testing.assert_close(alone.image[0], together.image[row], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-5, atol=1e-5)


def test_an_answer_does_not_depend_on_padding():
    model, nucleus = built(fusion="per_residue"), torch.rand(2, 1, 32, 32)
    residues, lengths = torch.randn(2, 9, E), torch.tensor([9, 5])
    padded = torch.cat([residues, torch.full((2, 6, E), 50.0)], 1)
    padded[1, 5:] = -50.0
    mask = torch.arange(15) < lengths[:, None]
    together = model(nucleus, {"residues": padded, "mask": mask})
    for row, length in enumerate(lengths):
        bare = {"residues": residues[row : row + 1, :length]}
        alone = model(nucleus[row : row + 1], bare)
        torch.testing.assert_close(alone.image[0], together.image[row], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-5, atol=1e-5)


def test_residues_and_a_structure_share_a_mask():
    model = DeepGPS(
        UNet((4, 8), D, heads=2),
        sequence=SequenceLatent(E, D),
        structure=StructureLatent(D, 2),
        latent_dim=D,
    ).eval()
    mask = torch.tensor([[True, True, False]])
    encoded = model.encode({"residues": torch.randn(1, 3, E), "mask": mask, "points": torch.randn(1, 9, 6)})
    assert encoded.tokens.shape == (1, 5, D)
    assert encoded.mask.tolist() == [[True, True, False, True, True]]


def fused(model: DeepGPS, nucleus: Tensor, protein: dict[str, Tensor]) -> Tensor:
    generator = model.generator
    return generator.fusion(generator.encode(nucleus)[-1], model.encode(protein).tokens)


@pytest.mark.parametrize("inputs", INPUTS[:2])
def test_the_bottleneck_of_paper_is_constant_and_that_of_residual_is_not(inputs):
    nucleus = torch.rand(1, 1, 64, 64)
    constant = fused(built(inputs, "paper"), nucleus, proteins(1))
    torch.testing.assert_close(constant, constant[:, :, :1, :1].expand_as(constant))
    torch.testing.assert_close(constant, fused(built(inputs, "paper"), torch.rand(1, 1, 64, 64), proteins(1)))
    assert fused(built(inputs, "residual"), nucleus, proteins(1)).std((2, 3)).max() > 1e-3


def test_the_classifier_sees_the_mean_of_the_tokens():
    model = built(("sequence", "structure"))
    encoded = model.encode(proteins(3))
    torch.testing.assert_close(model.classifier(encoded.tokens.mean(1)), encoded.logits)


def test_dropout_spares_the_image_and_is_gone_in_evaluation():
    model, nucleus, protein = built(dropout=0.5), torch.rand(2, 1, 32, 32), proteins(2)
    assert torch.equal(model(nucleus, protein).logits, model(nucleus, protein).logits)
    model.dropout.train()
    first, second = model(nucleus, protein), model(nucleus, protein)
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.logits, second.logits)


def test_standardising_embeddings_undoes_their_scale():
    model, protein = built(), proteins(3)
    expected = model.encode(protein)
    mean, scale = torch.randn(E), torch.rand(E) + 0.5
    model.standardise(mean, scale)
    shifted = {"embedding": protein["embedding"] * scale + mean}
    torch.testing.assert_close(model.encode(shifted).tokens, expected.tokens, rtol=1e-4, atol=1e-4)
    assert set(model.state_dict()) >= {"sequence.mean", "sequence.scale"}
    with pytest.raises(ValueError, match="uses no sequences"):
        built(("structure",)).standardise(mean, scale)


def test_a_model_must_look_at_something():
    with pytest.raises(ValueError, match="give sequence, structure or both"):
        DeepGPS(UNet((4, 8), D))
    with pytest.raises(ValueError, match="give the embedding's dimension"):
        build_model(recipe(), None)
    assert build_model(recipe(("structure",)), None).sequence is None


@pytest.mark.parametrize("inputs", INPUTS)
def test_every_weight_learns(inputs):
    torch.manual_seed(0)
    model = built(inputs).train()
    for name, parameter in model.named_parameters():
        if name.endswith("transform.matrix.weight"):  # these begin at zero and let nothing through
            torch.nn.init.normal_(parameter, std=0.01)
    drawn = model(torch.rand(4, 1, 32, 32), proteins(4))
    (drawn.image.square().mean() + drawn.logits.square().mean() + drawn.penalty).backward()
    still = [name for name, each in model.named_parameters() if not each.grad.abs().max() > 0]
    assert still == []


def test_the_published_shapes():
    with torch.device("meta"):
        model = paper()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["sequence.project.0.weight"] == (1024, 1280)
    assert [shapes[f"classifier.{i}.weight"] for i in (0, 2, 4)] == [(512, 1024), (256, 512), (2, 256)]
    assert shapes["generator.down.4.3.weight"] == (1024, 1024, 3, 3)


def paper(inputs=("sequence",)) -> DeepGPS:
    settings = {"latent_tokens": 1, "fusion": "paper"}
    fields = {"kind": "joint", "name": "paper", "version": "1", "class_set": "single-2"}
    return build_model(
        JointRecipe.model_validate({**fields, "protein": {"inputs": inputs}, "model": settings}), 1280
    )


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_state_dict_is_pinned_so_that_weights_stay_loadable(inputs):
    with torch.device("meta"):
        model = paper(inputs)
    lines = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    assert (sum(each.numel() for each in model.parameters()), len(lines), digest) == PINNED[inputs]


PINNED = {
    ("sequence",): (37_203_267, 136, "ff7aa0e48b9f"),
    ("structure",): (39_748_108, 228, "6593be587cf0"),
    ("sequence", "structure"): (41_059_852, 232, "89939418ed31"),
}
