"""Properties of the host: cores, CPU limits, memory, load, disks and optional libraries."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hilo_nas.bench.doctor.finding import Finding
from hilo_nas.data import default_cache_dir
from hilo_nas.errors import StorageError
from hilo_nas.files.file_systems import find_file_system, is_network_file_system, read_mounts
from hilo_nas.study.stored_study import studies_folder
from hilo_nas.timing import LOCAL_LOCKS, locks_folder
from hilo_nas.timing.advice import count_cores, read_cpu_flags
from hilo_nas.timing.cpu import CpuWatch, find_control_groups
from hilo_nas.versions import versions

__all__ = ["check_host"]

_GIB = 2**30
_WATCH_S = 2.0
_BUSY_CORES = 0.2
"""Load of other processes, in cores, above which a timing is disturbed."""
_FEWEST_GIB = 5.0
"""Free space below which decoded images and checkpoints of a search may not fit."""
_EXTRAS = {
    "onnx": ("onnxruntime", "ONNX files and --runtime onnxruntime"),
    "openvino": ("openvino", "--runtime openvino"),
    "int8": ("nncf", "--precision int8"),
    "plot": ("matplotlib", "plots as PNG files"),
    "hfds": ("datasets", "--data hfds/NAME"),
    "ray": ("ray", "searches on a cluster"),
    "nvml": ("pynvml", "clocks and other processes of a GPU"),
    "mlflow": ("mlflow", "study.track=mlflow"),
    "wandb": ("wandb", "study.track=wandb"),
}
"""Module and purpose of each extra of this package."""


def check_host(
    *, root: Path = Path("/"), cores: int | None = None, sleep: Callable[[float], None] = time.sleep
) -> list[Finding]:
    """Returns the properties of this host. Watches the load for two seconds.

    Args:
        root: Folder that contains proc and sys.
        cores: Number of cores that this process may use. Defaults to the kernel's number.
        sleep: Function that waits for a number of seconds.
    """
    return [
        _check_versions(),
        _check_cores(root, count_cores() if cores is None else cores),
        _check_memory(root),
        _check_load(root, sleep),
        *_check_disks(root),
        _check_locks(root),
        _check_libraries(),
    ]


def _check_versions() -> Finding:
    own = versions()
    return Finding(
        name="system",
        text=f"{platform.system()} {platform.release()}, " + ", ".join(f"{name} {own[name]}" for name in own),
        problem=None if platform.system() == "Linux" else f"hilo-nas was not tried on {platform.system()}",
        advice=None if platform.system() == "Linux" else "report what fails, with the output of this command",
    )


def _check_cores(root: Path, cores: int) -> Finding:
    host, limit = os.cpu_count() or 1, _cpu_limit(root)
    flags = read_cpu_flags() or set()
    known = [name for name in ("avx2", "avx512f", "amx_bf16", "avx512_bf16", "avx512_fp16", "asimd") if name in flags]
    text = f"{cores} of {host} cores" + (f", {', '.join(known)}" if known else "")
    if limit is not None and limit < cores:
        return Finding(
            name="cores",
            text=f"{text}, limited to {limit:.3g} cores by the container",
            problem="a CPU limit pauses all threads when they have used their share, so timings jump",
            advice=(f"use --set timing.threads={int(limit)}, or " if limit >= 1 else "")
            + "give the container whole cores (cpuset)",
        )
    return Finding(name="cores", text=text)


def _cpu_limit(root: Path) -> float | None:
    """Returns the cores that the control groups of this process allow, or None without a limit."""
    limits = []
    for folder in find_control_groups(root):
        for name, period_name in (("cpu.max", None), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = (folder / name).read_text().split()
                period = float(words[1] if period_name is None else (folder / period_name).read_text())
                if words[0] != "max" and float(words[0]) > 0:
                    limits.append(float(words[0]) / period)
    return min(limits, default=None)


def _check_memory(root: Path) -> Finding:
    sizes = {}
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            sizes[name] = float(rest.split()[0]) * 1024
        return Finding(
            name="memory",
            text=f"{sizes['MemTotal'] / _GIB:.1f} GiB, of which {sizes['MemAvailable'] / _GIB:.1f} GiB are available",
        )
    except (OSError, ValueError, IndexError, KeyError):
        return Finding(name="memory", text="unknown")


def _check_load(root: Path, sleep: Callable[[float], None]) -> Finding:
    watch = CpuWatch(root=root)
    sleep(_WATCH_S)
    seen = watch.read()
    if not seen:
        return Finding(name="load", text="unknown: this system does not count the CPU time of other processes")
    others, steal, throttled = (seen[name] for name in ("others_cores", "steal_cores", "throttled_cores"))
    text = f"other processes use {others:.1f} of {seen['cores']} cores"
    if seen["with"]:
        text += f" ({', '.join('{name} {pid}: {cores}'.format(**own) for own in seen['with'])})"
    if steal >= _BUSY_CORES / 2:
        return Finding(
            name="load",
            text=f"{text}; the host withholds {steal:.1f} cores",
            problem="other virtual machines use these cores",
            advice="use a machine with dedicated cores, or repeat timings at another time",
        )
    if others >= _BUSY_CORES or throttled >= _BUSY_CORES / 2:
        return Finding(
            name="load",
            text=text,
            problem="other work disturbs timings: a search reports them as bursty or contended",
            advice="end the other work, or time again later with `hilo-nas remeasure STUDY`",
        )
    return Finding(name="load", text=text)


def _check_disks(root: Path) -> list[Finding]:
    found, mounts = [], read_mounts(root)
    for name, folder in (("studies", studies_folder()), ("cache", default_cache_dir())):
        place = folder.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        free, kind = shutil.disk_usage(place).free / _GIB, find_file_system(place, mounts)
        text = f"{folder}: {free:.1f} GiB free" + (f", {kind}" if kind else "")
        problem = advice = None
        if not os.access(place, os.W_OK):
            problem, advice = f"{place} is not writable", "choose another folder: $HILO_NAS_STUDIES_DIR, data.cache_dir"
        elif free < _FEWEST_GIB:
            problem = f"less than {_FEWEST_GIB:.0f} GiB are free"
            advice = "clear cached images: hilo-nas cache clear"
        elif is_network_file_system(kind):
            problem = "locks of a network file system may not exclude other hosts"
            advice = "run searches in a study from one host at a time, or use a local folder: $HILO_NAS_STUDIES_DIR"
        found.append(Finding(name=name, text=text, problem=problem, advice=advice))
    return found


def _check_locks(root: Path) -> Finding:
    try:
        folder = locks_folder()
    except StorageError as error:
        return Finding(name="locks", text="unknown", problem=str(error), advice=LOCAL_LOCKS)
    kind = find_file_system(folder, read_mounts(root))
    text = str(folder) + (f": {kind}" if kind else "")
    if not is_network_file_system(kind):
        return Finding(name="locks", text=text)
    problem = "device locks of a network file system may fail, or hosts may wait for each other"
    return Finding(name="locks", text=text, problem=problem, advice=f"use a folder of this host: {LOCAL_LOCKS}")


def _check_libraries() -> Finding:
    present, missing = [], []
    for extra, (module, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            missing.append(f"hilo-nas[{extra}] for {purpose}")
        else:
            present.append(extra)
    text = ", ".join(present) or "none"
    return Finding(name="extras", text=text + (f"; not installed: {'; '.join(missing)}" if missing else ""))
