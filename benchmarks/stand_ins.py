"""A crop store to evaluate on, out of a run's: where a crop's protein is unknown, another stands in."""

from pathlib import Path

import numpy as np
import polars as pl

from deepgps.datasets.crops.store import CROPS, INDEX, MANIFEST, PROTEINS, open_crops
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet


def single_rows(proteins: LabelledProteins) -> dict[str, np.ndarray]:
    """Rows of the proteins of one localization, by class."""
    single = (proteins.labels >= 0.5).sum(1) == 1
    first = proteins.labels.argmax(1)
    return {slug: np.flatnonzero(single & (first == k)) for k, slug in enumerate(proteins.slugs)}


def paired_store(
    crops: Path, out: Path, proteins: LabelledProteins, classes: ClassSet, source: str, seed: int = 0
) -> Path:
    """Link a store's crops under an index of one source that names a protein for every crop of the test.

    Where the protein is unknown, or in none of the tables, one of the crop's localization stands in, drawn
    by chance from the tables; the column ``stand_in`` says so. Crops of other sources are in no split.
    """
    index = open_crops(crops).index
    named, stand_in = _named(index, proteins, classes, source, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name in (CROPS, MANIFEST):
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to((crops / name).resolve())
    own = pl.when(pl.col("source") == source).then(pl.col("split"))
    index.with_columns(
        own.alias("split"), pl.Series("protein_id", named), pl.Series("stand_in", stand_in)
    ).write_parquet(out / INDEX)
    _proteins_table(proteins, classes).filter(pl.col("protein_id").is_in(named)).write_parquet(out / PROTEINS)
    return out


def _named(
    index: pl.DataFrame, proteins: LabelledProteins, classes: ClassSet, source: str, seed: int
) -> tuple[list[str], list[bool]]:
    by_class, rng = single_rows(proteins), np.random.default_rng(seed)
    known = set(proteins.ids.tolist())
    named, stand_in = [], []
    for row in index.to_dicts():
        tested = row["source"] == source and row["split"] == "test"
        unknown = tested and row["accession"] not in known
        named.append(
            _stand_in(row["localizations"], by_class, proteins, classes, rng) if unknown else row["accession"]
        )
        stand_in.append(unknown)
    return named, stand_in


def _stand_in(
    localizations: str,
    by_class: dict[str, np.ndarray],
    proteins: LabelledProteins,
    classes: ClassSet,
    rng: np.random.Generator,
) -> str:
    """Choose a protein that is where the crop's is and nowhere else; none for one of several places."""
    places = classes.of(localizations.split("|"))
    return str(proteins.ids[rng.choice(by_class[min(places)])]) if len(places) == 1 else ""


def _proteins_table(proteins: LabelledProteins, classes: ClassSet) -> pl.DataFrame:
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
