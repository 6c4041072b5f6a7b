"""Download structures from AlphaFold DB and sequences from UniProt, by accession."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from deepgps.datasets.fetch.download import Client
from deepgps.datasets.fetch.folder import (
    DownloadFolder,
    DownloadProgress,
    Fetcher,
    FetchSummary,
    RemoteFile,
    write_rows,
)
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from deepgps.proteins.human import UNIPROT
from deepgps.proteins.names import is_accession

ALPHAFOLD_URL = "https://ebi.ac.uk"
ALPHAFOLD_COLUMNS = ("accession", "entry", "version", "path")
Format = Literal["pdb", "cif"]


@dataclass(frozen=True, slots=True)
class AlphaFoldModel:
    """A predicted structure; a long protein may have several, one per fragment.

    Attributes
    ----------
    accession, entry, version
        As in AlphaFold DB.
    url
        Address of the file.
    """

    accession: str
    entry: str
    version: str
    url: str

    @property
    def path(self) -> str:
        """Path in the download folder."""
        return f"structures/{urlsplit(self.url).path.rpartition('/')[2]}"


def prediction_url(site: str, accession: str) -> str:
    """Return the API URL that lists the models of an accession; file names change with every version."""
    return f"{site}/api/prediction/{accession}"


def read_models(content: bytes, accession: str, format: Format) -> list[AlphaFoldModel]:
    """Read the response of `prediction_url`: the models of the accession itself, without other isoforms.

    Returns
    -------
    list of AlphaFoldModel
        One model, or one per fragment of a long protein.

    Raises
    ------
    DeepGPSError
        If the response has another format.
    """
    try:
        return [
            AlphaFoldModel(accession, each["entryId"], str(each["latestVersion"]), each[f"{format}Url"])
            for each in json.loads(content)
            if each["uniprotAccession"] == accession and each.get(f"{format}Url")
        ]
    except (ValueError, KeyError, TypeError):
        raise DeepGPSError(
            f"AlphaFold DB's response for '{accession}' cannot be read; its format may have changed."
        ) from None


STRUCTURES, SEQUENCES = "structures.csv", "sequences.fasta"


def fetch_structures(
    folder: Path,
    client: Client,
    progress: DownloadProgress,
    accessions: Sequence[str],
    *,
    site: str = ALPHAFOLD_URL,
    format: Format = "pdb",
) -> FetchSummary:
    """Download the latest predicted structures of proteins.

    Parameters
    ----------
    folder
        Receives ``structures/``, ``predictions/`` (responses of the API) and ``structures.csv``.
    client
        The HTTP client.
    progress
        Receives the progress.
    accessions
        UniProt accessions.
    site
        Base URL.
    format
        PDB or mmCIF; the largest models are available as mmCIF only.

    Returns
    -------
    FetchSummary
        What was downloaded, and what could not be.

    Raises
    ------
    InputError
        If an id is not an accession, or the folder cannot be used.
    """
    ids = _unique_accessions(accessions)
    with DownloadFolder(
        folder, "structures", {"site": site, "proteins": ids, "format": format}
    ) as download_folder:
        fetcher = Fetcher(download_folder, client, progress)
        predictions = [
            RemoteFile(f"predictions/{each}.json", prediction_url(site, each), each) for each in ids
        ]
        models = {
            RemoteFile(model.path, model.url, model.accession): model
            for file in fetcher.get_all("predictions", predictions)
            for model in _models(download_folder, file, format)
        }
        files = sorted(fetcher.get_all("structures", list(models)), key=lambda file: file.name)
        rows = [
            {"accession": model.accession, "entry": model.entry, "version": model.version, "path": model.path}
            for model in (models[file] for file in files)
        ]
        write_rows(folder / STRUCTURES, ALPHAFOLD_COLUMNS, rows)
        return fetcher.finish(None, (file.protein for file in files))


def _models(download_folder: DownloadFolder, file: RemoteFile, format: Format) -> list[AlphaFoldModel]:
    try:
        models = read_models((download_folder.path / file.name).read_bytes(), file.protein, format)
    except DeepGPSError as error:
        download_folder.add_problem(file.protein, file.name, file.url, str(error))
        return []
    if not models:
        download_folder.add_problem(file.protein, file.name, file.url, f"AlphaFold DB has no {format} of it")
    return models


def fetch_sequences(
    folder: Path,
    client: Client,
    progress: DownloadProgress,
    accessions: Sequence[str],
    *,
    site: str = UNIPROT,
) -> FetchSummary:
    """Download the sequences of proteins.

    Parameters
    ----------
    folder
        Receives ``sequences/``, one file per protein, and ``sequences.fasta`` with all of them.
    client
        The HTTP client.
    progress
        Receives the progress.
    accessions
        UniProt accessions.
    site
        Base URL.

    Returns
    -------
    FetchSummary
        What was downloaded, and what could not be.

    Raises
    ------
    InputError
        If an id is not an accession, or the folder cannot be used.
    """
    ids = _unique_accessions(accessions)
    with DownloadFolder(folder, "sequences", {"site": site, "proteins": ids}) as download_folder:
        fetcher = Fetcher(download_folder, client, progress)
        requested = [
            RemoteFile(f"sequences/{each}.fasta", f"{site}/uniprotkb/{each}.fasta", each) for each in ids
        ]
        files = sorted(fetcher.get_all("sequences", requested), key=lambda file: ids.index(file.protein))
        entries = {
            file.protein: _with_accession(file.protein, (folder / file.name).read_text(encoding="utf-8"))
            for file in files
        }
        for accession in (each for each, text in entries.items() if not text.startswith(">")):
            download_folder.add_problem(
                accession, f"sequences/{accession}.fasta", "", "UniProt no longer has a sequence of it"
            )
        with atomic_path(folder / SEQUENCES) as draft:
            draft.write_text("".join(entries.values()), encoding="utf-8")
        return fetcher.finish(None, (name for name, text in entries.items() if text.startswith(">")))


def _with_accession(accession: str, entry: str) -> str:
    """Add the requested accession to an entry that UniProt has merged into another."""
    if not entry.startswith(">") or f"|{accession}|" in entry.partition("\n")[0]:
        return entry
    return f">{accession} {entry[1:]}"


def _unique_accessions(names: Sequence[str]) -> list[str]:
    for name in names:
        if not is_accession(name):
            raise InputError(
                f"'{name}' is not a UniProt accession; give accessions, or a file with one per line."
            )
    return list(dict.fromkeys(name.upper() for name in names))
