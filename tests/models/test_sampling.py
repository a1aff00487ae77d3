"""Sampling positions of token merging against torchvision: inside the map, across its edge and far outside."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from hilo_nas.models.sampling import sampling_points


def by_points(x_BCHW, offset_BCHW, weight_OCKK, bias_O):
    """A deformable convolution as a weighted sum of rows and one product."""
    B, C, H, W = x_BCHW.shape
    index_PK, weight_PK = sampling_points(offset_BCHW, H, W)
    rows = x_BCHW.permute(0, 2, 3, 1).reshape(-1, C)
    columns = (rows[index_PK] * weight_PK.unsqueeze(-1)).sum(1).reshape(-1, 4 * C)
    y = F.linear(columns, weight_OCKK.permute(0, 2, 3, 1).reshape(len(weight_OCKK), -1), bias_O)
    return y.reshape(B, H // 2, W // 2, -1).permute(0, 3, 1, 2)


def case(size, *, reach):
    generator = torch.Generator().manual_seed(0)
    H, W = size
    shapes = [(2, 5, H, W), (2, 8, H // 2, W // 2), (7, 5, 2, 2), (7,)]
    x, offset, weight, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [t.requires_grad_() for t in (x, (offset * reach).detach(), weight, bias)]


@pytest.mark.parametrize("reach", [0.0, 0.7, 3.0, 40.0, 1e30])
@pytest.mark.parametrize("size", [(2, 2), (6, 8), (5, 7)])
def test_points_give_torchvisions_values_and_gradients(size, reach):
    ours, theirs = case(size, reach=reach), case(size, reach=reach)
    found, expected = by_points(*ours), deform_conv2d(*theirs, stride=(2, 2))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(expected)
    for own, other in zip(
        torch.autograd.grad(found, ours, pull), torch.autograd.grad(expected, theirs, pull), strict=True
    ):
        # Where a point lies exactly on a pixel, the slope has two sides: only offsets off the grid are compared.
        if own.shape != (2, 8, size[0] // 2, size[1] // 2) or reach in (0.7, 3.0):
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


def test_every_index_names_a_pixel_and_weights_outside_are_zero():
    offset = torch.full((1, 8, 2, 2), -100.0)
    index, weight = sampling_points(offset, 4, 4)
    assert index.min() >= 0
    assert index.max() < 16
    assert not weight.any()


def test_weights_of_half_precision_offsets_are_float32():
    _, weight = sampling_points(torch.zeros(1, 8, 2, 2, dtype=torch.bfloat16), 4, 4)
    assert weight.dtype == torch.float32
    assert torch.equal(weight.sum(1), torch.ones(16))
