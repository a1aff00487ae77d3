"""Samples of a source's bytes, which tell that files changed although their sizes and times did not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
from collections.abc import Iterable, Sequence

__all__ = ["find_changed", "take_samples"]

_FILES = 64
"""Files looked at; of fewer, more blocks each."""
_BLOCKS = 4
"""Blocks looked at per file, at least."""
_BLOCK_BYTES = 16384


def take_samples(files: Iterable[str], seed: str) -> list[list[str | int]]:
    """Returns for blocks of some files: path, first byte and hash.

    Args:
        files: The source's files.
        seed: Which of them are looked at, where they are many.
    """
    draw, known = random.Random(seed), sorted(files)
    chosen = known if len(known) <= _FILES else draw.sample(known, _FILES)
    n_blocks = max(_BLOCKS, _FILES // max(len(chosen), 1))
    samples: list[list[str | int]] = []
    for file in chosen:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):
                continue
            last = max(status.st_size - _BLOCK_BYTES, 0)
            # A file that is shorter than its blocks is read as a whole.
            step = max(last / max(n_blocks - 1, 1), _BLOCK_BYTES)
            starts = sorted({min(int(step * i), last) for i in range(n_blocks)})
            samples += [[file, start, _digest(file, start)] for start in starts]
    return samples


def find_changed(samples: Sequence[Sequence[str | int]]) -> str | None:
    """Returns a file whose bytes differ from its samples, or None; files that cannot be read are passed over."""
    for file, start, digest in samples:
        with contextlib.suppress(OSError):
            if _digest(str(file), int(start)) != digest:
                return str(file)
    return None


def _digest(file: str, start: int) -> str:
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return hashlib.blake2b(os.pread(handle, _BLOCK_BYTES, start), digest_size=12).hexdigest()
    finally:
        os.close(handle)
