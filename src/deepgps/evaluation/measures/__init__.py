"""What is counted, ranked and resampled to measure labels; `deepgps.evaluation.labels` puts it together."""
