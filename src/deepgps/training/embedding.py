"""``deepgps embed``: embed whole sets of proteins: in this process, in several, or on a Dask cluster."""

import json
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

import deepgps
from deepgps.arrays import Floats
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from deepgps.parallel import cores, parallel_map
from deepgps.proteins.check import MAX_RESIDUES
from deepgps.proteins.embedding import (
    EmbeddingCache,
    EncoderDescription,
    Group,
    Level,
    Precision,
    Vectors,
    describe_encoder,
    encode_group,
    iter_embeddings,
)
from deepgps.proteins.features import FEATURES_NAME, feature_names, sequence_features
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import Seen, SequenceRecord, check_records, read_proteins
from deepgps.proteins.windows import window_count
from deepgps.results.exports import check_export

if TYPE_CHECKING:
    from deepgps.models.esm2 import Esm2

SUFFIX, ANNDATA_SUFFIX = ".parquet", ".h5ad"
PROTEINS_TABLE = "proteins.parquet"

_COLUMNS = ("protein_id", "sequence", "gene_symbol", "accession")


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """How proteins are embedded.

    Attributes
    ----------
    encoder
        An ESM2 by name or folder, or ``segments-1``, the hand-made features.
    level
        One vector for each protein, or for each residue.
    precision
        Precision of the computation.
    offline
        Whether to never use the network.
    token_budget
        Tokens in a batch, at most.
    threads
        Threads of a process; by default its own choice.
    """

    encoder: str
    level: Level = "protein"
    precision: Precision = "auto"
    offline: bool = False
    token_budget: int = 4096
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """What was embedded.

    Attributes
    ----------
    encoder
        The encoder of the vectors.
    computed
        Different sequences that were not in the cache.
    windowed
        Proteins encoded in several windows.
    files
        The files written.
    """

    encoder: EncoderDescription
    computed: int
    windowed: int
    files: tuple[Path, ...]


def embed_proteins(
    proteins: Sequence[Protein],
    options: EmbeddingOptions,
    out: Path,
    *,
    cache: Path | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    on_done: Callable[[Protein], None] | None = None,
) -> EmbeddingResult:
    """Embed proteins and write the vectors; after a kill, the same call continues with what is in the cache.

    Only this process reads and writes the cache, so the workers of a cluster need no shared disk.

    Parameters
    ----------
    proteins
        Proteins with different ids.
    options
        Encoder and how to use it.
    out
        The table to write, ``.parquet``; vectors of residues are written beside it, into an ``.npz``. Or
        AnnData, ``.h5ad``, with a vector per protein as ``X``.
    cache
        Folder of the `EmbeddingCache`.
    workers
        Local processes, each with the encoder in its memory.
    scheduler
        Address of a Dask scheduler whose workers are used instead.
    on_done
        Called with each embedded protein.

    Returns
    -------
    EmbeddingResult
        What was embedded.

    Raises
    ------
    InputError
        If the encoder, the scheduler or the name of the table cannot be used.
    DeepGPSError
        If some proteins could not be embedded; the others are then in the cache, and no table is written.
    """
    if out.suffix not in (SUFFIX, ANNDATA_SUFFIX):
        raise InputError(f"'{out}' does not end in {SUFFIX} or {ANNDATA_SUFFIX}; give the table such a name.")
    if out.suffix == ANNDATA_SUFFIX:
        if options.level != "protein":
            raise InputError(
                f"Vectors of residues do not fit into '{out}'; give a table that ends in {SUFFIX}."
            )
        check_export("h5ad")
    encoder = _identify(options, workers, scheduler)
    computed = 0

    def encode(groups: Iterable[Group]) -> Iterator[Vectors | DeepGPSError]:
        nonlocal computed
        groups = list(groups)
        computed = sum(map(len, groups))
        return _encode_groups(options, encoder, workers, scheduler, groups) if groups else iter(())

    sequences = [protein.sequence for protein in proteins]
    vectors = iter_embeddings(
        sequences, encoder, encode, options.level, EmbeddingCache(cache), options.token_budget
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    table, residues = None, out.with_suffix(".npz")
    if options.level == "protein":
        table = np.empty((len(proteins), encoder.dimension), np.float32)
    with _residue_file(residues) if table is None else nullcontext() as write:
        for place, found in vectors:
            if table is not None:
                table[place] = found
            elif write is not None:
                write(proteins[place], found)
            if on_done:
                on_done(proteins[place])
    windowed = _write_table(out, proteins, table, encoder, options.level)
    return EmbeddingResult(encoder, computed, windowed, (out,) if table is not None else (out, residues))


# ---- files ----


def _write_table(
    out: Path, proteins: Sequence[Protein], vectors: Floats | None, encoder: EncoderDescription, level: Level
) -> int:
    """Write a row for each protein; the metadata (key ``deepgps``) describe the encoder.

    Returns
    -------
    int
        Proteins encoded in several windows.
    """
    windows = [window_count(len(protein.sequence), encoder.max_length) for protein in proteins]
    columns = {
        "protein_id": pl.Series([protein.id for protein in proteins], dtype=pl.String),
        "gene_symbol": pl.Series([protein.gene_symbol for protein in proteins], dtype=pl.String),
        "accession": pl.Series([protein.accession for protein in proteins], dtype=pl.String),
        "length": pl.Series([len(protein.sequence) for protein in proteins], dtype=pl.Int64),
        "windows": pl.Series(windows, dtype=pl.Int64),
        "sequence_sha256": pl.Series([sha256(each.sequence.encode()).hexdigest() for each in proteins]),
    }
    made = {"deepgps": deepgps.__version__, "encoder": asdict(encoder), "level": level}
    if out.suffix == ANNDATA_SUFFIX and vectors is not None:
        _write_anndata(out, columns, vectors, made)
        return sum(count > 1 for count in windows)
    if vectors is not None:
        columns["embedding"] = pl.Series(vectors, dtype=pl.Array(pl.Float32, encoder.dimension))
    with atomic_path(out) as draft:
        pl.DataFrame(columns).write_parquet(draft, metadata={"deepgps": json.dumps(made)})
    return sum(count > 1 for count in windows)


def _write_anndata(out: Path, columns: dict[str, pl.Series], vectors: Floats, made: dict[str, Any]) -> None:
    import anndata
    import pandas as pd

    obs = pd.DataFrame({name: values.to_list() for name, values in columns.items()})
    obs = obs.fillna({"gene_symbol": "", "accession": ""}).set_index("protein_id")
    obs.index.name = None
    with atomic_path(out) as draft:
        anndata.AnnData(vectors, obs=obs, uns={"deepgps": json.dumps(made)}).write_h5ad(draft)


@contextmanager
def _residue_file(path: Path) -> Iterator[Callable[[Protein, Floats], None]]:
    """Write an ``.npz`` with an array (L, E) for each protein, by its id, as they come."""
    with atomic_path(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:

        def write(protein: Protein, vectors: Floats) -> None:
            with archive.open(f"{protein.id}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(vectors), allow_pickle=False)

        yield write


# ---- workers: each loads the encoder once and encodes groups of sequences ----

_loading = threading.Lock()


class _EncodedGroup(NamedTuple):
    fingerprint: str
    encoded: Vectors


def _identify(options: EmbeddingOptions, workers: int, scheduler: str | None) -> EncoderDescription:
    """Describe the encoder of the workers."""
    if options.encoder == FEATURES_NAME and options.level == "residue":
        raise InputError(f"'{FEATURES_NAME}' has no vectors of residues; use level protein.")
    (found,) = parallel_map(partial(_description), [options], workers=1, scheduler=scheduler)
    if isinstance(found, DeepGPSError):
        raise found
    if workers > 1:
        # The workers need the memory.
        _loaded.cache_clear()
    return found


def _encode_groups(
    options: EmbeddingOptions,
    encoder: EncoderDescription,
    workers: int,
    scheduler: str | None,
    groups: Iterable[Group],
) -> Iterator[Vectors | DeepGPSError]:
    """Encode groups on the workers, in order; a worker with other weights than the first is an error."""
    threads = None if scheduler or workers == 1 else max(1, cores() // workers)
    precision: Precision = "bfloat16" if encoder.precision == "bfloat16" else "float32"
    encode = partial(_encode, replace(options, precision=precision, threads=threads))
    for part in parallel_map(encode, groups, workers=workers, scheduler=scheduler):
        if isinstance(part, DeepGPSError):
            yield part
        elif part.fingerprint != encoder.fingerprint:
            raise DeepGPSError(
                f"A worker has other weights of '{options.encoder}' than the first; give all the same."
            )
        else:
            yield part.encoded


def _description(options: EmbeddingOptions) -> EncoderDescription:
    if options.encoder == FEATURES_NAME:
        names = feature_names()
        fingerprint = sha256("\n".join((FEATURES_NAME, *names)).encode()).hexdigest()
        return EncoderDescription(FEATURES_NAME, fingerprint, "float32", len(names), MAX_RESIDUES)
    return describe_encoder(_encoder(options))


def _encode(options: EmbeddingOptions, group: Group) -> _EncodedGroup:
    if options.encoder == FEATURES_NAME:
        vectors = [sequence_features(sequence) for sequence in group]
        return _EncodedGroup(_description(options).fingerprint, vectors)
    encoder = _encoder(options)
    encoded = encode_group(encoder, group, level=options.level, token_budget=options.token_budget)
    return _EncodedGroup(encoder.fingerprint, encoded)


def _encoder(options: EmbeddingOptions) -> "Esm2":
    # A Dask worker may have several threads, and the network is large: the first of them loads it.
    with _loading:
        from deepgps.models.esm2 import resolve_precision

        precision = resolve_precision(options.precision)
        return _loaded(options.encoder, precision, options.offline, options.threads)


@lru_cache(maxsize=1)
def _loaded(encoder: str, precision: Precision, offline: bool, threads: int | None) -> "Esm2":
    import torch

    from deepgps.models.esm2 import load_esm2

    if threads is not None:
        torch.set_num_threads(threads)
    return load_esm2(encoder, offline=offline, precision=precision)


# ---- inputs ----


def proteins_to_embed(inputs: Sequence[str], *, offline: bool = False) -> Iterator[Protein | Rejection]:
    """Read proteins, those of tables first.

    Parameters
    ----------
    inputs
        Tables of annotated proteins (Parquet), crop stores, or what
        `deepgps.proteins.reading.read_proteins` takes.
    offline
        Whether to look up accessions in the cache only.

    Yields
    ------
    Protein or Rejection
        Each protein, or why a record cannot be used.

    Raises
    ------
    InputError
        As `deepgps.proteins.reading.read_proteins`; if a folder is no crop store, or a table lacks columns.
    """
    tables = [name for name in inputs if name.endswith(SUFFIX) or Path(name).is_dir()]
    rest = [name for name in inputs if name not in tables]
    seen: Seen = {}
    for name in tables:
        yield from check_records(_records(name), name, seen)
    for item in read_proteins(rest, offline=offline) if rest else ():
        if isinstance(item, Protein) and item.id in seen:
            yield Rejection(item.id, "", f"Id '{item.id}' is in '{seen[item.id][1]}' too; give it once.")
        else:
            yield item


def _records(name: str) -> Iterator[SequenceRecord]:
    path = Path(name) / PROTEINS_TABLE if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise InputError(f"'{path}' was not found; give a table of proteins, or a crop store that has one.")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"'{path}' cannot be read as Parquet ({error}); make it again.") from None
    if lacking := [column for column in _COLUMNS[:2] if column not in table.columns]:
        raise InputError(f"'{path}' has no column '{lacking[0]}'; give a table of annotated proteins.")
    # A protein has a row for each source that names it.
    rows = table.select(column for column in _COLUMNS if column in table.columns).unique(maintain_order=True)
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        yield _record(number, row)


def _record(number: int, row: dict[str, str | None]) -> SequenceRecord:
    id = row["protein_id"] or row.get("accession") or f"record_{number}"
    problem = None if row["sequence"] else f"Protein '{id}' has no sequence; annotate it with --sequences."
    return SequenceRecord(
        number, id, row["sequence"] or "", row.get("gene_symbol"), row.get("accession"), problem
    )
