"""The queue that wakes workers, and the worker."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from huey import Huey, RedisHuey, SqliteHuey, crontab

from deepgps.bundle import DEFAULT_MODEL
from deepgps.errors import DeepGPSError
from opengps.claims import free_the_dead, is_due
from opengps.database import Sessions, connect
from opengps.logs import set_up_logs
from opengps.settings import Settings
from opengps.shelf import shelf_of
from opengps.store import purge
from opengps.submissions.comparing import compare_next, is_comparison_due
from opengps.submissions.store import purge_submissions
from opengps.turns import take_turn, warm_up
from opengps.workplace import sweep_scratch

# How often an idle worker looks, in seconds: a visitor waits for it.
_LOOK_S = 0.05
_LOOK_AT_MOST_S = 0.25
_KINDNESS = 5


@dataclass(frozen=True, slots=True)
class Site:
    """What server and workers share.

    Attributes
    ----------
    settings, sessions
        The settings and the database.
    queue
        Whose messages wake workers.
    wake
        Tells a worker that there is something to do.
    """

    settings: Settings
    sessions: Sessions
    queue: Huey
    wake: Callable[[], object]


def open_site(settings: Settings) -> Site:
    """Open the database, the shelf and the queue of a site, made if missing.

    Raises
    ------
    DeepGPSError
        If one of them cannot be reached.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    sessions, queue = connect(settings), _open_queue(settings)
    shelf_of(settings).check()

    @queue.task()  # type: ignore[untyped-decorator]
    def turn() -> None:
        try:
            free_the_dead(sessions)
            take_turn(sessions, settings)
            compare_next(sessions, settings)
        finally:
            # A message may have died with another worker: whoever finds work left passes the word on.
            if is_due(sessions) or is_comparison_due(sessions, settings):
                turn()

    @queue.periodic_task(crontab())  # type: ignore[untyped-decorator]
    def sweep() -> None:
        purge(sessions, settings)
        purge_submissions(sessions, settings)
        sweep_scratch(settings)
        free_the_dead(sessions)
        if is_due(sessions) or is_comparison_due(sessions, settings):
            turn()

    def wake() -> None:
        try:
            turn()
        except Exception as error:  # the job is kept: who sweeps finds it when the queue is there again
            logging.getLogger("opengps").error("The queue cannot be reached: %s", type(error).__name__)

    return Site(settings, sessions, queue, wake)


def _open_queue(settings: Settings) -> Huey:
    if not settings.queue_url:
        return SqliteHuey("opengps", filename=str(settings.data / "queue.db"), results=False)
    from redis.exceptions import RedisError

    try:
        queue = RedisHuey("opengps", url=settings.queue_url, results=False)
        queue.storage.conn.ping()
    except (RedisError, ValueError) as error:
        # Not the address: it holds a password.
        reason = str(error).rstrip(".")
        raise DeepGPSError(f"The queue at OPENGPS_QUEUE_URL cannot be reached ({reason}).") from None
    return queue


def run_worker(settings: Settings, *, tied: bool = False) -> None:
    """Work until told to stop.

    Parameters
    ----------
    settings
        Those of the site.
    tied
        Whether to end when stdin does, and with it the server that started this worker.
    """
    set_up_logs()
    if hasattr(os, "nice"):
        # Pages are answered before images are drawn.
        os.nice(_KINDNESS)
    site = open_site(settings)
    if tied:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    _warm_up()
    # The first turn takes back those of the dead, which may be all that is to do.
    site.wake()
    site.queue.create_consumer(
        workers=1, initial_delay=_LOOK_S, max_delay=_LOOK_AT_MOST_S, graceful_signal="TERM"
    ).run()


def _warm_up() -> None:
    try:
        warm_up(DEFAULT_MODEL)
    except DeepGPSError as error:
        logging.getLogger("opengps").warning("%s", error)


def _end_with_stdin() -> None:
    # Not through sys.stdin, whose lock a waiting thread would hold while Python shuts down.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the worker that ``deepgps serve`` starts."""
    run_worker(Settings.load(), tied=True)
