"""All error classes of the package.

A message states the rule, the value, the place and the solution:
"stage 3: num_heads must divide embed_dim (384), but got 7. Use one of 4, 6, 8, 12."
`exit_code` is the exit code of the command line: 2 if other arguments solve the problem, 1 for all other errors. Ctrl-C
and SIGTERM give 130 and have no class here.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

__all__ = [
    "ArchError",
    "ConversionError",
    "DataError",
    "DeviceError",
    "FileFaultsError",
    "HiloNasError",
    "InferenceFormError",
    "MeasurementError",
    "NewerVersionError",
    "NoCheckpointError",
    "NotEnoughMemoryError",
    "NotFoundError",
    "OutOfMemoryError",
    "ProxyError",
    "RecordError",
    "SpaceExhaustedError",
    "StorageError",
    "StudyLockedError",
    "StudyMismatchError",
    "TrialStateError",
    "UsageError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerFailedError",
    "WorkerHungError",
    "error_of",
    "is_device_fault",
    "is_out_of_memory",
]


class HiloNasError(Exception):
    """Base class of all errors that this package raises."""

    exit_code = 1
    is_fatal = False
    """True if the error ends a search because it affects every network. Otherwise only the current trial fails."""
    remedy = "Check this machine with: hilo-nas doctor"
    """Advice if the error ends one trial after the other, without a full stop."""


# Errors in the user's input.


class UsageError(HiloNasError, ValueError):
    """An argument, an option or the content of a file is invalid."""

    exit_code = 2


class ArchError(UsageError):
    """An architecture is invalid. The message lists all faults, one per line."""


class FileFaultsError(UsageError):
    """A YAML file has faults. `faults` lists all of them.

    Args:
        path: Path of the file as the user wrote it.
        faults: One sentence per fault. It starts with the line number if that is known.
    """

    def __init__(self, path: object, faults: Sequence[str]) -> None:
        self.path = str(path)
        self.faults = tuple(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{self.path}: {count}\n" + "\n".join(f"  {fault}" for fault in faults))


class NotFoundError(UsageError):
    """A study, a trial, a space or a function does not exist."""

    is_fatal = True


class DeviceError(UsageError):
    """The device is unknown, or this machine does not have it."""

    is_fatal = True


class InferenceFormError(UsageError):
    """A network in its inference form does not support the operation. The training form or another preparation does."""


class TrialStateError(UsageError):
    """The trial exists, but it failed or is infeasible, so it cannot be used."""


# Errors outside the user's input.


class StudyMismatchError(HiloNasError):
    """A stored study has other conditions than the requested ones."""

    is_fatal = True


class StudyLockedError(HiloNasError):
    """Another process is writing to this study."""


class StorageError(HiloNasError):
    """The folder of a study cannot be read or written, for example because the disk is read-only or full."""

    is_fatal = True


class RecordError(HiloNasError):
    """A stored file is invalid."""


class NewerVersionError(RecordError):
    """A newer version wrote a stored file. The file is whole, and this version cannot read it."""


class DataError(HiloNasError):
    """The training data is missing, damaged or not usable, for example because it has one class or too few images."""

    is_fatal = True


class MeasurementError(HiloNasError):
    """No network can be measured on the device, for example because the reference does not fit into memory."""

    is_fatal = True


class ConversionError(HiloNasError):
    """A network cannot be converted to a runtime, or the runtime's outputs differ from those of torch."""


class OutOfMemoryError(HiloNasError):
    """The device or this machine ran out of memory."""

    remedy = (
        "End other programs that use memory of the device, or start a new study with smaller batches: "
        "--study NAME --set proxy.batch_size=N"
    )


class NotEnoughMemoryError(OutOfMemoryError):
    """The network did not fit into memory during its timing. Its trial becomes infeasible."""


class NoCheckpointError(HiloNasError):
    """A training cannot resume because its checkpoint does not exist."""


class ProxyError(HiloNasError):
    """A custom proxy raised an exception, or did not return a score."""

    remedy = "Fix the function, and start a new study with --study NAME"


class SpaceExhaustedError(HiloNasError):
    """The sampler found no new network in the space that meets the limits."""


class WorkerError(HiloNasError):
    """A worker process did not return a result."""


class WorkerFailedError(WorkerError):
    """The function in the worker raised an exception. The message includes that of the exception."""


class WorkerDiedError(WorkerError):
    """The worker process ended without a result."""


class WorkerHungError(WorkerError):
    """The worker process sent no message within the idle timeout and was stopped."""

    remedy = "If its work is slow and not stuck, add to the search: --set study.idle_timeout_s=3600"


def error_of(kind: str, message: str) -> HiloNasError:
    """Returns the error that another process raised, or a `WorkerFailedError` if this module lacks its class."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, HiloNasError) and found is not FileFaultsError:
        return found(message)
    return WorkerFailedError(f"{kind}: {message}")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if an exception of any library reports that memory ran out."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    phrases = (
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "failed to allocate",  # ONNX Runtime and OpenVINO, which have their own error classes
        "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, and similar names in cuDNN, cuSOLVER, cuFFT
        "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    )
    is_runtime_error = type(error).__module__.partition(".")[0] in ("onnxruntime", "openvino")
    return (isinstance(error, RuntimeError) or is_runtime_error) and any(phrase in text for phrase in phrases)


def is_device_fault(error: BaseException) -> bool:
    """Returns True if an exception, or one that caused it, is an error of a GPU after which its process is unusable."""
    cause: BaseException | None = error
    while cause is not None:
        names = {kind.__name__ for kind in type(cause).__mro__}
        text = str(cause).lower()
        phrases = ("cuda error:", "hip error:", "cudnn error:", "cublas_status_", "triton error [cuda]")
        if "AcceleratorError" in names or (isinstance(cause, RuntimeError) and any(own in text for own in phrases)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
