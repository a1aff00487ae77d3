"""Work that is cut into smaller pieces when memory runs out, and gives the same result."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from hilo_nas.errors import OutOfMemoryError, is_out_of_memory
from hilo_nas.events import Emit, Notice

__all__ = ["MicroBatch"]

Result = TypeVar("Result")


class MicroBatch:
    """How many images go through the network at once; halved whenever memory runs out.

    Args:
        size: Images at first.
        what: What the images are for, for messages.
        emit: Takes a warning for every halving.
    """

    def __init__(self, size: int, what: str, emit: Emit) -> None:
        self.size = size
        self._what = what
        self._emit = emit

    def run(self, work: Callable[[int], Result]) -> Result:
        """Returns `work(size)`; after a lack of memory, calls it from its beginning with half the images.

        Raises:
            OutOfMemoryError: One image is too many.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Only outside the handler are the failed call's tensors free, which its traceback held.
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.size == 1:
            raise OutOfMemoryError(f"memory ran out in {self._what} with a single image: {reason}")
        self.size //= 2
        self._emit(
            Notice(
                text=f"memory ran out in {self._what}; going on with {self.size} images at a time, to the same effect",
                level="warning",
            )
        )
