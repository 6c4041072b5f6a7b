import hashlib

import pytest
import torch

from deepgps.models.pointnet import GLOBAL_FEATURE, XYZ_UNIT, PointNet, Transform, orthogonality_loss


def clouds(batch: int, points: int, seed: int = 0) -> torch.Tensor:
    """Atoms of a protein's extent, a third of each element."""
    torch.manual_seed(seed)
    elements = torch.eye(3)[torch.randint(3, (batch, points))]
    return torch.cat([torch.randn(batch, points, 3) * 15, elements], 2)


@pytest.fixture(scope="module")
def trained() -> PointNet:
    """A net whose transforms and running statistics have left where they began."""
    torch.manual_seed(0)
    net = PointNet().train()
    optimiser = torch.optim.SGD(net.parameters(), 0.05)
    for step in range(3):
        optimiser.zero_grad()
        net(clouds(4, 60, step)).square().mean().backward()
        optimiser.step()
    net.feature_transform.matrix.weight.data.normal_(0, 0.02)
    net.input_transform.matrix.weight.data.normal_(0, 0.02)
    return net.eval()


@pytest.mark.parametrize("points", [1, 7, 300])
def test_any_number_of_points_becomes_one_global_feature(trained, points):
    feature, transform = trained.encode(clouds(2, points))
    assert feature.shape == (2, GLOBAL_FEATURE) == (2, 1024)
    assert transform.shape == (2, 64, 64)
    assert torch.isfinite(feature).all()
    torch.testing.assert_close(trained(clouds(2, points)), feature)


def test_the_order_of_points_says_nothing(trained):
    cloud = clouds(2, 200)
    shuffled = cloud[:, torch.randperm(200)]
    assert not torch.equal(cloud, shuffled)
    torch.testing.assert_close(trained(shuffled), trained(cloud), rtol=1e-5, atol=1e-5)


def test_a_repeated_point_says_nothing(trained):
    cloud = clouds(1, 50)
    filled = torch.cat([cloud, cloud[:, torch.randint(50, (30,))]], 1)
    torch.testing.assert_close(trained(filled), trained(cloud), rtol=1e-5, atol=1e-5)


def test_the_rest_of_the_batch_says_nothing(trained):
    cloud = clouds(5, 100)
    alone = torch.cat([trained(each[None]) for each in cloud])
    torch.testing.assert_close(trained(cloud), alone, rtol=1e-5, atol=1e-5)


def test_place_and_element_both_count(trained):
    cloud = clouds(1, 100)
    moved, others = cloud.clone(), cloud.clone()
    moved[..., :3] *= 1.2
    others[..., 3:] = others[..., 3:].roll(1, -1)
    for changed in (moved, others):
        assert (trained(changed) - trained(cloud)).abs().max() > 1e-3


def test_places_in_angstrom_do_not_drown_the_elements():
    torch.manual_seed(0)
    cloud = clouds(8, 200).requires_grad_()
    PointNet().train()(cloud).square().mean().backward()
    places, elements = cloud.grad[..., :3] * cloud.std((0, 1))[:3], cloud.grad[..., 3:]
    assert (elements.abs().mean() / places.abs().mean()).item() > 0.3


def test_transforms_begin_as_the_identity():
    for channels in (3, 64):
        matrix = Transform(channels)(torch.randn(2, channels, 10))
        torch.testing.assert_close(matrix, torch.eye(channels).expand(2, -1, -1))


def test_the_input_transform_turns_coordinates_alone(trained):
    matrix = trained.input_transform(clouds(1, 40)[..., :3].mT / XYZ_UNIT)
    assert not torch.allclose(matrix, torch.eye(3)[None], atol=1e-3)
    seen = []
    hook = trained.low.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trained(cloud := clouds(1, 40))
    hook.remove()
    torch.testing.assert_close(seen[0][:, :3].mT, cloud[..., :3] / XYZ_UNIT @ matrix)
    assert torch.equal(seen[0][:, 3:].mT, cloud[..., 3:])


def test_the_regulariser_is_zero_for_a_rotation_and_grows_with_the_distance():
    rotation = torch.linalg.qr(torch.randn(2, 64, 64)).Q
    assert orthogonality_loss(rotation) < 1e-6
    # |I - 4 I|² = 3² for each of the 64 on the diagonal.
    torch.testing.assert_close(orthogonality_loss(2 * rotation), torch.tensor(64 * 9.0), rtol=1e-4, atol=0)


def test_the_regulariser_pulls_the_feature_transform_towards_orthogonal(trained):
    net = PointNet()
    net.load_state_dict(trained.state_dict())
    optimiser = torch.optim.SGD(net.feature_transform.matrix.parameters(), 1e-4)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = orthogonality_loss(net.eval().encode(clouds(4, 50))[1])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] > 0.01


def test_every_weight_learns():
    net = PointNet().train()
    # The last layers of the transforms begin at zero weight and let nothing through in the first step.
    for transform in (net.input_transform, net.feature_transform):
        torch.nn.init.normal_(transform.matrix.weight, std=0.01)
    net(clouds(4, 50)).square().mean().backward()
    assert [name for name, each in net.named_parameters() if not each.grad.abs().max() > 0] == []


@pytest.mark.parametrize("shape", [(10, 6), (2, 10, 3), (2, 0, 6), (2, 6, 10)])
def test_another_shape_is_refused(trained, shape):
    with pytest.raises(ValueError, match=r"the point clouds are \(.*\); give \(B, n, 6\)"):
        trained(torch.zeros(shape))


def test_the_state_dict_is_pinned_so_that_weights_stay_loadable():
    with torch.device("meta"):
        net = PointNet()
    lines = [f"{name} {tuple(value.shape)}" for name, value in net.state_dict().items()]
    assert sum(each.numel() for each in net.parameters()) == PINNED_PARAMETERS
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]) == PINNED


PINNED_PARAMETERS = 2_806_985
PINNED = (94, "83cf35c18b01")
