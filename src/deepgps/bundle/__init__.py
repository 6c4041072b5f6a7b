"""Model bundles: the files that training exports and prediction loads."""

from deepgps.bundle.bundle import (
    DEFAULT_MODEL,
    METADATA_FILE,
    NEIGHBOURS_FILE,
    REQUIRED_FILES,
    SCHEMA_VERSION,
    Bundle,
    find_bundle,
    installed_bundles,
    model_folders,
    open_bundle,
    open_model,
    with_class_set,
    write_bundle,
)
from deepgps.bundle.metadata import (
    BundleMetadata,
    ClassSetSpec,
    CropSpec,
    EncoderSpec,
    Metric,
    PercentileSpec,
)

__all__ = [
    "DEFAULT_MODEL",
    "METADATA_FILE",
    "NEIGHBOURS_FILE",
    "REQUIRED_FILES",
    "SCHEMA_VERSION",
    "Bundle",
    "BundleMetadata",
    "ClassSetSpec",
    "CropSpec",
    "EncoderSpec",
    "Metric",
    "PercentileSpec",
    "find_bundle",
    "installed_bundles",
    "model_folders",
    "open_bundle",
    "open_model",
    "with_class_set",
    "write_bundle",
]
