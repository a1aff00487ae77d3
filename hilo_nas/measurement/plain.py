"""Values from plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from hilo_nas.errors import RecordError

__all__ = ["build_value"]

Value = TypeVar("Value")


def build_value(cls: type[Value], fields: Mapping[str, Any], **nested: type[Any]) -> Value:
    """Builds a value from plain data; lists become tuples, nested values become their classes."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - known):
        raise RecordError(f"{cls.__name__} has no field {', '.join(unknown)}: was it written by a newer version?")
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in nested:
            value = build_value(nested[name], value)
        values[name] = _tuples(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except TypeError as error:
        raise RecordError(f"{cls.__name__} is not complete: {error}") from error


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(item) if isinstance(item, list) else item for item in value)
