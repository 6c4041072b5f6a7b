"""``deepgps serve``: the server, and beside it a worker that is restarted when it stops."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from deepgps.errors import DeepGPSError
from opengps.settings import PREFIX, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Config

_WORKER = "from opengps.worker import main; main()"
_RESTART_S = 1.0
_MAX_HEADER_BYTES = 32_768
_KEEP_ALIVE_S = 10
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def run_server(settings: Settings, host: str, port: int, *, worker: bool = True) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    settings
        The settings of the site.
    host, port
        Where to listen.
    worker
        Whether to run a worker beside the server.

    Raises
    ------
    DeepGPSError
        If the port cannot be used.
    """
    from uvicorn import Server

    from opengps.app import create_app
    from opengps.isolation import prepare_isolation

    _check_port(host, port)
    if host in _LOCAL_HOSTS and not settings.allowed_hosts:
        settings = settings.model_copy(update={"allowed_hosts": ",".join(_LOCAL_HOSTS)})
    app = create_app(settings)
    shown = f"[{host}]" if ":" in host else host
    print(
        f"openGPS: http://{shown}:{port}  (data in {settings.data.absolute()}; stop with Ctrl-C)", flush=True
    )
    threading.Thread(target=prepare_isolation, args=(settings,), daemon=True).start()
    # When the server passes the interrupt on, it has shut down properly.
    with _running_worker(settings) if worker else nullcontext(), suppress(KeyboardInterrupt):
        Server(server_config(app, settings, host, port)).run()


def server_config(app: "FastAPI", settings: Settings, host: str, port: int) -> "Config":
    """Configure uvicorn: without access log, with limits for headers and idle connections."""
    from uvicorn import Config

    from opengps.security import HeaderTimeoutProtocol, PeerMiddleware, set_up_logging

    set_up_logging()
    return Config(
        PeerMiddleware(app, settings.trusted_proxies),
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=HeaderTimeoutProtocol,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


def _check_port(host: str, port: int) -> None:
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
def _running_worker(settings: Settings) -> Iterator[None]:
    """Keep a worker process running; it stops when its stdin is closed, and so however this process ends."""
    environment = {**os.environ, f"{PREFIX}DATA": str(settings.data.absolute())}
    stopping = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def keep_running() -> None:
        while not stopping.is_set():
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            current[:] = [process]
            process.wait()
            stopping.wait(_RESTART_S)

    thread = threading.Thread(target=keep_running, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        for process in current:
            process.terminate()
        thread.join()
