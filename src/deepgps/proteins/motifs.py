"""Sorting motifs and residue scales that the sequence features are made of."""

import re
from collections.abc import Mapping

import numpy as np

from deepgps.arrays import Floats

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

# Twenty values in the order ACDEFGHIKLMNPQRSTVWY.
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


def _standardised(name: str, text: str) -> tuple[float, ...]:
    values = np.array(text.split(), float)
    return tuple(values if name == "charge" else (values - values.mean()) / values.std())


SCALES: Mapping[str, tuple[float, ...]] = {
    name: _standardised(name, text) for name, text in _RAW_SCALES.items()
}
"""Scale name to 20 values in that order: mean 0 and deviation 1, but charge in elementary charges."""


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
