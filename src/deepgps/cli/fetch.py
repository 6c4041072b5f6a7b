"""``deepgps data fetch``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.datasets.fetch.download import Client
    from deepgps.datasets.fetch.folder import FetchSummary

SHOWN_WAITS = 5
_Count = Annotated[int | None, Parameter(validator=Number(gte=1))]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How to ask.

    Parameters
    ----------
    connections
        Most requests at a time.
    retries
        Further tries for what failed, each after a longer wait.
    """

    connections: Annotated[int, Parameter(validator=Number(gte=1, lte=16))] = 4
    retries: Annotated[int, Parameter(validator=Number(gte=0))] = 5


def fetch_opencell(
    *,
    out: Path,
    proteins: Path | None = None,
    limit: _Count = None,
    bucket: Annotated[
        str, Parameter(env_var="DEEPGPS_OPENCELL_BUCKET")
    ] = "https://czb-opencell.s3.us-west-2.amazonaws.com",
    portal: Annotated[
        str, Parameter(env_var="DEEPGPS_OPENCELL_PORTAL")
    ] = "https://opencell.czbiohub.org/data/datasets",
    manners: Manners = Manners(),
) -> int:
    """Fetch OpenCell's tables and images.

    Parameters
    ----------
    out
        Folder to fetch into; made if missing.
    proteins
        Only the proteins in this file: Ensembl gene ids, gene symbols or UniProt accessions, one a line or in
        a column of a table.
    limit
        Only the first so many proteins.
    bucket
        Base address of the images.
    portal
        Base address of the tables.
    """
    from deepgps.datasets.fetch.opencell import fetch_opencell as fetch

    bucket, portal, ids = _base(bucket), _base(portal), _ids(proteins)
    with Console() as console:
        client = console.client(manners)
        fetched = fetch(out, client, console, bucket=bucket, portal=portal, ids=ids, limit=limit)
    return _report(fetched, out, ("fields.csv", "annotations.csv", "library.csv"))


def fetch_hpa(
    *,
    out: Path,
    cell_line: str = "U-2 OS",
    proteins: Path | None = None,
    limit: _Count = None,
    site: Annotated[str, Parameter(env_var="DEEPGPS_HPA_URL")] = "https://www.proteinatlas.org",
    images: Annotated[str, Parameter(env_var="DEEPGPS_HPA_IMAGES_URL")] = "https://images.proteinatlas.org",
    manners: Manners = Manners(),
) -> int:
    """Fetch the Human Protein Atlas's table, XMLs and the images of one cell line.

    Parameters
    ----------
    out
        Folder to fetch into; made if missing.
    cell_line
        Whose images, in any spelling.
    proteins
        Only the proteins in this file: Ensembl gene ids or gene symbols, one a line or in a column of a
        table.
    limit
        Only the first so many genes of the table.
    site
        Base address of the table and the XMLs; ``https://v23.proteinatlas.org`` is version 23.
    images
        Base address of the images.
    """
    from deepgps.datasets.fetch.hpa import fetch_hpa as fetch

    site, images, ids = _base(site), _base(images), _ids(proteins)
    with Console() as console:
        client = console.client(manners)
        fetched = fetch(
            out, client, console, site=site, images=images, cell_line=cell_line, ids=ids, limit=limit
        )
    return _report(fetched, out, ("fields.csv", "subcellular_location.tsv", "xml"))


def fetch_structures(
    *accessions: str,
    out: Path,
    format: Literal["pdb", "cif"] = "pdb",
    site: Annotated[str, Parameter(env_var="DEEPGPS_ALPHAFOLD_URL")] = "https://alphafold.ebi.ac.uk",
    manners: Manners = Manners(),
) -> int:
    """Fetch predicted structures from AlphaFold DB.

    Parameters
    ----------
    accessions
        UniProt accessions, and files of them: one a line, or in a column of a table.
    out
        Folder to fetch into; made if missing.
    format
        PDB or mmCIF.
    site
        Base address.
    """
    from deepgps.datasets.fetch.proteins import fetch_structures as fetch

    site, wanted = _base(site), _accessions(accessions)
    with Console() as console:
        fetched = fetch(out, console.client(manners), console, wanted, site=site, format=format)
    return _report(fetched, out, ("structures.csv",))


def fetch_sequences(
    *accessions: str,
    out: Path,
    site: Annotated[str, Parameter(env_var="DEEPGPS_UNIPROT_URL")] = "https://rest.uniprot.org",
    manners: Manners = Manners(),
) -> int:
    """Fetch sequences from UniProt.

    Parameters
    ----------
    accessions
        UniProt accessions, and files of them: one a line, or in a column of a table.
    out
        Folder to fetch into; made if missing.
    site
        Base address.
    """
    from deepgps.datasets.fetch.proteins import fetch_sequences as fetch

    site, wanted = _base(site), _accessions(accessions)
    with Console() as console:
        fetched = fetch(out, console.client(manners), console, wanted, site=site)
    return _report(fetched, out, ("sequences.fasta",))


def _base(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InputError(f"'{url}' is no address to fetch from; it must begin with https:// or http://.")
    return url.rstrip("/")


def _ids(path: Path | None) -> list[str] | None:
    from deepgps.datasets.fetch.folder import read_ids

    return None if path is None else read_ids(path)


def _accessions(given: Sequence[str]) -> list[str]:
    from deepgps.datasets.fetch.folder import ACCESSION, read_ids

    if not given:
        raise InputError("Nothing to fetch; give UniProt accessions, or a file with one a line.")
    return [
        name
        for each in given
        for name in (read_ids(Path(each), ACCESSION) if Path(each).is_file() else [each])
    ]


def _report(fetched: "FetchSummary", out: Path, names: Sequence[str]) -> int:
    """Say what there is now; exit code 1 if a further try may get more, 2 if an id stands for nothing."""
    fields = f", {fetched.fields:,} fields" if fetched.fields else ""
    print(
        f"{fetched.proteins:,} proteins{fields}: {fetched.new:,} files fetched "
        f"({fetched.bytes / 1e6:.1f} MB), {fetched.kept:,} there already, {len(fetched.problems):,} problems"
    )
    for name in (*names, *(["problems.csv"] if fetched.problems else [])):
        print(f"{out / name}{'/' if (out / name).is_dir() else ''}")
    if fetched.failed:
        _say(f"{fetched.failed:,} files could not be had now; the same command tries them again.")
        return 1
    if fetched.unknown:
        _say(f"Unknown in the source: {_some(fetched.unknown)}.")
        return 2
    return 0


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more


def _say(text: str) -> None:
    import sys

    print(f"deepgps: {text}", file=sys.stderr)


class Console:
    """Progress bars where stderr is a terminal: one a stage, with what has come in."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._terminal = Terminal(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[megabytes]:.1f} MB"),
            TimeRemainingColumn(),
            console=self._terminal,
            disable=not self._terminal.is_terminal,
        )
        self._bytes = self._waits = 0
        self._task = self._progress.add_task("tables", total=None, megabytes=0.0)

    def client(self, manners: Manners) -> "Client":
        """Make a client that tells here when it waits."""
        from deepgps.datasets.fetch.download import Client

        return Client(connections=manners.connections, retries=manners.retries, on_wait=self.wait)

    def begin(self, what: str, total: int | None) -> None:
        """Begin a stage."""
        self._bytes = 0
        self._task = self._progress.add_task(what, total=total, megabytes=0.0)

    def advance(self) -> None:
        """Count one as done."""
        self._progress.advance(self._task)

    def add_bytes(self, count: int) -> None:
        """Count bytes as they arrive."""
        self._bytes += count
        self._progress.update(self._task, megabytes=self._bytes / 1e6)

    def wait(self, sentence: str) -> None:
        """Say why there is a wait; after a few, no more."""
        self._waits += 1
        if self._waits <= SHOWN_WAITS:
            self._terminal.print(f"deepgps: {sentence}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is not None and not issubclass(kind, InputError):
            self._terminal.print("What is there is kept: the same command continues.")
