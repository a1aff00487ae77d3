"""What a device says of itself while something is timed on it: who else used it, and whether it held its clock."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from pathlib import Path
from typing import Any

from hilo_nas.measurement import DeviceIdentity
from hilo_nas.rounds import POWER_CAP

__all__ = ["DeviceWatch"]

_THROTTLE_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clocks event reasons that mean a slower clock than the device could hold (nvml.h)."""
_MIN_CPU_WATCH_S = 0.1
"""The kernel counts CPU time in steps of 10 ms, and some of them late: over less than this, a count is chance."""


class DeviceWatch:
    """Watches a device from its making until `read`. Changes no setting of it.

    Args:
        identity: The device.
    """

    def __init__(self, identity: DeviceIdentity) -> None:
        self._identity = identity
        self._before = self._snapshot()

    def read(self) -> dict[str, Any]:
        """Returns what was seen, as plain data; nothing where the system does not tell, or too little time went by.

        For a CPU `others_cores`: cores that other processes, or other guests of the host, kept busy on average. For a
        GPU, with nvidia-ml-py installed: `sm_clock_mhz`, `temperature_c` and `power_w` before and after,
        `throttle_reasons`, `other_processes` by their numbers.
        """
        before, after = self._before, self._snapshot()
        if self._identity.kind == "cpu":
            return _compare_cpu(before, after)
        if not after:
            return {}
        pairs = {name: [before.get(name), after[name]] for name in ("sm_clock_mhz", "temperature_c", "power_w")}
        reasons = sorted({*before.get("throttle_reasons", []), *after["throttle_reasons"]})
        return {**pairs, "throttle_reasons": reasons, "other_processes": after["other_processes"]}

    def _snapshot(self) -> dict[str, Any]:
        if self._identity.kind == "cpu":
            return _read_cpu()
        if self._identity.kind == "cuda":
            return _read_gpu(self._identity.serial)
        return {}


def _read_cpu() -> dict[str, Any]:
    """Seconds of CPU that the machine and this process used so far; empty where the kernel does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _, _, irq, softirq, steal = ticks[:8]
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return {"at": time.monotonic(), "busy_s": busy, "own_s": own.user + own.system}
    return {}


def _compare_cpu(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    if not before or not after or (elapsed_s := after["at"] - before["at"]) < _MIN_CPU_WATCH_S:
        return {}
    others_s = (after["busy_s"] - before["busy_s"]) - (after["own_s"] - before["own_s"])
    return {"others_cores": round(max(others_s, 0.0) / elapsed_s, 2)}


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
