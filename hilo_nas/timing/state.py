"""State of a device during a timing: its clock, its temperature and the load from other processes."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any

from hilo_nas.measurement import DeviceIdentity
from hilo_nas.measurement.verdicts import POWER_CAP
from hilo_nas.timing.cpu import CpuWatch

__all__ = ["DeviceWatch"]

_THROTTLE_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clocks event reasons that mean a reduced clock (nvml.h)."""


class DeviceWatch:
    """Watch on a device and on the CPU that drives it, from its construction until `read`. Read-only.

    Args:
        identity: The device.
        cpu: Watch on the CPU. Defaults to a new one.
    """

    def __init__(self, identity: DeviceIdentity, cpu: CpuWatch | None = None) -> None:
        self._identity = identity
        self._before = self._read_card()
        self._cpu = cpu or CpuWatch()

    def look(self) -> None:
        """Samples the CPU load. Call it between rounds: the samples show whether a load is constant or bursty."""
        self._cpu.look()

    def read(self) -> dict[str, Any]:
        """Returns the state as plain data: the CPU load of `CpuWatch.read`, and values of NVML for CUDA devices.

        NVML gives `sm_clock_mhz`, `temperature_c` and `power_w` as pairs (before, after), `throttle_reasons`, and the
        process IDs `other_processes`. These are missing without nvidia-ml-py.
        """
        load, before, after = self._cpu.read(), self._before, self._read_card()
        if not after:
            return load
        pairs = {name: [before.get(name), after[name]] for name in ("sm_clock_mhz", "temperature_c", "power_w")}
        reasons = sorted({*before.get("throttle_reasons", []), *after["throttle_reasons"]})
        return {**load, **pairs, "throttle_reasons": reasons, "other_processes": after["other_processes"]}

    def _read_card(self) -> dict[str, Any]:
        return _read_gpu(self._identity.serial) if self._identity.kind == "cuda" else {}


def _read_gpu(uuid: str) -> dict[str, Any]:
    """Returns the current NVML values of a GPU. Empty without nvidia-ml-py, or if the driver refuses."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return {}
    try:
        nvml.nvmlInit()
    except Exception:  # NVML's errors have no common base class if its library cannot be loaded
        return {}
    try:
        card = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(card)
        return {
            "sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM),
            "temperature_c": nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU),
            "power_w": nvml.nvmlDeviceGetPowerUsage(card) / 1000,
            "throttle_reasons": [text for bit, text in _THROTTLE_REASONS.items() if reasons & bit],
            "other_processes": sorted({process.pid for process in processes} - {os.getpid()}),
        }
    except Exception:  # some GPUs do not support all of these calls
        return {}
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()
