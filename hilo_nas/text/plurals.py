"""Numbers with nouns and verbs in the correct form, for messages."""

from __future__ import annotations

__all__ = ["agree", "count_of"]


def count_of(number: int, one: str, several: str | None = None) -> str:
    """Returns a count such as `1 image` or `1,500 images`. Pass `several` if the plural is irregular."""
    return f"{number:,} {agree(number, one, several or f'{one}s')}"


def agree(number: int, one: str, several: str) -> str:
    """Returns the singular or plural form that matches a number."""
    return one if number == 1 else several
