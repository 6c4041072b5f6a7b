import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deepgps.bundle import (
    FINGERPRINT,
    METADATA_FILE,
    Bundle,
    find_bundle,
    installed_bundles,
    model_folders,
    open_bundle,
    write_bundle,
)
from deepgps.errors import BundleError

FILES = {
    "encoder.onnx": b"encoder",
    "generator.onnx": b"generator",
    "CARD.md": b"# card\n",
    "extra.npz": b"x",
}
FIELDS = {
    "name": "toy",
    "version": "1",
    "classes": ["a", "b"],
    "multi_label": True,
    "thresholds": [0.5, 0.4],
    "cell_line": "none",
    "encoder": {"kind": "features", "name": "f-1", "dimension": 3, "max_length": 100},
    "crop": {"size_px": 16, "pixel_size_um": 0.2},
    "normalisation": {"low": 3.0, "high": 99.8},
    "calibration": "none",
    "metrics": {"accuracy": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 10}},
    "training_data": {"here": "nothing"},
    "licence": "CC0",
}


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write_bundle(tmp_path / "toy", FIELDS, FILES)


def edited(bundle: Bundle, **changes: object) -> Path:
    path = bundle.path / METADATA_FILE
    fields = json.loads(path.read_text())
    # As in a bundle of before there was a fingerprint.
    del fields[FINGERPRINT]
    path.write_text(json.dumps({**fields, **changes}))
    return bundle.path


def zipped(bundle: Bundle, prefix: str = "") -> Path:
    path = bundle.path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in bundle.path.iterdir():
            archive.write(file, prefix + file.name)
    return path


def test_a_folder_is_read_as_written(bundle):
    again = open_bundle(bundle.path)
    assert again == bundle
    assert {name: again.read(name) for name in FILES} == FILES
    assert again.metadata.classes == ("a", "b")
    assert again.metadata.metrics["accuracy"].high == 0.8
    assert (again.has("extra.npz"), again.has("neighbours.npz")) == (True, False)


@pytest.mark.parametrize("prefix", ["", "toy/"], ids=["files zipped", "folder zipped"])
def test_a_zip_is_the_same_model(bundle, prefix):
    again = open_bundle(zipped(bundle, prefix))
    assert (again.metadata, again.sha256) == (bundle.metadata, bundle.sha256)
    assert again.read("encoder.onnx") == b"encoder"


def test_the_fingerprint_follows_every_file(bundle, tmp_path):
    other = write_bundle(tmp_path / "other", FIELDS, {**FILES, "encoder.onnx": b"other"})
    assert other.sha256 != bundle.sha256


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(bundle, name):
    (bundle.path / name).write_bytes(b"changed")
    refused(bundle.path, f"'{name}' has a wrong sha256; fetch or export it again")


@pytest.mark.parametrize("name", [*FILES, METADATA_FILE])
def test_a_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    refused(bundle.path, f"has no '{name}'")


def test_a_required_file_may_not_be_left_out_of_the_list(bundle):
    files = dict(bundle.metadata.files)
    del files["generator.onnx"]
    refused(edited(bundle, files=files), "'generator.onnx' has a wrong sha256")


def test_a_file_is_held_against_its_hash_whenever_it_is_read(bundle):
    (bundle.path / "encoder.onnx").write_bytes(b"changed after opening")
    with pytest.raises(BundleError, match="wrong sha256"):
        bundle.read("encoder.onnx")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_schema_version_says_which_and_which_is_known(bundle, version):
    refused(edited(bundle, schema_version=version), f"schema version {version!r}; this deepGPS reads 1")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x00\x01"])
def test_what_is_not_json_is_refused(bundle, content):
    (bundle.path / METADATA_FILE).write_bytes(content)
    refused(bundle.path, "bundle.json is not JSON")


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_of_another_kind_has_no_schema_version(bundle, content):
    (bundle.path / METADATA_FILE).write_text(content)
    refused(bundle.path, "schema version None")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "field 'colour'"),
        ({"crop": {"size_px": 0, "pixel_size_um": 0.2}}, "field 'crop.size_px'"),
        ({"crop": {"size_px": 208, "pixel_size_um": -1}}, "field 'crop.pixel_size_um'"),
        ({"encoder": {**FIELDS["encoder"], "kind": "magic"}}, "field 'encoder.kind'"),
        ({"thresholds": [0.5]}, "field 'thresholds'.*1 thresholds do not fit 2 classes"),
        ({"classes": "a"}, "field 'classes'"),
        ({"classes": []}, "field 'thresholds'.*2 thresholds do not fit 0 classes"),
    ],
)
def test_a_wrong_field_is_named(bundle, changes, message):
    refused(edited(bundle, **changes), message)


def test_a_missing_field_is_named(bundle):
    path = bundle.path / METADATA_FILE
    fields = json.loads(path.read_text())
    del fields["licence"], fields[FINGERPRINT]
    path.write_text(json.dumps(fields))
    refused(bundle.path, "field 'licence'.*required")


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "toy.zip").write_bytes(b"hello")
    refused(tmp_path / "toy.zip", "cannot be read .*not a zip")


def test_a_zip_damaged_anywhere_is_refused_and_never_a_traceback(bundle, tmp_path):
    content = zipped(bundle).read_bytes()
    damaged = tmp_path / "damaged.zip"
    opened = 0
    for place in range(0, len(content), 7):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            assert open_bundle(damaged).metadata == bundle.metadata  # a byte that says nothing
            opened += 1
        except BundleError as error:
            assert str(damaged) in str(error)
    assert opened < len(content) // 14
    damaged.write_bytes(content[: len(content) // 2])
    refused(damaged, "cannot be read")


def test_a_write_killed_at_any_file_leaves_no_valid_bundle(bundle, monkeypatch):
    write_bytes = Path.write_bytes
    for survivors in range(len(FILES)):
        left = [survivors]

        def dies(path, content, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return write_bytes(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", dies)
            with pytest.raises(KeyboardInterrupt):
                write_bundle(bundle.path, FIELDS, dict.fromkeys(FILES, b"new"))
        refused(bundle.path, f"has no '{METADATA_FILE}'")
    assert write_bundle(bundle.path, FIELDS, FILES) == bundle


def test_a_write_killed_within_the_description_leaves_no_valid_bundle(bundle):
    path = bundle.path / METADATA_FILE
    content = path.read_bytes()
    for end in range(0, len(content) - 2, 50):
        path.write_bytes(content[:end])
        refused(bundle.path, "not JSON")


def test_wrong_fields_are_refused_before_anything_is_replaced(bundle):
    with pytest.raises(ValueError, match="colour"):
        write_bundle(bundle.path, {**FIELDS, "colour": "red"}, dict.fromkeys(FILES, b"new"))
    assert open_bundle(bundle.path) == bundle


def test_the_users_models_come_before_the_packages(bundle, monkeypatch, tmp_path):
    package = tmp_path / "package"
    for folder, version in (("mine", "2"), ("package", "1")):
        write_bundle(tmp_path / folder / "toy", {**FIELDS, "version": version}, FILES)
    write_bundle(package / "other", FIELDS, FILES)
    monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path / "mine"))
    assert model_folders()[0] == tmp_path / "mine"
    monkeypatch.setattr("deepgps.bundle.bundle.model_folders", lambda: (tmp_path / "mine", package))
    assert installed_bundles() == {"toy": tmp_path / "mine" / "toy", "other": package / "other"}
    assert open_bundle(find_bundle("toy")).metadata.version == "2"
    assert find_bundle("other") == package / "other"


def test_a_zip_is_installed_under_its_stem_and_other_files_are_not(bundle, monkeypatch):
    path = zipped(bundle)
    (path.parent / "notes.txt").write_text("not a model")
    (path.parent / "half").mkdir()
    monkeypatch.setenv("DEEPGPS_MODELS", str(path.parent))
    assert "toy" in installed_bundles()
    assert not {"notes", "notes.txt", "half"} & set(installed_bundles())
    for file in bundle.path.iterdir():
        file.unlink()
    assert find_bundle("toy") == path


def test_a_path_is_taken_as_it_is_and_a_wrong_name_lists_the_right_ones(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path))
    assert find_bundle(bundle.path) == bundle.path
    with pytest.raises(BundleError, match=r"Model 'toi' is neither installed \(.*toy.*\) nor a path"):
        find_bundle("toi")


def test_reading_a_bundle_needs_no_heavy_library(bundle):
    code = f"""
import sys
from pathlib import Path
from deepgps.bundle import open_bundle
open_bundle(Path({str(bundle.path)!r}))
print(sorted({{"torch", "onnxruntime", "numpy", "polars"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("field", ["thresholds", "name", "metrics", "files", "sha256"])
def test_a_description_that_was_changed_is_refused(bundle, field):
    path = bundle.path / METADATA_FILE
    fields = json.loads(path.read_text())
    fields[field] = [0.9, 0.9] if field == "thresholds" else "0" * 64 if field == "sha256" else {"x": "y"}
    path.write_text(json.dumps(fields, indent=2))
    refused(bundle.path, "does not match its sha256")


def test_the_layout_of_a_description_does_not_matter(bundle):
    path = bundle.path / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert open_bundle(bundle.path).metadata == bundle.metadata


def test_a_description_without_a_fingerprint_is_that_of_an_older_bundle(bundle):
    assert open_bundle(edited(bundle)).metadata == bundle.metadata


def test_a_zip_that_unpacks_to_far_more_is_refused(bundle):
    (bundle.path / "CARD.md").write_bytes(bytes(50_000_000))
    path = zipped(bundle)
    assert path.stat().st_size < 100_000
    refused(path, "'CARD.md' unpacks to more than a bundle has")
