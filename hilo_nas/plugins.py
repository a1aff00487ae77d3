"""Functions of the user's own, named `module:function` or `path/to/file.py:function`, and what packages declare.

Functions are found and hashed without being run, so that any process can say whether one has changed; only
`load_function` imports. The current directory is searched first, as with `python -m`; a file's own folder too, as with
`python FILE`.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hilo_nas.errors import NotFoundError, UsageError

__all__ = [
    "absolute",
    "describe_exception",
    "find_file",
    "find_installed",
    "hash_source",
    "installed_names",
    "is_plugin",
    "load_function",
    "name_of",
]

Declaration = TypeVar("Declaration")

_NAME = r"[^\W\d]\w*"
_FORM = re.compile(rf"(?P<place>.+\.py|{_NAME}(?:\.{_NAME})*):(?P<function>{_NAME})")


def is_plugin(text: str) -> bool:
    """Returns whether the words have the form `module:function` or `file.py:function`, whatever is there."""
    return _FORM.fullmatch(text) is not None


def name_of(text: str) -> str:
    """Returns the name for tables and records: `module:function`, a file by its base name; never a local path."""
    place, function = _parts(text)
    return f"{Path(place).name if place.endswith('.py') else place}:{function}"


def absolute(text: str) -> str:
    """Returns words that name the same function from any working directory.

    A file is named in full, and so is a module that is a file of the current directory. Other modules stay as they are:
    they are found wherever Python's path leads to them.

    Raises:
        NotFoundError: There is no such file or module.
    """
    place, function = _parts(text)
    file = find_file(text)
    return f"{file}:{function}" if place.endswith(".py") or file == Path.cwd() / f"{place}.py" else text


def find_file(text: str) -> Path:
    """Returns the file that defines the function, in full, without importing anything.

    Raises:
        NotFoundError: There is no such file or module.
        UsageError: The module has no file of Python.
    """
    place, _ = _parts(text)
    if place.endswith(".py"):
        file = Path(place).expanduser()
        if not file.is_file():
            siblings = [entry.name for entry in file.parent.glob("*.py")] if file.parent.is_dir() else []
            hint = _near(file.name, siblings, str(file.parent / "_")[:-1])
            raise NotFoundError(f"no function {text}: there is no file {place}.{hint}")
        return file.resolve()
    spec = _find_spec(place)
    if spec is None:
        raise NotFoundError(
            f"no function {text}: neither the current directory nor Python's path has a module {place}. "
            "A file is named by path/to/file.py:function."
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"{text} must name a function in a file of Python, but {place} has none")
    return Path(spec.origin).absolute()


def hash_source(text: str) -> str:
    """Returns the SHA-256 of the file that defines the function; what that file imports is not in it.

    Raises:
        NotFoundError: There is no such file or module.
        UsageError: It cannot be read.
    """
    file = find_file(text)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def load_function(text: str) -> Callable[..., Any]:
    """Imports what the words name and returns it; puts the current directory and a file's folder on Python's path.

    A file is run anew at each call; a module that this process has imported already is not.

    Raises:
        NotFoundError: There is no such file, module or function.
        UsageError: It is no function, or the import raised.
    """
    place, function = _parts(text)
    file = find_file(text)
    is_file = place.endswith(".py")
    sys.path[:] = _search_path()
    if is_file and str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        module = _run_file(file) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{text} cannot be imported: {describe_exception(error, text)}") from error
    if not hasattr(module, function):
        hint = _near(function, [name for name, value in vars(module).items() if callable(value)], "")
        raise NotFoundError(f"{place} has no function {function!r}.{hint}")
    found = getattr(module, function)
    if not callable(found):
        raise UsageError(f"{text} must be a function, but is of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def describe_exception(error: BaseException, text: str) -> str:
    """Returns what a function raised and the last line of its file on the way there: `KeyError: 'a' (my.py, line 7)`.

    Raises:
        NotFoundError: The function's file has gone.
    """
    file = find_file(text)
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)
    ]  # a SyntaxError, which has none, says its line itself
    return f"{type(error).__name__}: {error}" + (f" ({file.name}, line {lines[-1]})" if lines else "")


def installed_names(group: str) -> tuple[str, ...]:
    """Returns the names under which installed packages declare something in a group of entry points."""
    return tuple(_read_entry_points(group, tuple(sys.path)).names)


def find_installed(group: str, name: str, cls: type[Declaration]) -> Declaration | None:
    """Returns what an installed package declares under a name; None where there is none.

    Args:
        group: Of entry points.
        name: Of the entry point and of the declaration.
        cls: The declaration's class, which has a `name`.

    Raises:
        UsageError: It cannot be imported, or is something else.
    """
    entries = _read_entry_points(group, tuple(sys.path)).select(name=name)
    if not entries:
        return None
    entry = next(iter(entries))
    found = _load_installed(entry)
    if not isinstance(found, cls) or getattr(found, "name", None) != name:
        raise UsageError(f"{entry.value} must be the {cls.__name__} of the name {name!r}, but is {found!r:.100}")
    return found


@functools.cache
def _read_entry_points(group: str, search_path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Returns what is declared on a search path, Python's own; reading it takes some 20 ms."""
    return importlib.metadata.entry_points(group=group)


@functools.cache
def _load_installed(entry: importlib.metadata.EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise UsageError(f"{entry.value} cannot be imported: {type(error).__name__}: {error}") from error


def _parts(text: str) -> tuple[str, str]:
    form = _FORM.fullmatch(text)
    if form is None:
        raise UsageError(f"a function is named by module:function or path/to/file.py:function, but got {text!r}")
    return form["place"], form["function"]


def _find_spec(module: str) -> importlib.machinery.ModuleSpec | None:
    """Finds a module as an import would, but runs none of the packages around it, as `find_spec` does."""
    importlib.invalidate_caches()
    first, *rest = module.split(".")
    spec = importlib.machinery.PathFinder.find_spec(first, _search_path())
    if spec is None:
        try:
            spec = importlib.util.find_spec(first)  # packages under development have finders of their own
        except ValueError:  # a module without a place: made by hand, or `__main__`
            return None
    name = first
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _search_path() -> list[str]:
    here = os.getcwd()
    return sys.path if here in sys.path else [here, *sys.path]


def _run_file(file: Path) -> types.ModuleType:
    """Runs the file as a module, from its source: bytecode beside it could be of an earlier version."""
    module = types.ModuleType(f"hilo_nas_plugin_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    return module


def _near(name: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {prefix}{close[0]}?" if close else ""
