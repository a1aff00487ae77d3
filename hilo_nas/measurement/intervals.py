"""Intervals of 95 %."""

from __future__ import annotations

__all__ = ["Z95"]

Z95 = 1.96
"""Half of a normal value's 95 % interval over its standard error."""
