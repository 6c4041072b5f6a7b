"""Drawing by flow matching, with small networks: what an image depends on, and what it does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import round_nucleus
from deepgps.bundle import Bundle
from deepgps.images.cell import Cell
from deepgps.models import flow_matching
from deepgps.models.flow_matching import FlowMatchingUNet
from deepgps.prediction import Predictor
from deepgps.prediction.generator import _enlarged, _noise
from deepgps.prediction.predictor import with_words
from deepgps.proteins.known import Statement
from deepgps.training.graphs import graph_weights


@pytest.fixture(scope="module", params=["cpu"])
def predictor(tiny_flow_bundle: Bundle, request: pytest.FixtureRequest) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPGPS_RUNTIME", request.param)
        predictor = Predictor(tiny_flow_bundle, threads=1)
        predictor.draw([round_nucleus("n", 40)], [latent()])  # opens the graphs
        return predictor


def latent(*classes: int) -> np.ndarray:
    made = np.full((1, 12), 0.02, np.float32)
    made[0, list(classes)] = 0.9
    return made


CELL = round_nucleus("n", 40)


def test_an_image_has_the_size_of_the_crop_and_lies_in_0_to_1(predictor: Predictor) -> None:
    image = predictor.draw([CELL], [latent(1)])
    assert image.shape == (1, 208, 208) and image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


def test_the_same_seed_draws_the_same_image_and_another_seed_another(predictor: Predictor) -> None:
    first, again = (predictor.draw([CELL], [latent(1)]) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, predictor.with_seed(1).draw([CELL], [latent(1)]))


def test_an_image_does_not_depend_on_what_is_drawn_beside_it(predictor: Predictor) -> None:
    cells = [CELL, round_nucleus("m", 20), CELL]
    latents = [latent(1), latent(2), latent(3)]
    together = predictor.draw(cells, latents)
    alone = np.concatenate(
        [predictor.draw([cell], [each]) for cell, each in zip(cells, latents, strict=True)]
    )
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("change", ["protein", "words", "nucleus", "microtubules", "er", "cell_line"])
def test_everything_that_is_known_counts(predictor: Predictor, change: str) -> None:
    before, cell, described = predictor.draw([CELL], [latent(1)]), CELL, latent(1)
    other = round_nucleus("other", 60).nucleus
    if change == "protein":
        described = latent(2)
    elif change == "words":
        described = np.concatenate([described, np.array([[1, 0]], np.float32)], 1)
    else:
        cell = replace(cell, **{change: "U-2 OS" if change == "cell_line" else other})
    assert not np.allclose(before, predictor.draw([cell], [described]), atol=1e-3)


def test_a_mean_image_has_no_chance_in_it_and_mirrors_with_the_cell(predictor: Predictor) -> None:
    mean = predictor.with_mean_images()
    cell = replace(CELL, er=np.tri(208, dtype=np.float32))
    image = mean.draw([cell], [latent(1)])
    assert np.array_equal(image, mean.with_seed(5).draw([cell], [latent(1)]))
    mirrored = replace(cell, nucleus=cell.nucleus[:, ::-1], er=cell.er[:, ::-1])
    assert np.allclose(mean.draw([mirrored], [latent(1)])[..., ::-1], image, atol=1e-5)


def test_it_draws_what_the_networks_draw_in_torch(predictor: Predictor, tiny_flow_bundle: Bundle) -> None:
    spec = tiny_flow_bundle.metadata.flow_matching
    size = 12 + 1 + 2 + 1 + 2
    structure = FlowMatchingUNet(3, size, (8, 16), embedding=16, attention=0)
    grain = FlowMatchingUNet(2, size, (8, 16), embedding=16, attention=0)
    for network, name in ((structure, "generator.onnx"), (grain, "grain.onnx")):
        network.load_state_dict(graph_weights(tiny_flow_bundle.read(name)))
    cell = replace(CELL, er=round_nucleus("er", 70).nucleus, cell_line="U-2 OS")
    one = torch.ones(1)
    described = flow_matching.condition(
        torch.from_numpy(latent(1)), one, torch.zeros(1, 2), 0 * one, torch.tensor([[0.0, 1.0]])
    )
    channels = torch.from_numpy(np.stack([cell.nucleus, np.zeros_like(cell.nucleus), cell.er]))[None]
    coarse = flow_matching.draw(
        structure,
        torch.from_numpy(_noise(0, cell, (104, 104)))[None, None],
        torch.nn.functional.avg_pool2d(channels, 2),
        torch.tensor([[1.0, 0.0, 1.0]]),
        described,
        steps=spec.steps,
    )
    wide = torch.nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    drawn = flow_matching.draw(
        grain,
        torch.from_numpy(_noise(0, cell, (208, 208)))[None, None],
        torch.cat([channels[:, :1], wide], 1),
        torch.ones(1, 2),
        described,
        steps=spec.grain_steps,
    )
    assert np.allclose(predictor.draw([cell], [latent(1)]), drawn[:, 0].numpy(), atol=1e-3)


def test_enlarging_is_that_of_torch() -> None:
    image = np.random.default_rng(0).random((2, 5, 7), np.float32)
    wide = torch.nn.functional.interpolate(torch.from_numpy(image)[None], scale_factor=2.0, mode="bilinear")
    assert np.allclose(_enlarged(image), wide[0].numpy(), atol=1e-6)


def test_a_prediction_names_its_seed(predictor: Predictor) -> None:
    cell: Cell = predictor.load_cell("u2os-1")
    assert cell.cell_line == "U-2 OS"
    assert predictor.with_seed(3).predict_one("MKRPAATKKAGQAKKKKLDK", cell).seed == 3


def test_words_of_trusted_sources_describe_what_is_drawn(tiny_flow_bundle: Bundle) -> None:
    spec = tiny_flow_bundle.metadata.flow_matching
    statements = [
        Statement("OpenCell", "grade 3", "nuclear punctae", ("nuclear_punctae",)),
        Statement("HPA", "uncertain", "Aggresome", ("big_aggregates",)),
    ]
    nucleoplasm = latent(spec.classes.index("nucleoplasm"))
    assert with_words(nucleoplasm, statements, spec)[0, 12:].tolist() == [1, 0]
    assert with_words(nucleoplasm, statements[1:], spec)[0, 12:].tolist() == [0, 0]
    elsewhere = latent(spec.classes.index("mitochondria"))
    assert with_words(elsewhere, statements, spec)[0, 12:].tolist() == [0, 0]
