"""Apply a function to many items: in this process, in local processes, or on a Dask cluster.

A pool is a `concurrent.futures.Executor`: local processes, or the workers of a Dask scheduler.
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
"""How often an item may kill its worker before it is given up."""

_CONNECT_S = 10
_POLL_S, _DISCONNECTED_S = 1, 5
# How often to count the workers of a cluster, which may grow or shrink.
_COUNT_S = 5

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class WorkerDiedError(DeepGPSError):
    """The worker process of an item died each time it was tried."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_map(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[_Result | WorkerDiedError]:
    """Apply a function to items in parallel and yield the results in the order of the items.

    Items are read lazily, about two per worker ahead of the results. A worker that dies is replaced and its
    items are computed again; an item that kills its worker each time results in a `WorkerDiedError`.

    Parameters
    ----------
    function
        A module-level function without side effects; items and results are pickled.
    items
        The items.
    workers
        Local processes; all cores if None; with 1, the items are computed in this process.
    scheduler
        Address of a Dask scheduler (``tcp://…``), whose workers compute instead.

    Returns
    -------
    Iterator
        For each item the function's result, or a `WorkerDiedError`.

    Raises
    ------
    InputError
        If the scheduler cannot be reached or has no workers, or `workers` is below 1.
    DeepGPSError
        While iterating, if the scheduler is lost.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers are too few; give 1 or more with --workers.")
    if scheduler is not None:
        return _on_dask(function, items, scheduler)
    count = cores() if workers is None else workers
    if count == 1:
        return map(function, items)
    return _in_order(function, items, partial(_local_pool, count), lambda: 2 * count)


def _in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    open_pool: Callable[[], Executor],
    ahead: Callable[[], int],
    lost: Callable[[], bool] = lambda: False,
) -> Iterator[_Result | WorkerDiedError]:
    pool = open_pool()
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
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
                # It is unknown which of them killed its worker: each is tried again, alone.
                while waiting:
                    item, earlier = waiting.popleft()
                    pool, result = _retry(function, item, earlier, pool, open_pool)  # type: ignore[arg-type]
                    yield result
            else:
                waiting.popleft()
                yield result
    finally:
        for _, future in waiting:
            future.cancel()
        pool.shutdown(wait=not waiting)


_END: Any = object()


def _outcome(future: Future[_Result], lost: Callable[[], bool]) -> _Result | WorkerDiedError:
    # If the scheduler is lost at the wrong moment, its client never resolves the future.
    while not wait([future], _POLL_S).done:
        if lost():
            raise DeepGPSError(_LOST)
    try:
        return future.result()
    except CancelledError:
        # Nothing here cancels a future that is still needed: Dask did.
        raise DeepGPSError(_LOST) from None
    except Exception as error:
        # Dask has already tried several workers.
        if type(error).__name__ != "KilledWorker":
            raise
        return WorkerDiedError(_DIED)


_LOST = "The Dask scheduler was lost before all items were done; start it again, and then the same command."
_DIED = "Its worker died each time it was tried; give it more memory."


def _retry(
    function: Callable[[_Item], _Result],
    item: _Item,
    earlier: Future[_Result],
    pool: Executor,
    open_pool: Callable[[], Executor],
) -> tuple[Executor, _Result | WorkerDiedError]:
    """Compute one item alone, replacing broken pools; return the last pool and the result."""
    if earlier.done() and not earlier.cancelled() and earlier.exception() is None:
        return pool, earlier.result()
    for _ in range(1 + ATTEMPTS):
        try:
            return pool, pool.submit(function, item).result()
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = open_pool()
    return pool, WorkerDiedError(_DIED)


def _local_pool(count: int) -> Executor:
    from multiprocessing import get_context

    # A forked child would inherit locks held by threads that it does not have.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_initialize_worker)


def _initialize_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent dies."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def exit_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _on_dask(
    function: Callable[[_Item], _Result], items: Iterable[_Item], address: str
) -> Iterator[_Result | WorkerDiedError]:
    from distributed import Client

    # It prints a traceback when a scheduler is lost; the error raised here replaces it.
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
            ahead = _twice_the_threads(client.nthreads)
            yield from _in_order(function, items, client.get_executor, ahead, _disconnection(client))
        except Exception as error:
            if client.status == "running" or isinstance(error, DeepGPSError):
                raise
            raise DeepGPSError(_LOST) from None


def _disconnection(client: Any) -> Callable[[], bool]:
    """Return a function that checks whether a client has lost its scheduler for some time."""
    since: float | None = None

    def lost() -> bool:
        nonlocal since
        if client.status == "running":
            since = None
            return False
        since = since or time.monotonic()
        return time.monotonic() - since > _DISCONNECTED_S

    return lost


def _twice_the_threads(count: Callable[[], Mapping[str, int]]) -> Callable[[], int]:
    """Return a function that counts a cluster's threads, at most once in `_COUNT_S` seconds."""
    counted, threads = float("-inf"), 1

    def ahead() -> int:
        nonlocal counted, threads
        if (now := time.monotonic()) - counted >= _COUNT_S:
            counted, threads = now, max(1, sum(count().values()))
        return 2 * threads

    return ahead
