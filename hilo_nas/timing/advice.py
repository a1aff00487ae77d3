"""Conditions that a CPU can be timed under, but that hardly anyone means."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from hilo_nas.measurement import Condition

__all__ = ["advise", "count_cores", "read_cpu_flags"]

_FP16_FLAGS = {"avx512_fp16", "amx_fp16", "fphp", "asimdhp"}
"""Arithmetic in half precision, as Linux names it on x86 and on ARM."""


def advise(condition: Condition, *, cores: int, flags: set[str] | None) -> list[str]:
    """Returns a warning for each part of a condition that slows a CPU down.

    Args:
        condition: What is timed.
        cores: Cores that this process may use.
        flags: What the CPU can do; None where the system does not say.
    """
    if condition.device != "cpu":
        return []
    found = []
    if condition.threads is not None and condition.threads > cores:
        found.append(
            f"{condition.threads} threads were asked for, but this process may use {cores} cores: threads that wait "
            f"for each other are timed. Set timing.threads={cores}, or fewer."
        )
    if "fp16" in condition.precision and flags is not None and not flags & _FP16_FLAGS:
        found.append(
            f"this CPU has no arithmetic in half precision, so {condition.precision} is emulated and slow. Use "
            "--precision fp32 or bf16."
        )
    return found


def count_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cpu_flags() -> set[str] | None:
    """Returns what Linux says that the CPU can do; None elsewhere."""
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
        if found:
            return set(found[1].split())
    return None
