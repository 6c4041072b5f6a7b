"""Make a crop store to evaluate on from a run's; where a crop's protein is unknown, another stands in."""

from pathlib import Path

import numpy as np
import polars as pl

from deepgps.arrays import Indices
from deepgps.datasets.crops.store import CROPS, CROPS_INDEX, CROPS_MANIFEST, PROTEINS, open_crops
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet


def write_evaluation_store(
    crops: Path, out: Path, proteins: LabelledProteins, classes: ClassSet, source: str, seed: int = 0
) -> Path:
    """Link a store's crops under an index of one source that gives every test crop a protein.

    Where the protein is unknown, or in none of the tables, one of the crop's localization stands in, drawn at
    random from the tables; the column ``stand_in`` marks these. Crops of other sources are in no split.
    """
    index = open_crops(crops).index
    names, stand_in = _protein_ids(index, proteins, classes, source, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in (CROPS, CROPS_MANIFEST):
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to((crops / name).resolve())
    own = pl.when(pl.col("source") == source).then(pl.col("split"))
    index.with_columns(
        own.alias("split"), pl.Series("protein_id", names), pl.Series("stand_in", stand_in)
    ).write_parquet(out / CROPS_INDEX)
    _protein_table(proteins, classes).filter(pl.col("protein_id").is_in(names)).write_parquet(out / PROTEINS)
    return out


def single_rows(proteins: LabelledProteins) -> dict[str, Indices]:
    """Rows of the proteins of one localization, by class."""
    single = (proteins.labels >= 0.5).sum(1) == 1
    first = proteins.labels.argmax(1)
    return {slug: np.flatnonzero(single & (first == k)) for k, slug in enumerate(proteins.slugs)}


def _protein_ids(
    index: pl.DataFrame, proteins: LabelledProteins, classes: ClassSet, source: str, seed: int
) -> tuple[list[str], list[bool]]:
    by_class, rng = single_rows(proteins), np.random.default_rng(seed)
    known = set(proteins.ids.tolist())
    names, stand_in = [], []
    for row in index.to_dicts():
        tested = row["source"] == source and row["split"] == "test"
        unknown = tested and row["accession"] not in known
        name = row["accession"]
        if unknown:
            # None stands in for a protein of several localizations.
            places = classes.of(row["localizations"].split("|"))
            name = str(proteins.ids[rng.choice(by_class[min(places)])]) if len(places) == 1 else ""
        names.append(name)
        stand_in.append(unknown)
    return names, stand_in


def _protein_table(proteins: LabelledProteins, classes: ClassSet) -> pl.DataFrame:
    first = [classes.classes[slug][0] for slug in proteins.slugs]
    places = ["|".join(np.array(first)[row]) for row in proteins.labels >= 0.5]
    return pl.DataFrame(
        {
            "protein_id": proteins.ids.tolist(),
            "accession": proteins.ids.tolist(),
            "sequence": list(proteins.sequences),
            "localizations": places,
            "cluster": proteins.cluster,
        }
    )
