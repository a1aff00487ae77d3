"""Current time in the format of stored files."""

from __future__ import annotations

import datetime

__all__ = ["utc_now"]


def utc_now() -> str:
    """Returns the current UTC time in ISO 8601, with a resolution of seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
