"""A crop store as a torch `Dataset`."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from deepgps.datasets.crops.store import CropStore, open_crops


class CropSample(NamedTuple):
    """One crop; the default collation makes batches of it.

    Attributes
    ----------
    nucleus, protein
        (1, S, S) float32 in [0, 1].
    protein_id
        The protein, as the index names it.
    localizations
        Its localizations, joined by ``|``.
    """

    nucleus: Tensor
    protein: Tensor
    protein_id: str
    localizations: str


class CropDataset(Dataset[CropSample]):
    """Crops of a store, read from disk on access.

    Every worker of a `DataLoader` maps the file itself; no crop is in memory twice.

    Parameters
    ----------
    folder
        The crop store.
    equal
        Columns of the index and the values to select, such as ``split="train"``; by default all crops.

    Raises
    ------
    InputError
        If the folder holds no complete crop store.
    """

    def __init__(self, folder: Path, **equal: str) -> None:
        self.folder = folder
        self._store: CropStore | None = open_crops(folder)
        index = self._store.index
        self.rows = self._store.rows(**equal) if equal else range(len(index))
        chosen = index[list(self.rows)]
        self.protein_ids: list[str] = chosen["protein_id"].to_list()
        self.localizations: list[str] = chosen["localizations"].to_list()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> CropSample:
        if self._store is None:
            self._store = open_crops(self.folder)
        pair = torch.from_numpy(self._store.images([int(self.rows[number])])[0])
        return CropSample(pair[:1], pair[1:], self.protein_ids[number], self.localizations[number])

    def __getstate__(self) -> dict[str, object]:
        # A memory map would be pickled with all that it maps.
        return {**self.__dict__, "_store": None}
