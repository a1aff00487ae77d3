"""The Triton kernels go through Triton's compiler for a card that need not be there: its interpreter forgives more.

The compiler takes an argument of 1 for a plain number, which the interpreter does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hilo_nas.models.inference.kernels import deformable, depthwise, windows

TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
OPTIONS = {"num_warps", "enable_fp_fusion"}


class Compiled:
    """Stands for a kernel; a launch compiles it for the arguments, as they are specialised, and runs nothing."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(blocks > 0 for blocks in grid)
        return self._compile

    def _compile(self, *arguments: Any, **named: Any) -> None:
        options = {name: named.pop(name) for name in OPTIONS & named.keys()}
        values = {**dict(zip(self.kernel.arg_names, arguments, strict=False)), **named}
        source = ASTSource(
            fn=self.kernel, signature=self._signature(values, named), constexprs=self._plain(values, named)
        )
        binary = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
        assert "ptx" in binary.asm
        self.launches += 1

    def _signature(self, values: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, str]:
        plain = self._plain(values, named)
        return {name: "constexpr" if name in plain else type_of(values[name]) for name in self.kernel.arg_names}

    @staticmethod
    def _plain(values: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in named or (type(value) is int and value == 1)}


def type_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


def merged(B: int, H: int, W: int, C: int, dtype: torch.dtype) -> list[Tensor]:
    """A map, its offsets and its columns."""
    tensors = [torch.zeros(B, H, W, C), torch.zeros(B, 8, H // 2, W // 2), torch.zeros(B, H // 2, W // 2, 4 * C)]
    return [tensor.to(dtype) for tensor in tensors]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [(2, 8, 6, 40), (1, 2, 2, 1), (1, 2, 3, 8), (3, 5, 2, 96)])
def test_merging_compiles(monkeypatch, size, dtype):
    kernel = Compiled(deformable._columns)
    monkeypatch.setattr(deformable, "_columns", kernel)
    deformable.launch(*merged(*size, dtype))
    assert kernel.launches == 1


@pytest.mark.parametrize("size", [(1, 1, 9, 8), (2, 4, 1, 8)])
def test_nothing_is_launched_for_a_map_that_merges_to_nothing(monkeypatch, size):
    kernel = Compiled(deformable._columns)
    monkeypatch.setattr(deformable, "_columns", kernel)
    deformable.launch(*merged(*size, torch.float32))
    assert kernel.launches == 0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [(2, 7, 5, 70), (1, 1, 1, 1), (1, 1, 9, 64), (3, 35, 1, 8)])
def test_depthwise_gelu_compiles(monkeypatch, size, dtype):
    kernel = Compiled(depthwise._depthwise_gelu)
    monkeypatch.setattr(depthwise, "_depthwise_gelu", kernel)
    C = size[-1]
    tensors = [torch.zeros(size), torch.zeros(9, C), torch.zeros(C), torch.zeros(size)]
    depthwise.launch(*(tensor.to(dtype) for tensor in tensors))
    assert kernel.launches == 1


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("window", "heads", "head_dim"), [(2, 2, 32), (3, 1, 5), (7, 3, 64)])
@pytest.mark.parametrize("across", [1, 3])
def test_window_attention_compiles(monkeypatch, across, window, heads, head_dim, dtype):
    kernel = Compiled(windows._window_attention)
    monkeypatch.setattr(windows, "_window_attention", kernel)
    offset, side = across - 1, across * window
    qkv_BHWF = torch.zeros(1, side, side, 3 * heads * head_dim + offset, dtype=dtype)
    y_BHWC = torch.zeros(1, side, side, heads * head_dim, dtype=dtype)
    windows.launch(qkv_BHWF, y_BHWC, window=window, heads=heads, head_dim=head_dim, offset=offset)
    assert kernel.launches == 1
