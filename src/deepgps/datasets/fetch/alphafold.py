"""AlphaFold DB's answers: where the newest model of a protein lies. No network here."""

import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from deepgps.errors import DeepGPSError

SITE = "https://alphafold.ebi.ac.uk"
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
