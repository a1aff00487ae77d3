"""Place of a cluster: an actor on a node that runs the tasks of one device. It receives and returns JSON and bytes.

Nothing here executes code that the driver sends. A task names data by content, and user functions are refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from hilo_nas.data.cache import default_cache_dir
from hilo_nas.data.set_transfer import IncomingSet, find_copy
from hilo_nas.data.set_uses import SetUse
from hilo_nas.errors import RecordError, UsageError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.evaluation.local_evaluator import LocalEvaluator
from hilo_nas.evaluation.protocol import Evaluator, Failed, Finished, Message, Progress, blame_of
from hilo_nas.evaluation.ray.place_folders import PlaceFolder
from hilo_nas.evaluation.ray.plain_messages import message_to_json, plain_error
from hilo_nas.evaluation.tasks import Count, Prepare, Score, Task, Time, task_from_dict
from hilo_nas.versions import versions

__all__ = ["Host", "Place", "local_host"]

_SLICE_S = 0.25
"""Longest time for which a wait for messages keeps other calls waiting."""
_PAUSE_S = 0.005
_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""File of Linux with an ID of the running machine, which its containers share."""
_OWN_CODE = "hilo_nas."
"""Start of the names of modules whose functions may create a host."""


class Host(Evaluator, Protocol):
    """Evaluator that can adopt prepared objects of another one, as `LocalEvaluator` can."""

    @property
    def prepared(self) -> Mapping[str, Any]:
        """Prepared objects as plain data, by reference."""

    def adopt(self, prepared: Any) -> str:
        """Adds a prepared object, as plain data, and returns its reference."""


def local_host(folder: Path, *, purpose: str, idle_timeout_s: float, place: str) -> Host:
    """Returns the evaluator of a place.

    Args:
        folder: Folder for checkpoints and logs.
        purpose: Purpose of the work, shown to other processes that wait for the device.
        idle_timeout_s: Seconds without an event after which a worker counts as hung.
        place: Name of the place.
    """
    del place
    return LocalEvaluator(
        folder / "logs",
        purpose=purpose,
        checkpoints=folder / "checkpoints",
        checkpoint_mib=math.inf,
        idle_timeout_s=idle_timeout_s,
    )


def _answers(method: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Returns a method whose result or error is plain data: `{"value": ...}` or `{"error": {"kind", "message"}}`."""

    @functools.wraps(method)
    def answer(*given: Any) -> dict[str, Any]:
        try:
            return {"value": method(*given)}
        except Exception as error:
            return {"error": plain_error(error)}

    return answer


class Place:
    """Runs the tasks of one device of a node. Its methods may be called from several threads.

    Args:
        options: JSON with `host`, the name of a function of this package that creates the evaluator, and `arguments` of
            that function.
    """

    def __init__(self, options: str) -> None:
        fields = json.loads(options)
        module, _, function = str(fields["host"]).partition(":")
        if not module.startswith(_OWN_CODE):
            raise UsageError(f"the evaluator of a place must be one of hilo-nas, but got {module!r:.80}")
        create = getattr(importlib.import_module(module), function)
        self._folder = PlaceFolder()
        self._checkpoints = CheckpointFiles(self._folder.path / "checkpoints", budget_mib=math.inf)
        self._host: Host = create(self._folder.path, **fields["arguments"])
        self._tasks: dict[str, tuple[str, Task[Any]]] = {}
        """ID of the driver and task, by the ID of the evaluator."""
        self._refused: list[str] = []
        self._is_closed = False
        self._lock, self._callers = threading.Lock(), 0
        """Lock of the evaluator, and number of calls that a wait for messages must let pass."""
        self._incoming: dict[str, IncomingSet] = {}
        self._uses: dict[Path, SetUse] = {}

    @_answers
    def describe(self) -> dict[str, Any]:
        """Returns the versions of this node's software, and facts about its machine and this process."""
        return {
            "versions": versions(),
            "machine": _read_boot_id(),
            "pid": os.getpid(),
            "python_path": list(sys.path),
        }

    def submit(self, id: str, text: str, checkpoint: bytes | None = None) -> None:
        """Queues a task. An invalid task gives a message of its failure.

        Args:
            id: ID of the task in messages.
            text: The task as JSON.
            checkpoint: Content of the checkpoint from which a training resumes.
        """
        with self._turn():
            try:
                task = task_from_dict(json.loads(text))
                _check(task)
                if isinstance(task, Score) and task.checkpoint is not None and checkpoint is not None:
                    self._checkpoints.write(task.checkpoint, bytes(checkpoint))
                self._tasks[self._host.submit(task)] = id, task
            except Exception as error:
                failed = Failed(id=id, error=error, blame=blame_of(error), seconds=0.0)
                self._refused.append(message_to_json(failed, Prepare()))

    def wait(self, timeout_s: float) -> list[tuple[str, bytes | None]]:
        """Returns messages as JSON, each with the checkpoint that its task wrote. The list is empty after the timeout.

        The message of a successful `Prepare` also has the prepared object.
        """
        until = time.monotonic() + timeout_s
        while True:
            left = until - time.monotonic()
            while self._callers:
                time.sleep(_PAUSE_S)
            with self._lock:
                refused, self._refused = self._refused, []
                found = [] if refused else self._host.wait(max(0.0, min(_SLICE_S, left)))
                packed = [self._pack(message) for message in found if message.id in self._tasks]
            if refused or packed or left <= 0 or self._is_closed:
                return [*((text, None) for text in refused), *packed]

    def cancel(self, id: str) -> None:
        """Ends a task. `wait` returns no more messages about it."""
        with self._turn():
            for own, (given, task) in list(self._tasks.items()):
                if given == id:
                    del self._tasks[own]
                    self._host.cancel(own)
                    self._remove_checkpoint(task)

    @_answers
    def adopt(self, text: str) -> str:
        """Adds a prepared object, as JSON, and returns its reference for tasks of this place."""
        prepared = json.loads(text)
        return self._host.adopt(prepared)

    @_answers
    def find_set(self, text: str, shared: str) -> str | None:
        """Returns the folder of an image set on this node, or None if it must be sent.

        A transfer of the set that was not completed is given up.

        Args:
            text: `describe_set` of the set, as JSON.
            shared: Folder of the set on the driver's machine.
        """
        if (left := self._incoming.pop(text, None)) is not None:
            left.give_up()
        found = find_copy(json.loads(text), Path(shared), default_cache_dir())
        return None if found is None else self._use(found)

    @_answers
    def write_set(self, text: str, file: str | None, piece: bytes = b"") -> str | None:
        """Adds a piece of a file to an image set that is being sent.

        Args:
            text: `describe_set` of the set, as JSON.
            file: Name of the file. None if the set is complete; its folder is then returned.
            piece: The bytes that follow those of the last call.
        """
        if text not in self._incoming:
            self._incoming[text] = IncomingSet(json.loads(text), default_cache_dir())
        incoming = self._incoming[text]
        try:
            if file is not None:
                incoming.write(file, bytes(piece))
                return None
            del self._incoming[text]
            return self._use(incoming.finish())
        except Exception:
            self._incoming.pop(text, None)
            raise

    def close(self) -> None:
        """Ends all tasks and processes, and removes the files of this place."""
        self._is_closed = True
        with self._turn():
            self._host.close()
        for incoming in self._incoming.values():
            incoming.give_up()
        for use in self._uses.values():
            use.close()
        self._folder.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Holds the lock of the evaluator. Waits for messages, which hold it most of the time, let this call pass."""
        self._callers += 1
        try:
            with self._lock:
                yield
        finally:
            self._callers -= 1

    def _use(self, path: Path) -> str:
        if path not in self._uses:
            self._uses[path] = SetUse(path)
        return str(path)

    def _pack(self, message: Message) -> tuple[str, bytes | None]:
        """Returns a message for the driver, with the content of the checkpoint that its task wrote.

        If that cannot be read, the task has failed.
        """
        id, task = self._tasks[message.id]
        if not isinstance(message, Progress):
            del self._tasks[message.id]
        extra: dict[str, Any] = {}
        content = None
        try:
            if isinstance(message, Finished):
                if isinstance(task, Prepare) and message.result.reference is not None:
                    extra["prepared"] = self._host.prepared[message.result.reference]
                if isinstance(task, Score) and task.checkpoint is not None:
                    content = self._checkpoints.read(task.checkpoint)
            text = message_to_json(dataclasses.replace(message, id=id), task, **extra)
        except Exception as error:
            failed = Failed(id=id, error=error, blame=blame_of(error), seconds=0.0)
            text, content = message_to_json(failed, task), None
            if self._tasks.pop(message.id, None) is not None:
                self._host.cancel(message.id)
        if message.id not in self._tasks:
            self._remove_checkpoint(task)
        return text, content

    def _remove_checkpoint(self, task: Task[Any]) -> None:
        """Removes the checkpoint that a task left here. The driver has the one that counts."""
        if isinstance(task, Score) and task.checkpoint is not None:
            with contextlib.suppress(OSError):
                self._checkpoints.path_of(task.checkpoint).unlink()


def _check(task: Task[Any]) -> None:
    """Refuses tasks that read sources or run functions, which only the driver's machine has.

    Raises:
        UsageError: The task is such a task.
        RecordError: The task prepares nothing.
    """
    if isinstance(task, Prepare):
        if task.images is not None or task.source is not None or task.sheet is not None:
            raise UsageError("a node of a cluster reads no images and runs no functions of a user. The driver does.")
        if task.proxy is None and not task.timm_names:
            raise RecordError("a task of the kind prepare must name a proxy or networks of timm, but names none")
    names = [name for subject in _subjects_of(task) for key in ("function", "layer") if (name := subject.get(key))]
    if foreign := [name for name in names if not str(name).startswith(_OWN_CODE)]:
        raise UsageError(f"a node of a cluster builds networks with hilo-nas only, but got {foreign[0]!r:.80}")
    plan = task.plan if isinstance(task, Score) else task.proxy if isinstance(task, Prepare) else None
    if plan is not None and plan.declaration.has_source:
        raise UsageError(f"a node of a cluster runs no functions of a user, but the proxy is {plan.proxy}")


def _subjects_of(task: Task[Any]) -> list[Mapping[str, Any]]:
    """Returns all networks that a task builds."""
    if isinstance(task, Score | Count):
        return [task.subject]
    if not isinstance(task, Time):
        return []
    found: list[Mapping[str, Any]] = [entrant.subject for entrant in task.entries.values()]
    found += [rival["subject"] for rival in task.rivals.values()]
    return found if task.reference is None else [*found, task.reference]


def _read_boot_id() -> str:
    """Returns an ID of the running machine; an empty one if the system has none."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text(encoding="utf-8").strip()
    return ""
