"""NASWOT: ability of an untrained network to distinguish the images of a minibatch by its active units.

Paper: "Neural Architecture Search without Training" (arXiv 2006.04647), section 3. Each image has a binary code with
one bit per unit before a ReLU, which is set if the unit is positive. The kernel of two images is the number of units
with equal bits (N_a minus the Hamming distance). The score is the logarithm of the determinant of the kernel matrix.

Changes: LITv2 has no ReLU, so units before a GELU or a similar activation count, with the same sign rule. The code
records function calls instead of modules, because LITv2 calls GELU as a function. One is added to the diagonal, because
images with equal codes would make the logarithm infinite. This is small compared with several hundred thousand units.

Shape suffixes: B batch, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hilo_nas.errors import UsageError

__all__ = ["score_naswot"]

ACTIVATIONS = frozenset(
    {"celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "silu"}
)
"""torch functions that pass positive inputs and suppress negative ones. Sigmoid and other gates do not."""


def score_naswot(model: nn.Module, images_BCHW: Tensor) -> float:
    """Returns the log-determinant of the kernel matrix, at least 0. Higher is better.

    Scores of different batch sizes are not comparable. The network runs in train mode, as in the authors' code, so
    batch norm uses the statistics of the batch instead of the initial running statistics. The running statistics
    change.

    Args:
        model: The network with fresh weights.
        images_BCHW: Normalized images on the device of the network.

    Raises:
        UsageError: The network calls no activation function on the images.
    """
    model.train()
    with torch.no_grad(), _CodeRecorder(len(images_BCHW)) as recorder:
        model(images_BCHW)
    if not recorder.units:
        raise UsageError(
            f"naswot needs a network with activation functions ({', '.join(sorted(ACTIVATIONS))}), "
            f"but {type(model).__name__} calls none on its images. Use another proxy."
        )
    identity_BB = torch.eye(len(images_BCHW), dtype=torch.float64)
    return float(torch.linalg.slogdet(recorder.kernel_BB + identity_BB).logabsdet)


class _CodeRecorder(TorchFunctionMode):
    """Context that sums the kernel over all calls of activation functions.

    An input belongs to the images if the length of its first axis is a multiple of the batch size, because the windows
    of an image are consecutive. Other inputs, such as a position table, are ignored.

    Args:
        batch_size: Number of images in the batch.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.kernel_BB = torch.zeros(batch_size, batch_size, dtype=torch.float64)
        """Number of units with equal bits. On the CPU because some devices do not support double precision."""
        self.units = 0
        """Number of units per image."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Reads the input of an activation function before the call, which may overwrite it."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").rstrip("_") in ACTIVATIONS:
            self._add(args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def _add(self, x: Tensor) -> None:
        batch_size = len(self.kernel_BB)
        if not x.ndim or not len(x) or len(x) % batch_size:
            return
        # The product of signs is the number of equal bits minus the number of different bits. In float32, it is exact
        # up to 2**24.
        sign_BU = (x.reshape(batch_size, -1) > 0).float().mul_(2).sub_(1)
        units = sign_BU.shape[1]
        self.kernel_BB += ((sign_BU @ sign_BU.T).cpu().double() + units) / 2
        self.units += units
