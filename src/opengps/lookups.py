"""Names among a job's proteins, looked up in UniProt once: every turn sees the same."""

import time
from collections.abc import Callable

from sqlalchemy import select, update

from deepgps.errors import InputError
from deepgps.proteins.check import check_sequence
from deepgps.proteins.uniprot import fetch_protein
from opengps.database import Sessions
from opengps.settings import Settings
from opengps.tables import Entry, Job


def look_up(sessions: Sessions, settings: Settings, job_id: str, on_name: Callable[[], None]) -> None:
    """Look up a job's next names for a turn's time; at least one, and the rest in later turns.

    Parameters
    ----------
    sessions, settings
        Those of the site.
    job_id
        The job.
    on_name
        Called after each.
    """
    end = time.monotonic() + settings.turn_lookup_s
    unknown = select(Entry).filter_by(job_id=job_id, sequence=None, reason=None).order_by(Entry.number)
    with sessions() as session:
        entries = list(session.scalars(unknown))
    for entry in entries:
        _ask(settings, entry)
        with sessions.begin() as session:
            session.merge(entry)
            if entry.reason is not None:
                session.execute(update(Job).filter_by(id=job_id).values(rejected=Job.rejected + 1))
        on_name()
        if time.monotonic() >= end:
            break


def _ask(settings: Settings, entry: Entry) -> None:
    name, cache = entry.protein_id, settings.data / "cache"
    try:
        found = fetch_protein(
            name, cache_dir=cache, offline=not settings.lookups, base_url=settings.uniprot_url
        )
    except InputError as error:
        entry.reason = str(error)
        return
    entry.gene_symbol, entry.accession = found.gene_symbol, found.accession
    if len(found.sequence) > settings.max_residues:
        most = settings.max_residues
        entry.reason = f"Protein '{name}' has more than {most:,} residues, the most taken here."
        return
    entry.reason = check_sequence(name, found.sequence)
    entry.sequence = None if entry.reason else found.sequence
