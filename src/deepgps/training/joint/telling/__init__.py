"""What a run of a joint model says of itself: logs, samples, figures, the report."""
