"""A run as an RO-Crate: its folder, described for archives and workflow engines in JSON-LD.

The profile is Process Run Crate: the files are the result of one action, of a program on inputs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepgps.files import atomic_path
from deepgps.results.run import read_run

CRATE_FILE = "ro-crate-metadata.json"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTENTS: Mapping[str, tuple[str, str]] = {
    "results.csv": ("text/csv", "One row for each protein and nucleus"),
    "results.tsv": ("text/tab-separated-values", "One row for each protein and nucleus"),
    "results.parquet": (
        "application/vnd.apache.parquet",
        "One row for each protein and nucleus, with evidence",
    ),
    "results.xlsx": (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "One row for each protein and nucleus",
    ),
    "results.h5ad": ("application/x-hdf5", "Probabilities and annotations of the rows, as AnnData"),
    "results.jsonl": ("application/jsonl", "One record for each protein and nucleus, with evidence"),
    "report.html": ("text/html", "Table, images and evidence on one page"),
    "run.json": ("application/json", "Model, options and inputs of the run"),
    "rejected.csv": ("text/csv", "Records that could not be used, and why"),
    "images": ("", "For each row a labelled PNG, and an OME-TIFF to measure in"),
    "images.zarr": ("", "The images of all rows as OME-Zarr"),
}
"""By name, media type and content of what a run may write."""


def write_crate(folder: Path) -> Path:
    """Write ``ro-crate-metadata.json`` from the ``run.json`` of a finished run and the files beside it.

    Returns
    -------
    Path
        The file.
    """
    path = folder / CRATE_FILE
    names = [name for name in CONTENTS if (folder / name).exists()]
    sizes = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    document = {
        "@context": f"{_SPECIFICATION}/context",
        "@graph": list(_entities(read_run(folder) or {}, names, sizes)),
    }
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _entities(
    run: Mapping[str, Any], names: Sequence[str], sizes: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    yield {
        "@id": CRATE_FILE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": _SPECIFICATION},
    }
    parts = [{"@id": name if name in sizes else f"{name}/"} for name in names]
    model, proteins = run["model"], run["proteins"]
    yield {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": _PROFILE},
        "name": f"deepGPS: where {proteins['predicted']:,} proteins go",
        "description": (
            f"Subcellular localizations of {proteins['predicted']:,} proteins, predicted by {model['name']} "
            f"{model['version']}; {proteins['rejected']:,} records could not be used."
        ),
        "datePublished": run["finished"],
        "license": {"@id": "#licence"},
        "hasPart": parts,
        "mentions": {"@id": "#run"},
    }
    yield {
        "@id": "#licence",
        "@type": "CreativeWork",
        "name": "Licence not stated",
        "description": "Whoever publishes these results states it; see the licence of the model's weights.",
    }
    yield {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    yield {
        "@id": "#deepgps",
        "@type": "SoftwareApplication",
        "name": "deepGPS",
        "softwareVersion": run["deepgps"],
        "softwareRequirements": [f"{name} {version}" for name, version in run["packages"].items()],
    }
    objects = list(_objects(run))
    yield {
        "@id": "#run",
        "@type": "CreateAction",
        "name": "deepgps predict",
        "instrument": {"@id": "#deepgps"},
        "object": [{"@id": each["@id"]} for each in objects],
        "result": parts,
        "startTime": run["started"],
        "endTime": run["finished"],
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
    }
    yield from objects
    for part, name in zip(parts, names, strict=True):
        kind, what = CONTENTS[name]
        entity = {**part, "@type": "File" if name in sizes else "Dataset", "name": name, "description": what}
        yield entity | ({"encodingFormat": kind, "contentSize": str(sizes[name])} if name in sizes else {})


def _objects(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the action used: model, inputs, nuclei and options."""
    model = run["model"]
    yield {
        "@id": "#model",
        "@type": "CreativeWork",
        "name": model["name"],
        "version": model["version"],
        "identifier": f"sha256:{model['sha256']}",
    }
    for kind, key in (("input", "source"), ("nuclei", "name")):
        for number, each in enumerate(run["inputs" if kind == "input" else kind], start=1):
            # Of a file, its name alone: the folders of a machine are of no use to others.
            name = Path(each[key]).name if each["sha256"] else each[key]
            known = {"identifier": f"sha256:{each['sha256']}"} if each["sha256"] else {}
            yield {"@id": f"#{kind}-{number}", "@type": "CreativeWork", "name": name, **known}
    for name, value in {**run["options"], "seed": run["seed"]}.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield {"@id": f"#option-{name}", "@type": "PropertyValue", "name": name, "value": text}
