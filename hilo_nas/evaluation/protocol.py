"""Protocol of evaluators: the caller submits tasks and receives messages about them in chronological order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from hilo_nas.errors import HiloNasError, OutOfMemoryError, WorkerDiedError
from hilo_nas.evaluation.tasks import DeviceReport, Task
from hilo_nas.events import Event

__all__ = ["Blame", "Evaluator", "Failed", "Finished", "Message", "Progress", "blame_of"]

Blame = Literal["subject", "memory", "worker_lost", "world"]
"""Cause of a failure.

* `subject`: the network.
* `memory`: too little memory for the network.
* `worker_lost`: the worker ended. The task can be repeated.
* `world`: the device, the data or the disk. All other tasks would fail too.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Event of a running task."""

    id: str
    event: Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """Result of a successful task."""

    id: str
    result: Any
    """Result of the task, an instance of its `result_type`."""
    seconds: float
    """Run time in seconds, without the time in the queue."""
    device: str | None = None
    """Name of the device that the task used. None if it used none or several."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed:
    """Error of a failed task."""

    id: str
    error: Exception
    blame: Blame
    seconds: float
    device: str | None = None


Message = Progress | Finished | Failed


class Evaluator(Protocol):
    """Runs tasks, several in parallel if possible.

    Each submitted task gives exactly one `Finished` or `Failed` message, unless it is cancelled.
    """

    def submit(self, task: Task[Any]) -> str:
        """Queues a task and returns its id. The task may start immediately."""

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns the messages since the last call in chronological order. Waits until there is at least one.

        Args:
            timeout: Maximum seconds to wait. The list is empty after the timeout. None waits without limit.
        """

    def cancel(self, id: str) -> None:
        """Ends a task, even if it is running. `wait` returns no more messages about it."""

    def slots(self, kind: str) -> int:
        """Returns the maximum number of parallel tasks of a kind (`Task.kind`).

        With several devices, it is at least the number of devices of the target that was inspected last (by an
        `Inspect` without `watch`). Each device times one task at a time, and runs no other task meanwhile.
        """

    def devices(self) -> list[DeviceReport]:
        """Returns the reports of the devices that were inspected so far."""

    def discard(self, references: Iterable[str]) -> None:
        """Removes checkpoints in the given order until the remaining ones fit the evaluator's storage budget.

        Args:
            references: Checkpoints that no active task needs. The iterable is consumed only if some must be removed.
                Unknown checkpoints are ignored.
        """

    def close(self) -> None:
        """Cancels all tasks and ends all processes and threads of the evaluator."""


def blame_of(error: BaseException) -> Blame:
    """Returns the cause of an error."""
    if isinstance(error, WorkerDiedError):
        return "worker_lost"
    if isinstance(error, OutOfMemoryError):
        return "memory"
    if not isinstance(error, HiloNasError) or error.is_fatal:
        return "world"
    return "subject"
