"""Constant for 95 % intervals."""

from __future__ import annotations

__all__ = ["Z95"]

Z95 = 1.96
"""Half-width of the 95 % interval of a normal distribution, in standard errors."""
