"""A model of the paper, fine-tuned: its network goes on from its weights, in the loop that trained it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deepgps.errors import InputError
from deepgps.models.deepgps import DeepGPS
from deepgps.training.finetune.base import AT_ONCE, SEEN, Base, not_its_network
from deepgps.training.finetune.unfold import load_weights
from deepgps.training.joint.inputs.batches import read_batch
from deepgps.training.joint.inputs.data import TrainingData
from deepgps.training.joint.inputs.protein_inputs import ProteinInputs


@dataclass(frozen=True, slots=True)
class Start:
    """Weights that training starts from.

    Attributes
    ----------
    base
        The model that they are of.
    """

    base: Base

    @property
    def name(self) -> str:
        """Name and version of the model."""
        return self.base.name

    @property
    def fingerprint(self) -> str:
        """Sha256 of what holds the weights."""
        return self.base.fingerprint

    def load(self, model: DeepGPS, data: TrainingData, inputs: ProteinInputs) -> None:
        """Load the weights into a fresh network.

        Raises
        ------
        InputError
            If the encoder is another than the one that the model was trained with, or the weights are not of
            its recipe's network.
        """
        _check_encoder(self.base, inputs.spec)
        rows = data.rows["train"]
        rows = rows[np.linspace(0, len(rows) - 1, min(SEEN, len(rows))).astype(np.int64)]

        def predict() -> None:
            for first in range(0, len(rows), AT_ONCE):
                batch = read_batch(data, inputs, rows[first : first + AT_ONCE])
                model(batch.pairs[:, :1] / torch.tensor(255.0), batch.protein)

        try:
            load_weights(model, self.base.weights, predict)
        except RuntimeError as error:
            raise InputError(not_its_network(self.base, error)) from None
        model.train()


def _check_encoder(base: Base, spec: Mapping[str, Any]) -> None:
    for field in ("name", "fingerprint", "dimension"):
        if base.encoder.get(field) != spec.get(field):
            raise InputError(
                f"'{base.name}' was trained with the encoder '{base.encoder.get('name')}', whose {field} is "
                f"{base.encoder.get(field)}, not {spec.get(field)}; name that one with "
                "--set protein.encoder."
            )
