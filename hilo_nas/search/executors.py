"""Who evaluates a candidate: an interface with two verbs, and the one that uses this machine's workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from hilo_nas.errors import MeasurementError, NotEnoughMemoryError, OutOfMemoryError
from hilo_nas.events import Emit
from hilo_nas.measure import TUNED_ENVIRONMENT, Worker
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, Measurement, ProxyPlan, ProxyScore
from hilo_nas.records import Subject

__all__ = ["Executor", "LocalExecutor"]

# Memory is given back after each training: the timings beside it must not run out because of the last network.
_TRAINING_ENVIRONMENT = {"OMP_WAIT_POLICY": TUNED_ENVIRONMENT["OMP_WAIT_POLICY"]}


class Executor(Protocol):
    """Measures and scores networks, somewhere; a crash of its own is an error of the trial, not of the search."""

    def measure(self, subject: Subject, emit: Emit) -> tuple[Measurement, ...]:
        """Returns a measurement under each condition of the study, the objective first.

        Raises:
            NotEnoughMemoryError: The network does not fit.
            WorkerError: The worker crashed or hung.
        """

    def score(self, subject: Subject, seed: int, emit: Emit) -> ProxyScore:
        """Returns the network's score after one short training.

        Raises:
            HiloNasError: The training failed.
        """

    def close(self) -> None:
        """Ends every process."""


class LocalExecutor:
    """Two persistent workers on this machine, one that times and one that trains.

    Args:
        logs: Folder for what the workers print.
        idle_timeout_s: Seconds of silence after which a worker counts as hung.
    """

    def __init__(self, logs: Path, *, idle_timeout_s: float) -> None:
        self._timing = Worker("timing", logs / "timing.log", idle_timeout_s=idle_timeout_s)
        self._training = Worker(
            "training", logs / "training.log", idle_timeout_s=idle_timeout_s, environment=_TRAINING_ENVIRONMENT
        )
        self._conditions: Sequence[Condition] = ()
        self._calibrations: Mapping[str, Calibration] = {}
        self._plan: ProxyPlan | None = None
        self._data: Mapping[str, Any] = {}

    def read_device(self, device: str | None, emit: Emit) -> tuple[str, DeviceIdentity, int | None]:
        """Returns the device's name (this machine's fastest kind for None), who it is, and a CPU's threads.

        Raises:
            DeviceError: This machine does not have it.
        """
        found = self._timing.call("hilo_nas.measure.device:read_device", {"device": device}, emit)
        return found["device"], DeviceIdentity(**found["identity"]), found["threads"]

    def calibrate(self, condition: Condition, emit: Emit) -> Calibration:
        """Returns the reference network's speed under the condition.

        Raises:
            MeasurementError: The reference does not fit.
        """
        arguments = {"condition": condition.to_dict()}
        try:
            return Calibration.from_dict(self._timing.call("hilo_nas.measure.throughput:calibrate", arguments, emit))
        except OutOfMemoryError as error:
            raise MeasurementError(
                f"the reference network must fit into memory, but {error} at batch_size {condition.batch_size} and "
                f"{condition.img_size} px. Use a smaller --batch-size."
            ) from error

    def prepare_data(
        self, source: str, img_size: int, *, cache_dir: Path | None, val_data: str | None, emit: Emit
    ) -> dict[str, Any]:
        """Returns the prepared images' description, a `CachedData` as plain data.

        Raises:
            DataError: The data cannot serve.
            StorageError: The cache cannot be written.
        """
        arguments = {
            "source": source,
            "img_size": img_size,
            "cache_dir": str(cache_dir) if cache_dir else None,
            "val_data": val_data,
        }
        described: dict[str, Any] = self._training.call("hilo_nas.proxy.data:describe_data", arguments, emit)
        return described

    def set_up(
        self,
        conditions: Sequence[Condition],
        calibrations: Mapping[str, Calibration],
        plan: ProxyPlan,
        data: Mapping[str, Any],
    ) -> None:
        """Says how to measure and how to train, for every call to come."""
        self._conditions, self._calibrations, self._plan, self._data = conditions, calibrations, plan, data

    def measure(self, subject: Subject, emit: Emit) -> tuple[Measurement, ...]:
        """See `Executor.measure`."""
        return tuple(self._measure(subject, condition, emit) for condition in self._conditions)

    def _measure(self, subject: Subject, condition: Condition, emit: Emit) -> Measurement:
        arguments = {
            "subject": subject.to_dict(),
            "condition": condition.to_dict(),
            "calibration": dataclasses.asdict(self._calibrations[condition.label()]),
            "num_classes": len(self._data["class_names"]),
        }
        try:
            return Measurement.from_dict(self._timing.call("hilo_nas.measure.throughput:measure", arguments, emit))
        except OutOfMemoryError:
            self._training.close()  # it may hold memory of the device; alone, the network has its fair try
        try:
            return Measurement.from_dict(self._timing.call("hilo_nas.measure.throughput:measure", arguments, emit))
        except OutOfMemoryError as error:
            raise NotEnoughMemoryError(str(error)) from error

    def score(self, subject: Subject, seed: int, emit: Emit) -> ProxyScore:
        """See `Executor.score`."""
        assert self._plan is not None, "set_up comes first"
        return self.train(subject, self._plan, seed, emit)

    def train(self, subject: Subject, plan: ProxyPlan, seed: int, emit: Emit) -> ProxyScore:
        """Returns the score of a training by another plan than the study's, for estimating its cost."""
        arguments = {
            "subject": subject.to_dict(),
            "plan": plan.to_dict(),
            "data": dict(self._data),
            "seed": seed,
            "device": self._conditions[0].device,
        }
        return ProxyScore.from_dict(self._training.call("hilo_nas.proxy.train:run_training", arguments, emit))

    def close(self) -> None:
        """See `Executor.close`."""
        self._timing.close()
        self._training.close()

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
