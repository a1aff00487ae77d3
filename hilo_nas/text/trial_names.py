"""Names of trials, such as `my-gpu:17`."""

from __future__ import annotations

__all__ = ["parse_trial"]


def parse_trial(name: str) -> tuple[str, int] | None:
    """Returns the study and the number of `STUDY:TRIAL`. None for any other text."""
    study, colon, number = name.rpartition(":")
    return (study, int(number)) if study and colon and number.isdecimal() and number.isascii() else None
