"""Numbers with their nouns and verbs, as messages tell them."""

from __future__ import annotations

__all__ = ["agree", "count_of"]


def count_of(number: int, one: str, several: str | None = None) -> str:
    """Returns `1 image` or `1,500 images`; `several` is the plural where it does not end in a plain s."""
    return f"{number:,} {agree(number, one, several or f'{one}s')}"


def agree(number: int, one: str, several: str) -> str:
    """Returns the form of a word that goes with a number."""
    return one if number == 1 else several
