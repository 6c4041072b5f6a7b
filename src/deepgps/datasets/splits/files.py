"""A split on disk: two columns, small enough to cite, beside what it was made of."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

import deepgps
from deepgps.datasets.crops.reading import INDEX, open_crops
from deepgps.datasets.crops.shown import PROTEINS, read_shown
from deepgps.datasets.fingerprints import fingerprints
from deepgps.datasets.splits.split import PARTS, Split
from deepgps.errors import InputError
from deepgps.files import atomic_path

COLUMNS = ("protein_id", "split")


def read_proteins_to_split(source: Path) -> pl.DataFrame:
    """Read the rows of a crop store, or of a Parquet table of proteins.

    To the rows of a store is added what it says of its proteins: sequence, cluster, how many locations.

    Raises
    ------
    InputError
        If it is neither.
    """
    if source.is_dir():
        return _with_shown(open_crops(source).index, source)
    if not source.exists():
        raise InputError(f"'{source}' was not found; give proteins.parquet or the folder of a crop store.")
    try:
        return pl.read_parquet(source)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"'{source}' is not a Parquet table ({error}); give proteins.parquet.") from error


def _with_shown(index: pl.DataFrame, store: Path) -> pl.DataFrame:
    if not (store / PROTEINS).exists():
        return index
    shown = read_shown(store)
    added = [name for name in ("single_localized", "sequence", "cluster") if name in shown.columns]
    return index.join(shown.select("protein_id", *added), "protein_id", how="left", maintain_order="left")


def write_split(split: Split, out: Path, source: Path, options: Mapping[str, str | int]) -> Path:
    """Write ``split.csv``, and beside it what it was made of and how many proteins are where.

    Returns
    -------
    Path
        The manifest, ``<stem>.manifest.json``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    inputs = fingerprints([source / INDEX, source / PROTEINS] if source.is_dir() else [source])
    counts = {name: dict(zip(PARTS, row, strict=True)) for name, row in class_counts(split).items()}
    made = {"deepgps": deepgps.__version__, **options, "inputs": inputs, "proteins": counts}
    manifest = out.with_name(f"{out.stem}.manifest.json")
    with atomic_path(out) as draft:
        pl.DataFrame(sorted(split.parts.items()), schema=COLUMNS, orient="row").write_csv(draft)
    with atomic_path(manifest) as draft:
        draft.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_split(path: Path) -> dict[str, str]:
    """Read a split: protein to part.

    Raises
    ------
    InputError
        If the file is missing or no split, or has a protein twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"Split '{path}' was not found; make it with 'deepgps data split'.") from None
    if tuple(header) != COLUMNS:
        raise InputError(f"'{path}' is not a split; it needs the columns 'protein_id' and 'split'.")
    parts: dict[str, str] = {}
    for number, row in enumerate(filter(None, rows), 2):
        if len(row) != 2 or row[1] not in PARTS:
            raise InputError(f"Line {number} of '{path}' names no split; use {', '.join(PARTS)}.")
        if parts.setdefault(row[0], row[1]) != row[1]:
            raise InputError(f"Protein '{row[0]}' is in two splits in '{path}'; give it one.")
    return parts


def class_counts(split: Split) -> dict[str, tuple[int, ...]]:
    """Proteins of each class in each part, the largest class first."""
    cells = Counter((split.classes[protein], part) for protein, part in split.parts.items())
    sizes = Counter(split.classes[protein] for protein in split.parts)
    return {name: tuple(cells[name, part] for part in PARTS) for name, _ in sizes.most_common()}


def split_report(split: Split, table: pl.DataFrame) -> Iterator[str]:
    """Lines of a table of classes and parts, in proteins; and in crops, where a protein has several rows."""
    rows = class_counts(split)
    rows["proteins"] = tuple(sum(column) for column in zip(*rows.values(), strict=True))
    ids = table["protein_id"].drop_nulls().to_list()
    if len(ids) > len(split.classes):
        crops = Counter(split.parts.get(protein) for protein in ids)
        rows["crops"] = tuple(crops[part] for part in PARTS)
    yield f"{'':<18}" + "".join(f"{name:>12}" for name in (*PARTS, "all", "train side"))
    for name, row in rows.items():
        share = f"{(row[0] + row[1]) / max(sum(row), 1):.0%}"
        yield f"{name:<18}" + "".join(f"{count:>12,}" for count in (*row, sum(row))) + f"{share:>12}"
