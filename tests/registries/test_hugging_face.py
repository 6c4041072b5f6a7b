"""A snapshot is a card that the Hub understands, and a model that loads."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard, SpaceCard

from deepgps import InputError, Predictor
from deepgps.bundle import Metric, open_bundle
from deepgps.cli.app import run
from deepgps.images.cell import DEFAULT_CELLS
from deepgps.registries.hugging_face import card_metadata, model_card, write_snapshot

SPACE = Path(__file__).parents[2] / "integrations" / "hugging-face-space"
SEQUENCE = "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"


def test_a_snapshot_loads_as_the_model_it_was_made_of(tiny_bundle, tmp_path, capsys):
    command = [
        "models",
        "package",
        str(tiny_bundle.path),
        "--for",
        "hugging-face",
        "--to",
        str(tmp_path / "hub"),
    ]
    assert run(command) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "hub")
    loaded = Predictor.load(tmp_path / "hub")
    assert loaded.bundle.sha256 == tiny_bundle.sha256
    expected = Predictor(tiny_bundle).predict_one(SEQUENCE, images=False)
    assert loaded.predict_one(SEQUENCE, images=False).probabilities == expected.probabilities


def test_a_snapshot_loads_from_the_cache_of_the_hub(tiny_bundle, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    write_snapshot(tiny_bundle, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert open_bundle(snapshot).sha256 == tiny_bundle.sha256


def test_the_hub_reads_the_card(tiny_bundle):
    metadata = tiny_bundle.metadata.model_copy(
        update={
            "licence": "CC BY-SA 4.0",
            "metrics": {
                "OpenCell, four classes, A: accuracy": Metric(value=0.57),
                "OpenCell, four classes, A: accuracy of the baseline 'majority class'": Metric(value=0.39),
                "OpenCell, four classes, B: accuracy": Metric(value=0.67),
                "U-2 OS images: read-back": Metric(value=0.71),
            },
        }
    )
    card = ModelCard(model_card(metadata, "# tiny\n\nWhat it is.\n"))
    assert (card.data.license, card.data.library_name) == ("cc-by-sa-4.0", "deepgps")
    found = {(each.dataset_name, each.metric_name): each.metric_value for each in card.data.eval_results}
    assert found == {
        ("OpenCell, four classes, without homologs", "accuracy"): 0.57,
        ("OpenCell, four classes, with homologs", "accuracy"): 0.67,
        ("U-2 OS images", "read-back"): 0.71,
    }
    assert (
        "# tiny\n" in card.text and f'Predictor.load(snapshot_download("OWNER/{metadata.name}"))' in card.text
    )


def test_a_licence_that_the_hub_does_not_know_is_named(tiny_bundle):
    metadata = tiny_bundle.metadata.model_copy(update={"licence": "Of our own"})
    card = card_metadata(metadata)
    assert (card["license"], card["license_name"]) == ("other", "Of our own")


def test_a_folder_with_files_is_refused(tiny_bundle, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        write_snapshot(tiny_bundle, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


class Gradio:
    """What the app uses of Gradio."""

    Error = type("Error", (Exception,), {})

    def __init__(self):
        self.made = {}

    def __getattr__(self, name):
        def make(*args, **options):
            self.made[name] = {**options, "args": args}
            return SimpleNamespace(kind=name, **options, launch=lambda: None)

        return make


@pytest.fixture
def space(tiny_bundle, monkeypatch):
    gradio = Gradio()
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setenv("DEEPGPS_MODEL", str(tiny_bundle.path))
    return SimpleNamespace(gradio=gradio, **runpy.run_path(str(SPACE / "app.py")))


def test_the_space_predicts(space, tiny_bundle):
    probabilities, image, text = space.predict(SEQUENCE, "u2os-1", None, 3)
    expected = Predictor(tiny_bundle).predict_one(SEQUENCE, images=False)
    assert len(probabilities) == len(expected.probabilities)
    assert list(probabilities.values()) == [float(each) for each in expected.probabilities.values()]
    assert np.asarray(image).ndim == 3 and np.asarray(image).std() > 0
    assert all(each in text for each in expected.warnings)
    interface = space.gradio.made["Interface"]
    assert len(interface["inputs"]) == 4 and len(interface["outputs"]) == 3
    assert space.gradio.made["Dropdown"]["args"][0] == list(DEFAULT_CELLS)


def test_the_space_says_what_is_wrong(space):
    with pytest.raises(space.gradio.Error, match="has 'J' at residue 3"):
        space.predict("MKJ1", "hek-1", None, 0)


def test_the_space_is_described():
    card = SpaceCard.load(SPACE / "README.md")
    assert (
        card.data.to_dict() | {"sdk": "gradio", "app_file": "app.py", "license": "bsd-3-clause"}
        == card.data.to_dict()
    )
    required = (SPACE / "requirements.txt").read_text().split()
    assert {each.partition("=")[0] for each in required} == {"deepgps", "gradio"}
