"""How a source is read, where more than one way can be defended: as plain data that crosses a process border."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import UsageError

__all__ = ["DEFAULTS", "ReadOptions", "parse_range", "render_range"]

CLASS_LEVELS = ("first", "last", "path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Choices of the user about how images are read; the defaults suit most sources."""

    class_from: str | None = None
    """Which folders name a class: `first`, the first level below the split; `last`, the innermost; `path`, all levels,
    joined by slashes. None is `first` wherever nothing speaks for another level, and an error elsewhere."""
    background: str = "white"
    """Colour that transparent images are composited on, as Pillow names colours."""
    value_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; None takes the range of the data set."""
    skip_broken: bool = False
    """Whether broken images are left out; otherwise they end the reading."""

    def __post_init__(self) -> None:
        faults = []
        if self.class_from not in (None, *CLASS_LEVELS):
            faults.append(f"class_from must be one of {', '.join(CLASS_LEVELS)}, but got {self.class_from!r}")
        if not _is_color(self.background):
            faults.append(f"background must be a color such as white, gray or #336699, but got {self.background!r}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            got = render_range(*self.value_range)
            faults.append(f"value_range must rise from its first value to its second, but got {got}")
        if faults:
            raise UsageError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults, as plain data; building from it gives an equal value."""
        differing = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in differing.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ReadOptions:
        """Builds the options that `to_dict` described."""
        values = dict(fields)
        if values.get("value_range") is not None:
            low, high = values["value_range"]
            values["value_range"] = (float(low), float(high))
        return cls(**values)


def parse_range(text: str) -> tuple[float, float]:
    """Returns the two numbers of `LOW,HIGH`.

    Raises:
        UsageError: The text is not two finite numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"value_range must be two numbers LOW,HIGH such as 0,4095, but got {text!r}")
    return low, high


def render_range(low: float, high: float) -> str:
    """Returns `LOW,HIGH`, from which `parse_range` reads exactly these numbers."""
    return ",".join(repr(float(bound)).removesuffix(".0") for bound in (low, high))


def _is_color(name: str) -> bool:
    if name == "white":
        return True  # Pillow takes a moment to import
    from PIL import ImageColor

    try:
        return len(ImageColor.getrgb(name)) == 3
    except ValueError:
        return False


DEFAULTS = ReadOptions()
"""How a source is read where nothing else is asked for."""
