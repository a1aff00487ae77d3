"""Lanes of the evaluator of this machine: threads that run one task at a time, each with its worker processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hilo_nas.evaluation.tasks import Task
from hilo_nas.events import Emit
from hilo_nas.timing import Ruler

__all__ = ["CancelledTaskError", "Job", "Lane", "WorkerLike"]


class WorkerLike(Protocol):
    """Process that runs functions, with the interface of `hilo_nas.timing.Worker`."""

    def call(self, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
        """Returns the result of `module:function` called with keyword arguments."""

    def close(self) -> None:
        """Ends the process, even during a call."""


class CancelledTaskError(BaseException):
    """The current task was cancelled."""


class Job:
    """A submitted task with its lane."""

    def __init__(self, id: str, task: Task[Any], lane: Lane) -> None:
        self.id, self.task, self.lane = id, task, lane
        self.has_begun, self.is_cancelled, self.is_over = (threading.Event() for _ in range(3))

    def check(self) -> None:
        """Raises `CancelledTaskError` if the task was cancelled."""
        if self.is_cancelled.is_set():
            raise CancelledTaskError

    def sleep(self, seconds: float) -> None:
        """Waits for the given time, or until the task is cancelled."""
        self.is_cancelled.wait(seconds)
        self.check()


class Lane:
    """Thread that runs one task at a time, with its training process and its timing processes.

    Args:
        worker: The training process. Its first call starts it.
        work: Function that runs a task.
        suffix: End of the names of the lane's log files, such as `-cuda1`.
    """

    def __init__(self, worker: WorkerLike, work: Callable[[Job], None], *, suffix: str = "") -> None:
        self.worker, self.suffix, self._work = worker, suffix, work
        self.rulers: dict[str, Ruler] = {}
        """Timing processes by environment (`Condition.env`), and by device for those outside the target."""
        self.in_use = threading.Lock()
        """Lock for using and closing the processes of the lane. Cancelling a task does not need it."""
        self.job: Job | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def put(self, job: Job) -> None:
        """Queues a task."""
        if not self._thread.is_alive():
            self._thread.start()
        self._jobs.put(job)

    def close_workers(self) -> None:
        """Ends the processes of the lane, even during a task."""
        self.worker.close()
        for ruler in list(self.rulers.values()):
            ruler.close()

    def end(self) -> None:
        """Lets the thread end after its queued tasks.

        Call it after closing the processes, because the kernel ends a process together with the thread that started it.
        """
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self.job = job
            job.has_begun.set()
            with self.in_use:
                self._work(job)
            job.is_over.set()

    def sleep(self, seconds: float) -> None:
        """Waits for the given time, or until the current task is cancelled. Call it in the lane's thread."""
        assert self.job is not None
        self.job.sleep(seconds)
