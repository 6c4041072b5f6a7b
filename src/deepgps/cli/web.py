"""``deepgps serve`` and ``deepgps worker``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

_Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]


def serve(
    *,
    host: str = "127.0.0.1",
    port: _Port = 8000,
    data: Path | None = None,
    worker: Annotated[bool, Parameter(negative="--no-worker")] = True,
) -> None:
    """Serve the openGPS website, with a worker beside it.

    Parameters
    ----------
    host
        Address to listen on; ``0.0.0.0`` for all of this machine.
    port
        Port to listen on.
    data
        Folder of the database and the results; created if missing.
    worker
        Run a worker beside the server; without one, start ``deepgps worker``.
    """
    from opengps.server import run_server
    from opengps.settings import Settings

    run_server(Settings.load(data=data), host, port, worker=worker)


def worker(*, data: Path | None = None) -> None:
    """Run another worker for an openGPS website.

    Parameters
    ----------
    data
        Folder of the website's database and results.
    """
    from opengps.settings import Settings
    from opengps.worker import run_worker

    settings = Settings.load(data=data)
    print(f"Worker for '{settings.data.absolute()}'; stop with Ctrl-C.", flush=True)
    run_worker(settings)
