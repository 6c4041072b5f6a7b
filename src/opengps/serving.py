"""``deepgps serve``: the server, and beside it a worker that is started anew whenever it dies."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from deepgps.errors import DeepGPSError
from opengps.logs import set_up_logs
from opengps.settings import PREFIX, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Config

_WORKER = "from opengps.queue import main; main()"
_PAUSE_S = 1.0
_HEADER_BYTES = 32_768
_HANG_UP_S = 10
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, host: str, port: int, *, worker: bool = True) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    settings
        Those of the site.
    host, port
        Where to listen.
    worker
        Whether to run a worker beside the server.

    Raises
    ------
    DeepGPSError
        If nobody can listen there.
    """
    from uvicorn import Server

    from opengps.app import create_app

    _check_port(host, port)
    if host in LOCAL and not settings.allowed_hosts:
        settings = settings.model_copy(update={"allowed_hosts": ",".join(LOCAL)})
    app = create_app(settings)
    shown = f"[{host}]" if ":" in host else host
    print(
        f"openGPS: http://{shown}:{port}  (data in {settings.data.absolute()}; stop with Ctrl-C)", flush=True
    )
    # The server has shut down in order when it passes the interrupt on.
    with _worker(settings) if worker else _nobody(), suppress(KeyboardInterrupt):
        Server(configuration(app, settings, host, port)).run()


def configuration(app: "FastAPI", settings: Settings, host: str, port: int) -> "Config":
    """Configure the server: quiet, and patient with nobody for ever."""
    from uvicorn import Config

    from opengps.connections import Impatient

    set_up_logs()
    return Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        http=Impatient,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=_HANG_UP_S,
    )


def _check_port(host: str, port: int) -> None:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DeepGPSError(
                f"Cannot listen on {host}, port {port}: {error.strerror}; "
                "choose another with --host or --port."
            ) from None


@contextmanager
def _nobody() -> Iterator[None]:
    yield


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    """Keep a worker process alive; it ends with its stdin, and so with this process, however that ends."""
    environment = {**os.environ, f"{PREFIX}DATA": str(settings.data.absolute())}
    over = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not over.is_set():
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            current[:] = [process]
            process.wait()
            over.wait(_PAUSE_S)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        for process in current:
            process.terminate()
        thread.join()
