"""Durations as text: parsed from options and settings, and printed."""

from __future__ import annotations

import math
import re

from hilo_nas.errors import UsageError

__all__ = ["duration", "parse_duration"]

_UNITS = (86400, 3600, 60, 1)
"""Seconds of a day, an hour, a minute and a second."""


def parse_duration(text: str) -> float:
    """Returns the seconds of `90`, `90s`, `30m`, `1h30m` or `1d`.

    Raises:
        UsageError: The text is not a duration above 0.
    """
    text = text.strip()
    number = r"(\d+(?:\.\d+)?)\s*"
    form = rf"(?:{number}d\s*)?(?:{number}h\s*)?(?:{number}m\s*)?(?:{number}s)?"
    parts = re.fullmatch(form, f"{text}s" if re.fullmatch(r"[\d.]+", text) else text)
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True)) if parts else 0
    if not seconds > 0 or math.isinf(seconds):
        raise UsageError(f"a duration must be above 0, such as 90s, 30m or 1h30m, but got {text!r}")
    return seconds


def duration(seconds: float) -> str:
    """Returns seconds as text, such as `45 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
