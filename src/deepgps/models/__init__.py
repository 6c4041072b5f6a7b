"""Networks as pure modules: the U-Net, the fusion at its bottleneck, classifiers and sequence encoders."""

from typing import Literal

FusionMode = Literal["paper", "residual", "per_residue", "film"]
"""How latent tokens and nucleus features are combined; `deepgps.models.fusion` describes each."""
