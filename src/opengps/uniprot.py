"""Names that visitors send, looked up in UniProt."""

from deepgps.errors import InputError
from deepgps.proteins.check import check_sequence
from deepgps.proteins.known import KnownProteins
from deepgps.proteins.protein import Protein
from deepgps.proteins.uniprot import fetch_protein
from opengps.settings import Settings


def look_up(settings: Settings, name: str, known: KnownProteins | None = None) -> Protein:
    """Look up a protein by its accession or gene symbol.

    Parameters
    ----------
    settings
        The settings of the site.
    name
        The name.
    known
        The known proteins of a model, which answer if UniProt does not.

    Raises
    ------
    InputError
        If it is not found, or its sequence cannot be used here.
    """
    found = fetch_protein(
        name,
        cache_dir=settings.data / "cache",
        offline=not settings.lookups,
        base_url=settings.uniprot_url,
        known=known,
    )
    if len(found.sequence) > settings.max_residues:
        limit = settings.max_residues
        raise InputError(f"Protein '{name}' has more than {limit:,} residues, the limit of this site.")
    if reason := check_sequence(name, found.sequence):
        raise InputError(reason)
    return found
