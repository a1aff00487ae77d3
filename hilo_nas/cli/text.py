"""Text of help pages."""

from __future__ import annotations

__all__ = ["verbatim"]


def verbatim(text: str) -> str:
    """Returns text for a help page that is not wrapped again, so that commands can be copied."""
    return f"\b\n{text}"
