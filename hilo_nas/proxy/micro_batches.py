"""Handling of out-of-memory errors by splitting a batch into micro-batches.

In evaluation, micro-batches give the same result as the whole batch. In a training step, their gradients add up to
those of the whole batch, but batch norm computes its statistics per micro-batch. A score records this in
`micro_batch_size`.
"""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from hilo_nas.errors import OutOfMemoryError, is_out_of_memory
from hilo_nas.events import Emit, Notice

__all__ = ["MicroBatch", "free_cached_memory", "memory_given_back"]

Result = TypeVar("Result")


class MicroBatch:
    """Number of images per forward pass. It is halved after each out-of-memory error.

    Args:
        size: Initial number of images.
        emit: Receives a warning each time the size is halved.
    """

    def __init__(self, size: int, emit: Emit) -> None:
        self.size = size
        self._emit = emit

    def run(self, work: Callable[[int], Result], *, what: str, effect: str) -> Result:
        """Returns `work(size)`. After an out-of-memory error, it halves the size and calls `work` again.

        A failed call must not leave partial results that the next call would add to.

        Args:
            work: Function that processes all images, with at most `size` images at a time.
            what: Purpose of the images, for messages.
            effect: Sentence about the effect of smaller micro-batches.

        Raises:
            OutOfMemoryError: Memory ran out with a single image.
        """
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = _describe(error)
            # The traceback holds the tensors of the failed call, so they are free only after the handler.
            self._halve(what, reason, effect)

    def _halve(self, what: str, reason: str, effect: str) -> None:
        free_cached_memory()
        if self.size == 1:
            raise OutOfMemoryError(f"memory ran out in {what} with a single image: {reason}")
        self.size //= 2
        text = f"memory ran out in {what}, which continues with {self.size} images at a time. {effect}"
        self._emit(Notice(text=text, level="warning"))


def _describe(error: Exception) -> str:
    """Returns the first line of a message. A `MemoryError` often has none, so it is named."""
    return str(error).partition("\n")[0] or type(error).__name__


@contextlib.contextmanager
def memory_given_back(device: torch.device, *, what: str) -> Iterator[None]:
    """Returns a context that frees the cached memory of torch's CUDA allocator at its end.

    Code outside of the context must not hold a reference to a network at that point.

    Args:
        device: Device of the work in the context.
        what: Purpose of the memory, for messages.

    Raises:
        OutOfMemoryError: The work ran out of memory.
    """
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # the frames hold the network and the images
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"memory ran out in {what}: {_describe(error)}") from error
    finally:
        if device.type == "cuda":
            free_cached_memory()


def free_cached_memory() -> None:
    """Frees unreachable objects of this process and the cached memory of torch's CUDA allocator."""
    gc.collect()
    torch.cuda.empty_cache()  # has no effect before CUDA is initialized
