"""Custom functions, named `module:function` or `path/to/file.py:function`, and entry points of installed packages.

Functions are found and hashed without an import, so any process can check whether one has changed. Only `load_function`
imports them. The current directory is searched first, as with `python -m`. For a file, its folder is searched too, as
with `python FILE`.
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
    """Returns True if a text has the form `module:function` or `file.py:function`. The function need not exist."""
    return _FORM.fullmatch(text) is not None


def name_of(text: str) -> str:
    """Returns the name of a function for tables and records, without the folder of a file."""
    place, function = _parts(text)
    return f"{Path(place).name if place.endswith('.py') else place}:{function}"


def absolute(text: str) -> str:
    """Returns a name of the function that is valid in any working directory.

    It has an absolute path if the name is a file, or a module in the current directory. Other modules keep their name
    because Python's path finds them everywhere.

    Raises:
        NotFoundError: There is no such file or module.
    """
    place, function = _parts(text)
    file = find_file(text)
    return f"{file}:{function}" if place.endswith(".py") or file == Path.cwd() / f"{place}.py" else text


def find_file(text: str) -> Path:
    """Returns the absolute path of the file that defines a function, without an import.

    Raises:
        NotFoundError: There is no such file or module.
        UsageError: The module is not a Python source file.
    """
    place, _ = _parts(text)
    if place.endswith(".py"):
        file = Path(place).expanduser()
        if not file.is_file():
            siblings = [entry.name for entry in file.parent.glob("*.py")] if file.parent.is_dir() else []
            hint = _near(file.name, siblings, str(file.parent / "_")[:-1])
            raise NotFoundError(f"function {text} not found: there is no file {place}.{hint}")
        return file.resolve()
    spec = _find_spec(place)
    if spec is None:
        raise NotFoundError(
            f"function {text} not found: there is no module {place} in the current directory or on Python's path. "
            "To name a file, use path/to/file.py:function."
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"{text} must name a function in a Python source file, but {place} has no source file")
    return Path(spec.origin).absolute()


def hash_source(text: str) -> str:
    """Returns the SHA-256 of the file that defines a function. It does not cover the imports of that file.

    Raises:
        NotFoundError: There is no such file or module.
        UsageError: The file cannot be read.
    """
    file = find_file(text)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def load_function(text: str) -> Callable[..., Any]:
    """Imports a function and returns it. Adds the current directory and the folder of a file to Python's path.

    A file runs again at each call. A module that this process has already imported does not.

    Raises:
        NotFoundError: There is no such file, module or function.
        UsageError: The object is not a function, or the import raised an exception.
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
    """Returns an exception of a custom function as text, with the line in its file: `KeyError: 'a' (my.py, line 7)`.

    Raises:
        NotFoundError: The file of the function no longer exists.
    """
    file = find_file(text)
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)
    ]  # a SyntaxError has no such frame, but its message includes the line
    return f"{type(error).__name__}: {error}" + (f" ({file.name}, line {lines[-1]})" if lines else "")


def installed_names(group: str) -> tuple[str, ...]:
    """Returns the names of all entry points of a group in the installed packages."""
    return tuple(_read_entry_points(group, tuple(sys.path)).names)


def find_installed(group: str, name: str, cls: type[Declaration]) -> Declaration | None:
    """Returns the object of an entry point in the installed packages. None if there is no such entry point.

    Args:
        group: Group of the entry point.
        name: Name of the entry point, and the `name` attribute of the object.
        cls: Class of the object.

    Raises:
        UsageError: The object cannot be imported, or has another class or name.
    """
    entries = _read_entry_points(group, tuple(sys.path)).select(name=name)
    if not entries:
        return None
    entry = next(iter(entries))
    found = _load_installed(entry)
    if not isinstance(found, cls) or getattr(found, "name", None) != name:
        raise UsageError(f"{entry.value} must be a {cls.__name__} with the name {name!r}, but is {found!r:.100}")
    return found


@functools.cache
def _read_entry_points(group: str, search_path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Returns the entry points of a group. Cached by search path because it takes about 20 ms."""
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
        raise UsageError(f"a function must be module:function or path/to/file.py:function, but got {text!r}")
    return form["place"], form["function"]


def _find_spec(module: str) -> importlib.machinery.ModuleSpec | None:
    """Finds a module like an import, but without the import of its parent packages that `find_spec` makes."""
    importlib.invalidate_caches()
    first, *rest = module.split(".")
    spec = importlib.machinery.PathFinder.find_spec(first, _search_path())
    if spec is None:
        try:
            spec = importlib.util.find_spec(first)  # editable installs have their own finders
        except ValueError:  # a module without a spec, such as `__main__`
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
    """Runs a file as a module, from its source, because cached bytecode could be outdated."""
    module = types.ModuleType(f"hilo_nas_plugin_{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickle need the entry
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    return module


def _near(name: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {prefix}{close[0]}?" if close else ""
