"""Evaluation: how good a model is, always beside baselines."""
