"""Findings of the check of a machine."""

from __future__ import annotations

import dataclasses

__all__ = ["Finding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One property of the machine."""

    name: str
    text: str
    """The property, with its unit."""
    problem: str | None = None
    """What is wrong with it for timings or searches. None if nothing is."""
    advice: str | None = None
    """Command or change that helps."""
