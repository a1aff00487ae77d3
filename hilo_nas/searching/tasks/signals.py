"""Protection of record writes against signals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["defer_signals"]


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Defers SIGINT and SIGTERM until the block ends, so that a signal cannot interrupt the writing of a record."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])
