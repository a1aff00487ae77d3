"""Text from records for exported files, escaped so that it cannot leave its line or its quotes."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from hilo_nas.timing import RECORDED_VARIABLES

__all__ = ["build_title", "dump", "printable", "shell_line"]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """Returns a text on one line. Control characters, including line breaks, become Python escapes."""
    return _UNPRINTABLE.sub(lambda found: _escape(ord(found[0])), str(text))


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def build_title(*lines: str) -> str:
    """Returns lines as comments for the top of a YAML or shell file."""
    return "".join(f"# {printable(line)}\n" for line in lines)


def shell_line(name: str, value: str) -> str:
    """Returns `NAME=value` quoted for a shell, or a comment if hilo-nas does not record variables of that name."""
    if name in RECORDED_VARIABLES and not _UNPRINTABLE.search(value):
        return f"{name}={shlex.quote(value)}\n"
    return build_title(f"{name}: {value}")


def dump(content: dict[str, Any]) -> str:
    """Returns plain data as YAML."""
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
