"""Deformable merging against torchvision's operator: values, gradients, precisions, layouts, compilation, memory."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.ops import deform_conv2d

from hilo_nas.models.dtm import DTM, DeformConv, deformable_columns

POINT_BYTES = 112
"""Bytes per point that the backward pass can keep: four indices, four weights, and the inputs of the weights."""


def moved(conv, *, reach=0.7):
    """The convolution with offsets that differ from point to point, as far as `reach` pixels."""
    nn.init.normal_(conv.conv_offset.weight, std=reach / conv.conv_offset.weight[0].numel() ** 0.5)
    nn.init.normal_(conv.conv_offset.bias, std=reach)
    return conv


def by_torchvision(conv, x_BCHW):
    offset_BCHW = conv.conv_offset(x_BCHW)
    return deform_conv2d(x_BCHW.contiguous(), offset_BCHW, conv.weight, conv.bias, stride=(2, 2))


def gradients(y, conv, x, pull):
    return torch.autograd.grad((y * pull).sum(), [x, *conv.parameters()])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 10), (3, 5)])
@pytest.mark.parametrize("reach", [0.0, 0.7, 20.0])
def test_values_and_gradients_are_torchvisions(size, layout, reach):
    """Without offsets, as training begins, every point lies on a pixel: the slope must be torchvision's there too."""
    conv = moved(DeformConv(5, 7).double(), reach=reach).to(memory_format=layout)
    x_BCHW = torch.randn(3, 5, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    found, expected = conv(x_BCHW), by_torchvision(conv, x_BCHW)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(expected)
    for own, other in zip(gradients(found, conv, x_BCHW, pull), gradients(expected, conv, x_BCHW, pull), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_gradients_are_the_slopes():
    x_BHWC = torch.randn(2, 5, 4, 3, dtype=torch.float64, requires_grad=True)
    # Between 0.1 and 0.9 of a pixel from where it was, a point's slope has one side.
    away = torch.rand(2, 8, 2, 2, dtype=torch.float64) * 0.8 + 0.1
    offset_BCHW = (away + torch.randint(-3, 3, away.shape)).requires_grad_()
    assert torch.autograd.gradcheck(deformable_columns, (x_BHWC, offset_BCHW))


def test_columns_of_a_view_are_those_of_its_copy():
    x_BHWC = torch.randn(2, 9, 8, 12)[:, 1:, ::2, 3:9].transpose(1, 2)
    offset_BCHW = torch.randn(2, 8, 2, 4)
    assert not x_BHWC.is_contiguous()
    assert torch.equal(deformable_columns(x_BHWC, offset_BCHW), deformable_columns(x_BHWC.contiguous(), offset_BCHW))
    torch.testing.assert_close(
        deformable_columns(x_BHWC, offset_BCHW),
        deformable_columns(x_BHWC, offset_BCHW.to(memory_format=torch.channels_last)),
    )


def test_nan_offsets_give_nan_values_without_a_crash():
    columns = deformable_columns(torch.randn(1, 4, 4, 3), torch.full((1, 8, 2, 2), float("nan")))
    assert columns.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_as_near_as_its_rounding(dtype, autocast):
    conv = moved(DeformConv(6, 9))
    x_BCHW = torch.randn(2, 6, 8, 7, requires_grad=True)
    expected = conv(x_BCHW)
    pull = torch.randn_like(expected)
    slopes = gradients(expected, conv, x_BCHW, pull)
    own = torch.float32 if autocast else dtype
    conv, low_BCHW = conv.to(own), x_BCHW.detach().to(own).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        found = conv(low_BCHW)
    assert found.dtype == own
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    for name, near, slope in zip("xwbwb", gradients(found.float(), conv, low_BCHW, pull), slopes, strict=True):
        assert near.dtype == own, name
        assert (near - slope).norm() < 0.05 * slope.norm(), name


def test_points_of_half_precision_maps_are_weighted_in_float32():
    """A ramp shows where a point lies; in bfloat16, a third of a pixel would be off by a thousandth."""
    ramp_BHWC = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 4, 4, 1)
    offset_BCHW = torch.full((1, 8, 2, 2), 1 / 3)
    exact = deformable_columns(ramp_BHWC, offset_BCHW)
    assert torch.equal(deformable_columns(ramp_BHWC.bfloat16(), offset_BCHW), exact.bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_step_compiles_whole_for_any_batch(autocast):
    merge = DTM(4, 6).train()
    moved(merge.dconv)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(merge, backend=counter, fullgraph=True, dynamic=None)

    def step(network, x_BCHW):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            network(x_BCHW).square().mean().backward()
        slopes = [parameter.grad for parameter in merge.parameters()]
        merge.zero_grad()
        return slopes

    for batch_size in (4, 3, 5, 8):
        x_BCHW = torch.randn(batch_size, 4, 6, 7)
        for own, other in zip(step(compiled, x_BCHW), step(merge, x_BCHW), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    # Once for the first batch, once more for all others.
    assert counter.frame_count == 2
    torch._dynamo.reset()


@pytest.mark.parametrize(("autocast", "column_bytes"), [(False, 4), (True, 2)])
def test_the_backward_pass_keeps_the_map_the_columns_and_little_of_each_point(autocast, column_bytes):
    conv = moved(DeformConv(64, 16))
    x_BCHW = torch.randn(2, 64, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    given = {tensor.untyped_storage().data_ptr() for tensor in (x_BCHW, *conv.parameters())}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), hooks:
        y_BCHW = conv(x_BCHW)
    points = 2 * 16 * 16
    weights = sum(parameter.numel() for parameter in conv.parameters()) * 4
    # Under autocast, the convolution of the offsets keeps its own copy of the map.
    allowed = points * (POINT_BYTES + 64 * column_bytes) + weights + (x_BCHW.numel() * 2 if autocast else 0)
    own = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in given)
    assert x_BCHW.untyped_storage().data_ptr() in kept
    assert points * 64 * column_bytes < own <= allowed
    assert y_BCHW.requires_grad
