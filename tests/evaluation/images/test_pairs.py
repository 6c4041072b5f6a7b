import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.evaluation.images.evaluate_pairs import evaluate_images
from deepgps.evaluation.images.pair_metrics import (
    iou,
    ms_ssim,
    mutual_information,
    shared_resolution,
    spearman,
    texture,
)
from deepgps.evaluation.images.pairs import read_pairs

UM, EDGE = 0.4, 96


def cell(number: int, nuclear: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nucleus and protein of a made-up cell: in its nucleus, or around it, grainy."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((EDGE, EDGE)) - EDGE / 2 - rng.uniform(-6, 6, 2)[:, None, None]
    radius = np.hypot(rows, columns)
    size = rng.uniform(14, 18)
    nucleus = (radius < size).astype(np.float32)
    place = nucleus if nuclear else ((radius > size) & (radius < 38)).astype(np.float32)
    grain = 1 + 0.4 * ndimage.gaussian_filter(rng.standard_normal(radius.shape), 1.0)
    protein = ndimage.gaussian_filter(0.05 + 0.8 * place * grain, 0.8)
    return ndimage.gaussian_filter(nucleus, 0.8), protein.clip(0, 1).astype(np.float32)


def write(folder: Path, images: dict, *, jpeg: bool = False) -> Path:
    folder.mkdir()
    for name, image in images.items():
        if jpeg:
            eight_bit = (255 * image / image.max()).round().astype(np.uint8)
            Image.fromarray(eight_bit).save(folder / f"{name}.jpg", quality=95)
        else:
            counts = (300 + 1500 * image).astype(np.uint16)  # as a camera that uses little of its range
            tifffile.imwrite(folder / f"{name}.tif", counts)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Eight cells: nuclei, true images, good and swapped predicted ones, and labels."""
    folder = tmp_path_factory.mktemp("pairs")
    cells = {f"c{k}": cell(k, nuclear=k % 2 == 0) for k in range(8)}
    true = {name: protein for name, (_, protein) in cells.items()}
    noise = np.random.default_rng(9)
    good = {name: (image + noise.normal(0, 0.02, image.shape)).clip(0, 1) for name, image in true.items()}
    write(folder / "nucleus", {name: nucleus for name, (nucleus, _) in cells.items()})
    write(folder / "true", true)
    write(folder / "good", good)
    write(folder / "jpeg", good, jpeg=True)
    write(folder / "swapped", dict(zip(good, np.roll(list(good.values()), 1, axis=0), strict=True)))
    lines = (
        f"{name},{'nucleoplasm' if k % 2 == 0 else 'cytoplasmic'},p{k // 2}" for k, name in enumerate(true)
    )
    (folder / "labels.csv").write_text("name,label,group\n" + "\n".join(lines))
    return folder


def measure(folders: Path, predicted: str, out: Path, **given):
    given.setdefault("nucleus", folders / "nucleus")
    return evaluate_images(folders / "true", folders / predicted, out, pixel_size_um=UM, **given)


@pytest.fixture(scope="module")
def good(folders, tmp_path_factory):
    return measure(folders, "good", tmp_path_factory.mktemp("out") / "good", labels=folders / "labels.csv")


def test_good_images_are_told_from_swapped_ones_by_every_measure(folders, good, tmp_path):
    swapped = measure(folders, "swapped", tmp_path / "out", labels=folders / "labels.csv").metrics
    more = ("psnr", "ssim", "ms_ssim", "pearson", "spearman", "mutual_information", "iou_median", "iou_otsu")
    less = ("intranuclear_error", "profile_error", "shared_resolution_um", "texture_distance")
    for names, sign in ((more, 1), (less, -1)):
        for name in names:
            values = [each[f"images/predicted/{name}"].value for each in (good.metrics, swapped)]
            assert sign * (values[0] - values[1]) > 0, name
    assert good.metrics["images/sequence_effect"].low > 0.3
    assert swapped["images/sequence_effect"].value < 0
    assert good.metrics["images/predicted/pearson"].value > good.metrics["images/nuclear mask/pearson"].value
    assert good.metrics["images/predicted/intranuclear_rho"].value > 0.9


def test_an_8_bit_jpeg_and_a_16_bit_tiff_of_the_same_image_get_the_same_answer(folders, good, tmp_path):
    jpeg = measure(folders, "jpeg", tmp_path / "out", labels=folders / "labels.csv").metrics
    for name in ("ssim", "ms_ssim", "pearson", "spearman", "iou_median", "iou_otsu", "intranuclear"):
        key = f"images/predicted/{name}"
        assert jpeg[key].value == pytest.approx(good.metrics[key].value, abs=0.02), name
    for name, tolerance in (("psnr", 1.0), ("texture_distance", 0.15), ("fine_detail", 0.1)):
        key = f"images/predicted/{name}"
        assert jpeg[key].value == pytest.approx(good.metrics[key].value, abs=tolerance), name


def test_the_files_hold_the_metrics_and_a_row_for_each_pair(good):
    out = good.files[0].parent
    document = json.loads((out / "metrics.json").read_text())
    assert document["metrics"].keys() == good.metrics.keys()
    assert document["about"]["pairs"] == 8 and document["about"]["groups"] == 4
    with (out / "pairs.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["name"] for row in rows] == [f"c{k}" for k in range(8)]
    mean = np.mean([float(row["pearson"]) for row in rows])
    assert document["metrics"]["images/predicted/pearson"]["value"] == pytest.approx(mean, abs=1e-4)
    page = (out / "report.html").read_text()
    assert "sequence_effect" in page and "copied nucleus" in page and page.count("<figure>") == 16


def test_what_cannot_be_measured_is_said(folders, tmp_path):
    done = measure(folders, "good", tmp_path / "out", nucleus=None)
    assert any("--nucleus" in note for note in done.notes)
    assert any("nothing is read back" in note for note in done.notes)
    assert not any("intranuclear" in name or "copied nucleus" in name for name in done.metrics)


def test_images_without_a_partner_and_other_sizes_are_said(folders, tmp_path):
    predicted = tmp_path / "predicted"
    predicted.mkdir()
    for name in ("c0", "c1", "c2"):
        image = tifffile.imread(folders / "good" / f"{name}.tif")
        tifffile.imwrite(predicted / f"{name}.tif", np.kron(image, np.ones((2, 2), np.uint16)))
    tifffile.imwrite(predicted / "stranger.tif", image)
    (predicted / "c3.png").write_bytes(b"no image")
    read = read_pairs(folders / "true", predicted)
    assert [pair.name for pair in read.pairs] == ["c0", "c1", "c2"]
    left_out = dict(read.left_out)
    assert "no true image" in left_out["stranger"] and "no predicted image" in left_out["c7"]
    assert "c3" in left_out
    assert any("resampled" in note for note in read.notes)
    assert any("no pixel size" in note for note in read.notes)
    assert np.corrcoef(read.pairs[0].true.ravel(), read.pairs[0].predicted.ravel())[0, 1] > 0.95
    with pytest.raises(InputError, match="name the two images"):
        read_pairs(folders / "true", write(tmp_path / "none", {"other": image}))


def test_the_command_measures_and_refuses_with_a_sentence(folders, tmp_path, capsys):
    tokens = [
        "evaluate",
        "images",
        str(folders / "true"),
        str(folders / "good"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert run([*tokens, "--pixel-size-um", "0.4"]) == 0
    said = capsys.readouterr().out
    assert "pearson\tpredicted 0." in said and str(tmp_path / "o" / "report.html") in said
    assert run(["evaluate", "images", str(folders / "true"), str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_labels_are_read_back_where_there_are_enough(tmp_path):
    true = {f"c{k}": cell(k, nuclear=k % 2 == 0)[1] for k in range(60)}
    nucleus = {f"c{k}": cell(k, nuclear=True)[0] for k in range(60)}
    wrong = dict(zip(true, np.roll(list(true.values()), 1, axis=0), strict=True))
    lines = (f"{name},{'in' if k % 2 == 0 else 'out'}" for k, name in enumerate(true))
    (tmp_path / "labels.csv").write_text("name,label\n" + "\n".join(lines))
    done = evaluate_images(
        write(tmp_path / "true", true),
        write(tmp_path / "wrong", wrong),
        tmp_path / "out",
        nucleus=write(tmp_path / "nucleus", nucleus),
        labels=tmp_path / "labels.csv",
        pixel_size_um=UM,
    )
    assert done.metrics["images/true/read_back_balanced"].value > 0.95
    assert done.metrics["images/predicted/read_back_balanced"].value < 0.2
    halves = done.metrics["images/true, two halves/kernel_distance"]
    assert abs(halves.value) < abs(halves.high - halves.low) + 1


def test_multi_scale_similarity_is_that_of_another_implementation():
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.random((192, 200)), 2).astype(np.float32)
    a = (a - a.min()) / np.ptp(a)
    b = (a + 0.1 * rng.standard_normal(a.shape)).clip(0, 1).astype(np.float32)
    expected = reference(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None], data_range=1.0)
    assert ms_ssim(a, b) == pytest.approx(float(expected), abs=2e-3)
    assert ms_ssim(a, a) == pytest.approx(1)
    assert np.isnan(ms_ssim(a[:8], b[:8]))


def test_measures_have_their_extremes():
    image = cell(1, nuclear=False)[1]
    flat = np.full_like(image, 0.5)
    other = np.random.default_rng(1).random(image.shape, np.float32)
    assert spearman(image, image**2) == pytest.approx(1)
    assert np.isnan(spearman(image, flat)) and np.isnan(mutual_information(image, flat))
    assert mutual_information(image, image) == pytest.approx(1)
    assert mutual_information(image, other) < 0.1
    assert iou(image, image, np.median) == 1
    assert np.isnan(iou(flat, flat, np.median))
    assert shared_resolution(image, image, UM) == pytest.approx(2 * UM, rel=0.05)
    assert shared_resolution(image, ndimage.gaussian_filter(other, 1), UM) > 4
    blurred = shared_resolution(image, image + 0.2 * other, UM)
    assert 2 * UM < blurred < 40
    assert texture(image).shape == (18,) and np.isfinite(texture(flat)).all()
