"""Work that is cut into smaller pieces when memory runs out, instead of being given up.

Where every image is computed by itself (evaluation), pieces give what the whole gives. In a training step their
gradients add up to the whole batch's, but batch norm takes its statistics from each piece: the network learns from
other statistics, which a score's `micro_batch_size` tells.
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
    """How many images go through the network at once; halved whenever memory runs out.

    Args:
        size: Images at first.
        emit: Takes a warning for every halving.
    """

    def __init__(self, size: int, emit: Emit) -> None:
        self.size = size
        self._emit = emit

    def run(self, work: Callable[[int], Result], *, what: str, effect: str) -> Result:
        """Returns `work(size)`; after a lack of memory, calls it from its beginning with half the images.

        A call that runs out of memory must leave nothing behind that the next one would count a second time.

        Args:
            work: Goes through all images, at most so many at a time.
            what: What the images are for, for messages.
            effect: A sentence on what smaller pieces change.

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
            self._halve(what, reason, effect)

    def _halve(self, what: str, reason: str, effect: str) -> None:
        free_cached_memory()
        if self.size == 1:
            raise OutOfMemoryError(f"memory ran out in {what} with a single image: {reason}")
        self.size //= 2
        text = f"memory ran out in {what}; going on with {self.size} images at a time. {effect}"
        self._emit(Notice(text=text, level="warning"))


@contextlib.contextmanager
def memory_given_back(device: torch.device, *, what: str) -> Iterator[None]:
    """Frees what torch's allocator keeps on a CUDA device at the end; nothing outside may hold a network by then.

    Args:
        device: Where the work inside the `with` is done.
        what: What the memory is for, for messages.

    Raises:
        OutOfMemoryError: The work lacked memory.
    """
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # else they hold the network and the images
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"memory ran out in {what}: {str(error).partition(chr(10))[0]}") from error
    finally:
        if device.type == "cuda":
            free_cached_memory()


def free_cached_memory() -> None:
    """Gives back what nobody holds any more, of this process and of torch's allocator on a CUDA device."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA was not begun
