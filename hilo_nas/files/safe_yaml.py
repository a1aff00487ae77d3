"""Reading of untrusted YAML with limits on time and memory, and a single error class.

PyYAML's safe loader runs no code, but a small file can still block it: with aliases of aliases that expand to billions
of values, with very deep nesting, or with numbers of a million digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hilo_nas.files import plain_files as plain

__all__ = ["MOST_BYTES", "compose_yaml", "load_yaml", "parse_yaml"]

MOST_BYTES = 2**20
"""Maximum size of a file in bytes. Manifests of studies have a few kilobytes."""
_MOST_VALUES = 50_000
"""Maximum number of values in a document. Each use of an alias counts all its values."""
_DEEPEST = 40
"""Maximum nesting depth."""
_LONGEST_NUMBER = 1000
"""Maximum number of characters in a number."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits on nesting, values and numbers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}
        """Number of values in each finished node, by `id(node)`."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        is_alias = isinstance(event, yaml.AliasEvent)
        before = self._values
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _fault(f"values must be nested at most {_DEEPEST} deep, but are nested deeper", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise _fault("an alias must not be inside the value that it repeats", event)
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > _MOST_VALUES:
            raise _fault(f"a document must hold at most {_MOST_VALUES:,} values, aliases expanded, but has more", event)
        if not is_alias:
            self._sizes[id(node)] = self._values - before
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(super().construct_yaml_int(_short(node)))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(super().construct_yaml_float(_short(node)))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _short(node: yaml.ScalarNode) -> yaml.ScalarNode:
    """Returns the node if its number is short. The time to parse a number grows with the square of its length."""
    if len(node.value) > _LONGEST_NUMBER:
        raise _fault(f"a number must have at most {_LONGEST_NUMBER} characters, but has {len(node.value):,}", node)
    return node


def _fault(text: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=at.start_mark)


def parse_yaml(text: str) -> Any:
    """Returns the content of a document as plain data.

    Raises:
        yaml.YAMLError: The text is not YAML, is too large, or has an invalid value such as the date 2001-02-30.
    """
    node, loader = _compose(text)
    try:
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError) as error:
        raise yaml.YAMLError(f"it has an invalid value: {error}") from error


def compose_yaml(text: str) -> yaml.Node | None:
    """Returns a document as nodes with line numbers. None if it is empty.

    Raises:
        yaml.YAMLError: The text is not YAML, or is too large.
    """
    return _compose(text)[0]


def load_yaml(path: Path) -> Any:
    """Returns the content of a YAML file as plain data.

    Raises:
        OSError: The file is not a regular file, cannot be read, or is larger than `MOST_BYTES`.
        yaml.YAMLError: For the same reasons as in `parse_yaml`, or if the file is not UTF-8.
    """
    try:
        text = plain.read_text(path, MOST_BYTES)
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"it is not UTF-8: {error}") from error
    return parse_yaml(text)


def _compose(text: str) -> tuple[yaml.Node | None, _Loader]:
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"it must have at most {MOST_BYTES:,} characters, but has {len(text):,}")
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except yaml.YAMLError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError) as error:
        raise yaml.YAMLError(f"it has an invalid value: {error}") from error
