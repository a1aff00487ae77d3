"""Fake evaluator of a place of a cluster: each task sleeps in real time, and its use of the device is recorded."""

from __future__ import annotations

import dataclasses
import itertools
import json
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.evaluation import (
    DeviceReport,
    Failed,
    Finished,
    Message,
    Progress,
    Score,
    Task,
    blame_of,
)
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.events import TrainingProgressed
from hilo_nas.measurement import DeviceIdentity
from hilo_nas.testing.evaluators import FakeAnswers

__all__ = ["DeviceUse", "SleepingHost", "find_overlaps", "read_uses"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceUse:
    """Use of a place's device by a task of `SleepingHost`."""

    place: str
    kind: str
    """Kind of the task."""
    target: str | None
    began: float
    """Monotonic seconds, which all processes of a host share."""
    ended: float
    resumed_at: int | None = None
    """Training images that the checkpoint of a training had seen; None without a checkpoint."""


class SleepingHost:
    """Fake evaluator that runs one task at a time, each for the same number of real seconds.

    Args:
        folder: Folder for checkpoints.
        place: Name of the place, which is also the serial of its device.
        seconds: Seconds per task.
        log: Folder of the files with the uses of the device. None records nothing.
        failing: Kind of the tasks that fail because of their network. None for no such tasks.
        model: Model of the device.
        images_per_s: Speed of the reference on the device.
        **unused: Arguments of the real evaluator.
    """

    def __init__(
        self,
        folder: Path,
        *,
        place: str,
        seconds: float = 0.02,
        log: str | None = None,
        failing: str | None = None,
        model: str = "fake, 2 cores",
        images_per_s: float = 256.0,
        **unused: Any,
    ) -> None:
        self._place, self._seconds, self._failing = place, seconds, failing
        self._log = None if log is None else Path(log) / f"{place.replace('/', '-')}.jsonl"
        self._checkpoints = CheckpointFiles(folder / "checkpoints", budget_mib=1024)
        self._answers = _PlaceAnswers(place, model, images_per_s)
        self._ids = itertools.count()
        self._tasks: queue.SimpleQueue[tuple[str, Task[Any]] | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ending: dict[str, threading.Event] = {}
        """Events that end unfinished tasks."""
        self._prepared: dict[str, Any] = {"fake": {}}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, task: Task[Any]) -> str:
        """Queues a task and returns its id."""
        id = str(next(self._ids))
        self._ending[id] = threading.Event()
        self._tasks.put((id, task))
        return id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns the messages since the last call. Waits until there is at least one."""
        found: list[Message] = []
        try:
            found.append(self._messages.get(timeout=timeout))
            while True:
                found.append(self._messages.get_nowait())
        except queue.Empty:
            return [message for message in found if message.id in self._ending]

    def cancel(self, id: str) -> None:
        """Ends a task at once, without further messages."""
        if (ending := self._ending.pop(id, None)) is not None:
            ending.set()

    def slots(self, kind: str) -> int:
        """Returns 1."""
        return 1

    def devices(self) -> list[DeviceReport]:
        """Returns no devices."""
        return []

    def discard(self, references: Iterable[str]) -> None:
        """Removes checkpoint files."""
        self._checkpoints.discard(references)

    @property
    def prepared(self) -> Mapping[str, Any]:
        """Prepared objects by reference."""
        return self._prepared

    def adopt(self, prepared: Any) -> str:
        """Adds a prepared object and returns its reference."""
        reference = f"adopted-{len(self._prepared)}"
        self._prepared[reference] = prepared
        return reference

    def close(self) -> None:
        """Ends all tasks and the thread."""
        for id in list(self._ending):
            self.cancel(id)
        self._tasks.put(None)

    def _run(self) -> None:
        while (item := self._tasks.get()) is not None:
            id, task = item
            if (ending := self._ending.get(id)) is None:
                continue
            began = time.monotonic()
            if isinstance(task, Score):
                self._messages.put(Progress(id=id, event=TrainingProgressed(images_seen=1, images_total=2)))
            is_cancelled = ending.wait(self._seconds)
            ended = time.monotonic()
            message = self._result_of(id, task, began, ended)
            if not is_cancelled:
                self._messages.put(message)

    def _result_of(self, id: str, task: Task[Any], began: float, ended: float) -> Message:
        seconds = ended - began
        resumed_at = None
        try:
            if task.kind == self._failing:
                raise UsageError(f"a task of the kind {task.kind} fails here")
            if isinstance(task, Score) and task.checkpoint is not None:
                path = self._checkpoints.path_of(task.checkpoint)
                if path.is_file():
                    self._answers.kept.add(task.checkpoint)
                    resumed_at = int(path.read_text())
            result = self._answers(task)
            if isinstance(task, Score) and task.checkpoint is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(result.score.images_seen))
        except HiloNasError as error:
            return Failed(id=id, error=error, blame=blame_of(error), seconds=seconds)
        finally:
            target = getattr(task, "target", None)
            self._record(
                DeviceUse(
                    place=self._place, kind=task.kind, target=target, began=began, ended=ended, resumed_at=resumed_at
                )
            )
        return Finished(id=id, result=result, seconds=seconds)

    def _record(self, use: DeviceUse) -> None:
        if self._log is not None:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(use)) + "\n")


class _PlaceAnswers(FakeAnswers):
    """Answers of a device with its own serial."""

    def __init__(self, place: str, model: str, images_per_s: float) -> None:
        super().__init__()
        self._place, self._model, self._images_per_s = place, model, images_per_s

    def reference_speed(self, device: str) -> float:
        """Returns the speed of the reference in images/s."""
        return self._images_per_s

    def identity_of(self, device: str) -> DeviceIdentity:
        """Returns the identity of the place's device."""
        return dataclasses.replace(super().identity_of(device), serial=self._place, model=self._model)


def read_uses(log: Path) -> list[DeviceUse]:
    """Returns the uses of all devices that places wrote to a folder, in the order of their begin."""
    lines = [line for file in sorted(log.glob("*.jsonl")) for line in file.read_text(encoding="utf-8").splitlines()]
    return sorted((DeviceUse(**json.loads(line)) for line in lines), key=lambda use: use.began)


def find_overlaps(uses: Iterable[DeviceUse]) -> list[tuple[DeviceUse, DeviceUse]]:
    """Returns the pairs of uses of the same device that overlap in time."""
    by_place: dict[str, list[DeviceUse]] = {}
    for use in sorted(uses, key=lambda use: use.began):
        by_place.setdefault(use.place, []).append(use)
    return [pair for own in by_place.values() for pair in itertools.pairwise(own) if pair[1].began < pair[0].ended]
