"""Protocol of evaluators: tasks go in, and messages about them come out, in the order in which things happen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from hilo_nas.errors import HiloNasError, OutOfMemoryError, WorkerDiedError
from hilo_nas.evaluation.tasks import DeviceReport, Task
from hilo_nas.events import Event

__all__ = ["Blame", "Evaluator", "Failed", "Finished", "Message", "Progress", "blame_of"]

Blame = Literal["subject", "memory", "worker_lost", "world"]
"""Cause of a failure: the network (`subject`); too little memory for it (`memory`); a worker that is gone, so that the
task may be repeated (`worker_lost`); the device, the data or the disk, so that all other tasks would fail (`world`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """An event of a task that is under way."""

    id: str
    event: Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of a task that was done."""

    id: str
    result: Any
    """As the task's type says."""
    seconds: float
    """From its start to its end; the time in the queue does not count."""
    device: str | None = None
    """Name of the device that did it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed:
    """The end of a task that could not be done."""

    id: str
    error: Exception
    blame: Blame
    seconds: float
    device: str | None = None


Message = Progress | Finished | Failed


class Evaluator(Protocol):
    """Does tasks, several at once where it has the room.

    Each task that is submitted ends in one `Finished` or `Failed`, unless it is cancelled.
    """

    def submit(self, task: Task[Any]) -> str:
        """Takes a task on and returns its id; the work may begin at once."""

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns what happened since the last call, in order; waits until there is something.

        Args:
            timeout: Seconds after which an empty list is returned; None waits on.
        """

    def cancel(self, id: str) -> None:
        """Ends a task, in the middle of its work as well; no message about it follows."""

    def slots(self, kind: str) -> int:
        """Returns how many tasks of a kind (`Task.kind`) may be worked on at once."""

    def devices(self) -> list[DeviceReport]:
        """Returns the devices that were inspected so far."""

    def discard(self, references: Iterable[str]) -> None:
        """Gives checkpoints up, the first ones first, until the others fit the room that the evaluator has for them.

        Args:
            references: Checkpoints that no work under way needs; read only where some must go. Unknown ones are
                skipped.
        """

    def close(self) -> None:
        """Ends all work and everything that was started for it."""


def blame_of(error: BaseException) -> Blame:
    """Returns the cause of a task's error."""
    if isinstance(error, WorkerDiedError):
        return "worker_lost"
    if isinstance(error, OutOfMemoryError):
        return "memory"
    if not isinstance(error, HiloNasError) or error.is_fatal:
        return "world"
    return "subject"
