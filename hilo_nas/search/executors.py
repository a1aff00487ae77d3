"""Who evaluates a candidate: an interface with three verbs, and the one that uses this machine's workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from hilo_nas.cost import NetworkCost
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.errors import NotEnoughMemoryError, OutOfMemoryError
from hilo_nas.events import Emit, Notice
from hilo_nas.measure import TUNED_ENVIRONMENT, Cohort, CpuWatch, Entrant, Ruler, Worker, call_twice, claims_of, hold
from hilo_nas.measurement import (
    Calibration,
    Condition,
    Contention,
    DeviceIdentity,
    Measurement,
    ProxyPlan,
    ProxyScore,
    find_contention,
)
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.rounds import verdict_of
from hilo_nas.speeds import SpeedFolder

__all__ = ["Executor", "LocalExecutor"]

# Memory is given back after each training: the timings beside it must not run out because of the last network.
_TRAINING_ENVIRONMENT = {"OMP_WAIT_POLICY": TUNED_ENVIRONMENT["OMP_WAIT_POLICY"]}

_LOOK_S = 0.3


class Executor(Protocol):
    """Measures and scores networks, somewhere; a crash of its own is an error of the trial, not of the search."""

    def measure(self, subject: Subject, emit: Emit, *, rivals: Sequence[TrialRecord]) -> tuple[Measurement, ...]:
        """Returns a measurement under each condition of the study, the objective first.

        Args:
            subject: The network.
            emit: Told of each round.
            rivals: The front; those about as fast are timed in the same rounds.

        Raises:
            NotEnoughMemoryError: The network does not fit.
            WorkerError: The worker crashed or hung.
        """

    def score(
        self, subject: Subject, seed: int, emit: Emit, *, until: int, checkpoint: Path | None = None
    ) -> ProxyScore:
        """Returns the network's score at one of the plan's budgets.

        Args:
            subject: The network.
            seed: Of its training.
            emit: Told of its progress.
            until: Images seen at which it is scored.
            checkpoint: File that the training goes on from, if it is there, and leaves behind.

        Raises:
            HiloNasError: The training failed.
        """

    def count(self, subject: Subject, emit: Emit) -> NetworkCost:
        """Returns what no formula knows: the parameters and multiply-adds of a peer, at the objective's image size.

        Raises:
            HiloNasError: The network cannot be built, or not be run at that size.
        """

    def close(self) -> None:
        """Ends every process."""


class LocalExecutor:
    """Persistent workers on this machine: one that times (in each environment asked for) and one that trains.

    Args:
        logs: Folder for what the workers print.
        purpose: What the work is for, as others read it who wait for the device.
        idle_timeout_s: Seconds of silence after which a worker counts as hung.
        timing_s: Seconds that a network is timed for at most; the ruler's own if left out.
    """

    def __init__(self, logs: Path, *, purpose: str, idle_timeout_s: float, timing_s: float | None = None) -> None:
        self._timing_s = timing_s
        self._logs, self._purpose, self._idle_timeout_s = logs, purpose, idle_timeout_s
        self._rulers: dict[str, Ruler] = {}
        self._training = Worker(
            "training", logs / "training.log", idle_timeout_s=idle_timeout_s, environment=_TRAINING_ENVIRONMENT
        )
        self._identities: dict[str, DeviceIdentity] = {}
        self._conditions: Sequence[Condition] = ()
        self._calibrations: Mapping[str, Calibration] = {}
        self._plan: ProxyPlan | None = None
        self._data: Mapping[str, Any] = {}
        self._training_device = "cpu"
        self._prepared: Mapping[str, Any] = {}
        self._speeds: SpeedFolder | None = None
        self._advised = {"steady"}

    def ruler(self, env: str = "tuned") -> Ruler:
        """Returns what times under an environment (`Condition.env`)."""
        if env not in self._rulers:
            log = self._logs / ("timing.log" if env == "tuned" else f"timing-{env}.log")
            self._rulers[env] = Ruler(log, purpose=self._purpose, idle_timeout_s=self._idle_timeout_s, env=env)
        return self._rulers[env]

    def read_device(self, device: str | None, emit: Emit) -> tuple[str, DeviceIdentity, int | None]:
        """Returns the device's name (this machine's fastest kind for None), who it is, and a CPU's threads.

        Raises:
            DeviceError: This machine does not have it.
        """
        found = self.ruler().read_device(device, emit)
        self._identities[found[0]] = found[1]
        return found

    def identity_of(self, device: str, emit: Emit) -> DeviceIdentity:
        """Returns who a device is; read once.

        Raises:
            DeviceError: This machine does not have it.
        """
        if device not in self._identities:
            self.read_device(device, emit)
        return self._identities[device]

    def read_form(self, condition: Condition, emit: Emit) -> str:
        """Returns the implementation that a LITv2 is timed in under a condition; see `Measurement.form`."""
        return self.ruler(condition.env).read_form(condition, emit)

    def calibrate(self, condition: Condition, emit: Emit) -> Calibration:
        """Returns the reference network's speed under the condition.

        Raises:
            MeasurementError: The reference does not fit.
        """
        return self.ruler(condition.env).calibrate(condition, emit, seconds=self._timing_s)

    def prepare_data(
        self,
        source: str,
        img_size: int,
        *,
        cache_dir: Path | None,
        val_data: str | None,
        group_by: str | None = None,
        options: ReadOptions = DEFAULTS,
        emit: Emit,
    ) -> dict[str, Any]:
        """Returns the prepared images' description, a `CachedData` as plain data.

        Raises:
            DataError: The data cannot serve.
            UsageError: A function that is to give the images is not there, is none, or cannot be imported.
            StorageError: The cache cannot be written.
        """
        arguments = {
            "source": source,
            "img_size": img_size,
            "cache_dir": str(cache_dir) if cache_dir else None,
            "val_data": val_data,
            "group_by": group_by,
            "options": options.to_dict(),
        }
        function = "hilo_nas.data.prepare:describe_data"
        described: dict[str, Any] = call_twice(self._training, function, arguments, emit)
        return described

    def draw_sheet(self, path: Path, emit: Emit) -> None:
        """Writes the contact sheet of the images that `set_up` was given.

        Raises:
            StorageError: The image cache is gone, or the file cannot be written.
        """
        assert self._plan is not None
        arguments = {"data": dict(self._data), "path": str(path), "group_by": self._plan.group_by}
        self._training.call("hilo_nas.data.sheet:write_sheet", arguments, emit)

    def prepare_proxy(
        self, plan: ProxyPlan, data: Mapping[str, Any] | None, source: str | None, device: str, emit: Emit
    ) -> dict[str, Any]:
        """Returns what a proxy does before the first trial; see `hilo_nas.proxy.run.prepare_proxy`."""
        arguments = {
            "plan": plan.to_dict(),
            "data": None if data is None else dict(data),
            "device": device,
            "source": source,
        }
        prepared: dict[str, Any] = call_twice(self._training, "hilo_nas.proxy.run:prepare_proxy", arguments, emit)
        return prepared

    def set_up(
        self,
        conditions: Sequence[Condition],
        calibrations: Mapping[str, Calibration],
        plan: ProxyPlan,
        data: Mapping[str, Any],
        *,
        prepared: Mapping[str, Any],
        training_device: str | None = None,
        speeds: SpeedFolder | None = None,
    ) -> None:
        """Says how to measure and how to train, for every call to come.

        Args:
            conditions: Of the timings, the objective first.
            calibrations: By the condition's label.
            plan: The short training.
            data: The prepared images.
            prepared: What the proxy prepared.
            training_device: Where to train; the objective's device if left out.
            speeds: Speeds taken elsewhere, which then stand in for timing.
        """
        self._conditions, self._calibrations, self._plan, self._data = conditions, calibrations, plan, data
        self._prepared = prepared
        self._training_device, self._speeds = training_device or conditions[0].device, speeds

    def measure(self, subject: Subject, emit: Emit, *, rivals: Sequence[TrialRecord]) -> tuple[Measurement, ...]:
        """See `Executor.measure`."""
        if self._speeds is not None:
            return self._speeds.measurements_of(subject.key)
        objective = self._measure(subject, self._conditions[0], emit, rivals)
        return objective, *(self._measure(subject, condition, emit, ()) for condition in self._conditions[1:])

    def measure_cohort(
        self,
        subjects: Mapping[str, Subject],
        condition: Condition,
        calibration: Calibration,
        num_classes: int,
        emit: Emit,
        *,
        seconds_each: float | None = None,
    ) -> Cohort:
        """Returns several networks' speeds under one condition, timed side by side; see `Ruler.measure_cohort`."""
        entrants = {
            name: Entrant(subject=subject.to_dict(), condition=condition, num_classes=num_classes)
            for name, subject in subjects.items()
        }
        self._training.close()  # it may hold memory of the device
        return self.ruler(condition.env).measure_cohort(
            entrants,
            emit,
            calibration=calibration,
            seconds_each=self._timing_s if seconds_each is None else seconds_each,
        )

    def _measure(
        self, subject: Subject, condition: Condition, emit: Emit, rivals: Sequence[TrialRecord]
    ) -> Measurement:
        entrant = Entrant(subject=subject.to_dict(), condition=condition, num_classes=len(self._data["class_names"]))
        near = {
            rival.key: {"subject": rival.subject.to_dict(), "images_per_s": rival.measurement.images_per_s}
            for rival in rivals
            if rival.measurement is not None and rival.key != subject.key
        }
        ruler, calibration = self.ruler(condition.env), self._calibrations[condition.label()]
        try:
            measurement = ruler.measure(entrant, calibration, emit, rivals=near, seconds_each=self._timing_s)
            self._advise(subject, measurement, emit)
            return measurement
        except OutOfMemoryError:
            self._training.close()  # it may hold memory of the device; alone, the network has its fair try
        try:
            return ruler.measure(entrant, calibration, emit, seconds_each=self._timing_s)
        except OutOfMemoryError as error:
            raise NotEnoughMemoryError(str(error)) from error

    def read_contention(self, condition: Condition, emit: Emit) -> Contention | None:
        """Returns what others would take now of the cores that a timing needs: a look of a third of a second."""
        watch = CpuWatch()
        time.sleep(_LOOK_S)
        device = self.identity_of(condition.device, emit)
        return find_contention(watch.read(), threads=condition.threads, device=device)

    def _advise(self, subject: Subject, measurement: Measurement, emit: Emit) -> None:
        """Tells once what a verdict means and what to do; of each contended timing, who used the cores."""
        judgement = verdict_of(measurement)
        if judgement is None or judgement.verdict in self._advised:
            return
        if judgement.verdict == "contended":
            text = f"the timing of {subject.timm or subject.key} is contended: {judgement.text}"
            emit(Notice(level="warning", text=text))
            return
        self._advised.add(judgement.verdict)
        emit(Notice(level="warning", text=judgement.text))

    def score(
        self, subject: Subject, seed: int, emit: Emit, *, until: int, checkpoint: Path | None = None
    ) -> ProxyScore:
        """See `Executor.score`."""
        assert self._plan is not None, "set_up comes first"
        return self.train(subject, self._plan, seed, emit, until=until, checkpoint=checkpoint)

    def train(
        self,
        subject: Subject,
        plan: ProxyPlan,
        seed: int,
        emit: Emit,
        *,
        until: int | None = None,
        checkpoint: Path | None = None,
    ) -> ProxyScore:
        """Returns the score of a training that need not be by the study's plan; see `score`."""
        arguments = {
            "subject": subject.to_dict(),
            "plan": plan.to_dict(),
            "data": dict(self._data),
            "prepared": dict(self._prepared),
            "seed": seed,
            "device": self._training_device,
            "until": until,
            "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
        }
        claims = claims_of(self.identity_of(self._training_device, emit), timing=False)
        with hold(claims, f"training for {self._purpose}", emit):
            scored = self._training.call("hilo_nas.proxy.run:score_network", arguments, emit)
        return ProxyScore.from_dict(scored["score"])

    def count(self, subject: Subject, emit: Emit) -> NetworkCost:
        """See `Executor.count`."""
        arguments = {
            "subject": subject.to_dict(),
            "img_size": self._conditions[0].img_size,
            "num_classes": len(self._data["class_names"]),
        }
        found = call_twice(self._training, "hilo_nas.models.macs:count_subject", arguments, emit)
        return NetworkCost(parameters=found["params"], macs=found["macs"])

    def check_timm_names(self, names: Sequence[str], emit: Emit) -> None:
        """Checks in a worker, for timm takes its time to import, that it knows networks of these names.

        Raises:
            UsageError: It does not; tells the nearest names.
        """
        call_twice(self._training, "hilo_nas.models.subjects:check_timm_names", {"names": list(names)}, emit)

    def close(self) -> None:
        """See `Executor.close`."""
        for ruler in self._rulers.values():
            ruler.close()
        self._training.close()

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
