r"""Safe output: text from files and exceptions cannot control the terminal.

Names and error messages may come from untrusted files. They are printed without markup. Characters that control a
terminal are escaped: `\x1b` for an escape character, `\u202e` for a change of direction. If the terminal's encoding
lacks a character, a similar ASCII text replaces it.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hilo_nas.cli.screen import Screen

__all__ = ["IS_QUIET", "build_console", "echo", "plain", "prepare_streams"]

IS_QUIET = ContextVar("IS_QUIET", default=False)
"""True if the current command shows no progress (`hilo-nas --quiet`)."""

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # changes of direction
    "\u2028\u2029\ufeff\ud800-\udfff\U000e0000-\U000e007f]"  # line ends, surrogates, invisible characters
)
_REPLACEMENTS = {
    "±": "+-",
    "×": "x",
    "÷": "/",
    "…": "...",
    "–": "-",
    "—": "-",
    "·": ".",
    "µ": "u",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
}
_ERROR_HANDLER = "hilo_nas_replace"


def plain(text: str) -> str:
    """Returns the text with escapes for all characters that control a terminal or are invisible."""
    return _CONTROL.sub(lambda found: _escape(found[0]), text)


def build_console(*, stderr: bool = False, soft_wrap: bool = False, pipe_width: int = 1000) -> Screen:
    """Returns the console for a command's output.

    Args:
        stderr: True to print to standard error.
        soft_wrap: True to leave line wrapping to the terminal.
        pipe_width: Number of columns if the output is not a terminal. The default is enough for any table.
    """
    from hilo_nas.cli.screen import Screen  # help needs no rich

    options: dict[str, Any] = {"stderr": stderr, "soft_wrap": soft_wrap, "highlight": False, "markup": False}
    if os.environ.get("NO_COLOR"):
        options["color_system"] = None  # rich would still write bold and dim text
    console = Screen(emoji=False, **options)
    return console if console.is_terminal or console.is_jupyter else Screen(emoji=False, width=pipe_width, **options)


def echo(text: str, *, nl: bool = True) -> None:
    """Prints text without layout, such as lines, CSV or JSON."""
    typer.echo(plain(text), nl=nl)


def prepare_streams() -> None:
    """Makes standard output and error replace characters that their encoding lacks, for example `±` by `+-`."""
    codecs.register_error(_ERROR_HANDLER, _replace_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERROR_HANDLER)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_REPLACEMENTS.get(sign) or _escape(sign) for sign in text), error.end


def _escape(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not valid text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
