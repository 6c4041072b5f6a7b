"""Networks as pure modules: the U-Net, the fusion at its bottleneck, classifiers and sequence encoders."""
