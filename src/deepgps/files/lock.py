"""One writer at a time in a folder."""

import os
import sys
from pathlib import Path

from deepgps.errors import InputError

LOCK_FILE = ".deepgps.lock"


def lock(folder: Path) -> int:
    """Lock a folder for this process; the system lets go of it however the process ends.

    Returns
    -------
    int
        A file handle; closing it unlocks the folder.

    Raises
    ------
    InputError
        If another process has locked it.
    """
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    if sys.platform == "win32":
        return handle
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"Another deepGPS process is writing to '{folder}'; wait for it, or use another --out."
        ) from None
    except OSError:
        # Some network file systems have no locks; working without one beats not working.
        pass
    return handle
