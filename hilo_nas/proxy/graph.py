"""CUDA graph of a training's forward and backward pass.

A pass of a small network consists of about a thousand short kernels. Launching them one by one takes longer on the CPU
than running them on the GPU. A graph launches them all at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from hilo_nas.models import LITv2

__all__ = ["Capture", "GradientGraph", "Pass", "find_capture"]

_WARM_UP_PASSES = 3
"""Number of passes before the capture, as in torch's examples. Libraries must finish their initialization before."""


Pass = Callable[[Tensor, Tensor], Tensor]
"""Function of inputs and labels that stores the gradients of the batch in the parameters and returns its loss."""
Capture = Callable[[Pass, Tensor, Tensor], Pass]
"""Function that captures a pass for batches of the size of a first batch, such as `GradientGraph`."""


class GradientGraph:
    """Captured pass over a batch. `__call__` replays it for other batches of the same size.

    The capture fixes the memory of the gradients. Each call overwrites the `.grad` tensors of the parameters, which
    must not be set to None or replaced between calls.

    Args:
        backward: Function of inputs and labels that sets the gradients to None, stores the gradients of the batch and
            returns its loss. It must not synchronize with the device or draw random numbers there. It is called a few
            times.
        inputs: A batch on a CUDA device.
        labels: Labels of the batch, on the same device.

    Raises:
        torch.OutOfMemoryError: The memory of the device is too small.
        RuntimeError: The pass contains an operation that cannot be captured. End the process in this case, because
            torch may remain in the capturing state.
    """

    def __init__(self, backward: Pass, inputs: Tensor, labels: Tensor) -> None:
        self._inputs, self._labels = inputs.clone(), labels.clone()
        current = torch.cuda.current_stream(inputs.device)
        # Autograd runs on the stream that used a parameter first, so warm-up and capture must share a stream.
        stream = _side_stream(inputs.device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_PASSES):
                    backward(self._inputs, self._labels)
        finally:
            # Without this, the warm-up could overwrite buffers that are restored after an out-of-memory error.
            current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs.device), torch.cuda.graph(self._graph, stream=stream):
            self._loss = backward(self._inputs, self._labels)

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Stores the gradients of another batch in the parameters and returns its loss."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream shared by all captures of a device.

    cuBLAS keeps a workspace (68 MB on an H200) for each stream that it was called on.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def find_capture(model: nn.Module, device: torch.device) -> Capture | None:
    """Returns `GradientGraph` for a LITv2 without dropout or drop path on CUDA, and None otherwise.

    Dropout draws random numbers, and the capture is not tested with other networks.
    """
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    rates += [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    return GradientGraph if device.type == "cuda" and isinstance(model, LITv2) and not any(rates) else None
