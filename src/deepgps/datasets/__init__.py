"""Labelled proteins and images, from files to training arrays."""
