"""Memory budget for decoding, shared by all images that are decoded at once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from hilo_nas.errors import UsageError

__all__ = ["DecodingMemory", "TooLargeError", "read_available_bytes"]

_SHARE = 0.5
"""Share of the available memory that decoding may use."""
_VARIABLE = "HILO_NAS_DECODE_MIB"


class TooLargeError(Exception):
    """Error for an image that needs more memory than decoding may use."""


class DecodingMemory:
    """Memory budget shared by decoding threads.

    Args:
        limit_bytes: The budget. None means `$HILO_NAS_DECODE_MIB`, or else half of the available memory.

    Raises:
        UsageError: The variable is not a number above 0.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes or _read_limit()
        self._taken = 0
        self._changed = threading.Condition()

    def check_file(self, n_bytes: int) -> None:
        """Checks that a file fits into the budget.

        Args:
            n_bytes: Size of the file.

        Raises:
            TooLargeError: The file is larger than the whole budget.
        """
        if n_bytes > self.limit_bytes:
            raise TooLargeError(
                f"a file of {n_bytes / 2**20:,.0f} MiB must fit into the memory for decoding, but only "
                f"{self.limit_bytes / 2**20:,.0f} MiB may be used; set {_VARIABLE} to allow more"
            )

    @contextlib.contextmanager
    def take(self, n_bytes: int, size: tuple[int, int]) -> Iterator[None]:
        """Reserves memory for one image. Blocks until enough memory is free.

        Args:
            n_bytes: Memory needed for decoding.
            size: Width and height of the image, used in the message.

        Raises:
            TooLargeError: The image needs more than the whole budget.
        """
        if n_bytes > self.limit_bytes:
            raise TooLargeError(
                f"{size[0]} x {size[1]} pixels need {n_bytes / 2**20:,.0f} MiB to decode, but only "
                f"{self.limit_bytes / 2**20:,.0f} MiB may be used; set {_VARIABLE} to allow more"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._taken + n_bytes <= self.limit_bytes)
            self._taken += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= n_bytes
                self._changed.notify_all()


def _read_limit() -> int:
    if text := os.environ.get(_VARIABLE):
        try:
            mib = float(text)
        except ValueError:
            mib = 0.0
        if not 0 < mib < float("inf"):
            raise UsageError(f"{_VARIABLE} must be a number of MiB above 0, but got {text!r}")
        return max(int(mib * 2**20), 1)
    return int(read_available_bytes() * _SHARE)


def read_available_bytes() -> int:
    """Returns the memory that can be allocated now, in bytes. Respects a container's limit if it can be read."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup")
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(limit - used, 0))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not found:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return max(min(found, default=2**31), 2**28)
