r"""Untrusted text on one line, with escaped line breaks, so that it cannot imitate a message of this tool.

Names of devices, classes and data sets, and reasons of failures, come from files that anyone may have written. Their
line breaks are escaped when they are read. Messages of this package keep their line breaks.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["decode_json", "one_line", "one_lined"]

_NUMBERS = {int, float}
_BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def one_line(text: str) -> str:
    r"""Returns a text with escaped line breaks, for example `\x0a` for a newline."""
    if text.isprintable():  # a fast check, because a study of 3,000 trials has half a million texts
        return text
    return _BREAKS.sub(lambda found: ascii(found[0])[1:-1].replace("\\n", "\\x0a").replace("\\r", "\\x0d"), text)


def one_lined(value: Any) -> Any:
    """Returns plain data with escaped line breaks in all texts, including the keys of mappings."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_lined(key): one_lined(item) for key, item in value.items()}
    if isinstance(value, list) and not set(map(type, value)) <= _NUMBERS:
        return [one_lined(item) for item in value]
    return value


def decode_json(content: bytes) -> Any:
    """Returns plain data from JSON, with escaped line breaks in all texts.

    Raises:
        ValueError: The content is not JSON.
        RecursionError: The content is nested too deeply.
    """
    value = msgspec.json.decode(content)
    # JSON escapes control characters, so an ASCII file without a backslash has no text with a line break.
    return value if content.isascii() and b"\\" not in content else one_lined(value)
