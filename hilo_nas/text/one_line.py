r"""Text of others on one line: a line break in it is written out, so that it cannot pass for a line of this tool.

Names of devices, classes and data sets and reasons of failures come from files that anyone may have written. They are
freed of line breaks where they are read; the tool's own messages keep theirs.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["decode_json", "one_line", "one_lined"]

_NUMBERS = {int, float}
_BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def one_line(text: str) -> str:
    r"""Returns a text with its line breaks written out, `\x0a` for a newline."""
    if text.isprintable():  # no break is; a study of 3,000 trials holds half a million texts
        return text
    return _BREAKS.sub(lambda found: ascii(found[0])[1:-1].replace("\\n", "\\x0a").replace("\\r", "\\x0d"), text)


def one_lined(value: Any) -> Any:
    """Returns plain data whose texts, keys of mappings among them, are each on one line."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_lined(key): one_lined(item) for key, item in value.items()}
    if isinstance(value, list) and not set(map(type, value)) <= _NUMBERS:
        return [one_lined(item) for item in value]
    return value


def decode_json(content: bytes) -> Any:
    """Returns the plain data of JSON, its texts each on one line.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    value = msgspec.json.decode(content)
    # JSON escapes control characters, so an ASCII file without an escape holds no text with a line break.
    return value if content.isascii() and b"\\" not in content else one_lined(value)
