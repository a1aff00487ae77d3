"""Courses of tasks: as many under way at once as an evaluator has room for, each resumed with its last result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from hilo_nas.evaluation.protocol import Evaluator, Failed, Finished, Progress
from hilo_nas.evaluation.tasks import Task
from hilo_nas.events import Emit, Notice

__all__ = ["Steps", "drive", "run_task"]

Result = TypeVar("Result")
Ending = TypeVar("Ending")

Steps = Generator[Task[Any], Any, Ending]
"""A course: it yields its next task and is sent the result, or is thrown the error that the task failed with."""


@dataclasses.dataclass(eq=False)
class _Course:
    steps: Steps[None]
    task: Task[Any] | None = None
    """The one under way."""
    id: str = ""
    is_repeated: bool = False
    """True while that task is repeated."""


def drive(begin: Callable[[], Steps[None] | None], evaluator: Evaluator, emit: Emit, *, at_once: int = 1) -> None:
    """Runs courses until there is none to begin and none under way. A task whose worker is lost is repeated once.

    What a course raises ends all: tasks under way are cancelled, and the other courses are closed where they stand
    (`GeneratorExit`). So does what `begin`, `emit` or the evaluator raises.

    Args:
        begin: Returns the next course, or None where there is none for now; asked again whenever a task has ended.
        evaluator: Does the tasks; nothing else of it may be under way.
        emit: Receives the events of the tasks.
        at_once: Courses under way at most.
    """
    courses: dict[str, _Course] = {}

    def submit(course: _Course, task: Task[Any], *, is_repeated: bool = False) -> None:
        course.task, course.is_repeated = task, is_repeated
        course.id = evaluator.submit(task)
        courses[course.id] = course

    def advance(course: _Course, message: Finished | Failed | None = None) -> None:
        if isinstance(message, Failed) and message.blame == "worker_lost" and not course.is_repeated:
            emit(Notice(level="warning", text=f"{message.error}; it is started again and its work repeated"))
            assert course.task is not None, "a task that failed was under way"
            submit(course, course.task, is_repeated=True)
        else:
            try:
                if isinstance(message, Failed):
                    task = course.steps.throw(message.error)
                else:
                    task = course.steps.send(None if message is None else message.result)
            except StopIteration:
                task = None
            if task is not None:
                submit(course, task)
        if message is not None:
            del courses[message.id]

    try:
        while True:
            while len(courses) < at_once and (steps := begin()) is not None:
                advance(_Course(steps))
            if not courses:
                return
            for message in evaluator.wait():
                if isinstance(message, Progress):
                    emit(message.event)
                else:
                    advance(courses[message.id], message)
    except BaseException:
        for course in courses.values():
            evaluator.cancel(course.id)
        for course in courses.values():
            course.steps.close()
        raise


def run_task(evaluator: Evaluator, task: Task[Result], emit: Emit) -> Result:
    """Returns the result of one task.

    Args:
        evaluator: Does it; nothing else of it may be under way.
        task: The work.
        emit: Receives its events; an exception of it cancels the task.

    Raises:
        HiloNasError: The task failed; see its class.
    """
    found: list[Result] = []

    def steps() -> Steps[None]:
        found.append((yield task))

    courses = [steps()]
    drive(lambda: courses.pop() if courses else None, evaluator, emit)
    return found[0]
