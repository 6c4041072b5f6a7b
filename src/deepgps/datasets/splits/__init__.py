"""Splits: which proteins train, validate and test, by protein or by homology cluster."""
