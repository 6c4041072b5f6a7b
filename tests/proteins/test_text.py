import gzip
import io
import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepgps.errors import InputError
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import read_protein_file

SEQUENCE = "MEEPQSDPSVEPPLSQETFSDLWKLL"
OTHER = "MSKGEELFTGVVPILVELDGDVNGHK"
FASTA = f">P1 first\n{SEQUENCE}\n>P2\n{OTHER}\n"
BOTH = [Protein("P1", SEQUENCE), Protein("P2", OTHER)]


def test_a_cut_gzip_gives_no_half_record(tmp_path: Path) -> None:
    whole = "".join(f">P{i}\n{''.join(random.Random(i).choices(SEQUENCE, k=300))}\n" for i in range(2000))
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(whole.encode())[:-40_000])
    items = []
    with pytest.raises(InputError, match="damaged or incomplete gzip"):
        for item in read_protein_file(path):
            items.append(item)
    assert 100 < len(items) < 2000
    assert all(isinstance(item, Protein) and len(item.sequence) == 300 for item in items)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(FASTA.encode()),))
    writer.start()
    assert list(read_protein_file(pipe)) == BOTH
    writer.join()


class Dripping(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        chunk = self.content.read(1)
        buffer[: len(chunk)] = chunk
        return len(chunk)


@pytest.mark.parametrize("content", [FASTA.encode(), gzip.compress(FASTA.encode(), mtime=0)])
def test_stdin_may_come_in_drips_and_stays_open(content: bytes) -> None:
    stream = Dripping(content)
    assert list(read_protein_file("-", stdin=stream)) == BOTH
    assert not stream.closed


class Endless(io.RawIOBase):
    """FASTA of ``count`` records, made as it is read, 100 at a time."""

    def __init__(self, count: int) -> None:
        self.records: Iterator[bytes] = (
            "".join(f">p{i}\n{SEQUENCE}\n" for i in range(start, start + 100)).encode()
            for start in range(0, count, 100)
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        chunk = next(self.records, b"")
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _peak_per_record(count: int) -> float:
    tracemalloc.start()
    assert sum(isinstance(item, Protein) for item in read_protein_file("-", stdin=Endless(count))) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / count


@pytest.mark.slow
def test_100_000_short_records_cost_no_more_than_their_ids() -> None:
    # About 210 bytes for an id and its place; a kept Protein would be some 300 more.
    assert _peak_per_record(100_000) < 300


def test_a_genome_costs_no_memory() -> None:
    chromosome = io.BytesIO(b">chr1\n" + (b"ACGT" * 200 + b"\n") * 12_500)
    tracemalloc.start()
    (rejection,) = read_protein_file("-", stdin=chromosome)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(rejection, Rejection)
    assert peak < 2_000_000
