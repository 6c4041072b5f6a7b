"""What the model that ships doubts: sequences that no cell makes."""

from pathlib import Path

import numpy as np
import pytest

import deepgps.examples
from deepgps.prediction import Predictor
from deepgps.prediction.prediction import UNCLEAR

SETS = ("deepgps-mini", "deepgps-mini:single-2", "deepgps-mini:single-4", "deepgps-mini:all")


@pytest.fixture(scope="module")
def shuffled() -> list[str]:
    """Each example protein, its residues in five other orders."""
    rng = np.random.default_rng(0)
    return ["".join(rng.permutation(list(text))) for text in examples() for _ in range(5)]


UNLIKE = ("no annotated relative", "only distant annotated relatives")


def examples() -> list[str]:
    lines = (Path(deepgps.examples.__path__[0]) / "proteins.fasta").read_text().split(">")[1:]
    return ["".join(each.split("\n")[1:]) for each in lines]


@pytest.mark.parametrize("model", SETS)
def test_most_shuffled_proteins_are_noted_or_unclear(model, shuffled):
    predictor = Predictor.load(model, threads=1)
    answers = [predictor.predict_one(text, images=False) for text in shuffled]
    noted = [any(note.startswith(UNLIKE) for note in each.warnings) for each in answers]
    doubted = [note or each.localizations == (UNCLEAR,) for note, each in zip(noted, answers, strict=True)]
    assert np.mean(doubted) > 0.8


def test_known_proteins_are_not_unlike_everything():
    predictor = Predictor.load(threads=1)
    for text in examples():
        notes = predictor.predict_one(text, images=False).warnings
        assert not any(note.startswith(UNLIKE) for note in notes)


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ("MKTAYIAKQRQISFVKSHFSRQ", "has only 22 residues"),
        ("MGSGGSGGSGGGSGGSSGGGSGSGGAGGSGSGTAGSGGSGSGGSGGSSGGK", "low complexity"),
    ],
)
def test_short_and_simple_sequences_are_noted(sequence, says):
    notes = Predictor.load(threads=1).predict_one(sequence, images=False).warnings
    assert any(says in note for note in notes)
