"""How a source is read, where more than one way can be defended: as plain data that crosses a process border."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import UsageError

__all__ = ["DEFAULTS", "ReadOptions"]

CLASS_LEVELS = ("first", "path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Choices of the user about how images are read; the defaults suit most sources."""

    class_from: str = "first"
    """Which folders name a class: `first`, the first level below the split; `path`, all levels, joined by slashes."""
    background: str = "white"
    """Colour that transparent images are composited on, as Pillow names colours."""
    value_range: tuple[float, float] | None = None
    """Values of images of more than 8 bits that become black and white; None takes the range of the data set."""
    skip_broken: bool = False
    """Whether broken images are left out; otherwise they end the reading."""

    def __post_init__(self) -> None:
        if self.class_from not in CLASS_LEVELS:
            raise UsageError(f"class_from must be one of {', '.join(CLASS_LEVELS)}, but got {self.class_from!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults; building from it gives an equal value."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value != getattr(type(self)(), name)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ReadOptions:
        """Builds the options that `to_dict` described."""
        values = dict(fields)
        if values.get("value_range") is not None:
            low, high = values["value_range"]
            values["value_range"] = (float(low), float(high))
        return cls(**values)


DEFAULTS = ReadOptions()
"""How a source is read where nothing else is asked for."""
