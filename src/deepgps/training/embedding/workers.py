"""What a process does that embeds: it loads the encoder once, and encodes groups of sequences."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from deepgps.errors import DeepGPSError, InputError
from deepgps.parallel import cores, parallel_map
from deepgps.proteins.check import MAX_RESIDUES
from deepgps.proteins.embedding import (
    Encoded,
    EncoderDescription,
    Group,
    Level,
    Precision,
    describe_encoder,
    encode_group,
)
from deepgps.proteins.features import FEATURES_NAME, feature_names, sequence_features

if TYPE_CHECKING:
    from deepgps.models.esm2 import Esm2

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Job:
    """What to embed with, and how.

    Attributes
    ----------
    encoder
        An ESM2 by name or folder, or ``segments-1``, the hand-made features.
    level
        A vector a protein, or one a residue.
    precision
        What to compute in.
    offline
        Whether never to use the network.
    token_budget
        Tokens in a batch at most.
    threads
        Threads of a process; its own choice if not given.
    """

    encoder: str
    level: Level = "protein"
    precision: Precision = "auto"
    offline: bool = False
    token_budget: int = 4096
    threads: int | None = None


class _Part(NamedTuple):
    """Vectors of a group, and whose they are."""

    fingerprint: str
    encoded: Encoded


def identify(job: Job, workers: int, scheduler: str | None) -> EncoderDescription:
    """Say whose vectors the workers will give.

    Raises
    ------
    InputError
        If there is no such encoder, or it gives no vectors of that level.
    """
    if job.encoder == FEATURES_NAME and job.level == "residue":
        raise InputError(f"'{FEATURES_NAME}' has one vector a protein and none a residue; use level protein.")
    (found,) = parallel_map(partial(_identity), [job], workers=1, scheduler=scheduler)
    if isinstance(found, DeepGPSError):
        raise found
    if workers > 1:
        # Its place is needed by the workers' own.
        _loaded.cache_clear()
    return found


def encoding(
    job: Job, identity: EncoderDescription, workers: int, scheduler: str | None, groups: Iterable[Group]
) -> Iterator[Encoded | DeepGPSError]:
    """Encode groups on the workers, in order.

    Raises
    ------
    DeepGPSError
        If a worker has other weights than the first.
    """
    threads = None if scheduler or workers == 1 else max(1, cores() // workers)
    there = Job(job.encoder, job.level, _precision(identity), job.offline, job.token_budget, threads)
    for part in parallel_map(partial(_encoded, there), groups, workers=workers, scheduler=scheduler):
        if isinstance(part, DeepGPSError):
            yield part
        elif part.fingerprint != identity.fingerprint:
            raise DeepGPSError(
                f"A worker has other weights of '{job.encoder}' than the first; give all of them the same."
            )
        else:
            yield part.encoded


def _precision(identity: EncoderDescription) -> Precision:
    return "bfloat16" if identity.precision == "bfloat16" else "float32"


def _identity(job: Job) -> EncoderDescription:
    if job.encoder == FEATURES_NAME:
        names = feature_names()
        fingerprint = sha256("\n".join((FEATURES_NAME, *names)).encode()).hexdigest()
        return EncoderDescription(FEATURES_NAME, fingerprint, "float32", len(names), MAX_RESIDUES)
    return describe_encoder(_encoder(job))


def _encoded(job: Job, group: Group) -> _Part:
    if job.encoder == FEATURES_NAME:
        return _Part(_identity(job).fingerprint, [sequence_features(sequence) for sequence in group])
    encoder = _encoder(job)
    encoded = encode_group(encoder, group, level=job.level, token_budget=job.token_budget)
    return _Part(encoder.fingerprint, encoded)


def _encoder(job: Job) -> "Esm2":
    # A Dask worker may have several threads, and the network is large: it is loaded by the first of them.
    with _loading:
        from deepgps.models.esm2 import resolved

        return _loaded(job.encoder, resolved(job.precision), job.offline, job.threads)


@lru_cache(maxsize=1)
def _loaded(encoder: str, precision: Precision, offline: bool, threads: int | None) -> "Esm2":
    import torch

    from deepgps.models.esm2 import load_esm2

    if threads is not None:
        torch.set_num_threads(threads)
    return load_esm2(encoder, offline=offline, precision=precision)
