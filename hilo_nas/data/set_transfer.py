"""Transfer of image sets between the caches of two machines, in pieces, with a check of their hashes.

The sender describes a set (`describe_set`). The receiver looks for it under a path that both machines see, and in its
own cache (`find_copy`). If both lack it, the sender reads the files in pieces (`read_pieces`), and the receiver adds
them to its cache (`IncomingSet`). This file does not import torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hilo_nas.data.cache import add_set
from hilo_nas.data.image_sets import ARRAYS, is_intact, load_entry
from hilo_nas.data.ownership import SET_NAME
from hilo_nas.errors import StorageError

__all__ = ["IncomingSet", "describe_set", "find_copy", "read_pieces"]

_META = "meta.json"
_FILES = (*(f"{name}.npy" for name in ARRAYS), _META)
"""Files of an image set that are sent. The last one holds the digests of the others."""
_PIECE_BYTES = 16 * 2**20
_POLL_S = 0.1
_IDLE_S = 120.0
"""Longest wait for the next piece. A sender that ended must not keep the cache's lock of the set."""


def describe_set(path: Path) -> dict[str, Any]:
    """Returns the name and the digest of an image set as plain data.

    Args:
        path: Folder of the image set in a cache.

    Raises:
        StorageError: The set is missing or damaged.
    """
    try:
        if load_entry(path) is None:
            raise StorageError(f"the image set {path.name} is missing or damaged. Run the search again to rebuild it.")
        return {"name": path.name, "digest": _digest(path)}
    except OSError as error:
        raise StorageError(f"the image set {path.name} cannot be read ({error.strerror or error})") from error


def find_copy(described: Mapping[str, Any], shared: Path, cache_dir: Path) -> Path | None:
    """Returns the folder of an intact copy of an image set on this machine, or None if there is none.

    Args:
        described: Result of `describe_set` on the machine that has the set.
        shared: Folder of the set on that machine, which this one may see too.
        cache_dir: Folder of this machine's cache.
    """
    name = str(described["name"])
    own = [cache_dir / "data" / "sets" / name] if SET_NAME.fullmatch(name) else []
    for path in (shared, *own):
        with contextlib.suppress(OSError):
            if load_entry(path) is not None and _digest(path) == described["digest"] and is_intact(path):
                return path
    return None


def read_pieces(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the files of an image set as their names and consecutive pieces of at most 16 MiB.

    Raises:
        StorageError: A file cannot be read.
    """
    try:
        for name in _FILES:
            with open(path / name, "rb", buffering=0) as file:
                while piece := file.read(_PIECE_BYTES):
                    yield name, piece
    except OSError as error:
        raise StorageError(f"the image set {path.name} cannot be read ({error.strerror or error})") from error


class IncomingSet:
    """Image set that arrives in pieces. It is in the cache after `finish`, and not before.

    Args:
        described: Result of `describe_set` of the sender.
        cache_dir: Folder of this machine's cache.
        idle_timeout_s: Seconds without a piece after which the transfer is given up.
    """

    def __init__(self, described: Mapping[str, Any], cache_dir: Path, *, idle_timeout_s: float = _IDLE_S) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._name, self._digest, self._cache_dir = str(described["name"]), described["digest"], cache_dir
        self._pieces: queue.Queue[tuple[str, bytes] | None] = queue.Queue(maxsize=1)
        self._is_given_up = False
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)  # a lock belongs to the thread that took it
        self._thread.start()

    def write(self, file: str, piece: bytes) -> None:
        """Appends a piece to a file. The pieces of a file must come in their order.

        Raises:
            StorageError: The file is not one of an image set, or it cannot be written.
        """
        if file not in _FILES:
            raise StorageError(f"a file of an image set must be one of {', '.join(_FILES)}, but got {file!r:.80}")
        self._put((file, piece))
        if self._fault is not None:
            raise self._fault

    def finish(self) -> Path:
        """Checks the digests of all files, adds the set to the cache, and returns its folder.

        Raises:
            StorageError: The files do not match their digests, or cannot be written.
        """
        self._put(None)
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        return self._cache_dir / "data" / "sets" / self._name

    def give_up(self) -> None:
        """Removes the files that have arrived."""
        self._is_given_up = True
        self._put(None)
        self._thread.join()

    def _put(self, piece: tuple[str, bytes] | None) -> None:
        """Hands a piece to the thread. It needs none if another process has added the set meanwhile."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=_POLL_S)
                return

    def _run(self) -> None:
        try:
            add_set(self._cache_dir, self._name, self._fill)
        except Exception as error:
            self._fault = error

    def _next_piece(self) -> tuple[str, bytes] | None:
        try:
            return self._pieces.get(timeout=self._idle_timeout_s)
        except queue.Empty:
            raise StorageError(
                f"the image set {self._name} did not arrive whole: its sender was silent for "
                f"{self._idle_timeout_s:.0f} s. Run the search again to send it once more."
            ) from None

    def _fill(self, folder: Path) -> None:
        while (piece := self._next_piece()) is not None:
            with open(folder / piece[0], "ab") as file:
                file.write(piece[1])
        if self._is_given_up or not (folder / _META).is_file() or _digest(folder) != self._digest:
            raise StorageError(
                f"the image set {self._name} did not arrive whole. Run the search again to send it once more."
            )


def _digest(path: Path) -> str:
    return hashlib.sha256((path / _META).read_bytes()).hexdigest()
