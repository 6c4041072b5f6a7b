"""Features of a sequence: composition, k-mers, physical scales, motifs; of a protein or of each residue."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise

import numpy as np

from deepgps.arrays import Floats, Ints, Mask

# Patterns of ELM and the sorting literature; look-ahead lets occurrences overlap.
MOTIFS: Mapping[str, str] = {
    "nls_4": r"(?=[KR]{4})",
    "nls_kkxk": r"(?=K[KR].[KR])",
    "nls_p": r"(?=P[KR]{3}|[KR]{3}P)",
    "nls_bipartite": r"(?=[KR]{2}.{9,13}[KR]{3})",
    "nls_py": r"(?=[RHK].{2,5}PY)",
    "nes": r"(?=L.{2,3}[LIVFM].{2,3}L.[LIVFM])",
    "nes_strict": r"(?=[LIVFM].{2,3}[LIVFM].{2,3}[LIVFM].[LIVFM])",
    "zinc_c2h2": r"C.{2,4}C.{12}H.{3,5}H",
    "zinc_link": r"TGEKP",
    "zinc_ring": r"C..C.{9,39}C.{1,3}H",
    "cxxc": r"(?=C..C)",
    "homeobox": r"W[FYV].N.R",
    "rgg": r"(?=RGG|GGR)",
    "rs": r"(?=RS|SR)",
    "rs_run": r"(?:RS|SR){3}",
    "fg": r"(?=FG)",
    "gxfg": r"(?=G.FG|FGFG)",
    "sp": r"(?=SP|TP)",
    "pxxp": r"(?=P..P)",
    "polyq": r"Q{5}",
    "acid_run": r"[DE]{8}",
    "base_run": r"[KR]{6}",
    "kdel": r"[KRHQSA]DEL$",
    "kkxx": r"K.?K..$",
    "rr_n": r"^M.{0,4}RR",
    "skl": r"[SAC][KRH][LM]$",
    "pts2": r"^.{1,25}[RK][LVIQ]..[LVIHQ][LSGAK].[HQ][LAF]",
    "caax": r"C[ILVAMFYT]{2}.$",
    "cc_end": r"C.?C$",
    "myristoyl": r"^MG[^EDRKHPFYW]..[STAGCN]",
    "tyrosine": r"(?=Y..[LIVFM])",
    "dileucine": r"(?=[DE]...L[LI])",
    "npxy": r"(?=NP.Y)",
    "n_glycan": r"(?=N[^P][ST][^P])",
    "signal": r"^M.{0,12}[LAVIF]{5,}.{2,14}[AGSC].[AGSC]",
    "tail_anchor": r"[LIVAFMGCTW]{14}.{0,30}$",
    "presequence": r"^M[^DE]{18}",
    "presequence_r": r"^M[^DE]{4,40}R[^DE][AFSLVY][^DE]",
    "leucine_zipper": r"L.{6}L.{6}L.{6}L",
    "heptad": r"(?=[LIVM]..[LIVM]...[LIVM]..[LIVM])",
    "kinase": r"HRD[LIVM]K..N",
    "p_loop": r"[AG]....GK[ST]",
    "dead_box": r"DE[AC][DH]",
    "wd": r"(?=[WF]D)",
    "ef_hand": r"D.[DNS][^W][DENSTG][DNQGHRK].{3}[DE]",
    "gpcr": r"[DE]R[YF]",
    "ankyrin": r"[GS].T.LH.A",
    "nuclear_box": r"(?=L..LL)",
    "at_hook": r"RGRP",
    "actin_wh2": r"L..T",
    "tubulin_ip": r"S.IP",
}
_PATTERNS = tuple(re.compile(pattern) for pattern in MOTIFS.values())

# Values of the 20 amino acids in the order of `RESIDUES`.
_RAW_SCALES: Mapping[str, str] = {
    # Kyte and Doolittle 1982.
    "hydropathy": "1.8 2.5 -3.5 -3.5 2.8 -0.4 -3.2 4.5 -3.9 3.8 "
    "1.9 -3.5 -1.6 -3.5 -4.5 -0.8 -0.7 4.2 -0.9 -1.3",
    "charge": "0 0 -1 -1 0 0 0.1 0 1 0 0 0 0 0 1 0 0 0 0 0",
    # TOP-IDP, Campen 2008.
    "disorder": "0.06 0.02 0.192 0.736 -0.697 0.166 0.303 -0.486 0.586 -0.326 "
    "-0.397 0.007 0.987 0.318 0.18 0.341 0.059 -0.121 -0.884 -0.51",
    # Chou and Fasman 1978.
    "helix": "1.42 0.7 1.01 1.51 1.13 0.57 1 1.08 1.16 1.21 "
    "1.45 0.67 0.57 1.11 0.98 0.77 0.83 1.06 1.08 0.69",
    "strand": "0.83 1.19 0.54 0.37 1.38 0.75 0.87 1.6 0.74 1.3 "
    "1.05 0.89 0.55 1.1 0.93 0.75 1.19 1.7 1.37 1.47",
    # Side-chain volume in cubic angstroms, Zamyatnin 1972.
    "volume": "88.6 108.5 111.1 138.4 189.9 60.1 153.2 166.7 168.6 166.7 "
    "162.9 114.1 112.7 143.8 173.4 89 116.1 140 227.8 193.6",
    "aromatic": "0 0 0 0 1 0 0.5 0 0 0 0 0 0 0 0 0 0 0 1 1",
    "serine_like": "0 0 0 0 0 0.5 0 0 0 0 0 0.3 0.5 0.3 0 1 1 0 0 0",
}


def _standardized(name: str, text: str) -> tuple[float, ...]:
    values = np.array(text.split(), float)
    return tuple(values if name == "charge" else (values - values.mean()) / values.std())


SCALES: Mapping[str, tuple[float, ...]] = {
    name: _standardized(name, text) for name, text in _RAW_SCALES.items()
}
"""Standardized values of the 20 amino acids by scale; charge in elementary charges."""


def count_motifs(sequence: str) -> Floats:
    """Count the sorting motifs of a sequence.

    Parameters
    ----------
    sequence
        Upper-case residues.

    Returns
    -------
    Floats
        (M,) log(1 + occurrences), in the order of `MOTIFS`.
    """
    return np.log1p([sum(1 for _ in pattern.finditer(sequence)) for pattern in _PATTERNS]).astype(np.float32)


FEATURES_NAME = "segments-1"

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN_RESIDUE = 20
GROUPS_7 = ("AGV", "ILFP", "YMTS", "HNQW", "RK", "DE", "C")
GROUPS_4 = ("AVILMFWYC", "GPSTNQH", "KR", "DE")

_SUBSTITUTES = {"U": "C", "O": "K", "B": "D", "Z": "E"}
_N_POSITIONS, _C_POSITIONS = 12, 6
_GAPS = (2, 3, 4)
_LAGS = (1, 2, 3, 4, 5, 7, 10, 15)
_WINDOWS = (7, 15, 25)
_SEGMENTS = ("all", "n10", "n25", "n50", "n100", "c10", "c25", "c50", "c100", "s1", "s2", "s3", "s4", "s5")


def _code_table() -> Ints:
    table = np.full(256, UNKNOWN_RESIDUE, np.int64)
    for letter in "".join((RESIDUES, *_SUBSTITUTES)):
        code = RESIDUES.index(_SUBSTITUTES.get(letter, letter))
        table[[ord(letter), ord(letter.lower())]] = code
    return table


def _group_table(groups: tuple[str, ...]) -> Ints:
    table = np.full(UNKNOWN_RESIDUE + 1, -1, np.int64)
    for number, members in enumerate(groups):
        table[[RESIDUES.index(residue) for residue in members]] = number
    return table


_CODE = _code_table()
_GROUP_7, _GROUP_4 = _group_table(GROUPS_7), _group_table(GROUPS_4)
_SCALE_TABLE = np.array([[*values, 0.0] for values in SCALES.values()], np.float32)


def residue_codes(sequence: str) -> Ints:
    """Encode residues as integers.

    Parameters
    ----------
    sequence
        One-letter residues in either case. U is read as C, O as K, B as D, Z as E.

    Returns
    -------
    Ints
        (L,) indices in `RESIDUES`; `UNKNOWN_RESIDUE` for any other letter.
    """
    return _CODE[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]


def _root_frequencies(counts: Ints) -> Floats:
    """Return square roots of relative frequencies, which weigh rare k-mers up against common ones."""
    return np.sqrt(counts / max(1, int(counts.sum()))).astype(np.float32)


def _kmer_frequencies(groups: Ints, size: int, k: int, step: int = 1) -> Floats:
    """Return root frequencies of k-mers of `size` groups with residues `step` apart; -1 is unknown."""
    n = len(groups) - (k - 1) * step
    if n <= 0:
        return np.zeros(size**k, np.float32)
    parts = [groups[i * step : i * step + n] for i in range(k)]
    index = sum(part * size ** (k - 1 - i) for i, part in enumerate(parts))
    known = np.logical_and.reduce([part >= 0 for part in parts])
    return _root_frequencies(np.bincount(np.asarray(index)[known], minlength=size**k))


def _length(codes: Ints, _: str) -> Floats:
    return np.array([np.log10(len(codes) + 1), min(len(codes), 2000) / 1000], np.float32)


def _composition(codes: Ints, _: str) -> Floats:
    total = len(codes)
    cuts = np.linspace(0, total, 6).astype(int)
    places = [
        slice(None),
        *(slice(0, n) for n in (10, 25, 50, 100)),
        *(slice(-n, None) for n in (10, 25, 50, 100)),
    ]
    places += [slice(a, b) for a, b in pairwise(cuts)]
    counts = np.stack([np.bincount(codes[place], minlength=21)[:20] for place in places])
    shares: Floats = (counts / np.maximum(1, counts.sum(1, keepdims=True))).astype(np.float32).ravel()
    return shares


def _termini(codes: Ints, _: str) -> Floats:
    first = np.zeros((_N_POSITIONS, len(GROUPS_7)), np.float32)
    last = np.zeros((_C_POSITIONS, 21), np.float32)
    head = _GROUP_7[codes[1 : _N_POSITIONS + 1]]
    tail = codes[-_C_POSITIONS:]
    first[np.flatnonzero(head >= 0), head[head >= 0]] = 1
    last[np.arange(_C_POSITIONS - len(tail), _C_POSITIONS), tail] = 1
    return np.concatenate([first.ravel(), last[:, :20].ravel()])


def _kmers(codes: Ints, _: str) -> Floats:
    residues = np.where(codes == UNKNOWN_RESIDUE, -1, codes)
    seven, four = _GROUP_7[codes], _GROUP_4[codes]
    pairs = [_kmer_frequencies(seven, 7, 2, gap) for gap in _GAPS]
    return np.concatenate(
        [
            _kmer_frequencies(residues, 20, 2),
            _kmer_frequencies(seven, 7, 3),
            _kmer_frequencies(four, 4, 4),
            *pairs,
        ]
    )


def _window_means(values: Floats, width: int) -> Floats:
    """Return the mean of each window along the last axis; of the whole axis if it is shorter."""
    width = max(1, min(width, values.shape[-1]))
    sums = np.cumsum(np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 0)]), axis=-1, dtype=np.float64)
    means: Floats = ((sums[..., width:] - sums[..., :-width]) / width).astype(np.float32)
    return means


def _physics(codes: Ints, _: str) -> Floats:
    values = _SCALE_TABLE[:, codes]
    columns = [values.mean(1), values.std(1)]
    for width in _WINDOWS:
        means = _window_means(values, width)
        columns += [means.max(1), means.min(1)]
    for lag in _LAGS:
        near, far = values[:, :-lag], values[:, lag:]
        columns.append((near * far).mean(1) if near.shape[1] else np.zeros(len(values), np.float32))
    return np.stack(columns, axis=1).ravel().astype(np.float32)


def _moment(hydropathy: Floats, degrees: float) -> Floats:
    """Return hydrophobic moments of 18-residue windows at `degrees` per residue (Eisenberg 1982)."""
    angle = np.deg2rad(degrees) * np.arange(len(hydropathy))
    waves = np.stack([hydropathy * np.cos(angle), hydropathy * np.sin(angle)]).astype(np.float32)
    moments: Floats = np.hypot(*_window_means(waves, 18))
    return moments


_SEGMENT_FEATURES = (
    *("tm_count", "tm_share", "tm_first", "tm_last", "hydropathy_n30", "hydropathy_n60", "hydropathy_c60"),
    *(
        "moment100_n30",
        "moment100",
        "moment160",
        "charge_n15",
        "charge_n30",
        "charge_c15",
        "arginine_n40_less_acid",
    ),
    *("basic_clusters", "acidic_clusters", "basic_max11", "acidic_max11", "basic_max21", "acidic_max21"),
    *("disorder_share", "disorder_n50", "disorder_c50", "entropy", "entropy_min", "entropy_mean"),
)


def _count_runs(mask: Mask) -> int:
    return int(np.count_nonzero(np.diff(mask.astype(np.int8), prepend=0) == 1))


def _entropies(codes: Ints) -> list[float]:
    """Return the entropy (nats) of the protein, and the lowest and mean one of its blocks of 25 residues."""
    blocks = [codes[i : i + 25] for i in range(0, max(1, len(codes) - 12), 25)]
    rows = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    counts = np.bincount(rows * 21 + np.concatenate(blocks), minlength=len(blocks) * 21).reshape(-1, 21)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    local = -(shares * np.log(shares + 1e-9)).sum(1)
    whole = counts.sum(0) / max(1, counts.sum())
    return [float(-(whole * np.log(whole + 1e-9)).sum()), float(local.min()), float(local.mean())]


def _segments(codes: Ints, _: str) -> Floats:
    hydropathy, charge, disorder = _SCALE_TABLE[[0, 1, 2]][:, codes]
    helix = _window_means(hydropathy, 19)
    membrane = helix > 0.72  # 1.6 on Kyte and Doolittle's scale, standardised
    places = np.flatnonzero(membrane)
    turn = _moment(hydropathy, 100)
    near, wide = _window_means(charge, 11) * 11, _window_means(charge, 21) * 21
    loose = _window_means(disorder, 25)
    first, last = (places[0], len(codes) - 19 - places[-1]) if len(places) else (500, 500)
    values = [_count_runs(membrane), membrane.mean(), min(first, 500) / 500, min(last, 500) / 500]
    values += [helix[:12].max(), helix[:42].max(), helix[-42:].max(), turn[:13].max(), turn.max()]
    values += [_moment(hydropathy, 160).max(), charge[:15].sum(), charge[:30].sum(), charge[-15:].sum()]
    head = codes[:40]
    values += [np.sum(head == RESIDUES.index("R")) - np.sum((head == 2) | (head == 3))]
    values += [
        _count_runs(near >= 4.5),
        _count_runs(near <= -4.5),
        near.max(),
        near.min(),
        wide.max(),
        wide.min(),
    ]
    values += [(loose > 0.4).mean(), disorder[:50].mean(), disorder[-50:].mean(), *_entropies(codes)]
    return np.array(values, np.float32)


def _runs(codes: Ints, _: str) -> Floats:
    """Return the longest run of each residue, as log(1 + n)."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    lengths = np.diff(starts, append=len(codes))
    longest = np.zeros(21, np.int64)
    np.maximum.at(longest, codes[starts], lengths)
    return np.log1p(longest[:20]).astype(np.float32)


def _motifs(_: Ints, sequence: str) -> Floats:
    return count_motifs(sequence)


def _kmer_names() -> tuple[str, ...]:
    sevens = range(7)
    pairs = [f"pair_{a}{b}" for a in RESIDUES for b in RESIDUES]
    triads = [f"triad7_{a}{b}{c}" for a in sevens for b in sevens for c in sevens]
    fours = [f"tetrad4_{a}{b}{c}{d}" for a in range(4) for b in range(4) for c in range(4) for d in range(4)]
    gapped = [f"gap{gap}_{a}{b}" for gap in _GAPS for a in sevens for b in sevens]
    return (*pairs, *triads, *fours, *gapped)


def _physics_names() -> tuple[str, ...]:
    ends = [f"{end}{width}" for width in _WINDOWS for end in ("max", "min")]
    columns = ["mean", "sd", *ends, *(f"lag{lag}" for lag in _LAGS)]
    return tuple(f"{scale}_{column}" for scale in SCALES for column in columns)


def _terminus_names() -> tuple[str, ...]:
    first = [f"n{place}_group{group}" for place in range(2, _N_POSITIONS + 2) for group in range(7)]
    last = [f"c{place}_{residue}" for place in range(_C_POSITIONS, 0, -1) for residue in RESIDUES]
    return (*first, *last)


_BLOCKS: tuple[tuple[Callable[[Ints, str], Floats], Callable[[], tuple[str, ...]]], ...] = (
    (_length, lambda: ("log_length", "length")),
    (_composition, lambda: tuple(f"{place}_{residue}" for place in _SEGMENTS for residue in RESIDUES)),
    (_termini, _terminus_names),
    (_kmers, _kmer_names),
    (_physics, _physics_names),
    (_segments, lambda: _SEGMENT_FEATURES),
    (_runs, lambda: tuple(f"run_{residue}" for residue in RESIDUES)),
    (_motifs, lambda: tuple(f"motif_{name}" for name in MOTIFS)),
)


@lru_cache(maxsize=1)
def feature_names() -> tuple[str, ...]:
    """Return the names of the features, in the order of `sequence_features`."""
    return tuple(name for _, names in _BLOCKS for name in names())


def sequence_features(sequence: str) -> Floats:
    """Compute the features of a sequence.

    Parameters
    ----------
    sequence
        At least one one-letter residue, in either case; letters other than the 20 amino acids, U, O, B and Z
        are ignored.

    Returns
    -------
    Floats
        (F,) finite, not standardized; F is ``len(feature_names())``.
    """
    text = sequence.upper()
    codes = residue_codes(text)
    return np.concatenate([block(codes, text) for block, _ in _BLOCKS])


RESIDUE_FEATURES_NAME = "residues-1"
RESIDUE_WINDOWS = (7, 21)
RESIDUE_DIMENSION = len(RESIDUES) + len(SCALES) * len(RESIDUE_WINDOWS)

_IDENTITY = np.eye(UNKNOWN_RESIDUE + 1, len(RESIDUES), dtype=np.float32)


def residue_features(sequence: str) -> Floats:
    """Compute features of each residue of a sequence.

    Parameters
    ----------
    sequence
        One-letter residues; the identity and scales of an unknown one are zero.

    Returns
    -------
    Floats
        (L, `RESIDUE_DIMENSION`): a one-hot residue, then for each of `RESIDUE_WINDOWS` the mean of each scale
        in that window around the residue, which is cut off at the ends.
    """
    codes = residue_codes(sequence)
    means = [_running_mean(_SCALE_TABLE[:, codes], window) for window in RESIDUE_WINDOWS]
    return np.concatenate([_IDENTITY[codes], *(mean.T for mean in means)], axis=1)


def _running_mean(values: Floats, window: int) -> Floats:
    """Return means (S, L) of values (S, L) over windows centred on each residue and cut off at the ends."""
    length, half = values.shape[1], window // 2
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1, dtype=np.float64)], axis=1)
    places = np.arange(length)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, length)
    return np.asarray((sums[:, last] - sums[:, first]) / (last - first), np.float32)
