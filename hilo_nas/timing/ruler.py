"""Timings in a worker process that hold the device lock while they run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hilo_nas.errors import (
    HiloNasError,
    MeasurementError,
    OutOfMemoryError,
    UsageError,
    WorkerError,
    error_of,
)
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, Measurement
from hilo_nas.timing.advice import advise, count_cores, read_cpu_flags
from hilo_nas.timing.exclusive import claims_of, hold
from hilo_nas.timing.worker import TUNED_ENVIRONMENT, Worker, call_twice

__all__ = ["TOGETHER", "Cohort", "Entrant", "Ruler"]

TOGETHER = 24
"""Maximum number of networks per cohort. All are in memory at once, and a round times a block of each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entrant:
    """A network to time, with its condition."""

    subject: dict[str, Any]
    """Argument of `hilo_nas.models.build_subject`, or `{"onnx": FILE}` or `{"openvino": FILE}`."""
    condition: Condition
    num_classes: int = 1000

    def to_dict(self) -> dict[str, Any]:
        """Returns the entrant as plain data, in the format of `timing.throughput`."""
        return {"subject": self.subject, "condition": self.condition.to_dict(), "num_classes": self.num_classes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """Results of networks that were timed together."""

    measurements: dict[str, Measurement]
    """Measurement of each network, by name. Those with the same `cohort` were timed in the same rounds."""
    failures: dict[str, HiloNasError]
    """Error of each network that could not be timed, by name."""


class Ruler:
    """Times networks in a worker process. The device lock ensures one timing at a time per device of the host.

    Args:
        log: File for the worker's output.
        purpose: Text that other processes show while they wait for the device.
        idle_timeout_s: Seconds without a message after which the worker counts as hung.
        env: Environment of the worker, `tuned` or `default`, as in `Condition.env`.
        sleep: Function that waits while other processes hold the device.
        make_worker: Function that creates the worker.
    """

    def __init__(
        self,
        log: Path,
        *,
        purpose: str,
        idle_timeout_s: float = 600.0,
        env: str = "tuned",
        sleep: Callable[[float], None] = time.sleep,
        make_worker: Callable[..., Worker] = Worker,
    ) -> None:
        self._purpose = purpose
        self._env = env
        self._sleep = sleep
        self._worker = make_worker(
            "timing", log, idle_timeout_s=idle_timeout_s, environment=TUNED_ENVIRONMENT if env == "tuned" else {}
        )
        self._found: dict[str, tuple[str, DeviceIdentity, int | None]] = {}
        self._targets: dict[str, str] = {}
        """Name of the device that is used for each kind of device."""
        self._advised: set[Condition] = set()

    def read_device(self, device: str | None, emit: Emit) -> tuple[str, DeviceIdentity, int | None]:
        """Returns the name, the identity and the thread count (CPU only) of a device.

        Later timings under conditions of the same device kind run on this device.

        Args:
            device: Name of the device. None selects the fastest kind of this machine.
            emit: Receives the worker's events.

        Raises:
            DeviceError: This machine does not have the device.
        """
        if device is None or device not in self._found:
            found = call_twice(self._worker, "hilo_nas.timing.device:read_device", {"device": device}, emit)
            device = device or found["device"]
            self._found[device] = found["device"], DeviceIdentity(**found["identity"]), found["threads"]
        name, identity, _ = self._found[device]
        self._targets[identity.kind] = name
        return self._found[device]

    def list_cuda(self, emit: Emit) -> list[str]:
        """Returns the names of the CUDA devices of this machine.

        Raises:
            DeviceError: This machine has no CUDA device.
        """
        names: list[str] = call_twice(self._worker, "hilo_nas.timing.device:list_cuda", {}, emit)
        return names

    def identity_of(self, kind: str, emit: Emit) -> DeviceIdentity:
        """Returns the identity of the device that is used for a kind: the last one read, or else the first one.

        Raises:
            DeviceError: This machine has no device of that kind.
        """
        return self.read_device(self._targets.get(kind, kind), emit)[1]

    def read_form(self, condition: Condition, emit: Emit) -> str:
        """Returns the name of the implementation in which a LITv2 is timed, as in `Measurement.form`.

        Raises:
            UsageError: The runtime is not installed, or cannot run a LITv2 under the condition.
        """
        claims = claims_of(self.identity_of(condition.device, emit), timing=False)
        arguments = {"condition": condition.to_dict(), "target": self._targets.get(condition.device)}
        with hold(claims, f"device check for {self._purpose}", emit, sleep=self._sleep):
            form: str = call_twice(self._worker, "hilo_nas.timing.prepared_network:read_form", arguments, emit)
        return form

    def calibrate(self, condition: Condition, emit: Emit, *, seconds: float | None = None) -> Calibration:
        """Times the reference network under a condition and returns its speed.

        Args:
            condition: Condition of the timing.
            emit: Receives a warning if the machine was not steady.
            seconds: Seconds of one attempt. None uses the default.

        Raises:
            MeasurementError: The reference does not fit into memory.
        """
        try:
            found = self._call("calibrate", condition, {"condition": condition.to_dict(), "seconds": seconds}, emit)
        except OutOfMemoryError as error:
            raise MeasurementError(
                f"the reference network must fit into memory, but {error} at batch_size {condition.batch_size} and "
                f"{condition.img_size} px. Use a smaller --batch-size."
            ) from error
        return Calibration.from_dict(found)

    def measure(
        self,
        entrant: Entrant,
        calibration: Calibration,
        emit: Emit,
        *,
        rivals: Mapping[str, Mapping[str, Any]] | None = None,
        seconds_each: float | None = None,
    ) -> Measurement:
        """Times one network in the same rounds as the reference and the rivals with a similar speed.

        Args:
            entrant: The network.
            calibration: Speed of the reference, which sets the scale of images/s.
            emit: Receives an event per round.
            rivals: Members of the front by key, each `{"subject": ..., "images_per_s": ...}`.
            seconds_each: Maximum seconds per network. The candidate and each rival in its rounds count as one network.

        Raises:
            OutOfMemoryError: The network does not fit into memory.
            WorkerError: The worker crashed twice, or hung.
            ConversionError: The outputs of the network change in the condition's form or runtime.
        """
        arguments = {
            "entrant": entrant.to_dict(),
            "calibration": dataclasses.asdict(calibration),
            "rivals": {key: dict(rival) for key, rival in (rivals or {}).items()},
            "seconds_each": seconds_each,
        }
        return Measurement.from_dict(self._call("measure", entrant.condition, arguments, emit))

    def measure_cohort(
        self,
        entrants: Mapping[str, Entrant],
        emit: Emit,
        *,
        calibration: Calibration | None = None,
        reference: Mapping[str, Any] | None = None,
        seconds_each: float | None = None,
        is_brief: bool = False,
    ) -> Cohort:
        """Times networks in the same rounds, in groups that fit into memory together.

        If a network does not fit into memory or crashes the worker, its group is split until that network is alone. In
        the end, only this network fails.

        Args:
            entrants: Networks by name. All must have the same device, batch size, image size, threads and environment.
            emit: Receives an event per network and per round.
            calibration: Speed of the reference, which sets the scale of images/s. None uses the reference's speed in
                the same rounds.
            reference: Subject of the reference network. Defaults to `hilo_nas.timing.ready.REFERENCE`.
            seconds_each: Maximum seconds per network.
            is_brief: True for a few rounds only (`timing.throughput.measure_cohort`).

        Raises:
            UsageError: The conditions of the entrants differ too much, or the reference is not a known network.
            DeviceError: This machine does not have the device.
            MeasurementError: The reference does not fit into memory.
        """
        _check_shared(entrants)
        measurements: dict[str, Measurement] = {}
        failures: dict[str, HiloNasError] = {}
        options = {
            "calibration": None if calibration is None else dataclasses.asdict(calibration),
            **({} if reference is None else {"reference": dict(reference)}),
            "seconds_each": seconds_each,
            "is_brief": is_brief,
        }
        groups = list(_groups(list(entrants), TOGETHER))
        while groups:
            group = groups.pop(0)
            try:
                timed, failed = self._time_group({name: entrants[name] for name in group}, options, emit)
                measurements |= timed
            except (OutOfMemoryError, WorkerError) as error:
                if len(group) > 1:
                    emit(
                        Notice(text=f"{len(group)} networks could not be timed together ({error}): the group is split")
                    )
                    groups[:0] = _groups(group, -(-len(group) // 2))
                    continue
                failed = {group[0]: error}
            failures |= failed
            for name, reason in failed.items():
                emit(Notice(level="warning", text=f"{name} could not be timed: {reason}"))
        return Cohort(measurements=measurements, failures=failures)

    def _time_group(
        self, group: Mapping[str, Entrant], options: Mapping[str, Any], emit: Emit
    ) -> tuple[dict[str, Measurement], dict[str, HiloNasError]]:
        entrants = {name: entrant.to_dict() for name, entrant in group.items()}
        condition = next(iter(group.values())).condition
        found = self._call("measure_cohort", condition, {"entrants": entrants, **options}, emit)
        timed = {name: Measurement.from_dict(item) for name, item in found.items() if "error" not in item}
        failed = {
            name: error_of(item["error"]["kind"], item["error"]["message"])
            for name, item in found.items()
            if "error" in item
        }
        return timed, failed

    def _call(self, function: str, condition: Condition, arguments: Mapping[str, Any], emit: Emit) -> Any:
        """Runs a function of `timing.throughput` under the device lock. If the worker dies, it is tried once more."""
        assert condition.env == self._env, f"this ruler times in the {self._env} environment"
        if condition not in self._advised:
            self._advised.add(condition)
            for text in advise(condition, cores=count_cores(), flags=read_cpu_flags()):
                emit(Notice(level="warning", text=text))
        claims = claims_of(self.identity_of(condition.device, emit), timing=True)
        name, target = f"hilo_nas.timing.throughput:{function}", self._targets.get(condition.device)
        with hold(claims, f"timing for {self._purpose}", emit, sleep=self._sleep):
            return call_twice(self._worker, name, {**arguments, "target": target}, emit)

    def close(self) -> None:
        """Ends the worker."""
        self._worker.close()

    def __enter__(self) -> Ruler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_shared(entrants: Mapping[str, Entrant]) -> None:
    for name in ("device", "batch_size", "img_size", "threads", "env"):
        values = {getattr(entrant.condition, name) for entrant in entrants.values()}
        if len(values) > 1:
            raise UsageError(
                f"networks that are timed together must have the same {name}, but got "
                f"{', '.join(sorted(map(str, values)))}. Time them separately."
            )


def _groups(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yields parts of nearly equal length, with at most `size` names each: 25 names and a size of 24 give 12 and 13."""
    count = -(-len(names) // size)
    for i in range(count):
        yield list(names[len(names) * i // count : len(names) * (i + 1) // count])
