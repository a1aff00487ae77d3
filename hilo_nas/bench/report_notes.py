"""Notes and settings shared by the reports of several benchmarks."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["INTERVALS", "plan_settings"]

INTERVALS = "Intervals are 95 % intervals from a bootstrap over rounds."
"""Sentence for the notes of every table that contains intervals."""


def plan_settings(plan: Any) -> dict[str, Any]:
    """Returns the fields of a benchmark's plan by name. Items of tuples become text: `(8, 64)` gives `["8", "64"]`."""
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return {name: [str(v) for v in value] if isinstance(value, tuple) else value for name, value in values.items()}
