"""A training's forward and backward pass as one CUDA graph.

A pass of a small network is a thousand short kernels, and to launch them one by one takes the CPU longer than the GPU
takes to run them. A graph launches them all at once.
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
"""Before the capture, in which no library may still set itself up; as many as torch's own examples take."""


Pass = Callable[[Tensor, Tensor], Tensor]
"""Leaves the gradients of a batch, its inputs and labels, in the parameters and returns its loss."""
Capture = Callable[[Pass, Tensor, Tensor], Pass]
"""Captures a pass, given a first batch; see `GradientGraph`."""


class GradientGraph:
    """One pass over a whole batch, captured, which `__call__` repeats for other batches of its size.

    Gradients lie where the capture put them: each call writes them anew into the parameters' `.grad`, which must not be
    set to None or replaced in between.

    Args:
        backward: For inputs and labels, sets the parameters' gradients to None, leaves the batch's there and returns
            its loss. It must not wait for the device, nor draw random numbers there. It is called a few times.
        inputs: A batch on a CUDA device.
        labels: Its labels, there, too.

    Raises:
        torch.OutOfMemoryError: There is no room for it.
        RuntimeError: The pass does something that no graph can hold; the process had better end, for torch may still
            think that it captures.
    """

    def __init__(self, backward: Pass, inputs: Tensor, labels: Tensor) -> None:
        self._inputs, self._labels = inputs.clone(), labels.clone()
        here = torch.cuda.current_stream(inputs.device)
        # Autograd goes on on the stream that saw a parameter first: passes and capture share one.
        stream = _side_stream(inputs.device)
        stream.wait_stream(here)
        try:
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_PASSES):
                    backward(self._inputs, self._labels)
        finally:
            here.wait_stream(stream)  # or what is put back after a lack of memory might be written over
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs.device), torch.cuda.graph(self._graph, stream=stream):
            self._loss = backward(self._inputs, self._labels)

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Leaves the gradients of another batch in the parameters and returns its loss."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace (68 MB on an H200) for every stream that it was ever called on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def find_capture(model: nn.Module, device: torch.device) -> Capture | None:
    """Returns `GradientGraph` for a LITv2 without dropout or drop path on CUDA; None elsewhere.

    Dropout draws random numbers, and the passes of other networks are untested.
    """
    dice = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    dice += [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    return GradientGraph if device.type == "cuda" and isinstance(model, LITv2) and not any(dice) else None
