"""Work shared out over processes, which ends when one of them dies instead of waiting for it."""

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
    begin: Callable[..., None],
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yields `function` of every item, as they are done.

    Args:
        function: Can be pickled, as what it takes and returns.
        items: What it is called with.
        jobs: Processes; one is this process itself.
        begin: Called first, with `given`, once in each process.
        given: What all calls share.

    Raises:
        WorkerDiedError: A process ended by itself; what was yielded before is whole.
        KeyboardInterrupt: The user stopped it. As with every other way out, no process is left behind.
    """
    if jobs == 1:
        begin(*given)
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(begin, given)
    )
    before = set(multiprocessing.active_children())
    try:
        for future in as_completed([pool.submit(function, item) for item in items]):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            f"one of {jobs} processes ended by itself, as where memory runs out. "
            "What was whole before is kept; try again with fewer --jobs."
        ) from error
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    begin(*given)
