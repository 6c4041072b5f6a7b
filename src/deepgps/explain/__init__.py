"""Why a protein goes there, and what a change of its sequence would do.

`deepgps.explain.signals` finds sorting signals in a sequence, `deepgps.explain.importance` masks windows of
it, and `deepgps.explain.variants` compares changed sequences with the unchanged one. All are pure
functions over sequences and a model's logits; `Predictor.explain` and `Predictor.variants` put a model behind
them. They work on the *predicted* part of an answer.
"""
