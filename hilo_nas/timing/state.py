"""What a device says of itself while something is timed on it: who else used it, and whether it held its clock."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Any

from hilo_nas.measurement import DeviceIdentity
from hilo_nas.measurement.rounds import POWER_CAP
from hilo_nas.timing.cpu import CpuWatch

__all__ = ["DeviceWatch"]

_THROTTLE_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clocks event reasons that mean a slower clock than the device could hold (nvml.h)."""


class DeviceWatch:
    """Watches a device, and the CPU that drives it, from its making until `read`. Changes no setting of it.

    Args:
        identity: The device.
        cpu: What watches the CPU from now on.
    """

    def __init__(self, identity: DeviceIdentity, cpu: CpuWatch | None = None) -> None:
        self._identity = identity
        self._before = self._read_card()
        self._cpu = cpu or CpuWatch()

    def look(self) -> None:
        """Looks at the CPU, so that `read` can tell bursts of load from a constant one; to be called between rounds."""
        self._cpu.look()

    def read(self) -> dict[str, Any]:
        """Returns what was seen, as plain data; nothing where the system does not tell, or too little time went by.

        The load of the CPU as `CpuWatch.read` has it. Of a GPU, with nvidia-ml-py installed: `sm_clock_mhz`,
        `temperature_c` and `power_w` before and after, `throttle_reasons`, `other_processes` by their numbers.
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
    """What NVML says of a card now; empty without nvidia-ml-py, or where the driver refuses."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return {}
    try:
        nvml.nvmlInit()
    except Exception:  # NVML's errors have one base class only while the library can be loaded
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
    except Exception:  # a card may lack any of these
        return {}
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()
