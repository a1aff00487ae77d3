"""Devices as torch sees them: names, identity, synchronisation and peak memory."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hilo_nas.errors import DeviceError
from hilo_nas.events import Emit
from hilo_nas.measurement import DeviceIdentity

__all__ = [
    "check_device",
    "identify_device",
    "list_cuda",
    "list_devices",
    "peak_memory_mib",
    "read_device",
    "synchronizer",
]


def list_devices() -> list[str]:
    """Returns the names of the devices of this machine, the fastest kind first, such as `["cuda:0", "cpu"]`."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def check_device(device: str) -> torch.device:
    """Returns the torch device of a name.

    Raises:
        DeviceError: This machine does not have the device.
    """
    devices = list_devices()
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in devices:
        why = ""
        if wanted.startswith("cuda"):
            built = torch.version.cuda
            why = f" (torch {torch.__version__} {'sees no CUDA device' if built else 'is built without CUDA'})"
        raise DeviceError(f"this machine has no device {device}{why}. Use one of {', '.join(devices)}.")
    return torch.device(wanted)


def identify_device(device: str) -> DeviceIdentity:
    """Returns the identity of a device: its model, driver and serial number.

    Raises:
        DeviceError: This machine does not have the device.
    """
    name = check_device(device)
    cpu, host = f"{_cpu_model()}, {len(_cores())} cores", None
    if name.type == "cuda":
        host = cpu
        properties = torch.cuda.get_device_properties(name)
        model, driver, serial = properties.name, _cuda_driver(), str(getattr(properties, "uuid", name))
    elif name.type == "mps":
        model, driver, serial = f"{_cpu_model()} GPU", platform.mac_ver()[0], socket.gethostname()
    else:
        model, driver, serial = cpu, platform.release(), socket.gethostname()
    return DeviceIdentity(kind=name.type, model=model, driver=driver, torch=torch.__version__, serial=serial, host=host)


def read_device(device: str | None, *, emit: Emit) -> dict[str, Any]:
    """Returns the name, the identity and the thread count of a device as plain data.

    The thread count is torch's number of CPU threads. It is None for other devices.

    Args:
        device: Name of the device. None selects the fastest kind of this machine.
        emit: Unused. All worker functions have this parameter.

    Raises:
        DeviceError: This machine does not have the device.
    """
    name = device or list_devices()[0]
    identity = identify_device(name)
    # A GPU's speed does not depend on the CPU threads, which only launch its kernels.
    threads = torch.get_num_threads() if identity.kind == "cpu" else None
    return {"device": name, "identity": dataclasses.asdict(identity), "threads": threads}


def list_cuda(*, emit: Emit) -> list[str]:
    """Returns the names of the CUDA devices of this machine.

    Args:
        emit: Unused. All worker functions have this parameter.

    Raises:
        DeviceError: This machine has no CUDA device.
    """
    check_device("cuda")
    return [name for name in list_devices() if name.startswith("cuda")]


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Returns a function that waits until the device has finished all queued work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def peak_memory_mib(call: Callable[[], object], weights_bytes: int, device: torch.device) -> float | None:
    """Returns the peak memory of one call and of the weights in MiB. None on mps.

    The value comes from torch's allocator. It excludes other objects on the device, such as the reference network. On
    the CPU, torch's profiler records the allocations, so it misses scratch memory that oneDNN allocates itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before + weights_bytes) / 2**20
    if device.type == "cpu":
        return (_cpu_peak_bytes(call) + weights_bytes) / 2**20
    return None


def _cpu_peak_bytes(call: Callable[[], object]) -> int:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    events: Any = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _cuda_driver() -> str:
    """Returns the version of the kernel driver, or else the CUDA version of torch."""
    version = Path("/proc/driver/nvidia/version")
    if version.exists():
        words = version.read_text().split()
        found = [word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()]
        if found:
            return found[0]
    return f"cuda {torch.version.cuda}"
