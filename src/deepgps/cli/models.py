"""``deepgps models``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from deepgps.errors import BundleError

if TYPE_CHECKING:
    from deepgps.bundle import BundleMetadata, EncoderSpec


def list_models_command() -> None:
    """List the installed models: name, version, classes and path."""
    from deepgps.bundle import installed_bundles, open_bundle

    bundles = installed_bundles()
    if not bundles:
        print("No model is installed; train one (`deepgps train mini`) or set DEEPGPS_MODELS to a folder.")
    for name, path in bundles.items():
        try:
            metadata = open_bundle(path).metadata
        except BundleError as error:
            print(f"{name}\tdamaged\t{error}")
            continue
        classes = f"{len(metadata.classes)} classes" if metadata.classes else "images only"
        print(f"{name}\t{metadata.version}\t{classes}\t{path}")


def info(name: str) -> None:
    """Show one model: classes, quality, data, licence.

    Parameters
    ----------
    name
        Name of an installed model, or a path to a bundle; a class set may follow behind a colon.
    """
    from deepgps.bundle import open_model
    from deepgps.bundle.metrics_table import metric_lines

    bundle = open_model(name)
    metadata = bundle.metadata
    facts = {
        "name": f"{metadata.name} {metadata.version}",
        "path": bundle.path,
        "sha256": bundle.sha256,
        "classes": _classes(metadata),
        **({"class sets": ", ".join(metadata.class_sets)} if metadata.class_sets else {}),
        "encoder": _encoder(metadata.encoder),
        "images": f"{metadata.crop.size_px} px of {metadata.crop.pixel_size_um:g} µm",
        "cell line": metadata.cell_line,
        "calibration": metadata.calibration,
        "licence": metadata.licence,
    }
    for label, fact in facts.items():
        print(f"{label + ':':<13}{fact}")
    print("quality:", *(f"  {line}" for line in metric_lines(metadata.metrics)), sep="\n")
    print("trained on:" + "".join(f"\n  {key}: {what}" for key, what in metadata.training_data.items()))


def package(
    name: str,
    *,
    registry: Annotated[Literal["hugging-face", "bioimage-io"], Parameter(name="--for")],
    to: Path,
) -> None:
    """Write a model as another registry keeps it; nothing is uploaded.

    Parameters
    ----------
    name
        Name of an installed model, or a path to a bundle.
    registry
        ``hugging-face``: the whole bundle with a model card, which deepGPS loads as it is; ``bioimage-io``:
        one graph that draws mean images, for the BioImage Model Zoo (extra ``train``).
    to
        The folder to write.
    """
    from deepgps.bundle import find_bundle, open_bundle
    from deepgps.registries.bioimage_io import write_package
    from deepgps.registries.hugging_face import write_snapshot

    bundle = open_bundle(find_bundle(name))
    print(write_snapshot(bundle, to) if registry == "hugging-face" else write_package(bundle, to))


def _classes(metadata: "BundleMetadata") -> str:
    if not metadata.classes:
        return "none: it draws images and predicts no label"
    return ", ".join(metadata.classes) + (" (several at once)" if metadata.multi_label else "")


def _encoder(spec: "EncoderSpec") -> str:
    """Describe the inputs of the model."""
    inputs = [f"{spec.kind}:{spec.name}"]
    if spec.level == "residue":
        inputs.append("per residue")
    if spec.max_length is not None:
        inputs.append(f"{spec.max_length} residues")
    if spec.structure_points is not None:
        inputs.append(f"{spec.structure_points} atoms of the structure (--structures)")
    return ", ".join(inputs)
