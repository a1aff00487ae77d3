"""Networks that are built and warmed up on one device, and kept between the calls of a worker process.

Networks that are timed repeatedly (the reference, the members of the front) are built and warmed up once.
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
from hilo_nas.measurement.verdicts import MIN_ROUNDS
from hilo_nas.timing.device import check_device, identify_device, synchronizer
from hilo_nas.timing.prepared_network import Prepared, prepare
from hilo_nas.timing.state import DeviceWatch
from hilo_nas.timing.timer import MIN_BLOCK_S, Stopwatch, WarmUp
from hilo_nas.timing.worker import RECORDED_VARIABLES

__all__ = ["DEFAULT_SETUP", "REFERENCE", "TimingSetup", "WarmNetwork", "WarmNetworks", "ready_reference"]

REFERENCE = "timm:resnet18"
"""The reference network. It has plain convolutions, and runs in eager mode at the candidate's input and batch size."""

_KEPT_NETWORKS = 4
"""Number of networks that are kept between calls, in addition to the reference."""
_DEFAULT_THREADS = torch.get_num_threads()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmNetwork:
    """A network that is built and warmed up, so that its calls have a constant duration."""

    prepared: Prepared
    warm_up: WarmUp

    @property
    def entrant(self) -> tuple[Callable[[], object], int]:
        """Function that runs the network once, and the number of its calls in a timed block."""
        return self.prepared.call, self.warm_up.calls_per_block


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingSetup:
    """Functions and durations of timings. Tests replace them."""

    prepare: Callable[..., Prepared] = prepare
    clock: Callable[[], float] = time.perf_counter
    """Function that returns monotonic seconds."""
    sleep: Callable[[float], None] = time.sleep
    watch: Callable[[DeviceIdentity], DeviceWatch] = DeviceWatch
    """Function that starts a watch on a device."""
    warm_up_s: float = 3.0
    """Maximum seconds of a warm-up."""
    min_block_s: float = MIN_BLOCK_S
    min_rounds: int = MIN_ROUNDS


DEFAULT_SETUP = TimingSetup()


class WarmNetworks:
    """Networks that this worker process keeps warm on one device between calls.

    Args:
        device: Name of the device.
        threads: Number of torch's CPU threads. None uses torch's default.
        setup: Functions and durations.

    Raises:
        DeviceError: This machine does not have the device.
    """

    current: WarmNetworks | None = None
    """The warm networks of this process. A process has at most one instance, for one device and thread count."""

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
    def of(cls, condition: Condition, target: str | None = None, setup: TimingSetup = DEFAULT_SETUP) -> WarmNetworks:
        """Returns the warm networks for a condition.

        If `current` is for another device or thread count, its networks are released and a new instance is created.

        Args:
            condition: Condition with the kind of the device and the thread count.
            target: Name of the device. Defaults to the first device of its kind.
            setup: Functions and durations.
        """
        current, name = cls.current, target or condition.device
        asked = (check_device(name), condition.threads)
        if current is None or (current.device, current.threads) != asked or current.setup is not setup:
            cls.current = None
            cls.current = current = cls(name, condition.threads, setup)
        return current

    def ready(
        self,
        subject: Mapping[str, Any],
        condition: Condition,
        num_classes: int,
        *,
        keep: bool = False,
        is_brief: bool = False,
    ) -> WarmNetwork:
        """Returns a network, built and warmed up. Takes seconds, unless the network was kept by an earlier call.

        Args:
            subject: Argument of `hilo_nas.models.build_subject`, or `{"onnx": FILE}` or `{"openvino": FILE}`.
            condition: Condition of the timing.
            num_classes: Number of outputs of the classifier.
            keep: True to keep the network for later calls. If too many are kept, the least recently used is dropped.
            is_brief: True for a warm-up of two calls, for timings in which only the fastest rounds count.
        """
        name = f"{condition.label()} {num_classes} {subject}"
        kept = self._kept.pop(name, None)
        warm = kept or self._warmed(
            self.setup.prepare(subject, condition, num_classes=num_classes, target=self.name), is_brief
        )
        if keep or kept:
            self._kept[name] = warm
            while len(self._kept) > 1 + _KEPT_NETWORKS:
                self._kept.pop(next(iter(self._kept)))  # the least recently used network
        return warm

    def _warmed(self, prepared: Prepared, is_brief: bool) -> WarmNetwork:
        prepared.call()  # the first call compiles and selects kernels, and does not count as warm-up
        if is_brief:
            warm_up = self.stopwatch.warm_up(prepared.call, at_most_s=0.0, min_blocks=1)
        else:
            warm_up = self.stopwatch.warm_up(prepared.call, at_most_s=self.setup.warm_up_s)
        return WarmNetwork(prepared=prepared, warm_up=warm_up)

    def release(self) -> None:
        """Releases the memory that torch's allocator caches, because other processes train on the same device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def environment(self) -> dict[str, str]:
        """Returns the environment variables and torch settings that affect the speed in this worker."""
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
) -> tuple[WarmNetworks, WarmNetwork]:
    """Returns the device with its warm networks, and the warmed-up reference network, under a condition.

    Args:
        condition: Condition of the networks that are timed with the reference.
        reference: The reference network.
        target: Name of the device. Defaults to the first device of the condition's kind.
        setup: Functions and durations.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference does not fit into memory, so no network can be measured.
    """
    # The reference runs in eager torch, so it is the same for all runtimes and forms of the candidates.
    subject = {"timm": reference.removeprefix("timm:")} if isinstance(reference, str) else reference
    try:
        with torch.inference_mode():
            warm = WarmNetworks.of(condition, target, setup)
            return warm, warm.ready(subject, condition.eager(), 1000, keep=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        WarmNetworks.current = None
        raise MeasurementError(
            f"the reference network ({reference}) must fit into memory, but batch_size {condition.batch_size} at "
            f"{condition.img_size} px does not on {target or condition.device}. Use a smaller --batch-size, or "
            "free memory on the device."
        ) from error
