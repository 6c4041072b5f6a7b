"""Structures from AlphaFold DB and sequences from UniProt, by accession, into a folder of raw files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from deepgps.datasets.fetch.download import Client
from deepgps.datasets.fetch.folder import (
    DownloadFolder,
    Fetcher,
    FetchSummary,
    Progress,
    RemoteFile,
    write_rows,
)
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from deepgps.proteins.uniprot import UNIPROT, is_accession

SITE = "https://ebi.ac.uk"
COLUMNS = ("accession", "entry", "version", "path")
Format = Literal["pdb", "cif"]


@dataclass(frozen=True, slots=True)
class Model:
    """A predicted structure; a long protein has several, fragment by fragment.

    Attributes
    ----------
    accession, entry, version
        As AlphaFold DB names it.
    url
        Where it lies.
    """

    accession: str
    entry: str
    version: str
    url: str

    @property
    def path(self) -> str:
        """Where it goes in a folder, under its own name."""
        return f"structures/{urlsplit(self.url).path.rpartition('/')[2]}"


def prediction_url(site: str, accession: str) -> str:
    """Address that says where an accession's models lie; their names change with every version."""
    return f"{site}/api/prediction/{accession}"


def read_models(content: bytes, accession: str, format: Format) -> list[Model]:
    """Read what the address above answers: the models of the accession itself, not of its other isoforms.

    Raises
    ------
    DeepGPSError
        If it is no such answer.
    """
    try:
        return [
            Model(accession, each["entryId"], str(each["latestVersion"]), each[f"{format}Url"])
            for each in json.loads(content)
            if each["uniprotAccession"] == accession and each.get(f"{format}Url")
        ]
    except (ValueError, KeyError, TypeError):
        raise DeepGPSError(
            f"AlphaFold DB's answer for '{accession}' cannot be read; its format may have changed."
        ) from None


STRUCTURES, SEQUENCES = "structures.csv", "sequences.fasta"


def fetch_structures(
    folder: Path,
    client: Client,
    progress: Progress,
    accessions: Sequence[str],
    *,
    site: str = SITE,
    format: Format = "pdb",
) -> FetchSummary:
    """Fetch the newest predicted structures of proteins.

    Parameters
    ----------
    folder
        Where to; ``structures/``, ``predictions/`` (what AlphaFold DB says of each) and ``structures.csv``.
    client, progress
        What fetches, and what tells of it.
    accessions
        UniProt accessions.
    site
        Base address.
    format
        PDB or mmCIF; the largest models are there as mmCIF only.

    Raises
    ------
    InputError
        If an id is no accession, or the folder cannot be used.
    """
    wanted = _accessions(accessions)
    with DownloadFolder(folder, "structures", {"site": site, "proteins": wanted, "format": format}) as raw:
        fetch = Fetcher(raw, client, progress)
        asked = [RemoteFile(f"predictions/{each}.json", prediction_url(site, each), each) for each in wanted]
        models = {
            RemoteFile(model.path, model.url, model.accession): model
            for file in fetch.all("predictions", asked)
            for model in _models(raw, file, format)
        }
        there = sorted(fetch.all("structures", list(models)), key=lambda file: file.name)
        rows = [
            {"accession": model.accession, "entry": model.entry, "version": model.version, "path": model.path}
            for model in (models[file] for file in there)
        ]
        write_rows(folder / STRUCTURES, COLUMNS, rows)
        return fetch.finish(None, (file.protein for file in there))


def _models(raw: DownloadFolder, file: RemoteFile, format: Format) -> list[Model]:
    try:
        models = read_models((raw.path / file.name).read_bytes(), file.protein, format)
    except DeepGPSError as error:
        raw.problem(file.protein, file.name, file.url, str(error))
        return []
    if not models:
        raw.problem(file.protein, file.name, file.url, f"AlphaFold DB has no {format} of it")
    return models


def fetch_sequences(
    folder: Path,
    client: Client,
    progress: Progress,
    accessions: Sequence[str],
    *,
    site: str = UNIPROT,
) -> FetchSummary:
    """Fetch the sequences of proteins.

    Parameters
    ----------
    folder
        Where to; ``sequences/``, and all of them in ``sequences.fasta``.
    client, progress
        What fetches, and what tells of it.
    accessions
        UniProt accessions.
    site
        Base address.

    Raises
    ------
    InputError
        If an id is no accession, or the folder cannot be used.
    """
    wanted = _accessions(accessions)
    with DownloadFolder(folder, "sequences", {"site": site, "proteins": wanted}) as raw:
        fetch = Fetcher(raw, client, progress)
        asked = [
            RemoteFile(f"sequences/{each}.fasta", f"{site}/uniprotkb/{each}.fasta", each) for each in wanted
        ]
        there = sorted(fetch.all("sequences", asked), key=lambda file: wanted.index(file.protein))
        entries = {
            file.protein: _named(file.protein, (folder / file.name).read_text(encoding="utf-8"))
            for file in there
        }
        for accession in (each for each, text in entries.items() if not text.startswith(">")):
            raw.problem(
                accession, f"sequences/{accession}.fasta", "", "UniProt has no sequence of it any more"
            )
        with atomic_path(folder / SEQUENCES) as draft:
            draft.write_text("".join(entries.values()), encoding="utf-8")
        return fetch.finish(None, (name for name, text in entries.items() if text.startswith(">")))


def _named(accession: str, entry: str) -> str:
    """Put an entry that UniProt has merged into another under the accession that was asked for."""
    if not entry.startswith(">") or f"|{accession}|" in entry.partition("\n")[0]:
        return entry
    return f">{accession} {entry[1:]}"


def _accessions(names: Sequence[str]) -> list[str]:
    for name in names:
        if not is_accession(name):
            raise InputError(f"'{name}' is no UniProt accession; give accessions, or a file with one a line.")
    return list(dict.fromkeys(name.upper() for name in names))
