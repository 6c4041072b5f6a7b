import pytest
import torch

from deepgps.models.sequence_encoder import EVIDENCE, SequenceEncoder, evidence


@pytest.fixture
def model() -> SequenceEncoder:
    torch.manual_seed(0)
    model = SequenceEncoder(features=7, votes=7, classes=3, widths=(5, 4), members=2).eval()
    with torch.no_grad():
        model.head_weight.normal_()
        model.mean.normal_()
    return model


def test_state_dict_is_pinned(model):
    member = {
        "0.weight": (5, 7),
        "0.bias": (5,),
        "3.weight": (4, 5),
        "3.bias": (4,),
        "6.weight": (6, 4),
        "6.bias": (6,),
    }
    expected = {"mean": (7,), "scale": (7,), "head_weight": (3, EVIDENCE), "head_bias": (3,)}
    expected |= {"calibration_scale": (3,), "calibration_shift": (3,)}
    expected |= {f"members.{number}.{name}": shape for number in (0, 1) for name, shape in member.items()}
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 2 * (40 + 24 + 30) + 3 * EVIDENCE + 9


def test_a_row_does_not_depend_on_its_batch(model):
    features, votes = torch.randn(9, 7), torch.rand(9, 7)
    alone = torch.cat([model(features[i : i + 1], votes[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(model(features, votes), alone)


def test_an_untrained_head_averages_the_own_logits():
    model = SequenceEncoder(7, 7, 3, widths=(5,)).eval()
    features = torch.randn(4, 7)
    torch.testing.assert_close(model(features, torch.rand(4, 7)), model.own_logits(features).mean(1))


def test_outliers_are_clipped(model):
    far, farther = torch.full((1, 7), 1e3), torch.full((1, 7), 1e9)
    torch.testing.assert_close(model.own_logits(far), model.own_logits(farther))


def test_evidence_pairs_each_class_with_its_own_votes():
    own = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    seen = evidence(own, torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]))
    expected = torch.tensor(
        [[[1.0, 3.0, 0.1, 0.3, 0.5, 1.5, 0.05, 0.15], [2.0, 4.0, 0.2, 0.4, 1.0, 2.0, 0.1, 0.2]]]
    )
    torch.testing.assert_close(seen, expected)


def test_calibration_is_part_of_the_graph(model):
    features, votes = torch.randn(2, 7), torch.rand(2, 7)
    before = model(features, votes)
    with torch.no_grad():
        model.calibration_scale.fill_(2)
        model.calibration_shift.fill_(1)
    torch.testing.assert_close(model(features, votes), 2 * before + 1)


def test_votes_must_fit_the_classes():
    with pytest.raises(ValueError, match="give 7"):
        SequenceEncoder(features=7, votes=6, classes=3)
