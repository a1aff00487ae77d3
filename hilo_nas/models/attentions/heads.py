"""Base class of the attention layers, and functions that split channels into heads and join them again.

Shape suffixes: B batch, N tokens, C channels, A heads, D head dimension.
"""

from __future__ import annotations

from torch import Tensor, nn

from hilo_nas.errors import ArchError

__all__ = ["HeadedLayer", "join_heads", "split_heads"]


class HeadedLayer(nn.Module):
    """Base class of layers with attention heads. Checks the constructor's arguments and shows them in `print(model)`.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        **settings: Further whole-number arguments of the layer, such as `window_size`, each at least 1.

    Raises:
        ArchError: `num_heads` does not divide `dim`, or a setting is below 1.
    """

    def __init__(self, dim: int, num_heads: int, **settings: int) -> None:
        super().__init__()
        for name, value in {"dim": dim, "num_heads": num_heads, **settings}.items():
            if value < 1:
                raise ArchError(f"{name} must be at least 1, but got {value}")
        if dim % num_heads:
            raise ArchError(f"num_heads must divide dim ({dim}), but got {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self._shown = {"num_heads": num_heads, **settings}

    def extra_repr(self) -> str:
        """Returns the constructor's arguments as text for `print(model)`."""
        return ", ".join(f"{name}={value}" for name, value in self._shown.items())


def split_heads(x_BNC: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Returns the `parts` of a fused projection (3 for q, k and v), each a view of shape (B, A, N, D)."""
    B, N, C = x_BNC.shape
    if parts == 1:  # OpenVINO 2026.4 drops the transposition with an axis of length 1 if N equals the number of heads
        return (x_BNC.reshape(B, N, num_heads, C // num_heads).transpose(1, 2),)
    return x_BNC.reshape(B, N, parts, num_heads, C // (parts * num_heads)).permute(2, 0, 3, 1, 4).unbind(0)


def join_heads(y_BAND: Tensor) -> Tensor:
    """Returns the heads concatenated to channels, shape (B, N, C).

    Does not copy if fused attention computed the input.
    """
    return y_BAND.transpose(1, 2).flatten(2)
