import json

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from deepgps.cli.app import run as deepgps
from deepgps.localization import CLASS_SETS
from joint_runs import METRICS, SPECS, VARIANTS, joint_recipe, write_run

pytestmark = pytest.mark.slow


def answers(graph: bytes, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: each.numpy() for name, each in zip(names, inputs, strict=True)})


GIVEN = {
    "sequence": {"embedding": torch.rand(3, SPECS["features"]["dimension"])},
    "paper": {"embedding": torch.rand(3, SPECS["features"]["dimension"])},
    "paper, both": {
        "embedding": torch.rand(3, SPECS["features"]["dimension"]),
        "points": torch.randn(3, 64, 6),
    },
    "both": {
        "embedding": torch.rand(3, SPECS["features"]["dimension"]),
        "points": torch.randn(3, 64, 6),
    },
    "structure": {"points": torch.randn(3, 64, 6)},
    "residues": {"residues": torch.rand(3, 17, SPECS["residues"]["dimension"])},
    "image only": {"embedding": torch.rand(3, SPECS["features"]["dimension"])},
}


def assert_near(got: np.ndarray, want: torch.Tensor) -> None:
    """Differ by far less than the proteins do: half precision has 11 bits."""
    assert np.abs(got - want.numpy()).max() < 0.1 * want.std(0).max().item()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bundle_answers_nearly_as_the_model_that_was_trained_and_calibrated(joint_export, name):
    model, bundle = joint_export(name)
    torch.manual_seed(0)
    nucleus = torch.rand(1, 1, 208, 208).expand(3, -1, -1, -1)
    with torch.no_grad():
        encoded, drawn = model.encode(GIVEN[name]), model(nucleus, GIVEN[name])
    latent, *logits = answers(bundle.read("encoder.onnx"), *GIVEN[name].values())
    assert_near(latent, encoded.tokens)
    (image,) = answers(
        bundle.read("generator.onnx"), nucleus[:1], torch.from_numpy(latent), torch.zeros(3, dtype=torch.long)
    )
    np.testing.assert_allclose(image, drawn.image, atol=6e-3)
    assert image.std() > 2e-3
    calibration = bundle.path.parent / "run" / "calibration.json"
    assert calibration.exists() == bool(logits) == (model.classifier is not None)
    if logits:
        said = json.loads(calibration.read_text())
        assert_near(logits[0], drawn.logits * torch.tensor(said["scale"]) + torch.tensor(said["bias"]))
        assert tuple(said["classes"]) == bundle.metadata.classes
        assert tuple(said["thresholds"]) == bundle.metadata.thresholds


def test_the_latent_of_residues_is_as_long_as_the_protein(joint_export):
    _, bundle = joint_export("residues")
    dimension = SPECS["residues"]["dimension"]
    for length in (2, 24, 301):
        latent, _ = answers(bundle.read("encoder.onnx"), torch.rand(1, length, dimension))
        assert latent.shape == (1, length, 8)
        given = torch.rand(1, 1, 208, 208), torch.from_numpy(latent), torch.zeros(1, dtype=torch.long)
        (image,) = answers(bundle.read("generator.onnx"), *given)
        assert image.shape == (1, 1, 208, 208)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sequence", ("features", "segments-1", "protein", 5000, None)),
        ("both", ("features", "segments-1", "protein", 5000, 64)),
        ("structure", ("structure", "points", "protein", None, 64)),
        ("residues", ("features", "residues-1", "residue", None, None)),
    ],
)
def test_the_bundle_says_what_its_encoder_is_told(joint_export, name, said):
    spec = joint_export(name)[1].metadata.encoder
    assert (spec.kind, spec.name, spec.level, spec.max_length, spec.structure_points) == said


def test_the_bundle_says_what_it_is(joint_export):
    metadata = joint_export("sequence")[1].metadata
    assert (metadata.name, metadata.version, metadata.multi_label) == ("toy", "0.1", False)
    assert metadata.classes == CLASS_SETS["single-4"].slugs
    assert metadata.calibration.startswith("one temperature for all classes")
    assert metadata.training_data == {"crop store": "proteins: 2 in train, 1 in validation, 1 in test"}
    both = joint_export("both")[1].metadata
    assert both.multi_label
    assert both.calibration.startswith("a scale and a shift of each class")


def test_a_model_that_only_draws_has_no_classes(joint_export):
    metadata = joint_export("image only")[1].metadata
    assert (metadata.classes, metadata.thresholds) == ((), ())
    assert metadata.calibration == "none: the model draws and predicts no class"


def test_the_card_gives_figures_beside_baselines_and_says_what_the_model_is(joint_export):
    card = joint_export("paper")[1].read("CARD.md").decode()
    assert card.startswith("# toy 0.1\n")
    assert "| accuracy by protein, validation | 0.500 [0.250, 0.750] | 12 |" in card
    assert "| accuracy by protein, validation, most frequent class | 0.400 | 12 |" in card
    assert "(fusion `paper`)" in card
    assert "its bottleneck is the same at every place" in card
    assert "{" not in card
    assert "The test part was the validation part" in card
    residual = joint_export("both")[1].read("CARD.md").decode()
    assert "its bottleneck is the same" not in residual
    assert "The test part was the validation part" not in residual
    assert "features of the sequence (`segments-1`) and 64 atoms of its predicted structure" in residual
    assert "**It predicts no label**" in joint_export("image only")[1].read("CARD.md").decode()


def test_the_recipe_travels_with_the_bundle(joint_export):
    recipe = yaml.safe_load(joint_export("both")[1].read("recipe.yaml"))
    assert recipe["protein"]["inputs"] == ["sequence", "structure"]


def test_the_command_exports_a_joint_run_and_quotes_further_figures(tmp_path, capsys):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    write_run(run, joint_recipe(label=0))
    (tmp_path / "more.json").write_text('{"psnr, test": {"value": 17.5}}')
    (run / "manifest.json").unlink()
    command = ["export", str(run), "--to", str(bundle), "--metrics", str(tmp_path / "more.json")]
    assert deepgps(command) == 2
    assert f"continue it with `deepgps train … --out {run} --resume`" in capsys.readouterr().err
    assert not bundle.exists()
    (run / "manifest.json").write_text("{}")
    assert deepgps(command) == 0
    written = json.loads((bundle / "bundle.json").read_text())
    assert list(written["metrics"]) == [*METRICS, "psnr, test"]
