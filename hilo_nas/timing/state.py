"""State of a device during a timing: its clock, its temperature and the load from other processes."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from typing import Any

from hilo_nas.measurement import DeviceIdentity
from hilo_nas.measurement.verdicts import POWER_CAP
from hilo_nas.timing.cpu import CpuWatch

__all__ = ["DeviceWatch", "describe_use"]

_THROTTLE_REASONS = {
    0x04: POWER_CAP,
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clocks event reasons that mean a reduced clock (nvml.h)."""
_BUSY_PERCENT = 5
"""Utilization of a GPU in percent from which other programs count as using it."""


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


def describe_use(identity: DeviceIdentity) -> str | None:
    """Returns a sentence about the load of a GPU by other programs, also in other containers.

    Call it before this program works on the GPU. None without such a load, for other devices, and without nvidia-ml-py.
    """
    if identity.kind != "cuda":
        return None
    use = _ask_nvml(identity.serial, _read_use)
    if use.get("percent", 0) < _BUSY_PERCENT:
        return None
    return (
        f"other programs use the GPU: utilization {use['percent']} %, {use['memory_mib']:,.0f} MiB of memory. A device "
        "lock excludes only hilo-nas with the same folder of locks, so timings may be slower and uneven. Use another "
        "--device, or end the other programs"
    )


def _read_use(nvml: Any, card: Any) -> dict[str, Any]:
    return {
        "percent": nvml.nvmlDeviceGetUtilizationRates(card).gpu,
        "memory_mib": nvml.nvmlDeviceGetMemoryInfo(card).used / 2**20,
    }


def _read_gpu(uuid: str) -> dict[str, Any]:
    """Returns the current NVML values of a GPU. Empty without nvidia-ml-py, or if the driver refuses."""
    return _ask_nvml(uuid, _read_state)


def _read_state(nvml: Any, card: Any) -> dict[str, Any]:
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card)
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(card)
    return {
        "sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM),
        "temperature_c": nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU),
        "power_w": nvml.nvmlDeviceGetPowerUsage(card) / 1000,
        "throttle_reasons": [text for bit, text in _THROTTLE_REASONS.items() if reasons & bit],
        "other_processes": sorted({process.pid for process in processes} - {os.getpid()}),
    }


def _ask_nvml(uuid: str, ask: Callable[[Any, Any], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a function reads of a GPU from NVML. Empty without nvidia-ml-py, or if the driver refuses."""
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
        return ask(nvml, card)
    except Exception:  # some GPUs do not support all of these calls
        return {}
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()
