"""Conversion between plain data and typed values, with a check of types and bounds.

Records and manifests can be damaged or come from untrusted sources. `read_value` reports all wrong fields of a file at
once, each with its place and value.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from hilo_nas.errors import HiloNasError, NewerVersionError, RecordError

__all__ = [
    "Count",
    "Finite",
    "NonNegative",
    "Positive",
    "Share",
    "Size",
    "check_type",
    "read_field",
    "read_value",
    "to_plain",
]

Value = TypeVar("Value")
_Reader = Callable[[Any], Any]
"""Function from plain data to a typed value. It raises the RecordError of `read_field`."""

_MAX_NUMBER = 1e30
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Whole number from 0 to 2**53, which every JSON reader represents exactly."""
Size = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
"""Number of images, pixels or threads, at least 1."""
Positive = Annotated[float, msgspec.Meta(gt=0, le=_MAX_NUMBER)]
"""Speed or time: finite and above 0."""
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=_MAX_NUMBER)]
"""Spread, error or duration: finite and at least 0."""
Finite = Annotated[float, msgspec.Meta(ge=-_MAX_NUMBER, le=_MAX_NUMBER)]
"""Finite number."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""Number from 0 to 1."""

_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a mapping",
}
_FIELD = re.compile(r"\w+(\.|\[| must | is not a known)")
"""Pattern for the start of a fault that already names a field, such as `condition.batch_size must`."""
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]")
_MAX_SHOWN = 80
"""Maximum number of characters of a wrong value in a message."""


def to_plain(value: Any) -> Any:
    """Returns a value as plain data for JSON and YAML. Dataclasses become mappings, tuples become lists."""
    if dataclasses.is_dataclass(value):
        if hasattr(value, "to_dict"):
            return value.to_dict()
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value) if not value or isinstance(value[0], (int, float)) else [to_plain(item) for item in value]
    return value


def read_value(cls: type[Value], fields: Any, *, given: Mapping[str, Any] | None = None) -> Value:
    """Returns a dataclass instance from plain data.

    Lists become tuples, and nested mappings become dataclasses. Nested classes with a `from_dict` method use it.

    Args:
        cls: The dataclass. Its annotations define the types and the bounds.
        fields: The data.
        given: Values of fields that are not in the data.

    Raises:
        RecordError: A field is missing, or its value has a wrong type or is out of bounds. The message lists all
            faults.
        NewerVersionError: All faults are unknown fields.
    """
    if not isinstance(fields, Mapping):
        raise RecordError(f"{cls.__name__} must be a mapping, but got {_shown(fields)}")
    values: dict[str, Any] = dict(given or {})
    known = _fields_of(cls)  # type: ignore[arg-type]
    unknown = [
        f"{name if isinstance(name, str) else _shown(name)} is not a known field. A newer version may have written it."
        for name in fields
        if name not in known.readers
    ]
    faults: list[str] = []
    missing = [name for name in known.required if name not in fields and name not in values]
    if missing:
        faults.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    try:
        values |= msgspec.convert(fields, known.plain)
        rest = known.nested
    except msgspec.ValidationError:  # names the first fault only
        rest = known.readers
    for name, reader in rest.items():
        if name in fields:
            try:
                values[name] = reader(fields[name])
            except RecordError as error:
                _list_of(error, unknown, faults).extend(named_faults(name, error))
    _raise_any(unknown, faults)
    try:
        return cls(**values)
    except HiloNasError as error:
        raise RecordError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Readers for the fields of a dataclass. They are built once per class because a study has 100,000s of values."""

    readers: dict[str, _Reader]
    required: tuple[str, ...]
    nested: dict[str, _Reader]
    """Readers of the fields that contain dataclasses or enums."""
    plain: Any
    """TypedDict of the other fields, which msgspec reads in one call."""


@functools.cache
def _fields_of(cls: type[Any]) -> _Fields:
    fields, hints = dataclasses.fields(cls), typing.get_type_hints(cls, include_extras=True)
    plain = {field.name: hints[field.name] for field in fields if _is_plain(hints[field.name])}
    readers = {field.name: _reader_of(hints[field.name]) for field in fields}
    return _Fields(
        readers=readers,
        required=tuple(f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING),
        nested={name: reader for name, reader in readers.items() if name not in plain},
        plain=typing.TypedDict(cls.__name__, plain, total=False),  # type: ignore[operator]
    )


def _is_plain(hint: Any) -> bool:
    """Returns True if a type contains neither a dataclass nor an enum, so that msgspec can read it."""
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, enum.Enum)):
        return False
    return all(_is_plain(argument) for argument in typing.get_args(hint))


def read_field(value: Any, hint: Any) -> Any:
    """Returns plain data as a value of an annotated type, which can contain dataclasses.

    Raises:
        RecordError: The value has a wrong type or is out of bounds. Each line of the message continues the name of the
            field: ` must be ...`, or `.name must be ...` for a nested field.
    """
    return _reader_of(hint)(value)


def _reader_of(hint: Any) -> _Reader:
    """Returns the function that reads values of a type, as `read_field` does."""
    check = functools.partial(check_type, hint=hint)
    if _is_plain(hint):
        return check
    if isinstance(hint, type):
        return functools.partial(_read_enum if issubclass(hint, enum.Enum) else _read_nested, cls=hint)
    origin, (first, *rest) = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) and rest == [types.NoneType]:
        read = _reader_of(first)
        return lambda value: None if value is None else read(value)
    if origin is tuple:
        read = _reader_of(first)
        return lambda value: (
            tuple(_read_all(enumerate(value), read)) if isinstance(value, (list, tuple)) else check(value)
        )
    if origin is dict:
        read = _reader_of(rest[0])
        return lambda value: _read_mapping(value, read) if isinstance(value, Mapping) else check(value)
    return check


def check_type(value: Any, hint: Any) -> Any:
    """Returns plain data as a value of an annotated type without dataclasses and enums.

    Raises:
        RecordError: The value has a wrong type or is out of bounds. The message starts with the place inside the value.
    """
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise RecordError(_explained(str(error), value)) from error


def _read_enum(value: Any, cls: type[enum.Enum]) -> enum.Enum:
    if value not in list(cls):
        raise RecordError(f" must be one of {', '.join(item.value for item in cls)}, but got {_shown(value)}")
    return cls(value)


def _read_nested(value: Any, cls: Any) -> Any:
    if not isinstance(value, Mapping):
        raise RecordError(f" must be a mapping, but got {_shown(value)}")
    try:
        return cls.from_dict(value) if hasattr(cls, "from_dict") else read_value(cls, value)
    except HiloNasError as error:
        lines = [f".{line}" if _FIELD.match(line) else f": {line}" for line in str(error).split("\n")]
        kind = NewerVersionError if isinstance(error, NewerVersionError) else RecordError
        raise kind("\n".join(lines)) from error


def _read_mapping(value: Mapping[Any, Any], read: _Reader) -> dict[str, Any]:
    return dict(zip(map(str, value), _read_all(value.items(), read), strict=True))


def _read_all(items: Iterable[tuple[Any, Any]], read: _Reader) -> list[Any]:
    found: list[Any] = []
    unknown: list[str] = []
    faults: list[str] = []
    for name, item in items:
        try:
            found.append(read(item))
        except RecordError as error:
            _list_of(error, unknown, faults).extend(named_faults(f"[{name!r}]", error))
    _raise_any(unknown, faults)
    return found


def _list_of(error: RecordError, unknown: list[str], faults: list[str]) -> list[str]:
    """Returns the list that an error belongs to: of unknown fields, or of other faults."""
    return unknown if isinstance(error, NewerVersionError) else faults


def _raise_any(unknown: list[str], faults: list[str]) -> None:
    """Raises an error with all faults, if there are any."""
    if faults:
        raise RecordError("\n".join([*unknown, *faults]))
    if unknown:
        raise NewerVersionError("\n".join(unknown))


def named_faults(name: str, error: HiloNasError) -> list[str]:
    """Returns the lines of a `read_field` error, each with the name of the field in front.

    ` must be ...` becomes `device must be ...`, for example.
    """
    return [f"{name}{line}" if line[:1] in ".[ :" else f"{name}: {line}" for line in str(error).split("\n")]


def _explained(text: str, value: Any) -> str:
    """Returns a message of msgspec in the style of this package, with the place and the value."""
    text, _, path = text.partition(" - at `$")
    text = text.replace("Number out of range", "a number in the supported range")
    expected = text.removeprefix("Expected ").partition(", got ")[0]
    for name, words in _KINDS.items():
        expected = re.sub(rf"\b{name}\b", words, expected)
    path = path.rstrip("`")
    return (
        f"{path} must be {expected.replace('`', '').replace(' | null', ' or null')}, but got {_shown(_at(value, path))}"
    )


def _at(value: Any, path: str) -> Any:
    """Returns the value at a place such as `.quietest.cores` or `[3]`, or the whole value if the place has `...`."""
    if "..." in path:
        return value
    for step in _STEP.finditer(path):
        value = value[step["name"]] if step["name"] else value[int(step["index"])]
    return value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, or deep nesting
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
