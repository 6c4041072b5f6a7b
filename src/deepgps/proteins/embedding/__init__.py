"""Embeddings: vectors that a protein language model gives a protein, or each of its residues.

`embed` takes sequences and a `ResidueEncoder`: a prepared one (`prepared_encoder`, without torch) or one of
`deepgps.models.esm2`. An `EmbeddingCache` keeps what was computed.
"""

from deepgps.proteins.embedding.cache import EmbeddingCache
from deepgps.proteins.embedding.encoder import EncoderSpec, Level, ResidueEncoder
from deepgps.proteins.embedding.prepared import prepared_encoder
from deepgps.proteins.embedding.vectors import embed

__all__ = ["EmbeddingCache", "EncoderSpec", "Level", "ResidueEncoder", "embed", "prepared_encoder"]
