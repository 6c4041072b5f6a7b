"""Read what a visitor sent in a process of its own, under limits of memory and time.

The process may open no file but those of one folder and Python's own, starts no other process and opens no
connection. If it exceeds a limit or dies, only the request that it worked for fails.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar

from deepgps.errors import InputError
from opengps.errors import RequestError, TooLargeError
from opengps.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

# What reads uploads, imported once: a process for a request is then forked in milliseconds.
_PRELOADED = ("opengps.protein_input", "opengps.submissions.cropping")
_FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_EXIT_S = 5.0
_START_S = 120.0
_STARTED = "started"
_NICENESS = 5


class LimitExceededError(InputError):
    """An upload needs more memory or time than it is given."""


class IsolationError(Exception):
    """A process that read an upload ended unexpectedly; the message says where, without the upload."""


def run_isolated(
    settings: Settings, folder: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in a process of its own.

    Parameters
    ----------
    settings
        The limits: `Settings.upload_memory_bytes` and `Settings.upload_timeout_s`.
    folder
        The only folder whose files it may open; it has to exist.
    function
        A function of a module; it, its arguments and its result are pickled.
    *args, **kwargs
        Its arguments.

    Raises
    ------
    InputError, RequestError, TooLargeError
        Those of the function; `LimitExceededError` if it exceeds a limit.
    IsolationError
        If it raises another exception, or its process ends.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(  # type: ignore[attr-defined]
        target=_call, args=(sender, settings, folder, function, args, kwargs), daemon=True
    )
    process.start()
    sender.close()
    try:
        # The first one waits for the libraries to be imported.
        _wait_for_start(receiver)
        if not receiver.poll(settings.upload_timeout_s):
            seconds = settings.upload_timeout_s
            raise LimitExceededError(f"The upload takes more than {seconds:g} s to read; send a smaller one.")
        try:
            outcome, value = receiver.recv()
        except EOFError:
            # Libraries in C end the process when they get no memory.
            raise _out_of_memory(settings) from None
        if outcome == "returned":
            result: T = value
            return result
        if outcome == "raised":
            raise value
        raise _out_of_memory(settings) if outcome == "memory" else IsolationError(value)
    finally:
        receiver.close()
        process.kill()
        process.join(_EXIT_S)
        process.close()


def prepare_isolation(settings: Settings) -> None:
    """Import what reads uploads, so that the first upload does not wait for it."""
    with suppress(IsolationError, OSError), TemporaryDirectory() as folder:
        run_isolated(settings, Path(folder), int)


def _wait_for_start(receiver: Connection) -> None:
    try:
        started = receiver.poll(_START_S) and receiver.recv() == _STARTED
    except EOFError:
        started = False
    if not started:
        raise IsolationError("a process to read an upload did not start")


def _out_of_memory(settings: Settings) -> LimitExceededError:
    size = settings.upload_memory_bytes / 1e6
    return LimitExceededError(f"The upload needs more than {size:,.0f} MB of memory; send a smaller one.")


@cache
def _context() -> BaseContext:
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, "__main__"])
    return context


def _call(
    sender: Connection,
    settings: Settings,
    folder: Path,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Call the function and send what it returns or raises; runs in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        # Pages are answered before uploads are read.
        os.nice(_NICENESS)
    sender.send(_STARTED)
    _limit_resources(settings)
    _forbid_other_files(folder)
    try:
        message = ("returned", function(*args, **kwargs))
    except (InputError, RequestError, TooLargeError) as error:
        message = ("raised", error)
    except MemoryError:
        message = ("memory", None)
    except Exception as error:
        # As in the log, without the message, which may contain a sequence.
        places = "".join(traceback.format_tb(error.__traceback__))
        message = ("failed", f"{type(error).__name__} at\n{places}")
    # Nobody listens any more if the time is over.
    with suppress(BrokenPipeError):
        sender.send(message)
    sender.close()


def _limit_resources(settings: Settings) -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The server may be gone before it can stop this process.
    seconds = int(settings.upload_timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with suppress(OSError, ValueError):
        # What Python and its libraries have mapped does not count.
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = mapped + settings.upload_memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _forbid_other_files(folder: Path) -> None:
    """Refuse to open files elsewhere, other processes and connections, for good."""
    packages = Path(__file__).parents[1]
    places = (folder, Path(sys.prefix), Path(sys.base_prefix), packages / "deepgps", packages / "opengps")
    allowed = tuple(f"{os.path.realpath(each)}{os.sep}" for each in (*places, Path("/proc"), Path("/sys")))

    def check(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not path.startswith((*allowed, "/dev/null", "/dev/urandom")):
                raise PermissionError(f"an upload may not open '{path}'")
        elif event in _FORBIDDEN:
            raise PermissionError(f"an upload may not use {event}")

    sys.addaudithook(check)
