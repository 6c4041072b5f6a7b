"""Models trained on crops with a protein's latents: the label and the image together, as in the paper."""
