"""Images in: nucleus images read, normalised, resampled, segmented and cropped. NumPy in, NumPy out."""
