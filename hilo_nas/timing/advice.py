"""Warnings about conditions that a CPU supports, but only at a much lower speed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from hilo_nas.measurement import Condition

__all__ = ["advise", "count_cores", "read_cpu_flags"]

_FP16_FLAGS = {"avx512_fp16", "amx_fp16", "fphp", "asimdhp"}
"""Linux names of the CPU flags for half-precision arithmetic, on x86 and ARM."""


def advise(condition: Condition, *, cores: int, flags: set[str] | None) -> list[str]:
    """Returns a warning for each setting of the condition that slows down a CPU.

    Args:
        condition: The condition.
        cores: Number of cores that this process may use.
        flags: CPU flags. None if the system does not report them.
    """
    if condition.device != "cpu":
        return []
    found = []
    if condition.threads is not None and condition.threads > cores:
        found.append(
            f"timing.threads must be at most {cores}, the number of cores that this process may use, but got "
            f"{condition.threads}: the threads wait for each other, and the timing includes these waits. "
            f"Set timing.threads={cores} or fewer."
        )
    if "fp16" in condition.precision and flags is not None and not flags & _FP16_FLAGS:
        found.append(
            f"this CPU has no half-precision arithmetic, so {condition.precision} is emulated and slow. Use "
            "--precision fp32 or bf16."
        )
    return found


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cpu_flags() -> set[str] | None:
    """Returns the CPU flags from /proc/cpuinfo. None if the system has none."""
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
        if found:
            return set(found[1].split())
    return None
