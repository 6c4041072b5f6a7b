"""One function over many items: here, on all local cores, or on a Dask cluster. Results come in order.

A *pool* is anything with ``submit`` and ``shutdown`` in the manner of `concurrent.futures`: processes of this
machine, or the workers behind a Dask scheduler. The same function runs in each, so the results are the same.
"""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from deepgps.errors import DeepGPSError, InputError

ATTEMPTS = 2
"""How often an item may take its worker down before it is given up."""

_CONNECT_S = 10
_POLL_S, _ABSENT_S = 1, 5
# How often to ask how many workers a cluster has by now.
_COUNT_S = 5

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(DeepGPSError):
    """The process that worked on an item died, each time it was tried."""


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[Result | WorkerDiedError]:
    """Apply a function to items, a few ahead of the reader, and give the results in the order of the items.

    Memory does not grow with the number of items: only about two for each worker are on their way at once.
    A worker that dies is replaced and its items are done again; one that kills its worker every time gives a
    `WorkerDiedError` in its place, and the others go on.

    Parameters
    ----------
    function
        A function of a module, without side effects; items and results are pickled.
    items
        What to apply it to.
    workers
        Local processes; all cores where it is not given, and no further process with 1.
    scheduler
        Address of a Dask scheduler (``tcp://…``), whose workers do it instead.

    Raises
    ------
    InputError
        If the scheduler cannot be reached or has no workers, or `workers` is below 1.
    DeepGPSError
        While iterating, if the scheduler is lost.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers cannot work; give 1 or more with --workers.")
    if scheduler is not None:
        return _on_dask(function, items, scheduler)
    count = cores() if workers is None else workers
    if count == 1:
        return map(function, items)
    return _in_order(function, items, partial(_local_pool, count), lambda: 2 * count)


def _in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    open_pool: Callable[[], Executor],
    ahead: Callable[[], int],
    lost: Callable[[], bool] = lambda: False,
) -> Iterator[Result | WorkerDiedError]:
    pool = open_pool()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    rest = iter(items)
    try:
        while True:
            try:
                while len(waiting) < ahead() and (item := next(rest, _END)) is not _END:
                    waiting.append((item, Future()))
                    waiting[-1] = (item, pool.submit(function, item))
                if not waiting:
                    return
                result = _outcome(waiting[0][1], lost)
            except BrokenProcessPool:
                # Nobody knows which of them killed its worker: each is tried again, alone.
                while waiting:
                    item, before = waiting.popleft()
                    pool, result = _again(function, item, before, pool, open_pool)  # type: ignore[arg-type]
                    yield result
            else:
                waiting.popleft()
                yield result
    finally:
        for _, future in waiting:
            future.cancel()
        pool.shutdown(wait=not waiting)


_END: Any = object()


def _outcome(future: Future[Result], lost: Callable[[], bool]) -> Result | WorkerDiedError:
    # Where a scheduler is lost at the wrong moment, its client leaves a future unanswered for ever.
    while not wait([future], _POLL_S).done:
        if lost():
            raise DeepGPSError(_LOST)
    try:
        return future.result()
    except CancelledError:
        # Nobody here cancels what is still waited for.
        raise DeepGPSError(_LOST) from None
    except Exception as error:
        # Dask has tried it on several workers itself.
        if type(error).__name__ != "KilledWorker":
            raise
        return WorkerDiedError(_DIED)


_LOST = "The Dask scheduler was lost before all was done; start it again, and then the same command."
_DIED = "Its worker died each time it was tried; give it more memory."


def _again(
    function: Callable[[Item], Result],
    item: Item,
    before: Future[Result],
    pool: Executor,
    open_pool: Callable[[], Executor],
) -> tuple[Executor, Result | WorkerDiedError]:
    """Do an item alone, in a pool that may be broken; give the pool that is left, and the result."""
    if before.done() and not before.cancelled() and before.exception() is None:
        return pool, before.result()
    for _ in range(1 + ATTEMPTS):
        try:
            return pool, pool.submit(function, item).result()
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = open_pool()
    return pool, WorkerDiedError(_DIED)


def _local_pool(count: int) -> Executor:
    from multiprocessing import get_context

    # A forked child would inherit the locks of threads that it does not have.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_settle_worker)


def _settle_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _on_dask(
    function: Callable[[Item], Result], items: Iterable[Item], address: str
) -> Iterator[Result | WorkerDiedError]:
    from distributed import Client

    # It prints a traceback where a scheduler is lost; what is raised here says it in a sentence.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Dask scheduler '{address}' cannot be reached ({error or type(error).__name__}); "
            "start one with 'dask scheduler' and give the address it prints."
        ) from None
    with client:
        if not client.nthreads():
            raise InputError(f"Dask scheduler '{address}' has no workers; start some with 'dask worker'.")
        try:
            threads = _twice_the_threads(client.nthreads)
            yield from _in_order(function, items, client.get_executor, threads, _absence(client))
        except Exception as error:
            if client.status == "running" or isinstance(error, DeepGPSError):
                raise
            raise DeepGPSError(_LOST) from None


def _absence(client: Any) -> Callable[[], bool]:
    """Tell whether a client has been without its scheduler for some time."""
    since: float | None = None

    def lost() -> bool:
        nonlocal since
        if client.status == "running":
            since = None
            return False
        since = since or time.monotonic()
        return time.monotonic() - since > _ABSENT_S

    return lost


def _twice_the_threads(count: Callable[[], Mapping[str, int]]) -> Callable[[], int]:
    """Follow a cluster that grows and shrinks, without asking it for every item."""
    asked, threads = float("-inf"), 1

    def ahead() -> int:
        nonlocal asked, threads
        if (now := time.monotonic()) - asked >= _COUNT_S:
            asked, threads = now, max(1, sum(count().values()))
        return 2 * threads

    return ahead
