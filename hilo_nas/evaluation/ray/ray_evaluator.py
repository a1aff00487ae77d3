"""Evaluator of a cluster: assigns tasks to places, and repeats those of lost places elsewhere.

All decisions are made in the thread of the caller, in `submit`, `wait` and `cancel`. Images are read and decoded on the
driver's machine. Checkpoints stay in the study's folder: a training gets its checkpoint with the task and returns it
with the result, so it can continue on another node.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hilo_nas.errors import DeviceError, HiloNasError, StorageError, WorkerDiedError, WorkerFailedError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.evaluation.cluster_options import ClusterOptions
from hilo_nas.evaluation.protocol import Failed, Finished, Message, Progress, blame_of
from hilo_nas.evaluation.ray.cluster import Cluster, PlaceLostError
from hilo_nas.evaluation.ray.cluster_jobs import Inspection, Job, check_no_functions, kind_for
from hilo_nas.evaluation.ray.inspections import build_inspection, join_seats, seats_of
from hilo_nas.evaluation.ray.place import Host
from hilo_nas.evaluation.ray.plain_messages import message_from_json
from hilo_nas.evaluation.ray.seats import Prepared, Seat, Seats
from hilo_nas.evaluation.tasks import Count, DeviceReport, Inspect, Prepare, Score, Task, Time
from hilo_nas.events import Notice
from hilo_nas.measurement import devices_of

__all__ = ["RayEvaluator"]

_MOST_LOSSES = 2
"""Number of places that a task may lose. A task that ends its node each time must not end all of them."""
_MOST_STARTS = 2
"""Number of times that a lost place is started again on its node."""
_POLL_S = 2.0
"""Longest wait for messages of a place. A place that ends is noticed at once."""
_HOME_S = 0.1
"""Longest wait for messages of the driver's machine while nodes work too."""
_LOST = (PlaceLostError, WorkerFailedError)
"""Errors of a call that mean that a place has ended, or that it is broken."""
_END_S = 10.0
"""Longest wait for the end of a place's processes."""


class RayEvaluator:
    """Evaluator with a place per device of a cluster (`hilo_nas.evaluation.ray`).

    A place runs one task at a time, so timings and trainings of a device never overlap. If a place or its node ends,
    its task is repeated on another one; after two losses, the task fails with the blame `worker_lost`.

    Args:
        cluster: The cluster.
        home: Evaluator of the driver's machine, which reads the images.
        wishes: Nodes that time and train.
        host: Name of the function that creates the evaluator of a place, and its arguments, as in `Place`.
        checkpoints: Folder of the checkpoints, or None if trainings are never resumed.
        start_s: Seconds after which a place that has not started is given up.
        notices: Warnings about the cluster, which the first task for its nodes reports.
    """

    def __init__(
        self,
        cluster: Cluster,
        home: Host,
        *,
        wishes: ClusterOptions,
        host: tuple[str, Mapping[str, Any]],
        checkpoints: CheckpointFiles | None = None,
        start_s: float = 120.0,
        notices: Sequence[str] = (),
    ) -> None:
        self._cluster, self._home, self._wishes, self._checkpoints = cluster, home, wishes, checkpoints
        self._seats = Seats(cluster, wishes, host, start_s=start_s)
        self._seats.notices += notices
        self._ids = itertools.count()
        self._queue: list[Job] = []
        """Tasks that wait for a free seat, in their order."""
        self._active: dict[str, Job | Inspection] = {}
        self._at_home: dict[str, Job] = {}
        """Tasks of the driver's machine, by the ID of its evaluator."""
        self._prepared: dict[str, Prepared] = {}
        self._outbox: list[Message] = []
        self._target: tuple[str, ...] = ()
        """Names of the devices of the target that was inspected last."""
        self._is_closed = False

    def submit(self, task: Task[Any]) -> str:
        """Queues a task and returns its id. The first task for the nodes starts their places, which takes seconds."""
        job = Job(id=str(next(self._ids)), task=task)
        self._active[job.id] = job
        with self._failing(job):
            if isinstance(task, Prepare):
                check_no_functions(task)
            if isinstance(task, Prepare) and task.proxy is None:
                sheet = None if task.sheet is None else self._prepared[task.sheet].home
                self._at_home[self._home.submit(dataclasses.replace(task, sheet=sheet))] = job
            else:
                self._seats.open(kind_for(task))
                if isinstance(task, Inspect):
                    whole = build_inspection(job.id, task, self._seats.all)
                    self._active[job.id] = whole
                    self._queue += whole.parts
                else:
                    self._queue.append(job)
                self._report_notices(job.id)
        self._assign()
        return job.id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns the messages since the last call, as in `Evaluator.wait`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._assign()
            left = _POLL_S if until is None else until - time.monotonic()
            self._read_any(0.0 if self._outbox else max(0.0, min(left, _POLL_S)))
            found = [message for message in self._outbox if message.id in self._active]
            self._outbox = []
            for message in found:
                if not isinstance(message, Progress):
                    del self._active[message.id]
            if found or (until is not None and time.monotonic() >= until):
                return found

    def cancel(self, id: str) -> None:
        """Ends a task, even if it is running on a node."""
        whole = self._active.pop(id, None)
        for job in [whole] if isinstance(whole, Job) else list(whole.parts) if whole is not None else []:
            self._drop(job)

    def slots(self, kind: str) -> int:
        """Returns the number of parallel tasks of a kind: the number of places that do such tasks."""
        own = [seat for seat in self._seats.all if not self._target or seat.name in self._target]
        if kind == Score.kind:
            return max(1, sum(seat.trains for seat in (own if self._wishes.train_on is None else self._seats.all)))
        return max(1, sum(seat.times for seat in own)) if kind in (Time.kind, Count.kind) else 1

    def devices(self) -> list[DeviceReport]:
        """Returns the reports of the devices that were inspected so far."""
        return [seat.report for seat in self._seats.all if seat.report is not None]

    def discard(self, references: Iterable[str]) -> None:
        """Removes checkpoint files of the study in the given order until the remaining ones fit the budget."""
        if self._checkpoints is not None:
            self._checkpoints.discard(references)

    def close(self) -> None:
        """Ends all tasks, places and processes of the search on all nodes."""
        if self._is_closed:
            return
        self._is_closed = True
        self._active.clear()
        self._queue.clear()
        self._home.close()
        ending = [self._cluster.call(seat.place, "close") for seat in self._seats.all if seat.is_running]
        until = time.monotonic() + _END_S
        while ending and (left := until - time.monotonic()) > 0:
            ready = self._cluster.first_ready(ending, left)
            ending = [handle for handle in ending if handle not in ready]
        for seat in self._seats.all:
            self._seats.remove(seat)
        self._cluster.close()

    @contextlib.contextmanager
    def _failing(self, job: Job) -> Iterator[None]:
        """Returns a context in which an error of this package becomes the failure of a task."""
        try:
            yield
        except HiloNasError as error:
            self._fail(job, error)

    def _fail(self, job: Job, error: HiloNasError) -> None:
        id = job.caller_id
        if job.whole is not None:
            for part in list(job.whole.parts):
                self._drop(part)
        self._outbox.append(Failed(id=id, error=error, blame=blame_of(error), seconds=0.0))

    def _report_notices(self, id: str) -> None:
        """Sends the warnings about places as events of a task."""
        for text in self._seats.notices:
            self._outbox.append(Progress(id=id, event=Notice(level="warning", text=text)))
        self._seats.notices.clear()

    # Assignment of tasks to seats.

    def _fitting(self, job: Job) -> list[Seat]:
        """Returns the seats that may run a task, whether they are free or not."""
        if job.only is not None:
            return [seat for seat in self._seats.all if seat is job.only]
        task = job.task
        if isinstance(task, Count):
            return self._seats.all
        if isinstance(task, Time):
            return [seat for seat in seats_of(task.target or task.condition.device, self._seats.all) if seat.times]
        if self._wishes.train_on is not None:
            return [seat for seat in self._seats.all if seat.trains]
        if isinstance(task, Score | Prepare) and task.target:
            return seats_of(task.target, self._seats.all)
        return self._seats.all

    def _assign(self) -> None:
        """Starts queued tasks on free seats, the oldest first."""
        for job in list(self._queue):
            if job not in self._queue:
                continue  # the failure of another one removed it
            fitting = self._fitting(job)
            seat = next((seat for seat in fitting if seat.is_free), None)
            if not fitting:
                self._queue.remove(job)
                self._lose_device(job)
            elif seat is not None:
                self._queue.remove(job)
                self._begin(job, seat)

    def _lose_device(self, job: Job) -> None:
        """Ends a task for which no place is left."""
        if job.whole is not None:
            self._end_part(job, None)
            return
        role = "trains" if isinstance(job.task, Score) else "times"
        text = "; ".join(self._seats.notices) or "their processes or machines ended"
        self._seats.notices.clear()
        error = DeviceError(f"no node of the cluster {role} any more: {text}. Start nodes, and resume the search.")
        self._outbox.append(Failed(id=job.id, error=error, blame="world", seconds=0.0))

    def _begin(self, job: Job, seat: Seat) -> None:
        """Sends a task to a free seat, with what it needs."""
        job.seat, seat.job, seat.sent = seat, job, None
        try:
            task = self._localized(job.task, seat)
            content = self._read_checkpoint(job, task)
            seat.sent = self._cluster.call(seat.place, "submit", job.id, json.dumps(task.to_dict()), content)
        except PlaceLostError as error:
            self._lose(seat, error)
        except HiloNasError as error:
            job.seat, seat.job = None, None
            self._fail(job, error)

    def _localized(self, task: Task[Any], seat: Seat) -> Task[Any]:
        """Returns a task with the names that a place uses for its device and for prepared objects."""

        def given(reference: str | None) -> str | None:
            return None if reference is None else self._seats.give(seat, reference, self._prepared[reference])

        if isinstance(task, Time):
            return dataclasses.replace(task, target=seat.kind)
        if isinstance(task, Prepare):
            return dataclasses.replace(task, target=seat.kind, data=given(task.data))
        if isinstance(task, Score):
            keeps = self._checkpoints is not None or task.must_resume
            return dataclasses.replace(
                task,
                target=seat.kind,
                data=given(task.data) or "",
                prepared=given(task.prepared),
                checkpoint=task.checkpoint if keeps else None,
            )
        return task

    def _read_checkpoint(self, job: Job, task: Task[Any]) -> bytes | None:
        """Returns the content of the checkpoint from which a training resumes; None if none can be read."""
        if self._checkpoints is None or not isinstance(task, Score) or task.checkpoint is None:
            return None
        try:
            return self._checkpoints.read(task.checkpoint)
        except StorageError as error:
            text = f"{error} The training starts from the beginning"
            self._outbox.append(Progress(id=job.id, event=Notice(level="warning", text=text)))
            return None

    def _write_checkpoint(self, job: Job, content: bytes | None) -> None:
        """Writes the checkpoint that a training returned. A failure is a warning, because the score is valid."""
        task = job.task
        if self._checkpoints is None or not isinstance(task, Score) or not task.checkpoint or content is None:
            return
        try:
            self._checkpoints.write(task.checkpoint, content)
        except StorageError as error:
            text = f"{error} The search continues without this checkpoint"
            self._outbox.append(Progress(id=job.id, event=Notice(level="warning", text=text)))

    # Messages and losses.

    def _read_any(self, timeout_s: float) -> None:
        """Reads the messages of the first places that have some, and of the driver's machine.

        It waits for messages of free places too, so that their end is noticed before they get a task.
        """
        for seat in self._seats.all:
            if seat.is_running and seat.poll is None:
                seat.poll = self._cluster.call(seat.place, "wait", _POLL_S)
        pending = {seat.poll or seat.starting: seat for seat in self._seats.all if seat.poll or seat.starting}
        if self._at_home:
            self._read_home(min(timeout_s, _HOME_S))
            timeout_s = 0.0
        if not pending:
            if not self._at_home:
                time.sleep(min(timeout_s, _HOME_S))
            return
        for handle in self._cluster.first_ready(list(pending), timeout_s):
            seat = pending[handle]
            if seat.starting is not None:
                self._seats.check_start(seat, is_ready=True)
            else:
                self._read_seat(seat)
        for seat in list(self._seats.all):
            if seat.starting is not None:
                self._seats.check_start(seat, is_ready=False)

    def _read_home(self, timeout_s: float) -> None:
        for message in self._home.wait(timeout_s):
            job = self._at_home.get(message.id)
            if job is None:
                continue
            message = dataclasses.replace(message, id=job.id)
            if not isinstance(message, Progress):
                self._at_home = {id: other for id, other in self._at_home.items() if other is not job}
            if isinstance(message, Finished) and message.result.reference is not None:
                home = message.result.reference
                reference = self._keep(self._home.prepared[home], home)
                message = dataclasses.replace(message, result=dataclasses.replace(message.result, reference=reference))
            self._outbox.append(message)

    def _keep(self, value: dict[str, Any], home: str | None) -> str:
        reference = f"prepared-{len(self._prepared)}"
        self._prepared[reference] = Prepared(value=value, home=home)
        return reference

    def _read_seat(self, seat: Seat) -> None:
        """Reads the messages of a place whose wait has ended."""
        handle, seat.poll = seat.poll, None
        try:
            found = self._cluster.result(handle)
        except _LOST as error:
            self._lose(seat, error)
            return
        for text, content in found:
            fields = json.loads(text)
            job: Job | None = seat.job
            if job is None or fields["id"] != job.id:
                continue  # a cancelled task
            if fields["kind"] != "progress":
                job.seat, seat.job = None, None
            with self._failing(job):
                message = message_from_json(fields, job.task, id=job.id, device=seat.name)
                if isinstance(message, Progress):
                    self._outbox.append(dataclasses.replace(message, id=job.caller_id))
                else:
                    self._end(job, seat, message, fields.get("prepared"), content)

    def _end(
        self, job: Job, seat: Seat, message: Finished | Failed, prepared: Any = None, content: bytes | None = None
    ) -> None:
        if job.whole is not None:
            if isinstance(message, Failed):
                self._fail_with(job, message)
            else:
                self._end_part(job, dataclasses.replace(message.result, target=seat.name), seat)
            return
        if isinstance(message, Finished):
            self._write_checkpoint(job, content)
            if prepared is not None:
                result = dataclasses.replace(message.result, reference=self._keep(prepared, None))
                message = dataclasses.replace(message, result=result)
        self._outbox.append(message)

    def _fail_with(self, job: Job, message: Failed) -> None:
        """Ends an inspection with the failure of one of its parts."""
        assert job.whole is not None, "the task must be a part of an inspection"
        for part in job.whole.parts:
            if part is not job:
                self._drop(part)
        self._outbox.append(dataclasses.replace(message, id=job.whole.id))

    def _lose(self, seat: Seat, error: Exception) -> None:
        """Repeats the task of a lost place elsewhere, and starts the place again if its node still runs.

        The task has not lost a place that never had it, because then it cannot have ended the place.
        """
        job: Job | None = seat.job
        has_task = job is not None and self._has_task(seat)
        seat.job, seat.poll, seat.sent = None, None, None
        seat.losses += 1
        if seat.losses <= _MOST_STARTS and any(node.id == seat.node.id for node in self._cluster.nodes()):
            self._cluster.kill(seat.place)
            self._seats.start(seat)
        else:
            self._seats.remove(seat)
        if job is None:
            return
        job.seat = None
        job.losses += has_task
        if job.losses < _MOST_LOSSES:
            text = f"{seat.name} was lost ({error}). Its task is repeated on a node that is free"
            self._outbox.append(Progress(id=job.caller_id, event=Notice(level="warning", text=text)))
            self._queue.insert(0, job)
            return
        text = f"the task lost {job.losses} places, the last one was {seat.name} ({error})"
        self._fail(job, WorkerDiedError(text))

    def _has_task(self, seat: Seat) -> bool:
        """Returns True if a place has received its task."""
        if seat.sent is None or not self._cluster.first_ready([seat.sent], 0.0):
            return False
        try:
            self._cluster.result(seat.sent)
        except _LOST:
            return False
        return True

    def _drop(self, job: Job) -> None:
        """Ends a task without a message."""
        if job in self._queue:
            self._queue.remove(job)
        for id, other in list(self._at_home.items()):
            if other is job:
                del self._at_home[id]
                self._home.cancel(id)
        if (seat := job.seat) is not None:
            job.seat, seat.job = None, None
            try:
                self._cluster.result(self._cluster.call(seat.place, "cancel", job.id))
            except _LOST as error:
                self._lose(seat, error)

    # Inspections.

    def _end_part(self, job: Job, report: DeviceReport | None, seat: Seat | None = None) -> None:
        """Adds the report of a device, and ends the inspection with the last one."""
        whole = job.whole
        assert whole is not None, "the task must be a part of an inspection"
        whole.parts.remove(job)
        if report is not None and seat is not None:
            whole.reports[seat] = report
            seat.report = dataclasses.replace(report, forms={}, contention=None)
        if whole.parts:
            return
        try:
            ordered = [seat for seat in self._seats.all if seat in whole.reports]
            kept = self._without_copies(ordered)
            timing, training = [seat for seat in kept if seat.times], [seat for seat in kept if seat.trains]
            result = join_seats(timing, training, whole, trains_elsewhere=self._wishes.train_on is not None)
            if whole.task.watch is None:
                self._target = devices_of(result.target)
        except HiloNasError as error:
            self._outbox.append(Failed(id=whole.id, error=error, blame=blame_of(error), seconds=0.0))
            return
        seconds = time.monotonic() - whole.began
        self._report_notices(whole.id)
        self._outbox.append(Finished(id=whole.id, result=result, seconds=seconds))

    def _without_copies(self, seats: Sequence[Seat]) -> list[Seat]:
        """Returns the seats whose devices are different ones. The others are removed, and their tasks run elsewhere."""
        kept, copies = self._seats.drop_copies(seats)
        for job in [seat.job for seat in copies if seat.job is not None]:
            job.seat = None
            self._queue.insert(0, job)
        return kept
