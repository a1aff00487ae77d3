"""The libraries behind the extras: imported when first asked for, and what they raise put into our words."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from hilo_nas.errors import ConversionError, HiloNasError, OutOfMemoryError, UsageError, is_out_of_memory

__all__ = ["EXTRAS", "import_library", "refusals"]

EXTRAS = {"onnxruntime": "onnx", "onnx": "onnx", "onnxscript": "onnx", "openvino": "openvino"}
"""The extra of this package that brings a library."""

_FRAME = re.compile(r"Exception from |Check '|FrontEnd API failed|Model wasn't fully converted|Summary:")
"""How lines of OpenVINO's messages begin that say where it was, not what is wrong."""
_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate", re.IGNORECASE)


def import_library(name: str, needed_by: str) -> Any:
    """Imports a library of an extra.

    Args:
        name: The library, a key of `EXTRAS`.
        needed_by: What needs it, for the message: `runtime onnxruntime`.

    Raises:
        UsageError: It is not installed.
    """
    try:
        with _no_reports_of_use():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != name:
            raise
        raise UsageError(
            f"{needed_by} needs {name}, which is not installed. Use pip install 'hilo-nas[{EXTRAS[name]}]'."
        ) from error


@contextlib.contextmanager
def _no_reports_of_use() -> Iterator[None]:
    """Keeps OpenVINO from telling Intel of its use, which its import would begin to do from threads of its own.

    A timing shares its process with nobody, and a search sends nothing anywhere. Where the reporting package is
    missing, OpenVINO (2026.4) takes a stub for it. What a user's program imported before is left as it is.
    """
    reporter = "openvino_telemetry"
    if reporter in sys.modules:
        yield
        return
    sys.modules[reporter] = None  # type: ignore[assignment]  # how Python marks a module that must not be imported
    try:
        yield
    finally:
        del sys.modules[reporter]


@contextlib.contextmanager
def refusals(what: str, way_out: str) -> Iterator[None]:
    """Turns whatever a library raises into an error of ours.

    Args:
        what: What should have worked, for the message.
        way_out: What to do instead, a sentence.

    Raises:
        OutOfMemoryError: Memory ran out.
        ConversionError: Anything else.
    """
    try:
        yield
    except HiloNasError:
        raise
    except Exception as error:
        reason = _reason(error)
        if is_out_of_memory(error) or _NO_MEMORY.search(str(error)):
            raise OutOfMemoryError(f"{what}: {reason}") from error
        raise ConversionError(f"{what}, but: {reason}. {way_out}") from error


def _reason(error: BaseException) -> str:
    """What the first of a chain of exceptions says, on one line and not too long."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines()]
    words = " ".join(line for line in lines if line and not _FRAME.match(line))
    return words[:300].rstrip(" .") or type(error).__name__
