"""``deepgps data fetch``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.cli.console import ProgressBar
    from deepgps.datasets.fetch.download import Client
    from deepgps.datasets.fetch.folder import FetchSummary

MAX_WAITS = 5


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """Where to write, and how to connect to the servers.

    Parameters
    ----------
    out
        Folder to write to; created if missing.
    connections
        Largest number of requests at a time.
    retries
        Retries of a failed request, each after a longer wait.
    """

    out: Path
    connections: Annotated[int, Parameter(validator=Number(gte=1, lte=16))] = 4
    retries: Annotated[int, Parameter(validator=Number(gte=0))] = 5

    def client(self, progress: "ProgressBar") -> "Client":
        """Make a client that reports its waits."""
        from deepgps.datasets.fetch.download import Client

        def on_wait(message: str) -> None:
            progress.print_some(message, MAX_WAITS)

        return Client(connections=self.connections, retries=self.retries, on_wait=on_wait)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProteinSelection:
    """Which proteins of a source to fetch.

    Parameters
    ----------
    proteins
        Only the proteins in this file: Ensembl gene ids, gene symbols or, for OpenCell, UniProt accessions,
        one per line or in a column of a table.
    limit
        Only this many proteins, in the order of the source.
    """

    proteins: Path | None = None
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None

    def ids(self) -> list[str] | None:
        """Read the ids of the proteins; None for all."""
        from deepgps.datasets.fetch.folder import read_ids

        return None if self.proteins is None else read_ids(self.proteins)


def fetch_opencell_command(
    *,
    fetching: Fetching,
    selection: ProteinSelection = ProteinSelection(),
    bucket: Annotated[
        str, Parameter(env_var="DEEPGPS_OPENCELL_BUCKET")
    ] = "https://czb-opencell.s3.us-west-2.amazonaws.com",
    portal: Annotated[
        str, Parameter(env_var="DEEPGPS_OPENCELL_PORTAL")
    ] = "https://opencell.czbiohub.org/data/datasets",
) -> int:
    """Fetch OpenCell's tables and images.

    Parameters
    ----------
    bucket
        Base address of the images.
    portal
        Base address of the tables.
    """
    from deepgps.datasets.fetch.opencell import fetch_opencell

    bucket, portal, ids = base_url(bucket), base_url(portal), selection.ids()
    with _progress() as progress:
        fetched = fetch_opencell(
            fetching.out,
            fetching.client(progress),
            progress,
            bucket=bucket,
            portal=portal,
            ids=ids,
            limit=selection.limit,
        )
    return _report(fetched, fetching.out, ("fields.csv", "annotations.csv", "library.csv"))


def fetch_hpa_command(
    *,
    fetching: Fetching,
    selection: ProteinSelection = ProteinSelection(),
    cell_line: str = "U-2 OS",
    class_set: str | None = None,
    image_table: Path | None = None,
    site: Annotated[str, Parameter(env_var="DEEPGPS_HPA_URL")] = "https://www.proteinatlas.org",
    images: Annotated[str, Parameter(env_var="DEEPGPS_HPA_IMAGES_URL")] = "https://images.proteinatlas.org",
) -> int:
    """Fetch the Human Protein Atlas's table, XMLs and the images of one cell line.

    Parameters
    ----------
    cell_line
        Whose images, in any spelling.
    class_set
        Only proteins with a class of this class set, such as ``single-2``, as the paper: a sixth of all.
    image_table
        Table of images (``Image``, ``Label``, ``Cellline``), such as Kaggle's ``kaggle_2021.tsv``, to take
        the images from instead of the XMLs.
    site
        Base address of the table and the XMLs; ``https://v23.proteinatlas.org`` is version 23.
    images
        Base address of the images.
    """
    from deepgps.datasets.fetch.hpa import fetch_hpa

    site, images, ids = base_url(site), base_url(images), selection.ids()
    with _progress() as progress:
        fetched = fetch_hpa(
            fetching.out,
            fetching.client(progress),
            progress,
            site=site,
            images=images,
            cell_line=cell_line,
            ids=ids,
            limit=selection.limit,
            class_set_name=class_set,
            image_table=image_table,
        )
    return _report(fetched, fetching.out, ("fields.csv", "subcellular_location.tsv", "xml"))


def fetch_structures_command(
    *accessions: str,
    fetching: Fetching,
    format: Literal["pdb", "cif"] = "pdb",
    site: Annotated[str, Parameter(env_var="DEEPGPS_ALPHAFOLD_URL")] = "https://alphafold.ebi.ac.uk",
) -> int:
    """Fetch predicted structures from AlphaFold DB.

    Parameters
    ----------
    accessions
        UniProt accessions, and files of them: one per line, or in a column of a table.
    format
        PDB or mmCIF.
    site
        Base address.
    """
    from deepgps.datasets.fetch.proteins import fetch_structures

    site, ids = base_url(site), _accessions(accessions)
    with _progress() as progress:
        client = fetching.client(progress)
        fetched = fetch_structures(fetching.out, client, progress, ids, site=site, format=format)
    return _report(fetched, fetching.out, ("structures.csv",))


def fetch_sequences_command(
    *accessions: str,
    fetching: Fetching,
    site: Annotated[str, Parameter(env_var="DEEPGPS_UNIPROT_URL")] = "https://rest.uniprot.org",
) -> int:
    """Fetch sequences from UniProt.

    Parameters
    ----------
    accessions
        UniProt accessions, and files of them: one per line, or in a column of a table.
    site
        Base address.
    """
    from deepgps.datasets.fetch.proteins import fetch_sequences

    site, ids = base_url(site), _accessions(accessions)
    with _progress() as progress:
        fetched = fetch_sequences(fetching.out, fetching.client(progress), progress, ids, site=site)
    return _report(fetched, fetching.out, ("sequences.fasta",))


def fetch_human_command(
    *,
    site: Annotated[str, Parameter(env_var="DEEPGPS_UNIPROT_URL")] = "https://rest.uniprot.org",
    merged: Annotated[str | None, Parameter(env_var="DEEPGPS_UNIPROT_MERGED_URL")] = None,
) -> int:
    """Fetch UniProt's reviewed human proteome into the cache, so that every human name resolves offline.

    Parameters
    ----------
    site
        Base address.
    merged
        Address of the list of merged accessions; UniProt's own by default.
    """
    from deepgps.cli.console import ProgressBar
    from deepgps.proteins.human import MERGED, fetch_human

    with ProgressBar("human proteome", unit="parts") as progress:
        progress.resumable = True

        def on_part(done: int, total: int) -> None:
            progress.set_total(total)
            progress.update(done)

        summary = fetch_human(base_url=base_url(site), merged_url=merged or MERGED, on_part=on_part)
    print(
        f"{summary.proteins:,} human proteins, {summary.isoforms:,} isoforms, "
        f"{summary.merged:,} merged accessions"
    )
    print(summary.path)
    if not summary.merged:
        _print_error("UniProt's list of merged accessions could not be fetched; they are looked up online.")
    return 0


def _progress() -> "ProgressBar":
    from deepgps.cli.console import ProgressBar

    progress = ProgressBar("tables", megabytes=True)
    progress.resumable = True
    return progress


def base_url(url: str) -> str:
    """Check a base address, and remove the slash at its end."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"'{url}' is not a web address; it must begin with https:// or http://.")
    return url.rstrip("/")


def _accessions(names: Sequence[str]) -> list[str]:
    from deepgps.datasets.fetch.folder import ACCESSION, read_ids

    if not names:
        raise InputError("Nothing to fetch; give UniProt accessions, or a file with one per line.")
    return [
        name
        for each in names
        for name in (read_ids(Path(each), ACCESSION) if Path(each).is_file() else [each])
    ]


def _report(fetched: "FetchSummary", out: Path, names: Sequence[str]) -> int:
    """Print what was fetched; return 1 if a retry may fetch more, 3 if an id is unknown, else 0."""
    from deepgps.cli.console import exit_code

    fields = f", {fetched.fields:,} fields" if fetched.fields else ""
    print(
        f"{fetched.proteins:,} proteins{fields}: {fetched.new:,} files fetched "
        f"({fetched.bytes / 1e6:.1f} MB), {fetched.existing:,} already there, "
        f"{len(fetched.problems):,} problems"
    )
    for name in (*names, *(["problems.csv"] if fetched.problems else [])):
        print(f"{out / name}{'/' if (out / name).is_dir() else ''}")
    if fetched.failed:
        _print_error(f"{fetched.failed:,} files could not be fetched; the same command tries them again.")
        return 1
    if fetched.unknown:
        _print_error(f"Unknown in the source: {_shorten(fetched.unknown)}.")
        return exit_code(fetched.proteins, len(fetched.unknown))
    return 0


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more


def _print_error(text: str) -> None:
    import sys

    print(f"deepgps: {text}", file=sys.stderr)
