"""A set of proteins, embedded and written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import DeepGPSError, InputError
from deepgps.proteins.embedding import EmbeddingCache, Encoded, EncoderDescription, Group, iter_embeddings
from deepgps.proteins.protein import Protein
from deepgps.training.embedding.files import residue_file, write_table
from deepgps.training.embedding.workers import Job, encoding, identify

SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was done.

    Attributes
    ----------
    identity
        Whose vectors they are.
    computed
        Different sequences that were not in the cache.
    windowed
        Proteins that were encoded in several windows.
    files
        What was written.
    """

    identity: EncoderDescription
    computed: int
    windowed: int
    files: tuple[Path, ...]


def embed_proteins(
    proteins: Sequence[Protein],
    job: Job,
    out: Path,
    *,
    cache: Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[Protein], None] | None = None,
) -> Embedded:
    """Embed proteins and write them; killed, the same call goes on with what is in the cache.

    Only this process reads and writes the cache, so that the workers of a cluster need not share a disk.

    Parameters
    ----------
    proteins
        Their ids are different.
    job
        What to embed with, and how.
    out
        The table to write, ``.parquet``; vectors of residues lie beside it in an ``.npz`` of the same name.
    cache
        As of `EmbeddingCache`.
    workers
        Local processes, each with the encoder in its memory.
    scheduler
        Address of a Dask scheduler whose workers do it instead.
    on_done
        Called with each protein when it is embedded.

    Raises
    ------
    InputError
        If the encoder, the scheduler or the name of the table cannot be used.
    DeepGPSError
        If some could not be embedded; the others are in the cache then, and no table is written.
    """
    if out.suffix != SUFFIX:
        raise InputError(f"'{out}' does not end in {SUFFIX}; give the table such a name.")
    identity = identify(job, workers, scheduler)
    computed = 0

    def encode(groups: Iterable[Group]) -> Iterator[Encoded | DeepGPSError]:
        nonlocal computed
        groups = list(groups)
        computed = sum(map(len, groups))
        return encoding(job, identity, workers, scheduler, groups) if groups else iter(())

    sequences = [protein.sequence for protein in proteins]
    each = iter_embeddings(sequences, identity, encode, job.level, EmbeddingCache(cache), job.token_budget)
    out.parent.mkdir(parents=True, exist_ok=True)
    whole, beside = _written(proteins, each, identity, job, out, on_done)
    windowed = write_table(out, proteins, whole, identity, job.level)
    return Embedded(identity, computed, windowed, (out, *beside))


def _written(
    proteins: Sequence[Protein],
    each: Iterable[tuple[int, Floats]],
    identity: EncoderDescription,
    job: Job,
    out: Path,
    on_done: Callable[[Protein], None] | None,
) -> tuple[Floats | None, tuple[Path, ...]]:
    """Take the vectors as they come: those of residues to their file, those of proteins into one array."""
    whole = np.empty((len(proteins), identity.dimension), np.float32) if job.level == "protein" else None
    beside = out.with_suffix(".npz")
    with residue_file(beside) if whole is None else nullcontext() as keep:
        for place, vectors in each:
            if whole is not None:
                whole[place] = vectors
            elif keep is not None:
                keep(proteins[place], vectors)
            if on_done:
                on_done(proteins[place])
    return whole, () if whole is not None else (beside,)
