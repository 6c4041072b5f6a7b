"""The tables of an atlas: CSV, Parquet (extra ``scale``) and AnnData's ``.h5ad`` (extra ``anndata``)."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Doubles
from deepgps.atlas.entries import Entry
from deepgps.atlas.findings import map_positions
from deepgps.files import atomic_path, write_csv
from deepgps.reporting.pages import yes_no

TABLE = "proteins"
_TEXTS = (
    *("Protein_ID", "Gene", "Accession", "Synonyms", "Length", "Known", "Sources", "Predicted", "Overall"),
    *(
        "Confidence",
        "Predicted_Confidence",
        "Agreement",
        "Sources_Differ",
        "Signals",
        "Nearest",
        "Similarity",
    ),
    *("Map_X", "Map_Y", "Page"),
)
_NUMBERS = ("Confidence", "Predicted_Confidence", "Similarity", "Map_X", "Map_Y")


def columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of the table: the overall probability of each class, then the predicted ones."""
    return [*_TEXTS, *classes, *(f"predicted_{slug}" for slug in classes)]


def write_tables(
    site: Path, entries: Sequence[Entry], classes: Sequence[str], manifest: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Write the tables of all proteins into ``tables``.

    Parameters
    ----------
    site
        The folder of the site.
    entries
        All proteins.
    classes
        The model's classes.
    manifest
        What the tables were made from, for ``.h5ad``.

    Returns
    -------
    tuple of (str, str)
        Files that were not written, and the extra that each needs.
    """
    folder = site / "tables"
    folder.mkdir(exist_ok=True)
    places = map_positions(entries)
    # Half of a surrogate pair, which an id may hold, is no text to the formats.
    rows = [
        [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in row]
        for row in _rows(entries, places)
    ]
    write_csv(folder / f"{TABLE}.csv", columns(classes), ([_cell(value) for value in row] for row in rows))
    left_out = []
    if find_spec("polars") is None:
        left_out.append((f"{TABLE}.parquet", "scale"))
    else:
        _write_parquet(folder / f"{TABLE}.parquet", rows, classes)
    if find_spec("anndata") is None:
        left_out.append((f"{TABLE}.h5ad", "anndata"))
    else:
        _write_h5ad(folder / f"{TABLE}.h5ad", rows, entries, classes, manifest, places)
    for name, _ in left_out:
        # One of an earlier run would be of other proteins.
        (folder / name).unlink(missing_ok=True)
    return tuple(left_out)


def _rows(entries: Sequence[Entry], places: Doubles) -> Iterator[list[Any]]:
    for each, (x, y) in zip(entries, places.tolist(), strict=True):
        accession, similarity = each.relatives[0] if each.relatives else ("", None)
        yield [
            each.protein_id,
            each.gene_symbol or "",
            each.accession or "",
            "|".join(each.synonyms),
            each.length,
            "|".join(each.known),
            "; ".join(f"{said.source} ({said.reliability}): {'|'.join(said.classes)}" for said in each.said),
            "|".join(each.predicted),
            "|".join(each.overall),
            each.confidence,
            each.predicted_confidence,
            each.agreement,
            each.sources_differ,
            "|".join(each.signals),
            accession,
            similarity,
            x,
            y,
            f"{each.stem}.html",
            *each.probabilities,
            *each.predicted_probabilities,
        ]


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return yes_no(value)
    return f"{value:.4f}" if isinstance(value, float) else value


def _write_parquet(path: Path, rows: Sequence[Sequence[Any]], classes: Sequence[str]) -> None:
    import polars

    types = dict.fromkeys(columns(classes), polars.Float32()) | {
        name: polars.Boolean()
        if name == "Sources_Differ"
        else polars.Int32()
        if name == "Length"
        else polars.String()
        for name in _TEXTS
        if name not in _NUMBERS
    }
    with atomic_path(path) as draft:
        polars.DataFrame(rows, schema=types, orient="row").write_parquet(draft)


def _write_h5ad(
    path: Path,
    rows: Sequence[Sequence[Any]],
    entries: Sequence[Entry],
    classes: Sequence[str],
    manifest: Mapping[str, Any],
    places: Doubles,
) -> None:
    import anndata
    import pandas

    model = manifest["model"]
    data = anndata.AnnData(
        X=np.array([each.probabilities for each in entries], np.float32),
        obs=pandas.DataFrame(
            {
                name: np.array([row[number] for row in rows], np.float64 if name in _NUMBERS else None)
                for number, name in enumerate(_TEXTS)
            },
            index=[row[0] for row in rows],
        ),
        var=pandas.DataFrame(index=list(classes)),
        layers={"predicted": np.array([each.predicted_probabilities for each in entries], np.float32)},
        obsm={"X_map": places},
        uns={
            "model": f"{model['name']} {model['version']}",
            "licence": model["licence"],
            "deepgps": manifest["deepgps"],
        },
    )
    with atomic_path(path) as draft:
        data.write_h5ad(draft, compression="gzip")
