"""Golden list of the Python interface: names of `hilo_nas`, public members of its classes, and settings.

The list changes on purpose only. After such a change, renew it and read the difference:
`HILO_NAS_RENEW_LISTS=1 pytest tests/test_public_names.py`.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import hilo_nas
from hilo_nas.searching.configuration.search_config import SHORT_NAMES

GOLDEN = Path(__file__).parent / "assets" / "public_names.txt"


def parameters_of(value: Any) -> str:
    """The names of a function's parameters, those that are optional with `=`."""
    empty = inspect.Parameter.empty
    own = [p for p in inspect.signature(value).parameters.values() if p.name not in ("self", "cls")]
    return ", ".join(p.name if p.default is empty else f"{p.name}=" for p in own)


def members_of(kind: type) -> list[str]:
    """The public members of a class, those of its bases in this package included."""
    names = {
        name
        for base in kind.__mro__
        if base.__module__.startswith("hilo_nas")
        for name in {**vars(base), **getattr(base, "__annotations__", {})}
        if not name.startswith("_")
    }
    lines = []
    for name in sorted(names):
        value = inspect.getattr_static(kind, name, None)
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        is_method = inspect.isfunction(function)
        lines.append(f"{name}({parameters_of(function)})" if is_method else name)
    return lines


def list_names() -> str:
    lines = []
    for name in hilo_nas.__all__:
        value = getattr(hilo_nas, name)
        if inspect.isclass(value):
            lines += [name, *(f"{name}.{member}" for member in members_of(value))]
        else:
            lines.append(f"{name}({parameters_of(value)})")
    lines += [f"setting {name}" for name in sorted(SHORT_NAMES.values())]
    return "\n".join(lines) + "\n"


def test_public_names_change_on_purpose_only():
    if os.environ.get("HILO_NAS_RENEW_LISTS"):
        GOLDEN.write_text(list_names(), encoding="utf-8")
    assert list_names().splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_the_names_are_listed_in_order_and_resolve():
    assert sorted(hilo_nas.__all__) == list(hilo_nas.__all__)
    assert all(hasattr(hilo_nas, name) for name in hilo_nas.__all__)
