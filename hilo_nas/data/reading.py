"""Options for reading a source, as plain data that can be passed to other processes."""

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
    """Options for reading images. The defaults suit most sources."""

    class_from: str | None = None
    """Folder level that names the class.

    `first` is the first level below the split, `last` is the innermost level, and `path` joins all levels with slashes.
    None means `first`, but raises an error if another level is as likely.
    """
    background: str = "white"
    """Color on which transparent images are composited, as a color name of Pillow."""
    value_range: tuple[float, float] | None = None
    """Values that become black and white in images of more than 8 bits. None means the range of the data set."""
    skip_broken: bool = False
    """True if broken images are left out. Otherwise they raise an error."""

    def __post_init__(self) -> None:
        faults = []
        if self.class_from not in (None, *CLASS_LEVELS):
            faults.append(f"class_from must be one of {', '.join(CLASS_LEVELS)}, but got {self.class_from!r}")
        if not _is_color(self.background):
            faults.append(f"background must be a color such as white, gray or #336699, but got {self.background!r}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            got = render_range(*self.value_range)
            faults.append(f"value_range must be two increasing numbers, but got {got}")
        if faults:
            raise UsageError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults as plain data, for `from_dict`."""
        differing = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in differing.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ReadOptions:
        """Returns the options from the result of `to_dict`."""
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
    """Returns `LOW,HIGH`. `parse_range` restores exactly these numbers."""
    return ",".join(repr(float(bound)).removesuffix(".0") for bound in (low, high))


def _is_color(name: str) -> bool:
    if name == "white":
        return True  # avoids the import of Pillow
    from PIL import ImageColor

    try:
        return len(ImageColor.getrgb(name)) == 3
    except ValueError:
        return False


DEFAULTS = ReadOptions()
"""Default options."""
