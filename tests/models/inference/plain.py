"""Results of the kernels in plain torch and float32, as the expected values of tests on a CPU and on a GPU."""

import torch.nn.functional as F
from torch import Tensor

from hilo_nas.models.sampling import sampling_points


def deformable_columns(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    B, H, W, C = x_BHWC.shape
    index_PK, weight_PK = sampling_points(offset_BCHW, H, W)
    columns = (x_BHWC.float().reshape(-1, C)[index_PK] * weight_PK.unsqueeze(-1)).sum(1)
    return columns.reshape(B, H // 2, W // 2, 4 * C)


def depthwise_gelu(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor) -> Tensor:
    weight = weight_KC.float().t().reshape(-1, 1, 3, 3)
    y_BCHW = F.conv2d(x_BHWC.float().permute(0, 3, 1, 2), weight, bias_C.float(), padding=1, groups=len(bias_C))
    return F.gelu(y_BCHW.permute(0, 2, 3, 1))


def window_attention(qkv_BHWF: Tensor, *, window: int, heads: int, head_dim: int, offset: int = 0) -> Tensor:
    B, H, W, _ = qkv_BHWF.shape
    rows, cols = H // window, W // window
    qkv = qkv_BHWF.float()[..., offset : offset + 3 * heads * head_dim]
    qkv = qkv.reshape(B, rows, window, cols, window, 3, heads, head_dim).permute(5, 0, 1, 3, 6, 2, 4, 7)
    q, k, v = qkv.reshape(3, -1, heads, window * window, head_dim)
    y = F.scaled_dot_product_attention(q, k, v).reshape(B, rows, cols, heads, window, window, head_dim)
    return y.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, H, W, heads * head_dim)
