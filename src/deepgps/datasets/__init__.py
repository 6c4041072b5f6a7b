"""Datasets: labelled proteins and pictures, from files to training arrays."""
