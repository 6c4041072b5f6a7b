"""The nearest annotated proteins: an index of k-mers that votes on a localization and serves as evidence.

A protein is the set of its spaced k-mers (`deepgps.proteins.kmers`). Two proteins are as similar as the
cosine of those sets, each k-mer weighted by its inverse document frequency: 1 for the same protein, 0 for none in
common. It is a sketch of homology, not an alignment. At rest the index holds the residues; which protein has
which word is found as it loads.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Doubles, Floats, Indices, Mask, Strings
from deepgps.errors import BundleError
from deepgps.proteins.features import UNKNOWN, residue_codes
from deepgps.proteins.kmers import inverted, spaced_kmers

TOP = 6
"""How many neighbours are shown."""
VOTERS = 20
"""How many neighbours vote."""
FORMAT = 2
_UNSEEN = 255  # a label nobody knows, among labels stored as percent


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An annotated protein that resembles the query.

    Attributes
    ----------
    accession
        Its accession, or its id in the table it came from.
    localizations
        The class slugs it is annotated with.
    similarity
        Weighted cosine in (0, 1]; 1 is the same set of k-mers.
    """

    accession: str
    localizations: tuple[str, ...]
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourIndex:
    """Annotated proteins, found by the k-mers they share with a query.

    Attributes
    ----------
    accessions
        (N,) names of the proteins.
    slugs
        The K classes, in the order of `labels`.
    labels
        (N, K) uint8: percent of the annotation that says yes; 255 where nobody knows.
    residues, lengths
        Residue codes of all proteins, an unknown one behind each, and how many each protein has (N,).
    starts, postings
        Where the proteins of each k-mer begin in `postings` (k-mers + 1,), and those rows.
    norms
        (N,) length of each protein's weighted word vector.
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
            (N, K) annotation in [0, 1], and where it is known.
        slugs
            The K classes.
        """
        parts = [np.append(residue_codes(sequence), UNKNOWN).astype(np.uint8) for sequence in sequences]
        residues = np.concatenate([*parts, np.zeros(0, np.uint8)])
        lengths = np.array([len(part) - 1 for part in parts], np.uint32)
        starts, postings = inverted(residues, lengths)
        counts = np.diff(starts)
        counts = counts[counts > 0]
        weights = np.repeat(_idf(counts, len(parts)), counts)
        norms = np.sqrt(np.bincount(postings, weights**2, minlength=len(parts))).astype(np.float32)
        percent = np.where(mask, np.rint(np.asarray(labels) * 100), _UNSEEN).astype(np.uint8)
        names = np.array(accessions, np.str_)
        return cls(names, tuple(slugs), percent, residues, lengths, starts, postings, norms)

    def to_bytes(self) -> bytes:
        """Write the index as a compressed NPZ without pickles; smallest where homologs lie side by side."""
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
        """Read what `to_bytes` wrote.

        Raises
        ------
        BundleError
            If it is not an index, or one of an unknown format.
        """
        try:
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
            *inverted(residues, lengths),
            arrays["norms"].astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> "NeighbourIndex":
        """Read an index from a file.

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
        """Compare a sequence with every protein of the index: (N,) float32 in [0, 1]."""
        wanted = spaced_kmers(sequence)
        counts = self.starts[wanted + 1] - self.starts[wanted]
        places, counts = self.starts[wanted[counts > 0]], counts[counts > 0]
        weights = _idf(counts, len(self.accessions))
        unseen = (len(wanted) - len(places)) * np.log1p(len(self.accessions)) ** 2
        norm = np.sqrt(float((weights**2).sum()) + unseen)
        offsets = np.repeat(places - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        dots = np.bincount(
            self.postings[offsets], np.repeat(weights**2, counts), minlength=len(self.accessions)
        )
        similar: Floats = (dots / np.maximum(1e-9, norm * self.norms)).astype(np.float32)
        return np.minimum(similar, np.float32(1))

    def ranked(self, similarities: Floats, top: int = TOP) -> Indices:
        """Rows of the ``top`` most similar proteins, best first; ties in table order, none at 0."""
        top = min(top, len(similarities))
        if not top:
            return np.zeros(0, np.intp)
        edge = np.partition(similarities, -top)[-top]
        rows = np.flatnonzero((similarities >= edge) & (similarities > 0))
        return rows[np.argsort(-similarities[rows], kind="stable")][:top]

    def query(self, sequence: str, top: int = TOP) -> list[Neighbour]:
        """Find the annotated proteins most like a sequence.

        Parameters
        ----------
        sequence
            The query.
        top
            How many to return at most.

        Returns
        -------
        list[Neighbour]
            The best first; fewer than ``top``, or none, where nothing shares a word.
        """
        return self.nearest(self.similarities(sequence), top)

    def nearest(self, similarities: Floats, top: int = TOP) -> list[Neighbour]:
        """Name the annotated proteins of the highest similarities (N,), the best first."""
        return [self._neighbour(row, float(similarities[row])) for row in self.ranked(similarities, top)]

    def votes(self, sequence: str) -> Floats:
        """Let the nearest proteins vote: (V,) float32 in [0, 1], see `vote`."""
        return self.vote(self.similarities(sequence))

    def vote(self, similarities: Floats) -> Floats:
        """Turn similarities into votes.

        Returns
        -------
        Floats
            (V,) in [0, 1]: per class the similarity-weighted share of the top `VOTERS` that have it, then per
            class the similarity of the nearest that has it, and last the similarity of the nearest of all.
        """
        rows = self.ranked(similarities, VOTERS)
        near = similarities[rows][:, None]
        known = self.labels[rows] != _UNSEEN
        has = np.where(known, self.labels[rows] / 100, 0)
        share = (near * has).sum(0) / np.maximum(1e-9, (near * known).sum(0))
        nearest = (near * has).max(0, initial=0)
        return np.concatenate([share, nearest, near.max(0, initial=0)]).astype(np.float32)

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        has = (self.labels[row] >= 50) & (self.labels[row] != _UNSEEN)
        names = tuple(slug for slug, yes in zip(self.slugs, has, strict=True) if yes)
        return Neighbour(str(self.accessions[row]), names, similarity)


def unlike_warnings(evidence: Sequence[Neighbour], bound: float) -> tuple[str, ...]:
    """Note that no annotated protein is as similar as ``bound``; 0 where that is never noted."""
    nearest = max((each.similarity for each in evidence), default=0)
    if nearest >= bound:
        return ()
    return (f"is unlike every annotated protein (similarity {nearest:.3f}): judged by its composition alone",)


def _idf(counts: NDArray[np.integer], proteins: int) -> Doubles:
    return np.log1p(proteins / counts)
