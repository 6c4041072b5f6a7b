"""Embeddings of proteins, or of their residues, by a protein language model.

`embed_sequences` takes sequences and a `ResidueEncoder`: a prepared one (`prepared_encoder`, without torch)
or one of `deepgps.models.esm2`. An `EmbeddingCache` stores the vectors.
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
"""One vector per protein, the mean over its residues, or one per residue."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Precision of the computation; ``auto`` is bfloat16 if the hardware supports it, else float32."""


class EncoderIdentity(Protocol):
    """Identifies an encoder: two of the same identity compute the same vectors."""

    @property
    def name(self) -> str:
        """Name of the encoder, such as ``esm2_t33_650M_UR50D``."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights and the architecture."""

    @property
    def precision(self) -> str:
        """Precision of the computation: ``float32`` or ``bfloat16``."""

    @property
    def dimension(self) -> int:
        """Size E of a vector."""

    @property
    def max_length(self) -> int:
        """Residues in a window; longer sequences are encoded in several."""


class ResidueEncoder(EncoderIdentity, Protocol):
    """A network that computes a vector for each token of a protein."""

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), with a mask (B, L) that is false for padding, as vectors (B, L, E)."""


@dataclass(frozen=True, slots=True)
class EncoderDescription:
    """The identity of an encoder, without the network.

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
    """Return the identity of an encoder."""
    return EncoderDescription(
        encoder.name, encoder.fingerprint, encoder.precision, encoder.dimension, encoder.max_length
    )


START, PADDING, END, UNKNOWN_TOKEN = 0, 1, 2, 3
SPECIAL = 2
"""Number of special tokens: one at the start, one at the end."""
VOCABULARY = 33

# In the order of ESM2's training; the letters begin at token 4.
_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"


def _table() -> Ints:
    table = np.full(256, UNKNOWN_TOKEN, np.int64)
    table[[ord(letter) for letter in _LETTERS]] = np.arange(4, 4 + len(_LETTERS))
    return table


_TOKEN = _table()


def tokenize(sequences: Sequence[str]) -> tuple[Ints, Mask]:
    """Encode sequences as one padded array of tokens.

    Parameters
    ----------
    sequences
        Upper-case residues; letters other than the 20 amino acids, U, O, B, Z and X become `UNKNOWN_TOKEN`.

    Returns
    -------
    tokens : Ints
        (B, L): `START`, the residues, `END`, then `PADDING`; L is the longest sequence plus `SPECIAL`.
    mask : Mask
        (B, L), false for padding.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    places = np.arange(lengths.max() + SPECIAL)
    tokens = np.full((len(sequences), len(places)), PADDING, np.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[0], row[len(sequence) + 1] = START, END
        row[1 : len(sequence) + 1] = _TOKEN[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    return tokens, places < lengths[:, None] + SPECIAL


# A batch of more tokens than this gains less than padding costs, and ends if more than this share is padding.
_MIN_TOKENS = 512
_MAX_PADDING = 1 / 8


def batch_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group sequences of similar length into batches, the longest first.

    With the longest first, a lack of memory shows at once. A batch ends early if more than an eighth of it
    would be padding.

    Parameters
    ----------
    lengths
        Residues of each sequence.
    token_budget
        Largest number of tokens in a batch, with padding and special tokens; a longer sequence is its own
        batch.

    Returns
    -------
    list of list of int
        Indices in `lengths`; each is in one batch.
    """
    return _fill_batches(lengths, [1] * len(lengths), token_budget)


def group_by_length(lengths: Sequence[int], max_length: int, token_budget: int) -> list[list[int]]:
    """Group sequences like `batch_by_length`, each with all its windows of `max_length` residues."""
    windows = [window_count(length, max_length) for length in lengths]
    return _fill_batches([min(length, max_length) for length in lengths], windows, token_budget, lengths)


def _fill_batches(
    widths: Sequence[int], counts: Sequence[int], budget: int, order: Sequence[int] | None = None
) -> list[list[int]]:
    keys = order or widths
    found: list[list[int]] = []
    rows = width = real = 0
    for place in sorted(range(len(widths)), key=lambda place: -keys[place]):
        tokens = counts[place] * (widths[place] + SPECIAL)
        padded = (rows + counts[place]) * width
        wasted = padded - real - tokens
        if not found or padded > budget or (real >= _MIN_TOKENS and wasted > _MAX_PADDING * padded):
            found.append([])
            rows, width, real = 0, widths[place] + SPECIAL, 0
        found[-1].append(place)
        rows, real = rows + counts[place], real + tokens
    return found


# How windows overlap and are averaged is part of a vector: another way needs another version.
_VERSION = "1"
_TEMPORARY = "temporary"
_ABANDONED_AFTER_S = 86_400


class EmbeddingCache:
    """A folder of vectors, one file per sequence, which several processes may use at once.

    Files are written atomically; a damaged one is computed again. Nothing expires: delete the folder to start
    again.

    Parameters
    ----------
    folder
        Created if missing; `deepgps.files.cache_root` if None. The vectors are in its ``embeddings``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_root()) / "embeddings"
        self._cleaned = False

    def get(self, encoder: EncoderIdentity, level: Level, sequence: str) -> Floats | None:
        """Return the vectors of a sequence, (E,) or (L, E) float32, or None if they are not cached.

        If only the vectors of its residues are cached, the vector of the protein is their mean.

        Parameters
        ----------
        encoder
            Identity of the encoder.
        level
            Vectors of the protein or of its residues.
        sequence
            Upper-case residues.

        Returns
        -------
        Floats or None
            (E,), or (L, E) for residues.
        """
        residues = (len(sequence), encoder.dimension)
        vectors = _read(self.path(encoder, level, sequence), residues if level == "residue" else residues[1:])
        if vectors is None and level == "protein":
            of_residues = _read(self.path(encoder, "residue", sequence), residues)
            return None if of_residues is None else mean_pool(of_residues)
        return vectors

    def put(self, encoder: EncoderIdentity, level: Level, sequence: str, vectors: Floats) -> None:
        """Cache the vectors of a sequence.

        Raises
        ------
        OSError
            If they cannot be written, such as on a full disk.
        """
        path = self.path(encoder, level, sequence)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._temporary_folder(), suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, np.asarray(vectors, np.float32))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def path(self, encoder: EncoderIdentity, level: Level, sequence: str) -> Path:
        """Return the path of a sequence's vectors, whether it exists or not."""
        name = re.sub(r"[^\w.-]", "_", encoder.name)
        encoder_name = f"{name}-{encoder.fingerprint[:16]}-{encoder.precision}-{level}-{_VERSION}"
        digest = sha256(sequence.encode()).hexdigest()
        return self.folder / encoder_name / digest[:2] / f"{digest}.npy"

    def _temporary_folder(self) -> Path:
        # One folder for all, so that files of killed processes are easy to find.
        folder = self.folder / _TEMPORARY
        if not self._cleaned:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            self._cleaned = True
        return folder


def _remove_abandoned(folder: Path) -> None:
    """Remove files that no process can still be writing."""
    for path in folder.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                path.unlink()


def _read(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(vectors, np.ndarray) and vectors.shape == shape and vectors.dtype == np.float32
    return vectors if fits else None


TOKEN_BUDGET = 4096
"""Default number of tokens in a batch."""

Group = Sequence[str]
Vectors = list[Floats]


def embed_sequences(
    sequences: Sequence[str],
    encoder: ResidueEncoder,
    *,
    level: Level = "protein",
    cache: EmbeddingCache | None = None,
    token_budget: int = TOKEN_BUDGET,
    on_done: Callable[[int], None] | None = None,
) -> list[Floats]:
    """Embed sequences; cached and repeated ones are not computed again.

    Parameters
    ----------
    sequences
        Upper-case residues, from `deepgps.proteins.check.clean_sequence`.
    encoder
        The language model.
    level
        ``protein`` for the mean over the residues, ``residue`` for a vector of each; both without special
        tokens and padding. A sequence longer than the encoder's ``max_length`` is encoded in overlapping
        windows, and a residue in several windows gets the mean of its vectors.
    cache
        Where vectors are stored; nowhere if None.
    token_budget
        Tokens in a batch, with padding; a single window may have more.
    on_done
        Called with the index of each sequence when its vectors are available.

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

    def encode(groups: Iterable[Group]) -> Iterator[Vectors]:
        return map(partial(encode_group, encoder, level=level, token_budget=token_budget), groups)

    for place, vectors in iter_embeddings(sequences, encoder, encode, level, cache, token_budget):
        found[place] = vectors
        if on_done:
            on_done(place)
    return [found[place] for place in range(len(sequences))]


def iter_embeddings(
    sequences: Sequence[str],
    identity: EncoderIdentity,
    encode: Callable[[Iterable[Group]], Iterable[Vectors | DeepGPSError]],
    level: Level,
    cache: EmbeddingCache | None,
    token_budget: int,
) -> Iterator[tuple[int, Floats]]:
    """Yield embeddings as they become available: cached ones first, then the longest sequences.

    Parameters
    ----------
    sequences, level, cache, token_budget
        As in `embed_sequences`.
    identity
        Identity of the encoder.
    encode
        Encodes groups of sequences in order, in this process or others; returns the error of a group that
        failed.

    Yields
    ------
    tuple of int and ndarray
        Index of a sequence, and its vectors.

    Raises
    ------
    InputError
        As in `embed_sequences`.
    DeepGPSError
        At the end, if a group failed; the vectors of the others are cached.
    """
    _check(sequences, token_budget)
    places: dict[str, list[int]] = {}
    for place, sequence in enumerate(sequences):
        places.setdefault(sequence, []).append(place)
    missing = []
    for sequence, indices in places.items():
        if cache and (vectors := cache.get(identity, level, sequence)) is not None:
            yield from ((place, vectors) for place in indices)
        else:
            missing.append(sequence)
    for sequence, vectors in _compute(missing, identity, encode, token_budget):
        if cache:
            cache.put(identity, level, sequence, vectors)
        yield from ((place, vectors) for place in places[sequence])


def _check(sequences: Sequence[str], token_budget: int) -> None:
    if token_budget < 1:
        raise InputError(f"A token budget of {token_budget} is too small; give 1 or more.")
    if "" in sequences:
        place = sequences.index("") + 1
        raise InputError(f"Sequence {place} to embed is empty; leave it out.")


def _compute(
    sequences: Sequence[str],
    identity: EncoderIdentity,
    encode: Callable[[Iterable[Group]], Iterable[Vectors | DeepGPSError]],
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
        raise DeepGPSError(f"{reason} {failed:,} sequences were not embedded.")


def encode_group(
    encoder: ResidueEncoder, sequences: Group, *, level: Level = "protein", token_budget: int = TOKEN_BUDGET
) -> Vectors:
    """Encode sequences with their windows: (E,) each, or (L, E)."""
    width = encoder.max_length
    windows = [
        (place, start, sequence[start : start + width])
        for place, sequence in enumerate(sequences)
        for start in window_starts(len(sequence), width)
    ]
    sums = [np.zeros((len(sequence), encoder.dimension), np.float32) for sequence in sequences]
    counts = [np.zeros((len(sequence), 1), np.float32) for sequence in sequences]
    for batch in batch_by_length([len(residues) for _, _, residues in windows], token_budget):
        in_batch = [windows[number] for number in batch]
        encoded = encoder(*tokenize([residues for _, _, residues in in_batch]))
        for (place, start, residues), vectors in zip(in_batch, encoded, strict=True):
            covered = slice(start, start + len(residues))
            sums[place][covered] += vectors[1 : len(residues) + 1]
            counts[place][covered] += 1
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    return means if level == "residue" else [mean_pool(vectors) for vectors in means]


def mean_pool(vectors: Floats) -> Floats:
    """Return the mean over the residues: (L, E) to (E,)."""
    mean: Floats = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


GRAPH = "encoder.onnx"
"""The graph: ``tokens`` (B, L) int64 and ``mask`` (B, L) bool to ``vectors`` (B, L, E) float32."""
INFO = "encoder.json"


class PreparedInfo(BaseModel):
    """The contents of ``encoder.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    """version of this description"""
    name: str
    """name of the encoder"""
    fingerprint: str
    """sha256 of the weights and the architecture"""
    dimension: int
    """size of a vector"""
    max_length: int
    """residues in a window"""
    parity: float
    """largest difference between the graph and the torch module on random proteins"""
    files: Mapping[str, int]
    """size in bytes of each other file"""


@dataclass(frozen=True, slots=True)
class PreparedEncoder:
    """A `deepgps.proteins.embedding.ResidueEncoder` on ONNX Runtime.

    Attributes
    ----------
    name, fingerprint, dimension, max_length, precision
        As in `EncoderIdentity`; it computes in float32.
    open_graph
        Returns the graph, which is loaded on first use: a process whose workers encode does not load it.
    """

    name: str
    fingerprint: str
    dimension: int
    max_length: int
    open_graph: Callable[[], Graph]
    precision: str = "float32"

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L) with a mask (B, L), false for padding; return (B, L, E) float32."""
        vectors: Floats = self.open_graph().run(["vectors"], {"tokens": tokens, "mask": mask})[0]
        return vectors


def encoders_folder() -> Path:
    """Return the folder of prepared encoders: ``DEEPGPS_ENCODERS`` or in the user's data folder."""
    own = os.environ.get("DEEPGPS_ENCODERS")
    return Path(own) if own else Path(user_data_dir("deepgps")) / "encoders"


def prepared_encoder(
    name: str, fingerprint: str | None = None, *, threads: int | None = None
) -> PreparedEncoder:
    """Open a prepared encoder.

    Parameters
    ----------
    name
        Its name, such as ``esm2_t33_650M_UR50D``.
    fingerprint
        The fingerprint it must have: that of the encoder that a model was trained with.
    threads
        Threads to compute with; all cores by default.

    Returns
    -------
    PreparedEncoder
        The encoder; its graph is loaded on first use.

    Raises
    ------
    InputError
        If it is missing, damaged, or has another fingerprint.
    """
    folder = encoders_folder() / name
    info = read_info(folder)
    if fingerprint is not None and info.fingerprint != fingerprint:
        raise InputError(
            f"Encoder '{name}' in '{folder}' has other weights ({info.fingerprint[:12]}…) than the model was "
            f"trained with ({fingerprint[:12]}…); run 'deepgps encoders prepare' with those."
        )
    cached_graph = cache(partial(open_graph, folder / GRAPH, threads))
    return PreparedEncoder(info.name, info.fingerprint, info.dimension, info.max_length, cached_graph)


def read_info(folder: Path) -> PreparedInfo:
    """Read the description of a prepared encoder, and check the sizes of its files.

    Parameters
    ----------
    folder
        Folder of the encoder.

    Returns
    -------
    PreparedInfo
        The description.

    Raises
    ------
    InputError
        If it is missing or damaged.
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
    """Return the prepared encoders by name, each with its description or why it cannot be used."""
    found: list[tuple[str, PreparedInfo | str]] = []
    for path in sorted(encoders_folder().glob("[!.]*/")):
        try:
            found.append((path.name, read_info(path)))
        except InputError as error:
            found.append((path.name, str(error)))
    return found
