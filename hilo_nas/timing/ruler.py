"""The ruler as the rest of the tool holds it: timings in a worker process, the device locked while they run."""

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
"""Networks of one cohort at most: all are in memory at once, and a round lasts as long as all their blocks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entrant:
    """A network that is to be timed beside others."""

    subject: dict[str, Any]
    """What `hilo_nas.models.build_subject` takes, or `{"onnx": FILE}`."""
    condition: Condition
    num_classes: int = 1000

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, as `timing.throughput` takes it."""
        return {"subject": self.subject, "condition": self.condition.to_dict(), "num_classes": self.num_classes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """What timing some networks side by side brought."""

    measurements: dict[str, Measurement]
    """By the entrant's name; those with one `cohort` shared their rounds."""
    failures: dict[str, HiloNasError]
    """By name, why a network could not be timed."""


class Ruler:
    """Times networks, one timing at a time on each device of the host.

    Args:
        log: File for what the worker prints.
        purpose: What the timings are for, as those read it who wait for the device.
        idle_timeout_s: Seconds of silence after which the worker counts as hung.
        env: `tuned` or `default`; see `Condition.env`.
        sleep: Waits, while others hold the device.
        make_worker: Makes the process that times.
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
        """By kind, the device that timings of this kind run on."""
        self._advised: set[Condition] = set()

    def read_device(self, device: str | None, emit: Emit) -> tuple[str, DeviceIdentity, int | None]:
        """Returns the device's name (this machine's fastest kind for None), who it is, and a CPU's threads.

        What is timed from now on under conditions of its kind is timed on it.

        Raises:
            DeviceError: This machine does not have it.
        """
        if device is None or device not in self._found:
            found = call_twice(self._worker, "hilo_nas.timing.device:read_device", {"device": device}, emit)
            device = device or found["device"]
            self._found[device] = found["device"], DeviceIdentity(**found["identity"]), found["threads"]
        name, identity, _ = self._found[device]
        self._targets[identity.kind] = name
        return self._found[device]

    def identity_of(self, kind: str, emit: Emit) -> DeviceIdentity:
        """Returns who the device of a kind is that was read last, or the first of that kind.

        Raises:
            DeviceError: This machine does not have it.
        """
        return self.read_device(self._targets.get(kind, kind), emit)[1]

    def read_form(self, condition: Condition, emit: Emit) -> str:
        """Returns the implementation that a LITv2 is timed in under a condition; see `Measurement.form`.

        Raises:
            UsageError: The runtime cannot run it, or is not installed.
        """
        claims = claims_of(self.identity_of(condition.device, emit), timing=False)
        arguments = {"condition": condition.to_dict(), "target": self._targets.get(condition.device)}
        with hold(claims, f"a look at the device for {self._purpose}", emit, sleep=self._sleep):
            form: str = call_twice(self._worker, "hilo_nas.timing.prepared_network:read_form", arguments, emit)
        return form

    def calibrate(self, condition: Condition, emit: Emit, *, seconds: float | None = None) -> Calibration:
        """Returns the reference network's speed under the condition, timed for so many seconds.

        Raises:
            MeasurementError: The reference does not fit.
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
        """Returns one network's speed beside the reference, and beside those of its rivals that are about as fast.

        Args:
            entrant: The network.
            calibration: The reference's speed, which anchors images/s.
            emit: Told of each round.
            rivals: Members of the front by key, each `{"subject": ..., "images_per_s": ...}`.
            seconds_each: Seconds that it is timed for at most, and as many for each rival beside it.

        Raises:
            OutOfMemoryError: The network does not fit.
            WorkerError: The worker crashed twice, or hung.
            ConversionError: The network gives other outputs in the form that the condition asks for.
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
    ) -> Cohort:
        """Returns the speeds of networks that were timed side by side, in groups that fit into memory together.

        A network that does not fit, or that takes the worker down, fails alone: its group is split until it is found.

        Args:
            entrants: By name; all on one device, with one batch and image size.
            emit: Told of each network and each round.
            calibration: What anchors images/s; None takes the reference's speed in the cohort itself.
            reference: The subject that is the anchor; the ruler's own if left out.
            seconds_each: Seconds that each network is timed for at most.

        Raises:
            UsageError: The entrants do not share what one cohort shares, or nobody knows the reference.
            DeviceError: This machine does not have the device.
            MeasurementError: The reference does not fit.
        """
        _check_shared(entrants)
        measurements: dict[str, Measurement] = {}
        failures: dict[str, HiloNasError] = {}
        options = {
            "calibration": None if calibration is None else dataclasses.asdict(calibration),
            **({} if reference is None else {"reference": dict(reference)}),
            "seconds_each": seconds_each,
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
        """Runs a function of `timing.throughput` while the device is locked; a worker that dies has a second try."""
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
                f"networks that are timed side by side must share {name}, but got "
                f"{', '.join(sorted(map(str, values)))}. Time them apart."
            )


def _groups(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """Parts of nearly equal length, none longer than `size`."""
    count = -(-len(names) // size)
    for i in range(count):
        yield list(names[len(names) * i // count : len(names) * (i + 1) // count])
