"""The Triton kernels on a card: values in every precision at LITv2-S's sizes, `torch.compile` and CUDA graphs.

Not in the default run; `pytest -m gpu tests/gpu` on a machine that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from models.inference import plain
from torch import Tensor

from hilo_nas.models.inference import triton_kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not triton_kernels.is_available(), reason="Triton has no CUDA device here"),
    # Drivers and libraries warn of things that differ from machine to machine.
    pytest.mark.filterwarnings("default"),
]

DEVICE = "cuda"
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HIFI = {"window": 2, "heads": 2, "head_dim": 32}
"""Stage 3 of LITv2-S: two of its twelve heads are Hi-Fi's."""

# LITv2-S at 224 pixels: maps that are merged, hidden maps of the ConvFFNs, and the joint products of stage 3, whose
# Lo-Fi queries lie before or behind Hi-Fi's features. Then sizes that no block divides.
MERGED = [(56, 56, 96), (28, 28, 192), (14, 14, 384), (33, 47, 40), (1, 9, 8)]
HIDDEN = [(56, 56, 384), (28, 28, 768), (14, 14, 1536), (7, 7, 3072), (33, 47, 70), (1, 1, 5)]
JOINT = [(14, 14, 512, 0), (14, 14, 512, 320), (6, 10, 199, 3)]
WINDOWS = [(3, 1, 24), (4, 3, 32), (5, 2, 32), (7, 2, 64), (8, 1, 128), (9, 1, 32), (12, 2, 48), (14, 1, 64)]


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Float32 in full, without TF32 (convolutions use it by default)."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def near(seen: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[seen.dtype]
    torch.testing.assert_close(seen.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("reach", [0.7, 1e4])
@pytest.mark.parametrize("size", MERGED)
@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
def test_columns_are_those_of_plain_torch(dtype, size, reach, batch):
    H, W, _ = size
    x_BHWC = drawn(batch, *size, dtype=dtype)
    offset_BCHW = (drawn(batch, 8, H // 2, W // 2) * reach).to(dtype)
    seen = triton_kernels.deformable_columns(x_BHWC, offset_BCHW)
    near(seen, plain.deformable_columns(x_BHWC, offset_BCHW))
    lying = offset_BCHW.contiguous(memory_format=torch.channels_last)
    assert torch.equal(triton_kernels.deformable_columns(x_BHWC, lying), seen)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("size", HIDDEN)
@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
def test_depthwise_gelu_is_that_of_plain_torch(dtype, size, batch):
    C = size[-1]
    tensors = drawn(batch, *size, dtype=dtype), drawn(9, C, dtype=dtype) / 3, drawn(C, dtype=dtype)
    near(triton_kernels.depthwise_gelu(*tensors), plain.depthwise_gelu(*tensors))


def test_gelu_is_exact_to_float32_for_every_size_of_number():
    x = torch.cat([sign * torch.logspace(-30, 4, 20001, device=DEVICE) for sign in (1, -1)])
    x_BHWC, weight_KC = x.view(1, 1, 1, -1), torch.zeros(9, len(x), device=DEVICE)
    weight_KC[4] = 1
    seen = triton_kernels.depthwise_gelu(x_BHWC, weight_KC, torch.zeros_like(x)).flatten()
    torch.testing.assert_close(seen.double(), torch.nn.functional.gelu(x.double()), rtol=2e-7, atol=3e-7)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(("height", "width", "features", "offset"), JOINT)
@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
def test_attention_is_that_of_plain_torch(dtype, height, width, features, offset, batch):
    qkv_BHWF = drawn(batch, height, width, features, dtype=dtype)
    seen = triton_kernels.window_attention(qkv_BHWF, offset=offset, **HIFI)
    near(seen, plain.window_attention(qkv_BHWF, offset=offset, **HIFI))


@pytest.mark.parametrize(("window", "heads", "head_dim"), WINDOWS)
@pytest.mark.parametrize("dtype", triton_kernels.DTYPES)
def test_attention_in_larger_windows_is_that_of_plain_torch(dtype, window, heads, head_dim):
    if dtype == torch.float32 and head_dim > 64:
        pytest.skip("refused in float32")
    qkv_BHWF = drawn(2, 2 * window, 3 * window, 3 * heads * head_dim + 8, dtype=dtype)
    settings = {"window": window, "heads": heads, "head_dim": head_dim, "offset": 8}
    near(triton_kernels.window_attention(qkv_BHWF, **settings), plain.window_attention(qkv_BHWF, **settings))


def merge(x_BHWC: Tensor) -> Tensor:
    _, H, W, _ = x_BHWC.shape
    offset_BCHW = x_BHWC[:, : H // 2, : W // 2, :8].permute(0, 3, 1, 2)
    return triton_kernels.deformable_columns(x_BHWC, offset_BCHW) * 2


def widen(x_BHWC: Tensor) -> Tensor:
    C = x_BHWC.shape[-1]
    return triton_kernels.depthwise_gelu(x_BHWC + 1, x_BHWC[0, 0, :9], x_BHWC[0, 0, 0]) + x_BHWC[..., :C]


def attend(x_BHWC: Tensor) -> Tensor:
    return triton_kernels.window_attention(x_BHWC * 2, **HIFI) + 1


STEPS = pytest.mark.parametrize(
    ("step", "size"), [(merge, (56, 56, 96)), (widen, (28, 28, 768)), (attend, (14, 14, 512))]
)


@STEPS
def test_compiled_functions_hold_the_kernels(step: Callable[[Tensor], Tensor], size):
    x_BHWC = drawn(4, *size, dtype=torch.float16)
    near(torch.compile(step, fullgraph=True)(x_BHWC), step(x_BHWC).float())
    torch.compiler.reset()


@STEPS
def test_cuda_graphs_hold_the_kernels(step: Callable[[Tensor], Tensor], size):
    x_BHWC = drawn(4, *size, dtype=torch.bfloat16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles
        step(x_BHWC)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y_BHWC = step(x_BHWC)
    x_BHWC.copy_(drawn(5, *size, dtype=torch.bfloat16)[1:])
    graph.replay()
    assert torch.equal(y_BHWC, step(x_BHWC))


def test_maps_may_have_more_elements_than_an_int32_counts():
    B = 700
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free memory")
    x_BHWC = torch.zeros(B, 56, 56, 1024, dtype=torch.float16, device=DEVICE)
    assert x_BHWC.numel() > 2**31
    x_BHWC[-1] = drawn(56, 56, 1024)
    weight_KC, bias_C = drawn(9, 1024, dtype=torch.float16) / 3, drawn(1024, dtype=torch.float16)
    seen = triton_kernels.depthwise_gelu(x_BHWC, weight_KC, bias_C)[-1:]
    near(seen, plain.depthwise_gelu(x_BHWC[-1:], weight_KC, bias_C))
    offset_BCHW = torch.full((B, 8, 28, 28), 0.3, dtype=torch.float16, device=DEVICE)
    seen = triton_kernels.deformable_columns(x_BHWC, offset_BCHW)[-1:]
    near(seen, plain.deformable_columns(x_BHWC[-1:], offset_BCHW[-1:]))
    seen = triton_kernels.window_attention(x_BHWC, offset=512, **HIFI)[-1:]
    near(seen, plain.window_attention(x_BHWC[-1:], offset=512, **HIFI))
