"""NASWOT: how well a fresh network tells the images of a minibatch apart, by which of its units are active.

Paper: "Neural Architecture Search without Training" (arXiv 2006.04647), section 3. Each image has a binary code: for
every unit before a ReLU, whether it is positive. Two images' kernel is the number of units on which their codes agree
(N_a less the Hamming distance), and the score is the logarithm of the kernel matrix's determinant.
Own changes: LITv2 has no ReLU, so units before a GELU and its likes count, by the same sign; calls are watched, not
modules, for LITv2 calls its GELU as a function. One is added to the diagonal, as if each image had one more unit of its
own: images with the same code would make the logarithm infinite, and beside some hundred thousand units one is little.

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
"""Functions of torch that let a positive input pass and hold a negative one back; sigmoid and other gates do not."""


def score_naswot(model: nn.Module, images_BCHW: Tensor) -> float:
    """Returns the log-determinant of the codes' kernel, at least 0; higher is better.

    Scores of different batch sizes are not comparable. The network is in train mode: fresh running statistics know
    nothing of the images, so batch norm takes the batch's own, as in the authors' code. Those statistics are changed.

    Args:
        model: The network, with fresh weights.
        images_BCHW: Images as the network takes them, on its device.

    Raises:
        UsageError: No activation function is called on the images.
    """
    model.train()
    with torch.no_grad(), _CodeWatch(len(images_BCHW)) as watch:
        model(images_BCHW)
    if not watch.units:
        raise UsageError(
            f"naswot needs a network with activation functions ({', '.join(sorted(ACTIVATIONS))}), "
            f"but {type(model).__name__} calls none on its images. Use another proxy."
        )
    return float(torch.linalg.slogdet(watch.kernel_BB + torch.eye(len(images_BCHW), dtype=torch.float64)).logabsdet)


class _CodeWatch(TorchFunctionMode):
    """Adds up the kernel over the activation functions that are called inside the `with`.

    What they are called on belongs to the images where its first axis is a whole multiple of the batch (windows lie
    behind each other, image by image); anything else, such as a table of positions, has no code.

    Args:
        batch_size: Images that the network is given.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.kernel_BB = torch.zeros(batch_size, batch_size, dtype=torch.float64)
        """Units on which two images agree; on the CPU, for some devices have no double precision."""
        self.units = 0
        """Units of one image."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Looks at what an activation function is given, before it may write over it."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").rstrip("_") in ACTIVATIONS:
            self._add(args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def _add(self, x: Tensor) -> None:
        batch_size = len(self.kernel_BB)
        if not x.ndim or not len(x) or len(x) % batch_size:
            return
        # The product of signs is the units that agree less those that differ; in float32 it is exact up to 2**24.
        sign_BU = (x.reshape(batch_size, -1) > 0).float().mul_(2).sub_(1)
        units = sign_BU.shape[1]
        self.kernel_BB += ((sign_BU @ sign_BU.T).cpu().double() + units) / 2
        self.units += units
