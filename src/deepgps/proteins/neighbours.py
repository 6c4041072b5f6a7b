"""The nearest annotated proteins: an index of k-mers that votes on a localization and serves as evidence.

A spaced k-mer is six residues out of eight in a row, in an alphabet of 13 groups of residues that evolution
exchanges easily. Diverged relatives share more of them than of contiguous k-mers of the 20 amino acids. The
similarity of two proteins is the cosine of their sets of spaced k-mers, each weighted by its inverse document
frequency: 1 for the same protein, 0 for no common k-mer. It approximates homology without an alignment. The
index file holds the residues; the inverted index of k-mers is computed on loading and cached.
"""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Doubles, Floats, Indices, Mask, Strings
from deepgps.errors import BundleError
from deepgps.files import belongs_to_user, cache_files, cache_root, hash_files
from deepgps.proteins.features import RESIDUES, UNKNOWN_RESIDUE, residue_codes

K = 5
GROUPS_13 = ("A", "C", "DE", "FY", "G", "H", "ILMV", "KR", "N", "P", "Q", "ST", "W")
SEED = (0, 1, 2, 4, 5, 7)
"""Positions of a spaced k-mer; the residues between them are ignored."""
_SPAN = SEED[-1] + 1
_VOCABULARY = len(GROUPS_13) ** len(SEED)


def kmers(sequence: str) -> NDArray[np.uint32]:
    """Return the distinct 5-residue k-mers of a sequence.

    Parameters
    ----------
    sequence
        One-letter residues in either case.

    Returns
    -------
    NDArray[np.uint32]
        (W,) sorted k-mer codes in base 20; k-mers with an unknown residue are left out.
    """
    codes = residue_codes(sequence)
    n = len(codes) - K + 1
    if n <= 0:
        return np.zeros(0, np.uint32)
    known = np.logical_and.reduce([codes[i : i + n] != UNKNOWN_RESIDUE for i in range(K)])
    numbers = sum(codes[i : i + n] * 20 ** (K - 1 - i) for i in range(K))
    return np.unique(np.asarray(numbers)[known]).astype(np.uint32)


def _group_table() -> Bytes:
    table = np.zeros(256, np.uint8)
    for number, members in enumerate(GROUPS_13):
        table[[RESIDUES.index(residue) for residue in members]] = number
    return table


_GROUP = _group_table()


def _spaced_kmers(codes: Bytes) -> tuple[NDArray[np.int32], Mask]:
    """Return the spaced k-mer at each position of residue codes (L,), and whether its residues are known."""
    n = max(0, len(codes) - _SPAN + 1)
    groups, unknown = _GROUP[codes], codes >= UNKNOWN_RESIDUE
    numbers, known = np.zeros(n, np.int32), np.ones(n, np.bool_)
    for place in SEED:
        numbers *= len(GROUPS_13)
        numbers += groups[place : place + n]
    for place in range(_SPAN):
        known &= ~unknown[place : place + n]
    return numbers, known


def spaced_kmers(sequence: str) -> NDArray[np.int32]:
    """Return the distinct spaced k-mers of a sequence, (W,) sorted; none spans an unknown residue."""
    numbers, known = _spaced_kmers(residue_codes(sequence).astype(np.uint8))
    return np.unique(numbers[known])


def inverted_index(
    residues: Bytes, lengths: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """List the proteins that contain each spaced k-mer.

    Parameters
    ----------
    residues
        Residue codes of all N proteins, concatenated, with an `UNKNOWN_RESIDUE` after each.
    lengths
        (N,) residues of each protein.

    Returns
    -------
    starts : ndarray
        (k-mers + 1,) start of each k-mer's rows in `postings`.
    postings : ndarray
        Rows of the proteins of each k-mer, in ascending order and without repeats.
    """
    from scipy.sparse import csr_array

    numbers, known = _spaced_kmers(residues)
    ends = np.cumsum(np.append(0, lengths.astype(np.int64) + 1))
    # With 64-bit pointers SciPy uses 64 bits throughout, which takes three times the time and memory.
    pointers = _cumulative_count(known)[np.minimum(ends, len(known))]
    numbers = numbers[known]
    shape = (len(lengths), _VOCABULARY)
    found = csr_array((np.ones(len(numbers), np.bool_), numbers, pointers), shape=shape).tocsc()
    del numbers, known
    rows, starts = found.indices, found.indptr
    first = np.ones(len(rows), np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    first[starts[:-1][np.diff(starts) > 0]] = True
    return _cumulative_count(first)[starts], rows[first].astype(
        np.uint16 if len(lengths) <= 2**16 else np.uint32
    )


def _cumulative_count(flags: Mask) -> NDArray[np.integer]:
    """Count the flags before each position, and all of them: (L + 1,)."""
    size = np.int32 if len(flags) < 2**31 else np.int64
    counts: NDArray[np.integer] = np.zeros(len(flags) + 1, size)
    np.cumsum(flags, out=counts[1:])
    return counts


TOP = 6
"""Number of neighbours in the evidence."""
VOTERS = 20
"""Number of neighbours that vote."""
FORMAT = 2
# Residues take five of the eight bits of a byte; labels are mostly zeros.
_MAX_EXPANSION, _MAX_BYTES_OF_ZEROS = 20, 10_000_000
_UNKNOWN_LABEL = 255  # among labels stored in percent


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An annotated protein that is similar to the query.

    Attributes
    ----------
    accession
        Its accession, or its id in the source table.
    localizations
        Slugs of the classes it is annotated with.
    similarity
        Weighted cosine in (0, 1]; 1 for the same set of k-mers.
    """

    accession: str
    localizations: tuple[str, ...]
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourIndex:
    """An index that finds the annotated proteins most similar to a sequence.

    Attributes
    ----------
    accessions
        (N,) names of the proteins.
    slugs
        The K classes, in the order of `labels`.
    labels
        (N, K) uint8: annotation in percent; 255 where it is unknown.
    residues, lengths
        Residue codes of all proteins with an unknown one after each, and the number of residues of each (N,).
    starts, postings
        The inverted index, see `inverted_index`.
    norms
        (N,) norm of each protein's weighted k-mer vector.
    """

    accessions: Strings
    slugs: tuple[str, ...]
    labels: Bytes
    residues: Bytes
    lengths: NDArray[np.uint32]
    starts: NDArray[np.integer]
    postings: NDArray[np.integer]
    norms: Floats

    @classmethod
    def build(
        cls,
        accessions: Sequence[str],
        sequences: Sequence[str],
        labels: NDArray[np.floating],
        mask: Mask,
        slugs: Sequence[str],
    ) -> "NeighbourIndex":
        """Index annotated proteins.

        Parameters
        ----------
        accessions, sequences
            N names and sequences.
        labels, mask
            (N, K) annotation in [0, 1], and whether it is known.
        slugs
            The K classes.

        Returns
        -------
        NeighbourIndex
            The index.
        """
        parts = [
            np.append(residue_codes(sequence), UNKNOWN_RESIDUE).astype(np.uint8) for sequence in sequences
        ]
        residues = np.concatenate([*parts, np.zeros(0, np.uint8)])
        lengths = np.array([len(part) - 1 for part in parts], np.uint32)
        starts, postings = inverted_index(residues, lengths)
        counts = np.diff(starts)
        counts = counts[counts > 0]
        weights = np.repeat(_idf(counts, len(parts)), counts)
        norms = np.sqrt(np.bincount(postings, weights**2, minlength=len(parts))).astype(np.float32)
        percent = np.where(mask, np.rint(np.asarray(labels) * 100), _UNKNOWN_LABEL).astype(np.uint8)
        names = np.array(accessions, np.str_)
        return cls(names, tuple(slugs), percent, residues, lengths, starts, postings, norms)

    def to_bytes(self) -> bytes:
        """Serialize the index as a compressed NPZ without pickles; smaller with homologs in sequence."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            format=np.array(FORMAT),
            accessions=self.accessions.astype(np.bytes_),
            slugs=np.array(self.slugs, np.bytes_),
            labels=self.labels,
            residues=self.residues,
            lengths=self.lengths,
            norms=self.norms,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "NeighbourIndex":
        """Read an index from the output of `to_bytes`.

        Parameters
        ----------
        data
            A serialized index.

        Returns
        -------
        NeighbourIndex
            The index.

        Raises
        ------
        BundleError
            If it is not an index, or one of an unknown format.
        """
        try:
            _check_unpacked_size(data)
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls._of(dict(arrays))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"The neighbour index cannot be read ({error}); fetch the model again."
            ) from None

    @classmethod
    def _of(cls, arrays: dict[str, NDArray[np.generic]]) -> "NeighbourIndex":
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {arrays['format']} is not {FORMAT}")
        residues, lengths = arrays["residues"].astype(np.uint8), arrays["lengths"].astype(np.uint32)
        if len(residues) != int(lengths.sum()) + len(lengths):
            raise ValueError(f"{len(residues)} residues do not fit {len(lengths)} proteins")
        return cls(
            arrays["accessions"].astype(np.str_),
            tuple(slug.decode() for slug in arrays["slugs"].tolist()),
            arrays["labels"].astype(np.uint8),
            residues,
            lengths,
            *inverted_index(residues, lengths),
            arrays["norms"].astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "NeighbourIndex":
        """Read an index from a file.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        NeighbourIndex
            The index.

        Raises
        ------
        BundleError
            If the file is missing, damaged or of an unknown format.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise BundleError(f"The neighbour index {path} cannot be read: {error.strerror}.") from None

    @property
    def vote_size(self) -> int:
        """Length V of the votes: 2 K + 1."""
        return 2 * len(self.slugs) + 1

    def similarities(self, sequence: str) -> Floats:
        """Compute the similarity of a sequence to every protein of the index: (N,) float32 in [0, 1]."""
        found = spaced_kmers(sequence)
        counts = self.starts[found + 1] - self.starts[found]
        places, counts = self.starts[found[counts > 0]], counts[counts > 0]
        weights = _idf(counts, len(self.accessions))
        unseen = (len(found) - len(places)) * np.log1p(len(self.accessions)) ** 2
        norm = np.sqrt(float((weights**2).sum()) + unseen)
        offsets = np.repeat(places - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        dots = np.bincount(
            self.postings[offsets], np.repeat(weights**2, counts), minlength=len(self.accessions)
        )
        cosines: Floats = (dots / np.maximum(1e-9, norm * self.norms)).astype(np.float32)
        return np.minimum(cosines, np.float32(1))

    def ranked(self, similarities: Floats, top: int = TOP) -> Indices:
        """Return the rows of the `top` most similar proteins, best first; ties in table order, none at 0."""
        top = min(top, len(similarities))
        if not top:
            return np.zeros(0, np.intp)
        lowest = np.partition(similarities, -top)[-top]
        rows = np.flatnonzero((similarities >= lowest) & (similarities > 0))
        return rows[np.argsort(-similarities[rows], kind="stable")][:top]

    def query(self, sequence: str, top: int = TOP) -> list[Neighbour]:
        """Find the annotated proteins most similar to a sequence.

        Parameters
        ----------
        sequence
            The query.
        top
            Largest number of proteins to return.

        Returns
        -------
        list[Neighbour]
            The most similar first; fewer than `top` if too few share a k-mer with it.
        """
        return self.nearest(self.similarities(sequence), top)

    def nearest(self, similarities: Floats, top: int = TOP) -> list[Neighbour]:
        """Return the annotated proteins of the highest similarities (N,), best first."""
        return [self._neighbour(row, float(similarities[row])) for row in self.ranked(similarities, top)]

    def votes(self, sequence: str) -> Floats:
        """Compute the votes of the nearest proteins for a sequence: (V,) float32 in [0, 1], see `vote`."""
        return self.vote(self.similarities(sequence))

    def vote(self, similarities: Floats) -> Floats:
        """Compute the votes of the nearest proteins.

        Parameters
        ----------
        similarities
            (N,) from `similarities`.

        Returns
        -------
        Floats
            (V,) in [0, 1]: the similarity-weighted share of the top `VOTERS` that have each class, then the
            similarity of the nearest that has each class, then the similarity of the nearest.
        """
        rows = self.ranked(similarities, VOTERS)
        near = similarities[rows][:, None]
        known = self.labels[rows] != _UNKNOWN_LABEL
        has = np.where(known, self.labels[rows] / 100, 0)
        share = (near * has).sum(0) / np.maximum(1e-9, (near * known).sum(0))
        nearest = (near * has).max(0, initial=0)
        return np.concatenate([share, nearest, near.max(0, initial=0)]).astype(np.float32)

    def shared_residues(self, sequence: str, accession: str) -> Mask:
        """Find the residues of a sequence that lie in k-mers of a protein of the index.

        Parameters
        ----------
        sequence
            The query, L residues.
        accession
            A protein of the index, such as that of a `Neighbour`.

        Returns
        -------
        Mask
            (L,) whether the residue lies in a spaced k-mer that the protein has, too.

        Raises
        ------
        KeyError
            If the index has no such protein.
        """
        rows = np.flatnonzero(self.accessions == accession)
        if not len(rows):
            raise KeyError(accession)
        row = int(rows[0])
        start = int(self.lengths[:row].sum()) + row
        theirs, their_known = _spaced_kmers(self.residues[start : start + int(self.lengths[row])])
        ours, known = _spaced_kmers(residue_codes(sequence).astype(np.uint8))
        hits = np.flatnonzero(known & np.isin(ours, theirs[their_known]))
        shared = np.zeros(len(sequence), np.bool_)
        shared[(hits[:, None] + np.arange(_SPAN)).ravel()] = True
        return shared

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        has = (self.labels[row] >= 50) & (self.labels[row] != _UNKNOWN_LABEL)
        names = tuple(slug for slug, yes in zip(self.slugs, has, strict=True) if yes)
        return Neighbour(str(self.accessions[row]), names, similarity)


def _idf(counts: NDArray[np.integer], proteins: int) -> Doubles:
    return np.log1p(proteins / counts)


def _check_unpacked_size(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_EXPANSION * len(data) + _MAX_BYTES_OF_ZEROS:
        raise ValueError(f"it unpacks to {size:,} bytes")


_SLUGS = "slugs"
_HASHES = "sha256.json"
# What the arrays depend on, besides the index itself.
_CACHE_KEY = sha256(repr((FORMAT, GROUPS_13, SEED)).encode()).hexdigest()[:8]


def cached_index(fingerprint: str, read: Callable[[], bytes]) -> NeighbourIndex:
    """Open an index from the cache, or read it and cache it.

    Parameters
    ----------
    fingerprint
        sha256 of the serialized index.
    read
        Returns the serialized index; called if the cache does not have it.

    Returns
    -------
    NeighbourIndex
        The index, memory-mapped from the cache if possible.

    Raises
    ------
    BundleError
        If the serialized index is not valid.
    """
    folder = cache_root() / "neighbours" / f"{fingerprint[:32]}-{_CACHE_KEY}"
    if (cached := _open_cached(folder)) is not None:
        return cached
    index = NeighbourIndex.from_bytes(read())
    # Replaces a damaged one.
    cache_files(folder, lambda temporary: _write_arrays(index, temporary))
    # The memory-mapped one is shared between processes, and smaller.
    return _open_cached(folder) or index


def _write_arrays(index: NeighbourIndex, folder: Path) -> None:
    for field in fields(index):
        value = getattr(index, field.name)
        np.save(folder / f"{field.name}.npy", np.array(value, np.str_) if field.name == _SLUGS else value)
    (folder / _HASHES).write_text(json.dumps(hash_files(sorted(folder.glob("*.npy")))), encoding="utf-8")


def _open_cached(folder: Path) -> NeighbourIndex | None:
    """Memory-map the arrays of a folder; None if one is missing, damaged or of another user."""
    arrays: dict[str, Any] = {}
    try:
        if not belongs_to_user(folder):
            return None
        files = [folder / f"{field.name}.npy" for field in fields(NeighbourIndex)]
        if json.loads((folder / _HASHES).read_bytes()) != hash_files(files):
            return None
        for field in fields(NeighbourIndex):
            mapped = np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            # A plain array over the same memory, because np.memmap is slower.
            arrays[field.name] = mapped.view(np.ndarray)
    except (OSError, ValueError, EOFError):
        return None
    return NeighbourIndex(**{**arrays, _SLUGS: tuple(arrays[_SLUGS].tolist())})
