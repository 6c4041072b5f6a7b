"""Embeddings: vectors that a protein language model gives a protein, or each of its residues.

`embed` takes sequences and a `ResidueEncoder`: a prepared one (`prepared_encoder`, without torch) or one of
`deepgps.models.esm2`. An `EmbeddingCache` keeps what was computed.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, ValidationError

from deepgps.arrays import Floats, Ints, Mask
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import cache_root
from deepgps.proteins.windows import window_count, window_starts
from deepgps.runtime import Graph, open_graph

Level = Literal["protein", "residue"]
"""One vector a protein, the mean over its residues, or one a residue."""

Precision = Literal["auto", "float32", "bfloat16"]
"""What to compute in; ``auto`` is bfloat16 where the machine has units for it, else float32."""


class EncoderIdentity(Protocol):
    """Which numbers an encoder gives: two of the same identity give the same."""

    @property
    def name(self) -> str:
        """Name of the encoder, such as ``esm2_t33_650M_UR50D``."""

    @property
    def fingerprint(self) -> str:
        """Sha256 of what makes its numbers: weights and architecture."""

    @property
    def precision(self) -> str:
        """What it computes in: ``float32`` or ``bfloat16``."""

    @property
    def dimension(self) -> int:
        """Size E of a vector."""

    @property
    def max_length(self) -> int:
        """Residues that it takes at once; longer sequences are encoded in windows."""


class ResidueEncoder(EncoderIdentity, Protocol):
    """A network that gives each token of a protein a vector."""

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), real where the mask (B, L) is true: (B, L, E), special tokens included."""


@dataclass(frozen=True, slots=True)
class EncoderDescription:
    """An identity without the network.

    Attributes
    ----------
    name, fingerprint, precision, dimension, max_length
        As in `EncoderIdentity`.
    """

    name: str
    fingerprint: str
    precision: str
    dimension: int
    max_length: int


def describe_encoder(encoder: EncoderIdentity) -> EncoderDescription:
    """Take the identity of an encoder."""
    return EncoderDescription(
        encoder.name, encoder.fingerprint, encoder.precision, encoder.dimension, encoder.max_length
    )


START, PADDING, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = 2
"""Tokens beside the residues: one at the start, one at the end."""
VOCABULARY = 33

# In the order of ESM2's training; the letters begin at token 4.
_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"


def _table() -> Ints:
    table = np.full(256, UNKNOWN, np.int64)
    table[[ord(letter) for letter in _LETTERS]] = np.arange(4, 4 + len(_LETTERS))
    return table


_TOKEN = _table()


def tokenize(sequences: Sequence[str]) -> tuple[Ints, Mask]:
    """Turn sequences into one padded array.

    Parameters
    ----------
    sequences
        Upper-case residues; another letter than the 20 amino acids, U, O, B, Z or X becomes `UNKNOWN`.

    Returns
    -------
    tuple of ndarray
        Tokens (B, L) int64: `START`, the residues, `END`, then `PADDING`; and the mask (B, L) bool, false
        where it pads. L is the longest sequence and `SPECIAL`.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    places = np.arange(lengths.max() + SPECIAL)
    tokens = np.full((len(sequences), len(places)), PADDING, np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[0], row[len(sequence) + 1] = START, END
        row[1 : len(sequence) + 1] = _TOKEN[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    return tokens, places < lengths[:, None] + SPECIAL


# Few proteins differ much in length; beyond this many tokens, a batch gains less than its padding costs.
_ENOUGH = 512
_WASTE = 1 / 8


def batch_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Sort sequences into batches by length, the longest first.

    The longest come first so that a machine of too little memory says so at once. A batch ends early where it
    would be padded by more than an eighth.

    Parameters
    ----------
    lengths
        Residues of each sequence.
    token_budget
        Tokens in a batch at most, padding and special tokens counted; a sequence of more is a batch alone.

    Returns
    -------
    list of list of int
        Places in ``lengths``, each in one batch.
    """
    return _filled(lengths, [1] * len(lengths), token_budget)


def group_by_length(lengths: Sequence[int], max_length: int, token_budget: int) -> list[list[int]]:
    """Do as `batch_by_length`, for sequences that may need several windows of ``max_length`` residues."""
    windows = [window_count(length, max_length) for length in lengths]
    return _filled([min(length, max_length) for length in lengths], windows, token_budget, lengths)


def _filled(
    widths: Sequence[int], counts: Sequence[int], budget: int, order: Sequence[int] | None = None
) -> list[list[int]]:
    keys = order or widths
    found: list[list[int]] = []
    rows = width = real = 0
    for place in sorted(range(len(widths)), key=lambda place: -keys[place]):
        tokens = counts[place] * (widths[place] + SPECIAL)
        padded = (rows + counts[place]) * width
        wasted = padded - real - tokens
        if not found or padded > budget or (real >= _ENOUGH and wasted > _WASTE * padded):
            found.append([])
            rows, width, real = 0, widths[place] + SPECIAL, 0
        found[-1].append(place)
        rows, real = rows + counts[place], real + tokens
    return found


_RULE = "1"
_DRAFTS = "drafts"
_FORGOTTEN_S = 86_400


class EmbeddingCache:
    """A folder of vectors, one file a sequence; any number of processes may write to it at once.

    A file appears whole or not at all, whenever its writer is killed; one that was damaged later is computed
    again. Nothing expires: delete the folder to start anew.

    Parameters
    ----------
    folder
        Made if missing; `cache_root` if not given. The vectors lie in its ``embeddings``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_root()) / "embeddings"
        self._swept = False

    def get(self, encoder: EncoderIdentity, level: Level, sequence: str) -> Floats | None:
        """Vectors of a sequence, (E,) or (L, E) float32; None if they are not there.

        The mean of residues that are there is not computed by an encoder again.
        """
        residues = (len(sequence), encoder.dimension)
        vectors = _read(self.path(encoder, level, sequence), residues if level == "residue" else residues[1:])
        if vectors is None and level == "protein":
            whole = _read(self.path(encoder, "residue", sequence), residues)
            return None if whole is None else whole.mean(axis=0, dtype=np.float64).astype(np.float32)
        return vectors

    def put(self, encoder: EncoderIdentity, level: Level, sequence: str, vectors: Floats) -> None:
        """Keep the vectors of a sequence.

        Raises
        ------
        OSError
            If they cannot be written, as when the disk is full.
        """
        path = self.path(encoder, level, sequence)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._drafts(), suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, np.asarray(vectors, np.float32))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def path(self, encoder: EncoderIdentity, level: Level, sequence: str) -> Path:
        """File of a sequence's vectors, there or not."""
        name = re.sub(r"[^\w.-]", "_", encoder.name)
        whose = f"{name}-{encoder.fingerprint[:16]}-{encoder.precision}-{level}-{_RULE}"
        digest = sha256(sequence.encode()).hexdigest()
        return self.folder / whose / digest[:2] / f"{digest}.npy"

    def _drafts(self) -> Path:
        # In one folder, so that those of killed writers are found without a walk through all.
        folder = self.folder / _DRAFTS
        if not self._swept:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._swept = True
        return folder


def _sweep(folder: Path) -> None:
    """Remove drafts that nobody can still be writing."""
    for draft in folder.iterdir():
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _FORGOTTEN_S:
                draft.unlink()


def _read(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(vectors, np.ndarray) and vectors.shape == shape and vectors.dtype == np.float32
    return vectors if fits else None


TOKEN_BUDGET = 4096
"""Tokens in a batch where nobody says otherwise."""

Group = Sequence[str]
Encoded = list[Floats]


def embed(
    sequences: Sequence[str],
    encoder: ResidueEncoder,
    *,
    level: Level = "protein",
    cache: EmbeddingCache | None = None,
    token_budget: int = TOKEN_BUDGET,
    on_done: Callable[[int], None] | None = None,
) -> list[Floats]:
    """Embed sequences; what is in the cache, or given twice, is not computed again.

    Parameters
    ----------
    sequences
        Upper-case residues, as `deepgps.proteins.check.clean_sequence` gives them.
    encoder
        Gives each token a vector of size E.
    level
        ``protein``: the mean over the residues; ``residue``: a vector for each. Special tokens and padding
        are in neither. A sequence longer than the encoder's ``max_length`` is encoded in overlapping
        windows, and a residue that several of them hold gets the mean of its vectors.
    cache
        Where vectors are kept; nowhere if it is not given.
    token_budget
        Tokens computed with at a time, padding counted; a single window may have more.
    on_done
        Called with the place of each sequence when its vectors are there.

    Returns
    -------
    list of ndarray
        In the order of the sequences: (E,) float32 each, or (L, E) for L residues.

    Raises
    ------
    InputError
        If a sequence is empty or the token budget is not positive.
    """
    found: dict[int, Floats] = {}

    def encode(group_by_length: Iterable[Group]) -> Iterator[Encoded]:
        return map(partial(encode_group, encoder, level=level, token_budget=token_budget), group_by_length)

    for place, vectors in iter_embeddings(sequences, encoder, encode, level, cache, token_budget):
        found[place] = vectors
        if on_done:
            on_done(place)
    return [found[place] for place in range(len(sequences))]


def iter_embeddings(
    sequences: Sequence[str],
    identity: EncoderIdentity,
    encode: Callable[[Iterable[Group]], Iterable[Encoded | DeepGPSError]],
    level: Level,
    cache: EmbeddingCache | None,
    token_budget: int,
) -> Iterator[tuple[int, Floats]]:
    """Embed sequences one by one, in the order in which they are there: cached ones first, then the longest.

    Parameters
    ----------
    sequences, level, cache, token_budget
        As in `embed`.
    identity
        Whose vectors they are.
    encode
        Encodes groups of sequences, here or elsewhere, in their order; a group may fail, and the others go
        on.

    Yields
    ------
    tuple of int and ndarray
        Place of a sequence, its vectors.

    Raises
    ------
    InputError
        As `embed`.
    DeepGPSError
        At the end, if a group failed; what the others gave is in the cache.
    """
    _check(sequences, token_budget)
    places: dict[str, list[int]] = {}
    for place, sequence in enumerate(sequences):
        places.setdefault(sequence, []).append(place)
    missing = []
    for sequence, given in places.items():
        if cache and (vectors := cache.get(identity, level, sequence)) is not None:
            yield from ((place, vectors) for place in given)
        else:
            missing.append(sequence)
    for sequence, vectors in _computed(missing, identity, encode, token_budget):
        if cache:
            cache.put(identity, level, sequence, vectors)
        yield from ((place, vectors) for place in places[sequence])


def _check(sequences: Sequence[str], token_budget: int) -> None:
    if token_budget < 1:
        raise InputError(f"A token budget of {token_budget} is too small; give 1 or more.")
    if "" in sequences:
        place = sequences.index("") + 1
        raise InputError(f"Sequence {place} of those to embed is empty; leave it out.")


def _computed(
    sequences: Sequence[str],
    identity: EncoderIdentity,
    encode: Callable[[Iterable[Group]], Iterable[Encoded | DeepGPSError]],
    token_budget: int,
) -> Iterator[tuple[str, Floats]]:
    lengths = [len(sequence) for sequence in sequences]
    planned = [
        [sequences[place] for place in group]
        for group in group_by_length(lengths, identity.max_length, token_budget)
    ]
    failed, reason = 0, None
    for group, result in zip(planned, encode(planned), strict=True):
        if isinstance(result, DeepGPSError):
            failed, reason = failed + len(group), result
        else:
            yield from zip(group, result, strict=True)
    if reason:
        raise DeepGPSError(f"{reason} So {failed:,} sequences were not embedded.")


def encode_group(
    encoder: ResidueEncoder, sequences: Group, *, level: Level = "protein", token_budget: int = TOKEN_BUDGET
) -> Encoded:
    """Encode some sequences, windows and all: (E,) each, or (L, E)."""
    width = encoder.max_length
    windows = [
        (place, start, sequence[start : start + width])
        for place, sequence in enumerate(sequences)
        for start in window_starts(len(sequence), width)
    ]
    sums = [np.zeros((len(sequence), encoder.dimension), np.float32) for sequence in sequences]
    counts = [np.zeros((len(sequence), 1), np.float32) for sequence in sequences]
    for batch in batch_by_length([len(residues) for _, _, residues in windows], token_budget):
        chosen = [windows[number] for number in batch]
        encoded = encoder(*tokenize([residues for _, _, residues in chosen]))
        for (place, start, residues), vectors in zip(chosen, encoded, strict=True):
            covered = slice(start, start + len(residues))
            sums[place][covered] += vectors[1 : len(residues) + 1]
            counts[place][covered] += 1
    residues_of = [total / count for total, count in zip(sums, counts, strict=True)]
    return residues_of if level == "residue" else [mean_pool(vectors) for vectors in residues_of]


def mean_pool(vectors: Floats) -> Floats:
    """Mean over the residues: (L, E) to (E,)."""
    mean: Floats = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


# How windows are laid and averaged is part of a vector too; another rule, another number.
GRAPH = "encoder.onnx"
"""The graph: ``tokens`` (B, L) int64 and ``mask`` (B, L) bool to ``vectors`` (B, L, E) float32."""
INFO = "encoder.json"


class PreparedInfo(BaseModel):
    """What ``encoder.json`` says of the files beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    """version of this description"""
    name: str
    """name of the encoder"""
    fingerprint: str
    """sha256 of the weights and the architecture that it was made of"""
    dimension: int
    """size of a vector"""
    max_length: int
    """residues that it takes at once"""
    parity: float
    """largest difference between the graph and the torch module on proteins drawn by chance"""
    files: Mapping[str, int]
    """size in bytes of each file beside this one"""


@dataclass(frozen=True, slots=True)
class PreparedEncoder:
    """A `deepgps.proteins.embedding.ResidueEncoder` on ONNX Runtime.

    Attributes
    ----------
    name, fingerprint, dimension, max_length, precision
        As of every encoder; it computes in float32.
    opened
        Gives the graph, which is loaded when it is first needed: a process whose workers encode does without.
    """

    name: str
    fingerprint: str
    dimension: int
    max_length: int
    opened: Callable[[], Graph]
    precision: str = "float32"

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), real where the mask (B, L) is true: (B, L, E) float32."""
        vectors: Floats = self.opened().run(["vectors"], {"tokens": tokens, "mask": mask})[0]
        return vectors


def encoders_folder() -> Path:
    """Where prepared encoders lie: ``DEEPGPS_ENCODERS``, else ``encoders`` in the user's data folder."""
    own = os.environ.get("DEEPGPS_ENCODERS")
    return Path(own) if own else Path(user_data_dir("deepgps")) / "encoders"


def prepared_encoder(
    name: str, fingerprint: str | None = None, *, threads: int | None = None
) -> PreparedEncoder:
    """Open an encoder that was prepared.

    Parameters
    ----------
    name
        Its name, such as ``esm2_t33_650M_UR50D``.
    fingerprint
        The one it must have, so that it gives the vectors that a model was trained with.
    threads
        Threads to compute with; all cores by default.

    Raises
    ------
    InputError
        If it is not there, damaged, or another.
    """
    folder = encoders_folder() / name
    info = read_info(folder)
    if fingerprint is not None and info.fingerprint != fingerprint:
        raise InputError(
            f"Encoder '{name}' in '{folder}' has other weights ({info.fingerprint[:12]}…) than the model was "
            f"trained with ({fingerprint[:12]}…); run 'deepgps encoders prepare' on those."
        )
    opened = cache(partial(open_graph, folder / GRAPH, threads))
    return PreparedEncoder(info.name, info.fingerprint, info.dimension, info.max_length, opened)


def read_info(folder: Path) -> PreparedInfo:
    """Read the description of a prepared encoder, and see that its files are whole.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    remedy = f"run 'deepgps encoders prepare {folder.name}'"
    try:
        info = PreparedInfo.model_validate_json((folder / INFO).read_bytes())
    except FileNotFoundError:
        raise InputError(f"Encoder '{folder.name}' is not prepared in '{folder.parent}'; {remedy}.") from None
    except (ValidationError, OSError):
        raise InputError(f"'{folder / INFO}' cannot be read; {remedy} again.") from None
    for file, size in info.files.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"'{path}' is missing or damaged; {remedy} again.")
    return info


def list_encoders() -> list[tuple[str, PreparedInfo | str]]:
    """List the prepared encoders by name: what is said of each, or why it cannot be used."""
    found: list[tuple[str, PreparedInfo | str]] = []
    for path in sorted(encoders_folder().glob("[!.]*/")):
        try:
            found.append((path.name, read_info(path)))
        except InputError as error:
            found.append((path.name, str(error)))
    return found
