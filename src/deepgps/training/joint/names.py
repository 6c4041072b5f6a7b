"""What the files of a run are called; apart from what writes them, which brings lightning along."""

WEIGHTS, ENCODER, CALIBRATION = "weights.safetensors", "encoder.json", "calibration.json"
METRICS, LEFT_OUT, HISTORY = "metrics.json", "left_out.csv", "metrics.csv"
SPLIT, MANIFEST = "split.csv", "manifest.json"
