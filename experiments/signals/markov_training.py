"""Hidden Markov models of targeting peptides: their states, first guesses from the literature, and EM."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from deepgps.arrays import Doubles, Ints
from deepgps.explain.markov import MarkovModel
from deepgps.proteins.features import RESIDUES

BACKGROUND = np.array(
    (
        *(0.0826, 0.0137, 0.0546, 0.0674, 0.0386, 0.0708, 0.0228, 0.0593, 0.058, 0.0965),
        *(0.0241, 0.0406, 0.0473, 0.0393, 0.0553, 0.066, 0.0535, 0.0687, 0.011, 0.0292),
    )
)
"""Frequencies of the residues in Swiss-Prot, in the order of `RESIDUES`."""
UNKNOWN_EMISSION = 0.05
ROUNDS = 12
BATCH = 1000


class Builder:
    """States that share emissions, and transitions between them."""

    def __init__(self, emissions: Mapping[str, Mapping[str, float]]) -> None:
        self.names = list(emissions)
        self.rows = [_distribution(factors) for factors in emissions.values()]
        self.emission: list[int] = []
        self.transitions: list[tuple[int, int, float]] = []

    def state(self, emission: str) -> int:
        """Add a state."""
        self.emission.append(self.names.index(emission))
        return len(self.emission) - 1

    def chain(self, emissions: Sequence[str]) -> list[int]:
        """Add states that follow each other."""
        states = [self.state(each) for each in emissions]
        for here, there in pairwise(states):
            self.go(here, there, 1)
        return states

    def go(self, here: int, there: int, weight: float) -> None:
        """Add a transition."""
        self.transitions.append((here, there, weight))

    def loop(self, state: int, weight: float = 1) -> None:
        """Let a state follow itself."""
        self.go(state, state, weight)

    def model(self, length: int, cuts: Sequence[int] = ()) -> tuple[MarkovModel, Ints]:
        """Return the model, which starts in state 0, and the emission of each state."""
        count = len(self.emission)
        transitions = np.zeros((count, count))
        for here, there, weight in self.transitions:
            transitions[here, there] += weight
        start = np.eye(count)[0]
        transitions /= transitions.sum(1, keepdims=True)
        emission = np.array(self.emission)
        return MarkovModel(
            start, transitions, _emissions(np.array(self.rows)[emission]), length, tuple(cuts)
        ), emission


def fit(model: MarkovModel, emission: Ints, codes: Ints) -> MarkovModel:
    """Improve a model by expectation-maximization on residue codes (B, L)."""
    for _ in range(ROUNDS):
        rows = np.full((emission.max() + 1, 20), 2.0)
        moves = (model.transitions > 0).astype(float)
        for at in range(0, len(codes), BATCH):
            part = codes[at : at + BATCH]
            states, steps = _expected_counts(model, part)
            for state, shares in enumerate(np.moveaxis(states, 2, 0)):
                rows[emission[state]] += np.bincount(part.T.ravel(), shares.ravel(), 21)[:20]
            moves += steps
        rows /= rows.sum(1, keepdims=True)
        model = MarkovModel(
            model.start,
            moves / moves.sum(1, keepdims=True),
            _emissions(rows[emission]),
            model.length,
            model.cuts,
        )
    return model


def _expected_counts(model: MarkovModel, codes: Ints) -> tuple[Doubles, Doubles]:
    """Return the probabilities of the states (L, B, S) and the expected transitions (S, S)."""
    forward, _, seen, scales = model._forward(codes)
    states, moves = np.empty_like(forward), np.zeros_like(model.transitions)
    backward = np.ones_like(forward[0])
    for place in range(len(seen) - 1, -1, -1):
        states[place] = forward[place] * backward
        after = backward * seen[place] / scales[place][:, None]
        if place:
            moves += forward[place - 1].T @ after
        backward = after @ model.transitions.T
    return states, moves * model.transitions


def _emissions(rows: Doubles) -> Doubles:
    return np.concatenate([rows, np.full((len(rows), 1), UNKNOWN_EMISSION)], axis=1)


def _distribution(factors: Mapping[str, float]) -> Doubles:
    row = BACKGROUND.copy()
    for letters, factor in factors.items():
        for letter in letters:
            row[RESIDUES.index(letter)] *= factor
    return np.asarray(row / row.sum())


START = {"M": 1000.0}
POLAR = {"DEKRNQHP": 0.03}


def signal_peptide() -> tuple[MarkovModel, Ints]:
    """n, h and c region with the (-3, -1) rule (von Heijne 1986)."""
    small_3, small_1 = {"AVSTCGIL": 3, "DEKRFWYHQNMP": 0.1}, {"AGSC": 5, "TP": 0.5, "DEKRFWYHNMVILQ": 0.05}
    build = Builder(
        {"M": START, "n": {"KR": 2, "DE": 0.3}, "h": {"LAVIF": 2.6, "CGWMST": 0.8, **POLAR}}
        | {"c": {"SGAPTQ": 1.6, "KRDE": 0.5}, "c3": small_3, "c2": {}, "c1": small_1}
        | {"m1": {"QEDAS": 1.5, "P": 0.1}, "m2": {}, "mature": {}}
    )
    start, n = build.state("M"), build.state("n")
    core, end = build.chain("h" * 20), build.chain(["c"] * 7 + ["c3", "c2", "c1", "m1", "m2", "mature"])
    build.go(start, n, 0.9)
    build.loop(n, 0.75)
    build.go(n, core[0], 0.25)
    build.go(start, core[0], 0.1)
    _leave(build, core, 5, end[:8])
    build.loop(end[-1])
    return build.model(70, [end[10]])


def mitochondrial_peptide() -> tuple[MarkovModel, Ints]:
    """A basic stretch without acids, cut after R-2, R-3 or R-10 motifs or elsewhere (Gavel 1990)."""
    emissions: dict[str, dict[str, float]] = {
        "M": START,
        "t": {"R": 2.2, "ALS": 1.4, "DE": 0.12, "K": 0.8},
        "R": {"R": 25},
        "x": {"DE": 0.3},
        "o": {"FLIY": 3},
        "s": {"SAT": 2, "DE": 0.2},
        "y": {"YFLSA": 2.5},
        "m1": {"SAT": 2.5},
        "m2": {"DEAST": 1.2},
        "m3": {},
        "mature": {},
    }
    build = Builder(emissions)
    start, stretch, mature = build.state("M"), build.chain("t" * 6), build.chain(["m1", "m2", "m3", "mature"])
    build.go(start, stretch[0], 1)
    for state in stretch:
        build.loop(state, 3)
    for motif, weight in (("Rx", 0.32), ("Rxy", 0.4), ("Rxoxxsxxxx", 0.16)):
        states = build.chain(motif)
        build.go(stretch[-1], states[0], weight)
        build.go(states[-1], mature[0], 1)
    build.go(stretch[-1], mature[0], 0.12)
    build.loop(mature[-1])
    return build.model(110, [mature[0]])


def plastid_peptide() -> tuple[MarkovModel, Ints]:
    """A stretch of serine and threonine cut at [VI]-x-[AC] (Gavel 1990), or a thylakoid signal behind it."""
    build = Builder(
        {"M": START, "t": {"S": 2.6, "T": 1.4, "PLAR": 1.1, "DE": 0.15, "YW": 0.4, "C": 0.8}}
        | {"u": {"RVSAK": 1.5, "DE": 0.3}, "v": {"VIRL": 2}, "x": {"DE": 0.4}, "a": {"ACSRVM": 2}}
        | {"m1": {"ASC": 3}, "m2": {"AVST": 1.2}, "mature": {}}
        | {
            "b": {"RKSDE": 1.3},
            "r": {"RK": 12},
            "h": {"LAVIFGSM": 2.4, **POLAR},
            "c": {"SGAPL": 1.6, "KR": 0.4},
        }
        | {"c3": {"AVSTCGIL": 3, "DEKRFWYHQNM": 0.1}, "c2": {}, "c1": {"AGS": 6, "DEKRFWYHNMVILQPT": 0.05}}
        | {"q": {"AEDQ": 1.5}}
    )
    start, stretch = build.state("M"), build.chain("t" * 8)
    mature = build.chain(["u", "u", "u", "v", "x", "a", "m1", "m2", "mature"])
    build.go(start, stretch[0], 1)
    for state in stretch:
        build.loop(state, 4.5)
    build.go(stretch[-1], mature[0], 1)
    basic = build.chain("brb")
    core, end = build.chain("h" * 20), build.chain(["c"] * 5 + ["c3", "c2", "c1", "q"])
    build.go(stretch[-1], basic[0], 0.1)
    build.loop(basic[0], 9)
    build.loop(basic[2], 1.5)
    build.go(basic[2], core[0], 1)
    build.go(basic[1], core[0], 0.4)
    _leave(build, core, 7, end[:6])
    build.go(end[-1], mature[-1], 1)
    build.loop(mature[-1])
    return build.model(140, [mature[6], end[-1]])


def signal_anchor() -> tuple[MarkovModel, Ints]:
    """A transmembrane helix of 16 to 25 residues behind a terminus of any length."""
    build = Builder(
        {"M": START, "n": {"KR": 1.3}, "h": {"LAVIF": 2.4, "CGWMSTY": 0.9, "DEKRNQHP": 0.06}}
        | {"o": {"KR": 1.5}, "mature": {}}
    )
    start, n = build.state("M"), build.state("n")
    core, end = build.chain("h" * 25), build.chain(["o", "o", "o", "mature"])
    build.go(start, n, 0.9)
    build.loop(n, 0.95)
    build.go(n, core[0], 0.05)
    build.go(start, core[0], 0.1)
    _leave(build, core, 15, end[:1])
    build.loop(end[-1])
    return build.model(70)


def other_terminus() -> tuple[MarkovModel, Ints]:
    """A terminus of one composition, then another."""
    build = Builder({"M": START, "n": {}, "mature": {}})
    _, n, mature = build.chain(["M", "n", "mature"])
    build.loop(n, 19)
    build.loop(mature)
    return build.model(70)


def _leave(build: Builder, core: Sequence[int], least: int, ends: Sequence[int]) -> None:
    """Let a hydrophobic core of more than ``least`` residues end."""
    for state in core[least:]:
        for end in ends:
            build.go(state, end, 0.1)


MODELS = {
    "SP": signal_peptide,
    "MT": mitochondrial_peptide,
    "CH": plastid_peptide,
    "TM": signal_anchor,
    "OTHER": other_terminus,
}
