"""Triton kernels: results in the interpreter against plain torch, and compilation for GPUs that are not present."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from models.inference import plain
from torch import Tensor
from torchvision.ops import deform_conv2d

from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.models.inference import triton_kernels

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

Case = tuple[str, tuple[Tensor, ...], dict[str, int]]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def merging(size: tuple[int, int, int, int], reach: float, dtype=torch.float32) -> Case:
    B, H, W, _ = size
    return "deformable_columns", (drawn(*size).to(dtype), reach * drawn(B, 8, H // 2, W // 2)), {}


def ffn(size: tuple[int, int, int, int], dtype=torch.float32) -> Case:
    C = size[-1]
    return "depthwise_gelu", (drawn(*size).to(dtype), drawn(9, C).to(dtype), drawn(C).to(dtype)), {}


def attention(
    size: tuple[int, int, int], window: int, heads: int, head_dim: int, offset: int, dtype=torch.float32
) -> Case:
    qkv = drawn(*size, offset + 3 * heads * head_dim + 5).to(dtype)
    return "window_attention", (qkv,), {"window": window, "heads": heads, "head_dim": head_dim, "offset": offset}


def lying(case: Case) -> Case:
    """The same case with tensors whose axes lie in another order."""
    function, tensors, settings = case
    return function, tuple(t.mT.contiguous().mT if t.dim() > 1 else t for t in tensors), settings


CASES: dict[str, Case] = {
    "merging": merging((2, 6, 8, 5), 0.7),
    "merging, on the grid": merging((1, 2, 2, 40), 0.0),
    "merging, odd": merging((1, 5, 7, 96), 3.0),
    "merging, outside": merging((2, 4, 3, 33), 40.0),
    "merging, far outside": merging((1, 4, 4, 8), 1e30),
    "merging, blocks of 128": merging((1, 4, 4, 256), 1.0),
    "merging, too small": merging((1, 1, 3, 8), 0.0),
    "merging, lying": lying(merging((2, 5, 6, 7), 1.0)),
    "ffn": ffn((2, 5, 7, 12)),
    "ffn, one pixel": ffn((3, 1, 1, 65)),
    "ffn, one row": ffn((1, 1, 9, 64)),
    "ffn, one column": ffn((9, 3, 1, 8)),
    "ffn, several walks": ffn((1, 35, 3, 4)),
    "ffn, many channels": ffn((1, 6, 4, 200)),
    "ffn, lying": lying(ffn((2, 3, 4, 5))),
    "attention": attention((2, 4, 6), 2, heads=2, head_dim=16, offset=8),
    "attention, 3 x 3": attention((1, 3, 9), 3, heads=1, head_dim=5, offset=0),
    "attention, 4 x 4": attention((1, 8, 4), 4, heads=3, head_dim=8, offset=3),
    "attention, 5 x 5": attention((2, 5, 5), 5, heads=1, head_dim=20, offset=16),
    "attention, 7 x 7": attention((1, 7, 14), 7, heads=2, head_dim=32, offset=0),
    "attention, 9 x 9": attention((1, 9, 9), 9, heads=1, head_dim=16, offset=1),
    "attention, 14 x 14": attention((1, 14, 14), 14, heads=1, head_dim=8, offset=0),
    "attention, lying": lying(attention((1, 4, 4), 2, heads=1, head_dim=4, offset=2)),
    **{f"merging, {name}": merging((1, 6, 6, 40), 2.0, dtype) for name, dtype in HALF.items()},
    **{f"ffn, {name}": ffn((1, 6, 5, 70), dtype) for name, dtype in HALF.items()},
    # Without bfloat16, whose products the interpreter of Triton 3.9 gets wrong.
    "attention, fp16": attention((2, 6, 4), 2, heads=3, head_dim=32, offset=8, dtype=torch.float16),
    "attention, 14 x 14, fp16": attention((1, 14, 14), 14, heads=1, head_dim=16, offset=0, dtype=torch.float16),
}
CASES["merging, nan"] = merging((1, 4, 4, 8), 1.0)
CASES["merging, nan"][1][1][0, 2, 1, 0] = torch.nan


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    pytest.importorskip("triton", reason="triton is not installed")
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save(CASES, folder / "cases.pt")
    script = Path(__file__).with_name("interpret_cases.py")
    run_interpreted(script, str(folder / "cases.pt"), str(folder / "results.pt"))
    return torch.load(folder / "results.pt")


def run_interpreted(script: Path, *arguments: str) -> None:
    """Runs a script with Triton's interpreter in the place of its compiler."""
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_a_whole_network_on_the_kernels_gives_what_the_trained_one_gives():
    pytest.importorskip("triton", reason="triton is not installed")
    run_interpreted(Path(__file__).with_name("interpret_network.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_what_plain_torch_gives(interpreted, name):
    function, tensors, settings = CASES[name]
    expected = getattr(plain, function)(*tensors, **settings)
    tolerance = TOLERANCE[tensors[0].dtype]
    for result in interpreted[name].values():
        assert result.dtype == tensors[0].dtype
        assert result.is_contiguous()
        torch.testing.assert_close(result.float(), expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.slow
def test_a_product_with_the_columns_is_the_deformable_convolution(interpreted):
    _, (x_BHWC, offset_BCHW), _ = CASES["merging"]
    weight, bias = drawn(7, x_BHWC.shape[-1], 2, 2), drawn(7)
    expected = deform_conv2d(x_BHWC.permute(0, 3, 1, 2).contiguous(), offset_BCHW, weight, bias, stride=(2, 2))
    for columns in interpreted["merging"].values():
        y_BHWC = F.linear(columns, weight.permute(0, 2, 3, 1).flatten(1), bias)
        torch.testing.assert_close(y_BHWC.permute(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_compiled_functions_were_among_the_results(interpreted):
    assert {name for name, results in interpreted.items() if "compiled" in results} == {"merging", "ffn", "attention"}


class Launched(Exception):  # noqa: N818
    """A kernel and the arguments of its launch."""


@pytest.fixture
def caught(monkeypatch):
    """Kernels raise their launch."""
    jit = pytest.importorskip("triton.runtime.jit", reason="triton is not installed")

    def run(kernel, *args, grid, warmup, **kwargs):
        raise Launched(kernel, args, kwargs)

    monkeypatch.setattr(jit.JITFunction, "run", run)


@pytest.mark.parametrize(
    ("dtype", "capability"), [(torch.float32, 80), (torch.float16, 80), (torch.bfloat16, 90)], ids=str
)
@pytest.mark.parametrize(
    "name", ["merging", "ffn", "ffn, one pixel", "attention", "attention, 4 x 4", "attention, 7 x 7"]
)
def test_a_kernel_compiles_for_a_gpu_that_this_machine_lacks(caught, monkeypatch, tmp_path, name, dtype, capability):
    """The interpreter takes much that the compiler refuses."""
    triton = pytest.importorskip("triton", reason="triton is not installed")
    compiler = pytest.importorskip("triton.backends.compiler")
    from hilo_nas.models.inference.kernels import deformable, depthwise, window_attention

    if not hasattr(triton.compiler.ASTSource, "make_ir"):
        pytest.skip("this version of triton compiles in another way")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, tensors, settings = CASES[name]
    module = {"deformable_columns": deformable, "depthwise_gelu": depthwise, "window_attention": window_attention}[
        function
    ]
    given = [tensor.to("meta", dtype) for tensor in tensors]
    with pytest.raises(Launched) as launched:
        module.launch(*given, given[0], **settings)
    kernel, args, kwargs = launched.value.args
    options = {key: kwargs.pop(key) for key in ("num_warps", "enable_fp_fusion")}
    types = {Tensor: f"*{str(dtype).removeprefix('torch.').replace('float', 'fp').replace('bfp', 'bf')}"}
    types |= {int: "i32", float: "fp32"}
    values = dict(zip(kernel.arg_names, args, strict=False))
    constants = kwargs | {
        key: value for key, value in values.items() if type(value) is int and value == 1
    }  # as every launch has it
    source = triton.compiler.ASTSource(
        kernel,
        {key: types[type(value)] for key, value in values.items()} | dict.fromkeys(constants, "constexpr"),
        {(kernel.arg_names.index(key),): value for key, value in constants.items()},
    )
    compiled = triton.compile(source, target=compiler.GPUTarget("cuda", capability, 32), options=options)
    assert compiled.asm["cubin"]


@pytest.mark.parametrize("size", [(1, 1, 9, 8), (2, 4, 1, 8)])
def test_nothing_is_launched_for_a_map_that_merges_to_nothing(caught, size):
    """To the compiler a side of 1 is a plain number, which the kernel does not support."""
    from hilo_nas.models.inference.kernels import deformable

    B, H, W, C = size
    given = torch.empty(size), torch.empty(B, 8, H // 2, W // 2), torch.empty(B, H // 2, W // 2, 4 * C)
    deformable.launch(*given)
    with pytest.raises(Launched):
        deformable.launch(torch.empty(B, 2, 2, C), torch.empty(B, 8, 1, 1), torch.empty(B, 1, 1, 4 * C))


# What needs no triton.


def test_shapes_are_known_without_a_kernel():
    with torch.device("meta"):
        columns = triton_kernels.deformable_columns(torch.empty(2, 5, 7, 3), torch.empty(2, 8, 2, 3))
        hidden = triton_kernels.depthwise_gelu(torch.empty(2, 5, 7, 3), torch.empty(9, 3), torch.empty(3))
        qkv = torch.empty(2, 4, 6, 50, dtype=torch.float16)
        attended = triton_kernels.window_attention(qkv, window=2, heads=2, head_dim=8)
    assert columns.shape == (2, 2, 3, 12)
    assert hidden.shape == (2, 5, 7, 3)
    assert (attended.shape, attended.dtype) == ((2, 4, 6, 16), torch.float16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triton_kernels.deformable_columns(drawn(1, 4, 4, 3), drawn(1, 8, 4, 4)), "offset must have the shape"),
        (lambda: triton_kernels.depthwise_gelu(drawn(1, 4, 4, 3), drawn(3, 9), drawn(3)), "weight must have the shape"),
        (lambda: triton_kernels.depthwise_gelu(drawn(1, 4, 4, 3).double(), drawn(9, 3), drawn(3)), "but got torch.fl"),
        (lambda: attend(drawn(1, 4, 5, 24), window=2), "multiples of the window"),
        (lambda: attend(drawn(1, 4, 4, 24), window=1), "window must be 2 to 14"),
        (lambda: attend(drawn(1, 4, 4, 24), window=2, offset=1), r"at most 24\b.*offset 1\b"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def attend(qkv_BHWF: Tensor, *, window: int, offset: int = 0) -> Tensor:
    return triton_kernels.window_attention(qkv_BHWF, window=window, heads=1, head_dim=8, offset=offset)


def test_the_cpu_is_refused_outside_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not triton_kernels.is_available("cpu")
    with pytest.raises(DeviceError, match=r"need a CUDA device|need triton"):
        attend(drawn(1, 4, 4, 24), window=2)


def test_without_triton_the_kernels_say_so(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not triton_kernels.is_available("cpu")
    with pytest.raises(DeviceError, match="triton, which is not installed"):
        attend(drawn(1, 4, 4, 24), window=2)


def test_the_attention_kernel_is_used_for_small_windows_and_heads():
    can_run = triton_kernels.can_run_window_attention
    assert [window for window in range(1, 15) if can_run(torch.float16, window=window, head_dim=32)] == [*range(2, 9)]
    assert can_run(torch.bfloat16, window=2, head_dim=128)
    assert not can_run(torch.float32, window=2, head_dim=128)
    assert not can_run(torch.float64, window=2, head_dim=32)
