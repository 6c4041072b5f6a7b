"""Models trained on crops with a protein's latents: the label and the picture together, as in the paper."""
