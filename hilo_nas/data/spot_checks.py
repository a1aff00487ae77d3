"""Samples of the bytes of a source, to detect changes that leave sizes and modification times equal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
from collections.abc import Iterable, Sequence

from hilo_nas.files.open_flags import BINARY, NO_WAIT

__all__ = ["find_changed", "take_samples"]

_FILES = 64
"""Maximum number of sampled files. If there are fewer, more blocks of each are sampled."""
_BLOCKS = 4
"""Minimum number of sampled blocks per file."""
_BLOCK_BYTES = 16384


def take_samples(files: Iterable[str], seed: str) -> list[list[str | int]]:
    """Returns the path, offset and hash of each sampled block.

    Args:
        files: Files of the source.
        seed: Seed for the choice of files if there are many.
    """
    generator, ordered = random.Random(seed), sorted(files)
    chosen = ordered if len(ordered) <= _FILES else generator.sample(ordered, _FILES)
    n_blocks = max(_BLOCKS, _FILES // max(len(chosen), 1))
    samples: list[list[str | int]] = []
    for file in chosen:
        with contextlib.suppress(OSError):
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):
                continue
            last = max(status.st_size - _BLOCK_BYTES, 0)
            # If a file is shorter than its blocks, all of it is read.
            step = max(last / max(n_blocks - 1, 1), _BLOCK_BYTES)
            starts = sorted({min(int(step * i), last) for i in range(n_blocks)})
            samples += [[file, start, _digest(file, start)] for start in starts]
    return samples


def find_changed(samples: Sequence[Sequence[str | int]]) -> str | None:
    """Returns a file whose bytes differ from its samples, or None. Files that cannot be read are skipped."""
    for file, start, digest in samples:
        with contextlib.suppress(OSError):
            if _digest(str(file), int(start)) != digest:
                return str(file)
    return None


def _digest(file: str, start: int) -> str:
    handle = os.open(file, os.O_RDONLY | NO_WAIT | BINARY)
    try:
        os.lseek(handle, start, os.SEEK_SET)
        return hashlib.blake2b(os.read(handle, _BLOCK_BYTES), digest_size=12).hexdigest()
    finally:
        os.close(handle)
