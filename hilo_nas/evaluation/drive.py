"""Execution of task sequences, which are generators that yield tasks and receive the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from hilo_nas.evaluation.protocol import Evaluator, Failed, Finished, Progress
from hilo_nas.evaluation.tasks import Task
from hilo_nas.events import Emit, Notice

__all__ = ["Steps", "drive", "run_steps", "run_task"]

Result = TypeVar("Result")
Ending = TypeVar("Ending")

Steps = Generator[Task[Any], Any, Ending]
"""Task sequence: a generator that yields its next task and receives the result, or the exception of a failed task."""


@dataclasses.dataclass(eq=False)
class _Sequence:
    steps: Steps[None]
    task: Task[Any] | None = None
    """The current task."""
    id: str = ""
    """Id of the current task."""
    is_repeated: bool = False
    """True if the current task was submitted before and is repeated."""


def drive(begin: Callable[[], Steps[None] | None], evaluator: Evaluator, emit: Emit, *, at_once: int = 1) -> None:
    """Runs task sequences until all are finished and `begin` returns None. A task with a lost worker is repeated once.

    An exception in a sequence, `begin`, `emit` or the evaluator ends the call. All submitted tasks are then cancelled,
    and the other sequences are closed (`GeneratorExit`).

    Args:
        begin: Function that returns the next sequence, or None if there is none at the moment. It is called again
            whenever a task has ended.
        evaluator: Evaluator of the tasks. It must have no other active tasks.
        emit: Receives the events of the tasks.
        at_once: Maximum number of active sequences.
    """
    active: dict[str, _Sequence] = {}

    def submit(sequence: _Sequence, task: Task[Any], *, is_repeated: bool = False) -> None:
        sequence.task, sequence.is_repeated = task, is_repeated
        sequence.id = evaluator.submit(task)
        active[sequence.id] = sequence

    def advance(sequence: _Sequence, message: Finished | Failed | None = None) -> None:
        if isinstance(message, Failed) and message.blame == "worker_lost" and not sequence.is_repeated:
            emit(Notice(level="warning", text=f"{message.error}. The worker is restarted and the task is repeated"))
            assert sequence.task is not None, "a failed task was submitted before"
            submit(sequence, sequence.task, is_repeated=True)
        else:
            try:
                if isinstance(message, Failed):
                    task = sequence.steps.throw(message.error)
                else:
                    task = sequence.steps.send(None if message is None else message.result)
            except StopIteration:
                task = None
            if task is not None:
                submit(sequence, task)
        if message is not None:
            del active[message.id]

    try:
        while True:
            while len(active) < at_once and (steps := begin()) is not None:
                advance(_Sequence(steps))
            if not active:
                return
            for message in evaluator.wait():
                if isinstance(message, Progress):
                    emit(message.event)
                else:
                    advance(active[message.id], message)
    except BaseException:
        for sequence in active.values():
            evaluator.cancel(sequence.id)
        for sequence in active.values():
            sequence.steps.close()
        raise


def run_task(evaluator: Evaluator, task: Task[Result], emit: Emit) -> Result:
    """Returns the result of one task.

    Args:
        evaluator: Evaluator of the task. It must have no other active tasks.
        task: The task.
        emit: Receives the events of the task. An exception in `emit` cancels the task.

    Raises:
        HiloNasError: The task failed. The class of the task documents its errors.
    """

    def steps() -> Steps[Result]:
        return cast("Result", (yield task))

    return run_steps(evaluator, steps(), emit)


def run_steps(evaluator: Evaluator, steps: Steps[Ending], emit: Emit) -> Ending:
    """Returns the value that one task sequence returns.

    Args:
        evaluator: Evaluator of the tasks. It must have no other active tasks.
        steps: The sequence.
        emit: Receives the events of the tasks. An exception in `emit` cancels the current task.

    Raises:
        HiloNasError: A task failed, and the sequence did not handle it.
    """
    found: list[Ending] = []

    def run() -> Steps[None]:
        found.append((yield from steps))

    sequences = [run()]
    drive(lambda: sequences.pop() if sequences else None, evaluator, emit)
    return found[0]
