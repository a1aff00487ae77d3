"""Parallel map over processes that raises an error if a process dies, instead of waiting for it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from hilo_nas.errors import WorkerDiedError

__all__ = ["map_unordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    jobs: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yields `function(item)` for every item, in the order of completion.

    No process is left running, even after an error.

    Args:
        function: Function that can be pickled, like its arguments and results.
        items: Arguments of the calls.
        jobs: Number of processes. With 1, all calls run in this process.
        initializer: Function that is called once in each process before the first item, with `initargs`.
        initargs: Arguments of `initializer`.

    Raises:
        WorkerDiedError: A process died. Results that were yielded before are complete.
        KeyboardInterrupt: The user interrupted the run.
    """
    if jobs == 1:
        initializer(*initargs)
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_initialize, initargs=(initializer, initargs)
    )
    before = set(multiprocessing.active_children())
    try:
        for future in as_completed([pool.submit(function, item) for item in items]):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            f"one of {jobs} processes died, possibly because memory ran out. "
            "Complete results are kept. Try again with fewer --jobs."
        ) from error
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _initialize(initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent handles Ctrl-C, and it ends its children
    initializer(*initargs)
