"""Sorting signals of a sequence: where they are, how sure that is, and what they are known from.

Some signals are published patterns; others are found by small taggers: hidden Markov models of targeting
peptides with a small network that chooses between them, and logistic regressions of C-termini. The taggers
were trained on proteins whose compartment UniProt states (``experiments/signals``), without a residue of a
known signal and without a language model. They are one file, ``taggers.npz``.

A score is in [0, 1]. A targeting peptide is reported where it is the most probable reading of the N-terminus,
every other signal from 0.5.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from deepgps.arrays import Doubles, Ints
from deepgps.errors import BundleError
from deepgps.explain.markov import MarkovModel
from deepgps.proteins.features import SCALES, residue_codes

SIGNALS = {
    "SP": "signal peptide",
    "MT": "mitochondrial transit peptide",
    "CH": "chloroplast transit peptide",
    "TH": "thylakoid transit peptide",
    "TM": "transmembrane segment",
    "PTS": "peroxisomal targeting signal",
    "NLS": "nuclear localization signal",
    "NES": "nuclear export signal",
    "GPI": "GPI-anchor signal",
    "ER": "ER retention signal",
    "LIPID": "lipid anchor",
}
"""Name of each kind of signal."""

TAGGERS_FILE = "taggers.npz"
TAGGERS_SHA256 = "11d1cf7a36c4f1c7aae8e29d7a8c2ff11dbc7e9d60eaebe98b50c83b86c10586"

TERMINUS = 70
"""Residues that the network of the N-terminus reads."""
SEGMENTS = ((1, 12), (12, 30), (30, 60))
N_CLASSES = ("SP", "MT", "CH", "TM", "OTHER")
"""What an N-terminus may be; CH stands for chloroplast and thylakoid, TM for a signal anchor."""
C_TERMINUS = 12

_SURE = 0.5
_MAYBE = 0.3
# Half widths of the windows of disorder and charge.
_NEAR, _FLANK = 15, 5
_MEMBRANE = 21


@dataclass(frozen=True, slots=True)
class Signal:
    """A sorting signal.

    Attributes
    ----------
    kind
        A key of `SIGNALS`.
    start, end
        First and last residue, from 1.
    score
        In [0, 1].
    known_from
        What it was found with.
    """

    kind: str
    start: int
    end: int
    score: float
    known_from: str

    @property
    def name(self) -> str:
        """Name of the kind."""
        return SIGNALS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.start}-{self.end}"


def find_signals(sequences: Sequence[str]) -> list[tuple[Signal, ...]]:
    """Find the sorting signals of sequences.

    Parameters
    ----------
    sequences
        Checked sequences.

    Returns
    -------
    list of tuple of Signal
        For each sequence, in the order of their first residues.

    Raises
    ------
    BundleError
        If the file of the taggers is damaged.

    Examples
    --------
    >>> [found] = find_signals(["MAAKRPAATKKAGQAKKKKLDESGSPEESGSSSEDEQ"])
    >>> [str(signal) for signal in found]
    ['NLS 4-19']
    """
    taggers = open_taggers()
    # The sequences of a scan share most of their termini.
    heads = list(dict.fromkeys(sequence[: taggers.reads] for sequence in sequences))
    termini = dict(zip(heads, _n_termini(heads, taggers), strict=True))
    found = []
    for sequence in sequences:
        shares, peptide = termini[sequence[: taggers.reads]]
        found.append(_signals(sequence, shares, peptide, taggers))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Taggers:
    """The trained parameters.

    Attributes
    ----------
    models
        Hidden Markov models of N-termini by class.
    means, deviations
        (F,) of the features of an N-terminus, see `n_terminus_features`.
    layers
        Weights (in, out) and bias (out,) of each layer of the network of the N-terminus.
    membrane
        (21,) score of each residue code in a transmembrane segment.
    membrane_threshold
        Mean score from which 21 residues are one.
    peroxisome, gpi
        Weights (F,) and bias of the regressions of C-termini, whose sum is 0 at the threshold.
    rates
        By pattern, share of the proteins with it that UniProt places where it leads.
    """

    models: dict[str, MarkovModel]
    means: Doubles
    deviations: Doubles
    layers: tuple[tuple[Doubles, Doubles], ...]
    membrane: Doubles
    membrane_threshold: float
    peroxisome: tuple[Doubles, float]
    gpi: tuple[Doubles, float]
    rates: dict[str, float]

    @property
    def reads(self) -> int:
        """Residues of an N-terminus that the taggers read."""
        return max(model.length for model in self.models.values())


@cache
def open_taggers() -> Taggers:
    """Open the taggers of this package.

    Returns
    -------
    Taggers
        Ready to use.

    Raises
    ------
    BundleError
        If the file is damaged.
    """
    content = (resources.files("deepgps.explain") / TAGGERS_FILE).read_bytes()
    if hashlib.sha256(content).hexdigest() != TAGGERS_SHA256:
        raise BundleError(f"'{TAGGERS_FILE}' of deepgps.explain has a wrong sha256; install deepGPS again.")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return read_taggers(dict(arrays))


def read_taggers(arrays: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.floating]]"]) -> Taggers:
    """Make taggers from the arrays of their file."""
    values = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    models = {
        name: MarkovModel(
            _normalized(values[f"{name}/start"]),
            _normalized(values[f"{name}/transitions"]),
            values[f"{name}/emissions"],
            int(values[f"{name}/length"]),
            tuple(int(state) for state in values[f"{name}/cuts"]),
        )
        for name in N_CLASSES
    }
    layers = tuple((values[f"layer{number}/weights"], values[f"layer{number}/bias"]) for number in range(2))
    return Taggers(
        models,
        values["means"],
        values["deviations"],
        layers,
        values["membrane"],
        float(values["membrane_threshold"]),
        (values["peroxisome"][:-1], float(values["peroxisome"][-1])),
        (values["gpi"][:-1], float(values["gpi"][-1])),
        {
            name.removeprefix("rate/"): float(value)
            for name, value in values.items()
            if name.startswith("rate/")
        },
    )


def _normalized(rows: Doubles) -> Doubles:
    # Half precision in the file: rows sum to 1 only almost.
    return np.asarray(rows / rows.sum(-1, keepdims=True))


def _padded_codes(sequences: Sequence[str], length: int) -> Ints:
    codes = np.full((len(sequences), length), 20, np.int64)
    for row, sequence in zip(codes, sequences, strict=True):
        head = residue_codes(sequence[:length])
        row[: len(head)] = head
    return codes


def n_terminus_features(sequences: Sequence[str], models: dict[str, MarkovModel]) -> Doubles:
    """Compute the features of N-termini.

    Parameters
    ----------
    sequences
        B sequences.
    models
        Hidden Markov models by class.

    Returns
    -------
    Doubles
        (B, 64) log-likelihood of each class above that of ``OTHER``, and the composition of three segments.
    """
    codes = _padded_codes(sequences, TERMINUS)
    likelihoods = {name: model.log_likelihoods(codes) for name, model in models.items()}
    columns = [likelihoods[name] - likelihoods["OTHER"] for name in N_CLASSES[:-1]]
    for start, end in SEGMENTS:
        columns += [(codes[:, start:end] == residue).sum(1) / 3 for residue in range(20)]
    return np.stack(columns, axis=1)


def _n_termini(heads: Sequence[str], taggers: Taggers) -> list[tuple[Doubles, tuple[str, int] | None]]:
    """Return, for each N-terminus, the probabilities of `N_CLASSES`, and its targeting peptide and length."""
    features = (n_terminus_features(heads, taggers.models) - taggers.means) / taggers.deviations
    (first, first_bias), (second, second_bias) = taggers.layers
    logits = np.maximum(features @ first + first_bias, 0) @ second + second_bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    # Rounded, because sums depend on how many sequences are computed at once.
    shares = (powers / powers.sum(1, keepdims=True)).round(6)
    peptides: list[tuple[str, int] | None] = [None] * len(heads)
    for number, name in enumerate(("SP", "MT", "CH")):
        rows = np.flatnonzero(shares.argmax(1) == number).tolist()
        if not rows:
            continue
        model = taggers.models[name]
        cuts = model.cut_probabilities(_padded_codes([heads[row] for row in rows], model.length))
        for row, here in zip(rows, np.moveaxis(cuts, 1, 0), strict=True):
            # The second place to cut the peptide of a chloroplast is that of the thylakoid.
            which = int(len(here) > 1 and here[1].sum() >= here[0].sum())
            length = min(int(here[which].argmax()), len(heads[row]))
            if length:
                peptides[row] = ("TH" if which else name, length)
    return list(zip(shares, peptides, strict=True))


def _signals(
    sequence: str, shares: Doubles, peptide: tuple[str, int] | None, taggers: Taggers
) -> tuple[Signal, ...]:
    secreted = shares[0]
    found, first = [], 0
    if peptide is not None:
        kind, first = peptide
        score = float(shares[N_CLASSES.index("CH" if kind == "TH" else kind)])
        found.append(Signal(kind, 1, first, score, "hidden Markov model and network of the N-terminus"))
    codes = residue_codes(sequence)
    anchor = secreted >= _MAYBE and _gpi_signal(sequence, codes, taggers)
    segments = _membrane_segments(codes, first if peptide and peptide[0] == "SP" else 0, taggers)
    if anchor:
        found.append(anchor)
        segments = [each for each in segments if each.end < anchor.start]
    found += segments
    found += _er_signals(sequence, bool(secreted >= _MAYBE), segments, taggers.rates)
    if secreted < _SURE and not segments:
        found += _peroxisome_signals(sequence, codes, taggers)
        found += _lipid_signals(sequence, taggers.rates)
    if secreted < _MAYBE and peptide is None:
        found += _nuclear_signals(sequence, codes)
    return tuple(sorted(found, key=lambda each: (each.start, each.end)))


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _membrane_segments(codes: Ints, first: int, taggers: Taggers) -> list[Signal]:
    """Find transmembrane segments after the signal peptide, the most hydrophobic first, without overlaps."""
    values = taggers.membrane[codes]
    if len(codes) - first < _MEMBRANE:
        return []
    sums = np.cumsum(np.append(0, values[first:]))
    means = (sums[_MEMBRANE:] - sums[:-_MEMBRANE]) / _MEMBRANE
    found = []
    while (best := int(means.argmax())) >= 0 and means[best] >= taggers.membrane_threshold:
        start = first + best
        score = _sigmoid(4 * (means[best] - taggers.membrane_threshold))
        found.append(Signal("TM", start + 1, start + _MEMBRANE, score, "hydrophobicity learned from anchors"))
        means[max(0, best - _MEMBRANE) : best + _MEMBRANE + 1] = -np.inf
    return found


OMEGA = {"S": 1.2, "N": 1.0, "G": 1.0, "D": 0.8, "A": 0.8, "C": 0.5}
OMEGA_1 = {"S": 0.3, "A": 0.3, "G": 0.3, "D": 0.1, "N": 0.1, "T": 0.1}
OMEGA_2 = {"A": 1.0, "G": 0.8, "S": 0.8, "T": 0.4, "C": 0.2, "V": 0.0}
"""Preferences at the residue that gets the anchor (ω) and after it, after Eisenhaber 1998 and Gerber 1992."""

_HYDROPATHY = np.array([*SCALES["hydropathy"], 0.0])
_CHARGED = np.isin(np.arange(21), residue_codes("KRDE"))
_LARGE = np.isin(np.arange(21), residue_codes("FWYILV"))


def omega_site(sequence: str, codes: Ints) -> tuple[float, int]:
    """Find the residue that would get a GPI anchor: its score and its place from 0."""
    best = (-np.inf, len(sequence) - 22)
    for place in range(max(12, len(sequence) - 35), len(sequence) - 14):
        tail, spacer = codes[place + 9 :], codes[place + 3 : place + 9]
        score = (
            OMEGA.get(sequence[place], -1)
            + OMEGA_1.get(sequence[place + 1], 0)
            + OMEGA_2.get(sequence[place + 2], -1)
            + 3 * _HYDROPATHY[tail].mean()
            - 0.4 * _CHARGED[tail].sum()
            - 0.25 * _LARGE[spacer].sum()
        )
        best = max(best, (float(score), place))
    return best


def gpi_features(sequence: str, codes: Ints) -> tuple[Doubles, int]:
    """Compute the features of a GPI-anchor signal, and the place of ω from 0, of at least 60 residues."""
    score, place = omega_site(sequence, codes)
    tail, last = codes[-20:], codes[-12:]
    values = _HYDROPATHY[tail]
    runs = np.convolve(values, np.ones(10) / 10, "valid")
    linker = codes[-45:-27]
    features = [
        score,
        _HYDROPATHY[last].mean(),
        values.mean(),
        runs.max(),
        _CHARGED[last].sum(),
        _CHARGED[codes[-3:]].sum(),
        sum(letter == "L" for letter in sequence[-20:]),
        sum(letter in "SGANDTC" for letter in sequence[place - 1 : place + 4]),
        sum(letter in "PSTG" for letter in sequence[-45:-25]),
        _HYDROPATHY[linker].mean(),
        sum(letter in "KR" for letter in sequence[-20:]),
    ]
    return np.array(features, float), place


def _gpi_signal(sequence: str, codes: Ints, taggers: Taggers) -> Signal | None:
    if len(sequence) < 60:
        return None
    features, place = gpi_features(sequence, codes)
    weights, bias = taggers.gpi
    if (logit := float(features @ weights) + bias) < 0:
        return None
    # The signal begins with the linker, 11 residues before ω (Eisenhaber 1998).
    return Signal(
        "GPI", place - 10, len(sequence), _sigmoid(logit), f"regression of the C-terminus; ω at {place + 1}"
    )


_GROUPS = tuple(
    np.isin(np.arange(21), residue_codes(group)) for group in ("KR", "DE", "P", "ST", "LIVMFW", "G", "AQHN")
)


def peroxisome_features(codes: Ints) -> Doubles:
    """Compute the features (67,) of the last twelve residues: the last three, and the composition before."""
    last = np.zeros((3, 21))
    last[np.arange(3), codes[-3:]] = 1
    before = codes[-C_TERMINUS:-3]
    return np.concatenate([last[:, :20].ravel(), [group[before].sum() / 3 for group in _GROUPS]])


_PTS2 = re.compile(r"^.{1,35}?([RK][LVIQ].{2}[LVIHQ][LSGAK].[HQ][LAF])")


def _peroxisome_signals(sequence: str, codes: Ints, taggers: Taggers) -> list[Signal]:
    found = []
    weights, bias = taggers.peroxisome
    if (logit := float(peroxisome_features(codes) @ weights) + bias) >= 0:
        length = len(sequence)
        found.append(
            Signal("PTS", length - 2, length, _sigmoid(logit), "regression of the C-terminus (PTS1)")
        )
    if match := _PTS2.match(sequence):
        start, end = match.span(1)
        found.append(_by_pattern("PTS", start, end, "pattern PTS2 (Petriv 2004)", taggers.rates["PTS2"]))
    return found


PATTERNS = {
    "KDEL": r"[KRHQSA][DENQ]EL$",
    "KKXX": r"(?:K.K|.KK|KK.)..$|KK..$",
    "CAAX": r"C[^DENQ][LIVM].$",
    "RAB": r"(?:[^C]CC|C[^C]C)$",
    "MYRISTOYL": r"^MG[^EDRKHPFYW]..[STAGCN][^P]",
}
"""C- and N-terminal patterns: PROSITE PS00014, di-lysine (Jackson 1990), PS00294, geranylgeranylation of Rab
proteins, and PS00008 at the start."""
_COMPILED = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}


def _by_pattern(kind: str, start: int, end: int, known_from: str, rate: float) -> Signal:
    return Signal(kind, start + 1, end, max(_SURE, rate), known_from)


def _er_signals(
    sequence: str, secreted: bool, segments: Sequence[Signal], rates: dict[str, float]
) -> list[Signal]:
    found = []
    if secreted and (match := _COMPILED["KDEL"].search(sequence)):
        found.append(_by_pattern("ER", *match.span(), "pattern KDEL (PROSITE PS00014)", rates["KDEL"]))
    near = any(len(sequence) - segment.end < 60 for segment in segments)
    if near and (match := _COMPILED["KKXX"].search(sequence)):
        found.append(_by_pattern("ER", *match.span(), "pattern KKXX after a membrane segment", rates["KKXX"]))
    return found


def _lipid_signals(sequence: str, rates: dict[str, float]) -> list[Signal]:
    sources = {
        "CAAX": "pattern CAAX (PROSITE PS00294): prenylation",
        "RAB": "pattern CC or CXC: geranylgeranylation",
        "MYRISTOYL": "pattern MGXXX[ST] (PROSITE PS00008): N-myristoylation",
    }
    return [
        _by_pattern("LIPID", *match.span(), source, rates[name])
        for name, source in sources.items()
        if (match := _COMPILED[name].search(sequence))
    ]


_BIPARTITE = re.compile(r"(?=([KR]{2}.{9,12}(?:[KR]{3}|[KR]{2}.[KR]|[KR].[KR]{2})))")
# After a proline, fewer basic residues are enough; the second pattern is class 2 of Kosugi 2009.
_MONOPARTITE = re.compile(r"(?=(P.{0,3}[KR]{3}|[PR]..KR[^DE][KR]|P.{0,2}K[KR].[KR]))")
_PY = re.compile(r"(?=([RHK].{2,5}PY))")
_DISORDER = np.array([*SCALES["disorder"], 0.0])

# Residues between the four hydrophobic ones of an NES, by the classes of Kosugi 2008, the last two of them
# reversed; and how usual the class is.
_EXPORT_CLASSES = (
    *(((3, 2, 1), 0.3), ((2, 2, 1), 0.0), ((3, 3, 1), 0.0), ((2, 3, 1), 0.1)),
    *(((1, 2, 1), -0.6), ((2, 3, 2), -0.3), ((1, 2, 3), -0.3), ((1, 3, 2), -0.4)),
)
_EXPORT_PATTERNS = tuple(
    re.compile("(?=([LIVFM]" + "".join(f".{{{gap}}}[LIVFM]" for gap in gaps) + "))")
    for gaps, _ in _EXPORT_CLASSES
)
# Set by hand, from what is known of CRM1: leucine fits its pockets best, and what lies between faces water.
_POCKET = {"L": 1.0, "I": 0.7, "M": 0.6, "F": 0.6, "V": 0.5}
_BETWEEN = dict(zip("DESQNTKR", (0.25, 0.25, 0.12, 0.1, 0.1, 0.1, -0.1, -0.15), strict=True))
_BETWEEN |= dict(zip("HPCYWLMVIF", (-0.15, *(-0.4,) * 3, -0.6, -0.15, -0.15, -0.3, -0.35, -0.5), strict=True))
# A fifth hydrophobic residue before the four fills the last pocket (Guettler 2010).
_FIFTH_POCKET = 0.5
# Of the candidates for an NES, those whose preference is as high are reported.
_EXPORT_FROM = 4.5
_END, _END_BONUS = 12, 0.4


def _nuclear_signals(sequence: str, codes: Ints) -> list[Signal]:
    disorder = _smooth(_DISORDER[codes], _NEAR)
    return [*_import_signals(sequence, codes, disorder), *_export_signals(sequence, disorder)]


def _import_signals(sequence: str, codes: Ints, disorder: Doubles) -> list[Signal]:
    """Find basic stretches that are not in a fold: classical, monopartite, bipartite and PY-NLSs."""
    basic = np.isin(codes, residue_codes("KR"))
    if basic.sum() < 3:
        return []
    places = [(int(at), int(at) + width, "classical") for width in (4, 5) for at in _dense(basic, width, 4)]
    places += [(*match.span(1), "monopartite") for match in _MONOPARTITE.finditer(sequence)]
    places += [(*match.span(1), "bipartite") for match in _BIPARTITE.finditer(sequence)]
    places += [
        (*match.span(1), "PY")
        for match in _PY.finditer(sequence)
        if basic[max(0, match.start() - 12) : match.end(1)].sum() >= 4
    ]
    places = [place for place in places if disorder[place[0] : place[1]].mean() > 0]
    found = []
    for start, end, names in _merged(places):
        share = basic[start:end].mean()
        score = _SURE + 0.5 * min(
            1.0, max(0.0, float(share) - 0.3) + 0.1 * max(0, int(basic[start:end].sum()) - 4)
        )
        found.append(Signal("NLS", start + 1, end, score, f"pattern, disordered: {names}"))
    return found


def _export_signals(sequence: str, disorder: Doubles) -> list[Signal]:
    """Find what fits the pockets of CRM1 where acidic flanks and disorder favour it."""
    values = []
    for pattern, (gaps, usual) in zip(_EXPORT_PATTERNS, _EXPORT_CLASSES, strict=True):
        pockets = np.cumsum([0, *(gap + 1 for gap in gaps)]).tolist()
        for match in pattern.finditer(sequence):
            start, end = match.span(1)
            value = usual + _export_preference(sequence, start, end, pockets)
            value += 2 * float(disorder[start:end].mean())
            if value >= _EXPORT_FROM:
                values.append((value, start, end))
    found: list[Signal] = []
    for value, start, end in sorted(values, reverse=True):
        if all(end < other.start or other.end <= start for other in found):
            source = "pockets of CRM1, acidic or disordered around"
            found.append(Signal("NES", start + 1, end, _sigmoid(value - _EXPORT_FROM), source))
    return found


def _export_preference(sequence: str, start: int, end: int, pockets: Sequence[int]) -> float:
    """Score how well a stretch fits CRM1, given the places of its hydrophobic residues."""
    core, before = sequence[start:end], sequence[max(0, start - _FLANK) : start]
    flanks = before + sequence[end : end + _FLANK]
    value = sum(_POCKET[core[at]] for at in pockets)
    value += sum(_BETWEEN.get(letter, 0) for at, letter in enumerate(core) if at not in pockets)
    value += 0.12 * (sum(letter in "DE" for letter in flanks) - sum(letter in "KR" for letter in flanks))
    value += _FIFTH_POCKET * any(letter in _POCKET for letter in before[-4:-2])
    # The ends of a chain are accessible, folded or not.
    return value + _END_BONUS * (start < _END or len(sequence) - end < _END)


def _dense(flags: "np.ndarray[tuple[int], np.dtype[np.bool_]]", width: int, least: int) -> Ints:
    """Return the starts of windows that begin and end with a flag and hold at least ``least``."""
    if len(flags) < width:
        return np.zeros(0, np.int64)
    counts = np.convolve(flags.astype(int), np.ones(width, int), "valid")
    return np.flatnonzero((counts >= least) & flags[: len(counts)] & flags[width - 1 :])


def _smooth(values: Doubles, half: int) -> Doubles:
    sums = np.cumsum(np.append(0, values))
    places = np.arange(len(values))
    start, end = np.maximum(0, places - half), np.minimum(len(values), places + half + 1)
    return np.asarray((sums[end] - sums[start]) / (end - start))


def _merged(places: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join stretches that overlap or touch, and their names."""
    joined: list[tuple[int, int, set[str]]] = []
    for start, end, name in sorted(places):
        if joined and start <= joined[-1][1]:
            before = joined[-1]
            joined[-1] = (before[0], max(before[1], end), before[2] | {name})
        else:
            joined.append((start, end, {name}))
    return [(start, end, " and ".join(sorted(names))) for start, end, names in joined]
