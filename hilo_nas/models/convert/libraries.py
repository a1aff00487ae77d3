"""Import of optional libraries (extras), and conversion of their exceptions to errors of this package."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from hilo_nas.errors import ConversionError, HiloNasError, OutOfMemoryError, UsageError, is_out_of_memory

__all__ = ["EXTRAS", "import_library", "refusals"]

EXTRAS = {"onnxruntime": "onnx", "onnx": "onnx", "onnxscript": "onnx", "openvino": "openvino", "nncf": "int8"}
"""Extra of this package that installs each library."""

_NO_REASON = re.compile(r"Exception from |Check '|FrontEnd API failed|Model wasn't fully converted|Summary:")
"""Start of lines in OpenVINO messages that do not describe the error."""
_NO_MEMORY = re.compile(r"bad_alloc|failed to allocate", re.IGNORECASE)


def import_library(name: str, needed_by: str) -> Any:
    """Returns an imported optional library.

    Args:
        name: Name of the library, a key of `EXTRAS`.
        needed_by: Feature that needs the library, such as "runtime onnxruntime". Used in the error message.

    Raises:
        UsageError: The library is not installed.
    """
    try:
        with _no_telemetry():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != name:
            raise
        raise UsageError(
            f"{needed_by} needs {name}, which is not installed. Use pip install 'hilo-nas[{EXTRAS[name]}]'."
        ) from error


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Disables the telemetry of OpenVINO while it is imported.

    On import, OpenVINO starts threads that send usage data to Intel. Other threads would disturb timings, and a search
    must not send data. OpenVINO (2026.4) uses a stub if the package `openvino_telemetry` is missing. Has no effect if
    the program has imported that package before.
    """
    telemetry = "openvino_telemetry"
    if telemetry in sys.modules:
        yield
        return
    sys.modules[telemetry] = None  # type: ignore[assignment]  # makes the import of the module fail
    try:
        yield
    finally:
        del sys.modules[telemetry]


@contextlib.contextmanager
def refusals(what: str, way_out: str) -> Iterator[None]:
    """Converts the exceptions of a library to errors of this package.

    Args:
        what: Condition that must hold, such as "onnxruntime must be able to run NAME". Start of the message.
        way_out: Sentence that tells the user what to do instead.

    Raises:
        OutOfMemoryError: The library ran out of memory.
        ConversionError: The library raised another exception.
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
    """Returns the message of the first exception in a chain, on one line of at most 300 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines()]
    words = " ".join(line for line in lines if line and not _NO_REASON.match(line))
    return words[:300].rstrip(" .") or type(error).__name__
