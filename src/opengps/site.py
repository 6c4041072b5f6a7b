"""What servers and workers of a website share."""

from dataclasses import dataclass

from opengps.database import Sessions, connect
from opengps.settings import Settings
from opengps.storage import Storage
from opengps.visitors import UploadLimits, visitor_key


@dataclass(frozen=True, slots=True)
class Site:
    """Settings, database and file storage of a website, and the key and upload limits of its visitors."""

    settings: Settings
    sessions: Sessions
    storage: Storage
    visitor_key: bytes
    upload_limits: UploadLimits


def open_site(settings: Settings) -> Site:
    """Open the database and the storage of a site; create them if missing.

    Raises
    ------
    DeepGPSError
        If one of them cannot be used.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    sessions = connect(settings)
    storage = Storage(settings.storage_url or str(settings.data.absolute()))
    storage.check()
    return Site(settings, sessions, storage, visitor_key(storage), UploadLimits(settings.uploads_at_once))
