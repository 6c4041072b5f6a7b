import copy

import pytest
import torch

from deepgps.training.finetune.unfold import load_weights
from deepgps.training.graphs import condensed
from deepgps.training.joint.build import build_model
from joint_store import recipe

BOTH = {"protein": {"inputs": ["sequence", "structure"], "encoder": "segments-1", "structure_points": 16}}


def lived(fields):
    """A network that has seen something, so that its batch norms are not those of a fresh one."""
    torch.manual_seed(0)
    model = build_model(recipe(**fields), 6)
    for _ in range(3):
        model(torch.rand(4, 1, 32, 32), protein(4))
    return model.eval()


def protein(count):
    return {"embedding": torch.randn(count, 6), "points": torch.randn(count, 16, 6)}


@pytest.mark.parametrize("fields", [{}, BOTH, {"losses": {"label": 0}}])
def test_folded_weights_answer_as_before_with_the_statistics_at_hand(fields):
    folded = condensed(copy.deepcopy(lived(fields)))
    torch.manual_seed(1)
    fresh, nuclei, proteins = build_model(recipe(**fields), 6), torch.rand(16, 1, 32, 32), protein(16)
    calls = []

    def predict():
        for part in (slice(0, 8), slice(8, 16)):
            calls.append(part)
            fresh(nuclei[part], {name: value[part] for name, value in proteins.items()})

    load_weights(fresh, folded.state_dict(), predict)
    assert len(calls) == 2
    with torch.no_grad():
        others = torch.rand(5, 1, 32, 32), protein(5)
        for want, got in zip(folded(*others)[:2], fresh(*others)[:2], strict=True):
            torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
        # All crops in one batch have the statistics that were settled: training begins where it stood.
        fresh.train()
        torch.testing.assert_close(
            fresh(nuclei, proteins).image, folded(nuclei, proteins).image, atol=1e-3, rtol=1e-2
        )


def test_whole_weights_are_loaded_as_they_are():
    model, fresh = lived({}), build_model(recipe(), 6)
    load_weights(fresh, model.state_dict(), lambda: pytest.fail("nothing is to be settled"))
    inputs = torch.rand(3, 1, 32, 32), protein(3)
    with torch.no_grad():
        torch.testing.assert_close(fresh(*inputs).image, model(*inputs).image, atol=0, rtol=0)


@pytest.mark.parametrize("fold", [True, False])
def test_weights_of_another_network_are_no_good(fold):
    model = lived({"model": {"widths": [4, 16], "latent_dim": 8, "latent_tokens": 2, "heads": 2}})
    weights = (condensed(model) if fold else model).state_dict()
    with pytest.raises(RuntimeError):
        load_weights(build_model(recipe(), 6), weights, lambda: None)
