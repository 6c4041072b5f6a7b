"""The scripts that train the networks that draw, on drawn images and with tiny networks."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file

from image_sources import discs, hpa_field, opencell_crops

FOLDER = Path(__file__).parents[2] / "experiments" / "deepgps-mini" / "images"
TINY = {"widths": (8, 8), "embedding": 8, "batch_size": 2, "batches": 2, "size_px": 32, "max_epochs": 1}


def script(name):
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def nuclei():
    return script("nuclei")


@pytest.fixture(scope="module")
def folder(nuclei, tmp_path_factory):
    """Packed nuclei of six Hoechst fields, one of them with a bright nucleus, and six crops."""
    images, folder = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("nuclei")
    opencell_crops(images / "opencell_crops")
    hpa_field(images / "hpa_fields")
    (images / nuclei.HOECHST).mkdir()
    for number in range(6):
        field = discs(400, [(100, 100), (100, 170), (300, 300)], 25, 120)
        if number == 0:
            field = np.maximum(field, discs(400, [(100, 170)], 25, 240))
        tifffile.imwrite(images / nuclei.HOECHST / f"{number}.tif", (field * 100).astype(np.uint16))
    nuclei.pack(images, folder)
    return folder


@pytest.mark.slow
def test_a_scene_describes_the_nuclei_of_a_crop(nuclei, folder):
    packed = nuclei.ImagePack.load(folder / "grain.npz")
    assert set(packed.arrays["source"]) == {nuclei.HOECHST}
    cells = packed.arrays["cells"]
    pair, single = (
        int(np.flatnonzero((cells[:, 0] == 0) & near)[0]) for near in (cells[:, 1] < 200, cells[:, 1] > 200)
    )
    both, alone = (nuclei.scene_of(packed, cell, nuclei.SIZE_PX) for cell in (pair, single))
    assert (both.kind, both.nuclei, alone.nuclei) == (0, 2, 1)
    assert both.covered == pytest.approx(2 * np.pi * 25**2 / 208**2, rel=0.15)
    assert both.contrast > 1.2 > 1.01 > alone.contrast
    assert both.condition().shape == (nuclei.CONDITIONS,)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["structure", "grain"])
def test_nuclei_are_trained_and_shown(nuclei, folder, stage, monkeypatch):
    settings = nuclei.SETTINGS[stage].model_copy(update=TINY)
    monkeypatch.setattr(nuclei, "SETTINGS", {stage: settings})
    task = nuclei.NucleiTask(nuclei.ImagePack.load(folder / f"{stage}.npz"), stage, settings)
    batch = task.step(0).examples
    assert batch.images.shape[1] == int(stage == "grain")
    assert torch.equal(batch.protein, task.step(0).examples.protein)
    network = nuclei.fit_stage(task, folder / stage)
    assert all(torch.isfinite(each).all() for each in network.parameters())
    assert (folder / stage / "samples" / "epoch-0001.png").exists()
    assert "validation_loss" in (folder / stage / "metrics.csv").read_text()


def test_epochs_fill_the_minutes(monkeypatch):
    training, now, trained = script("train_images"), [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def fit(epochs):
        now[0] += 30 * (epochs - (trained[-1] if trained else 4))
        trained.append(epochs)

    # Two epochs of half a minute are over; of nine minutes, seven percent are for measures.
    assert training.epochs_in(9, fit, 4) == 6 + int((0.93 * 540 - 60) / 30)
    assert trained == [5, 6]


@pytest.mark.slow
def test_the_packed_file_is_all_that_training_needs(tmp_path, monkeypatch):
    from image_sources import RECIPE, write_images

    training, images = script("train_images"), write_images(tmp_path / "images")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    common = ["--out", str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.yaml"), "--workers", "0"]
    for arguments in (
        ["pack", "--data", str(images)],
        ["structure", "--images", "16"],
        ["grain", "--images", "4"],
    ):
        monkeypatch.setattr(sys, "argv", ["train_images.py", *arguments, *common])
        training.main()
    for stage in ("structure", "grain"):
        assert load_file(tmp_path / "out" / f"{stage}.safetensors")
        assert training.finished_epochs(tmp_path / "out" / stage) == (2 if stage == "structure" else 1)
        assert (tmp_path / "out" / f"{stage}_packed.png").exists()
