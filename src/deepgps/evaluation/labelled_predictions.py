"""Tables of labelled predictions: true classes and predicted probabilities, CSV or Parquet.

Columns: ``protein_id``; ``true``, the true classes joined by ``|``; ``p_<class>``, the probability of each
class; optional ``crop`` and ``cluster``. Other columns are ignored.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from deepgps.arrays import Doubles, Mask
from deepgps.errors import InputError
from deepgps.evaluation.dataset import text_frame

_PREFIX = "p_"
_SUMS_TO_ONE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPredictions:
    """True classes and predicted probabilities, a row a protein or a crop.

    Attributes
    ----------
    classes
        The K classes.
    proteins
        (N,) ids; rows of one id are crops of one protein.
    probabilities
        (N, K).
    targets
        (N, K) bool.
    clusters
        (N,) homology clusters; None where unknown.
    """

    classes: tuple[str, ...]
    proteins: tuple[str, ...]
    probabilities: Doubles
    targets: Mask
    clusters: tuple[str, ...] | None

    @property
    def multi_label(self) -> bool:
        """Whether a protein may belong to several classes.

        It may not if every row has exactly one true class and probabilities that sum to 1.
        """
        sums = self.probabilities.sum(1)
        return bool((self.targets.sum(1) != 1).any() or (np.abs(sums - 1) > _SUMS_TO_ONE).any())


def read_labelled_predictions(path: Path) -> LabelledPredictions:
    """Read a table of labelled predictions.

    Returns
    -------
    LabelledPredictions
        Classes, ids, probabilities and true classes.

    Raises
    ------
    InputError
        If it cannot be read, misses a column, or has a true class without probabilities or a probability
        that is no number.
    """
    table = _read(path)
    columns = [name for name in table.columns if name.startswith(_PREFIX)]
    missing = [name for name in ("protein_id", "true") if name not in table.columns]
    if missing or not columns:
        missing = missing or ["p_<class>"]
        raise InputError(
            f"Table '{path}' has no column '{missing[0]}'; labelled predictions need protein_id, true and "
            "one p_<class> for each class."
        )
    classes = tuple(name.removeprefix(_PREFIX) for name in columns)
    ids = tuple(table["protein_id"].cast(pl.String).fill_null("").to_list())
    clusters = (
        table["cluster"].cast(pl.String).fill_null("").to_list() if "cluster" in table.columns else None
    )
    return LabelledPredictions(
        classes,
        ids,
        _probabilities(table, columns, path),
        _targets(table["true"].cast(pl.String).fill_null("").to_list(), ids, classes, path),
        tuple(clusters) if clusters is not None else None,
    )


def write_labelled_predictions(predictions: LabelledPredictions, path: Path) -> None:
    """Write a table of labelled predictions, Parquet if the name ends so, else CSV."""
    table: dict[str, object] = {
        "protein_id": list(predictions.proteins),
        "true": [
            "|".join(slug for slug, yes in zip(predictions.classes, row, strict=True) if yes)
            for row in predictions.targets
        ],
    }
    if predictions.clusters is not None:
        table["cluster"] = list(predictions.clusters)
    for number, slug in enumerate(predictions.classes):
        table[f"{_PREFIX}{slug}"] = predictions.probabilities[:, number]
    frame = pl.DataFrame(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, float_precision=6)


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return text_frame(path)
    except FileNotFoundError:
        raise InputError(f"File '{path}' was not found; check its name and folder.") from None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"Table '{path}' cannot be read ({error}); give CSV or Parquet.") from None


def _probabilities(table: pl.DataFrame, columns: list[str], path: Path) -> Doubles:
    numbers = table.select(pl.col(columns).cast(pl.Float64, strict=False).fill_null(np.nan)).to_numpy()
    for row, column in np.argwhere(np.isnan(numbers))[:1]:
        raise InputError(
            f"Table '{path}' has '{table[columns[column]][int(row)]}' for {columns[column]} of protein "
            f"'{table['protein_id'][int(row)]}'; give a number in [0, 1]."
        )
    return np.asarray(numbers, np.float64)


def _targets(true: list[str], ids: tuple[str, ...], classes: tuple[str, ...], path: Path) -> Mask:
    targets = np.zeros((len(true), len(classes)), np.bool_)
    number = {slug: place for place, slug in enumerate(classes)}
    for row, (text, protein) in enumerate(zip(true, ids, strict=True)):
        for slug in filter(None, text.split("|")):
            if slug not in number:
                raise InputError(
                    f"Protein '{protein}' has the true class '{slug}', but table '{path}' has no column "
                    f"'{_PREFIX}{slug}'."
                )
            targets[row, number[slug]] = True
    return targets
