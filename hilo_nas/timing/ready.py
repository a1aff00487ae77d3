"""Networks that are built and warm on one device, and stay so between the calls of one worker process.

What is met again and again (the reference, the members of the front) is built and warmed once.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from hilo_nas.errors import MeasurementError, is_out_of_memory
from hilo_nas.measurement import Condition, DeviceIdentity
from hilo_nas.measurement.rounds import MIN_ROUNDS
from hilo_nas.timing.device import check_device, identify_device, synchronizer
from hilo_nas.timing.prepared_network import Prepared, prepare
from hilo_nas.timing.state import DeviceWatch
from hilo_nas.timing.timer import MIN_BLOCK_S, Stopwatch, WarmUp
from hilo_nas.timing.worker import RECORDED_VARIABLES

__all__ = ["DEFAULT_SETUP", "REFERENCE", "Bench", "TimingSetup", "WarmNetwork", "ready_reference"]

REFERENCE = "timm:resnet18"
"""The network beside which every candidate is timed: plain convolutions, eager, the same input size and batch."""

_KEPT_NETWORKS = 4
"""Networks besides the reference that stay ready between calls."""
_DEFAULT_THREADS = torch.get_num_threads()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmNetwork:
    """A network that is ready and warm."""

    prepared: Prepared
    warm_up: WarmUp

    @property
    def entrant(self) -> tuple[Callable[[], object], int]:
        """One call, and the calls of a block."""
        return self.prepared.call, self.warm_up.calls_per_block


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingSetup:
    """Builder, clock and device watch of a bench, and its durations."""

    prepare: Callable[..., Prepared] = prepare
    clock: Callable[[], float] = time.perf_counter
    """Returns seconds, monotonic."""
    sleep: Callable[[float], None] = time.sleep
    watch: Callable[[DeviceIdentity], DeviceWatch] = DeviceWatch
    """Starts to watch a device."""
    warm_up_s: float = 3.0
    """Longest warm-up of a network."""
    min_block_s: float = MIN_BLOCK_S
    min_rounds: int = MIN_ROUNDS


DEFAULT_SETUP = TimingSetup()


class Bench:
    """One device, and the networks that stay ready on it between calls of this worker.

    Args:
        device: Its name.
        threads: Threads of torch on the CPU; None for as many as torch takes by itself.
        setup: Builder, clock, watch and durations.

    Raises:
        DeviceError: This machine does not have the device.
    """

    current: Bench | None = None
    """The one of this process: two devices, or two numbers of threads, are never ready side by side."""

    def __init__(self, device: str, threads: int | None, setup: TimingSetup) -> None:
        self.name, self.device, self.threads, self.setup = device, check_device(device), threads, setup
        self.identity: DeviceIdentity = identify_device(device)
        self.stopwatch = Stopwatch(
            clock=setup.clock, synchronize=synchronizer(self.device), min_block_s=setup.min_block_s
        )
        torch.set_num_threads(threads or _DEFAULT_THREADS)
        torch.backends.cudnn.benchmark = True  # input shapes never change here
        self._kept: dict[str, WarmNetwork] = {}

    @classmethod
    def of(cls, condition: Condition, target: str | None = None, setup: TimingSetup = DEFAULT_SETUP) -> Bench:
        """Returns the bench for a device of a condition's kind; what another one kept ready is let go.

        Args:
            condition: Says the kind and the threads.
            target: Name of the device; the first of its kind if left out.
            setup: Builder, clock, watch and durations.
        """
        current, name = cls.current, target or condition.device
        asked = (check_device(name), condition.threads)
        if current is None or (current.device, current.threads) != asked or current.setup is not setup:
            cls.current = None
            cls.current = current = cls(name, condition.threads, setup)
        return current

    def ready(
        self, subject: Mapping[str, Any], condition: Condition, num_classes: int, *, keep: bool = False
    ) -> WarmNetwork:
        """Returns a network ready and warm; one that is kept is ready at once the next time.

        Args:
            subject: What `hilo_nas.models.build_subject` takes, or `{"onnx": FILE}`.
            condition: How it is to run.
            num_classes: Outputs of its classifier.
            keep: Whether it stays ready; the one not met for longest makes room.
        """
        name = f"{condition.label()} {num_classes} {subject}"
        kept = self._kept.pop(name, None)
        warm = kept or self._warmed(self.setup.prepare(subject, condition, num_classes=num_classes, target=self.name))
        if keep or kept:
            self._kept[name] = warm
            while len(self._kept) > 1 + _KEPT_NETWORKS:
                self._kept.pop(next(iter(self._kept)))  # the one not met for longest
        return warm

    def _warmed(self, prepared: Prepared) -> WarmNetwork:
        prepared.call()  # compiles, chooses kernels: however long that takes, it is no warm-up
        warm_up = self.stopwatch.warm_up(prepared.call, at_most_s=self.setup.warm_up_s)
        return WarmNetwork(prepared=prepared, warm_up=warm_up)

    def release(self) -> None:
        """Gives back memory that torch's allocator keeps, for others train on the same device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def environment(self) -> dict[str, str]:
        """Returns the settings under which this worker times, by the names that set them."""
        settings = {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ}
        settings["float32_matmul_precision"] = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            settings["cudnn.benchmark"] = str(torch.backends.cudnn.benchmark)
            settings["cudnn.allow_tf32"] = str(torch.backends.cudnn.allow_tf32)
        return settings


def ready_reference(
    condition: Condition,
    reference: str | Mapping[str, Any] = REFERENCE,
    *,
    target: str | None = None,
    setup: TimingSetup = DEFAULT_SETUP,
) -> tuple[Bench, WarmNetwork]:
    """Returns the bench and the warm reference for a condition.

    Args:
        condition: How networks are to run beside it.
        reference: The network.
        target: Name of the device; the first of the condition's kind if left out.
        setup: Builder, clock, watch and durations.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: Not even the reference fits into memory, so nothing can be said of any network.
    """
    # The same for every form that a network may take under one batch, size and precision.
    plain = Condition(
        device=condition.device,
        batch_size=condition.batch_size,
        img_size=condition.img_size,
        precision=condition.precision,
        channels_last=condition.channels_last,
        threads=condition.threads,
        env=condition.env,
    )
    subject = {"timm": reference.removeprefix("timm:")} if isinstance(reference, str) else reference
    try:
        with torch.inference_mode():
            bench = Bench.of(condition, target, setup)
            return bench, bench.ready(subject, plain, 1000, keep=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        Bench.current = None
        raise MeasurementError(
            f"the reference network ({reference}) must fit into memory, but batch_size {condition.batch_size} at "
            f"{condition.img_size} px does not on {target or condition.device}. Use a smaller --batch-size, or "
            "free its memory."
        ) from error
