"""What an encoder of residues is, whoever computes it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from deepgps.arrays import Floats, Ints, Mask

Level = Literal["protein", "residue"]
"""One vector a protein, the mean over its residues, or one a residue."""

Precision = Literal["auto", "float32", "bfloat16"]
"""What to compute in; ``auto`` is bfloat16 where the machine has units for it, else float32."""


class Identity(Protocol):
    """Which numbers an encoder gives: two of the same identity give the same."""

    @property
    def name(self) -> str:
        """Name of the encoder, such as ``esm2_t33_650M_UR50D``."""

    @property
    def fingerprint(self) -> str:
        """Sha256 of what makes its numbers: weights and architecture."""

    @property
    def precision(self) -> str:
        """What it computes in: ``float32`` or ``bfloat16``."""

    @property
    def dimension(self) -> int:
        """Size E of a vector."""

    @property
    def max_length(self) -> int:
        """Residues that it takes at once; longer sequences are encoded in windows."""


class ResidueEncoder(Identity, Protocol):
    """A network that gives each token of a protein a vector."""

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), real where the mask (B, L) is true: (B, L, E), special tokens included."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An identity without the network.

    Attributes
    ----------
    name, fingerprint, precision, dimension, max_length
        As in `Identity`.
    """

    name: str
    fingerprint: str
    precision: str
    dimension: int
    max_length: int


def spec_of(encoder: Identity) -> EncoderSpec:
    """Take the identity of an encoder."""
    return EncoderSpec(
        encoder.name, encoder.fingerprint, encoder.precision, encoder.dimension, encoder.max_length
    )
