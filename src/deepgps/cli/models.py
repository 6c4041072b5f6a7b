"""``deepgps models``."""

from deepgps.errors import BundleError


def list_models() -> None:
    """List the installed models: name, version, classes and where they lie."""
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
        print(f"{name}\t{metadata.version}\t{len(metadata.classes)} classes\t{path}")


def info(name: str) -> None:
    """Show one model: classes, quality, data, licence.

    Parameters
    ----------
    name
        Name of an installed model, or a path to a bundle.
    """
    from deepgps.bundle import Metric, find_bundle, open_bundle

    def shown(metric: Metric) -> str:
        interval = f" [{metric.low:.3f}, {metric.high:.3f}]" if metric.low is not None else ""
        return f"{metric.value:.3f}{interval}{f', n = {metric.n}' if metric.n else ''}"

    bundle = open_bundle(find_bundle(name))
    metadata = bundle.metadata
    facts = {
        "name": f"{metadata.name} {metadata.version}",
        "path": bundle.path,
        "sha256": bundle.sha256,
        "classes": ", ".join(metadata.classes) + (" (several at once)" if metadata.multi_label else ""),
        "encoder": f"{metadata.encoder.kind}:{metadata.encoder.name}, {metadata.encoder.max_length} residues",
        "pictures": f"{metadata.crop.size_px} px of {metadata.crop.pixel_size_um:g} µm",
        "cell line": metadata.cell_line,
        "calibration": metadata.calibration,
        "licence": metadata.licence,
    }
    for label, fact in facts.items():
        print(f"{label + ':':<13}{fact}")
    print("quality:" + "".join(f"\n  {key}: {shown(metric)}" for key, metric in metadata.metrics.items()))
    print("trained on:" + "".join(f"\n  {key}: {what}" for key, what in metadata.training_data.items()))
