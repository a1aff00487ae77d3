r"""Where all output passes: consoles and lines on which no foreign text acts.

Names and reasons come from files, networks and exceptions of others. They are printed as they are, without markup, and
with characters that would act on a terminal written out: `\x1b` for an escape, `\u202e` for a change of direction.
Where a terminal cannot show a character, a plain one stands in.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

__all__ = ["Screen", "build_console", "echo", "plain", "prepare_streams"]

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # changes of direction
    "\u2028\u2029\ufeff\ud800-\udfff\U000e0000-\U000e007f]"  # line ends, halves of pairs, what nobody sees
)
_STAND_INS = {
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
_ERRORS = "hilo_nas_stand_in"


def plain(text: str) -> str:
    """Returns the text with every character written out that acts on a terminal or hides from its reader."""
    return _ACTING.sub(lambda found: _written_out(found[0]), text)


class Screen(Console):
    """A console on which no foreign text acts; a call that styles by markup says so and escapes the rest."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a string as it is laid out."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields what is printed, with acting characters written out."""
        for segment in super().render(renderable, options):
            if segment.control or not _ACTING.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


def build_console(*, stderr: bool = False, soft_wrap: bool = False, pipe_width: int = 1000) -> Screen:
    """Returns the console for a command's output; a pipe gets lines wide enough for a table.

    Args:
        stderr: Prints to standard error.
        soft_wrap: Leaves the wrapping of lines to the terminal.
        pipe_width: Columns where the output is no terminal.
    """
    options: dict[str, Any] = {"stderr": stderr, "soft_wrap": soft_wrap, "highlight": False, "markup": False}
    console = Screen(emoji=False, **options)
    return console if console.is_terminal or console.is_jupyter else Screen(emoji=False, width=pipe_width, **options)


def echo(text: str, *, nl: bool = True) -> None:
    """Prints text that is not laid out: lines, CSV, JSON."""
    typer.echo(plain(text), nl=nl)


def prepare_streams() -> None:
    """Lets output pass that a stream's encoding cannot hold: `±` is `+-` on an ASCII terminal, never a traceback."""
    codecs.register_error(_ERRORS, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(sign) or _written_out(sign) for sign in text), error.end


def _written_out(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
