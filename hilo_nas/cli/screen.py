"""Console of rich that escapes control characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hilo_nas.cli.console import plain

__all__ = ["Screen"]


class Screen(Console):
    """Console that escapes control characters.

    Markup is off by default. A call with `markup=True` must escape all text from outside.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns the rendered string, with control characters escaped."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the segments to print, with control characters escaped."""
        for segment in super().render(renderable, options):
            if segment.control or (text := plain(segment.text)) == segment.text:
                yield segment
            else:
                yield Segment(text, segment.style)
