"""The error tree, on one page.

A message says the law, the value, the place and the way out:
"stage 3: num_heads must divide embed_dim (384), but got 7. Use one of 4, 6, 8, 12."
`exit_code` is what the command line ends with: 2 where the user can type something else, 1 where the world refused
(and 130 for Ctrl-C and SIGTERM, which need no error of ours).
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
    "is_out_of_memory",
]


class HiloNasError(Exception):
    """Everything this package raises on purpose."""

    exit_code = 1
    is_fatal = False
    """Whether it ends a search: every network would meet it, so that it is not held against the one under way."""


# What the user typed or wrote.


class UsageError(HiloNasError, ValueError):
    """An argument, an option or a file's content is not acceptable."""

    exit_code = 2


class ArchError(UsageError):
    """An architecture breaks a law; holds every fault found, one per line."""


class FileFaultsError(UsageError):
    """A YAML file has faults; `faults` holds all of them, each with its line.

    Args:
        path: The file, as the user named it.
        faults: One sentence each, beginning with the line number where one is known.
    """

    def __init__(self, path: object, faults: Sequence[str]) -> None:
        self.path = str(path)
        self.faults = tuple(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{self.path}: {count}\n" + "\n".join(f"  {fault}" for fault in faults))


class NotFoundError(UsageError):
    """A study, a trial, a space or a function of that name does not exist."""

    is_fatal = True


class DeviceError(UsageError):
    """The device is unknown, or this machine does not have it."""

    is_fatal = True


class InferenceFormError(UsageError):
    """A network prepared for inference is used in a way that only its training form, or another preparation, allows."""


class TrialStateError(UsageError):
    """The trial exists, but failed or is infeasible, so it cannot serve."""


# What the world refused.


class StudyMismatchError(HiloNasError):
    """A stored study was made under other conditions than those asked for."""

    is_fatal = True


class StudyLockedError(HiloNasError):
    """Another process is writing to this study."""


class StorageError(HiloNasError):
    """A study's folder cannot be read or written (read-only, full, gone)."""

    is_fatal = True


class RecordError(HiloNasError):
    """A stored file cannot be understood, or was made by a newer version."""


class DataError(HiloNasError):
    """The training data is not there, is broken, or cannot serve (one class, too few images)."""

    is_fatal = True


class MeasurementError(HiloNasError):
    """The device cannot be measured at all, for instance because the reference network does not fit."""

    is_fatal = True


class ConversionError(HiloNasError):
    """A network cannot be converted to a runtime, or the runtime gives other outputs than torch."""


class OutOfMemoryError(HiloNasError):
    """The device, or this machine, ran out of memory for this network."""


class NotEnoughMemoryError(OutOfMemoryError):
    """The network did not fit into memory while it was timed, which makes it infeasible."""


class NoCheckpointError(HiloNasError):
    """A training must resume, but its checkpoint is not kept."""


class ProxyError(HiloNasError):
    """A proxy of the user's own raised, or returned no score."""


class SpaceExhaustedError(HiloNasError):
    """The space holds no network that is within the limits and not yet known, as far as could be seen."""


class WorkerError(HiloNasError):
    """A worker process did not bring its result."""


class WorkerFailedError(WorkerError):
    """The function that the worker ran raised; the message is the child's own."""


class WorkerDiedError(WorkerError):
    """The worker process ended without a word."""


class WorkerHungError(WorkerError):
    """The worker process was silent for too long and was ended."""


def error_of(kind: str, message: str) -> HiloNasError:
    """Returns the error that another process raised: one of these classes, or `WorkerFailedError` for any other."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, HiloNasError) and found is not FileFaultsError:
        return found(message)
    return WorkerFailedError(f"{kind}: {message}")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception, of whatever library, says that memory ran out."""
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
        "failed to allocate",  # ONNX Runtime and OpenVINO, whose errors are of their own classes
        "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, and so cuDNN, cuSOLVER, cuFFT
        "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    )
    is_of_a_runtime = type(error).__module__.partition(".")[0] in ("onnxruntime", "openvino")
    return (isinstance(error, RuntimeError) or is_of_a_runtime) and any(phrase in text for phrase in phrases)
