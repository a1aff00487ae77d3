"""HiLo attention against a slow loop and against plain attention."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ArchError
from hilo_nas.models import HiLo, build_model

DIM, HEADS = 12, 4


def random_layer(window_size: int, alpha: float, num_heads: int = HEADS, qkv_bias: bool = True) -> HiLo:
    """A layer whose biases are not zero, so that padded tokens have keys and values of their own."""
    torch.manual_seed(0)
    layer = HiLo(DIM, num_heads, window_size, alpha, qkv_bias=qkv_bias)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def attend(query_D: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    scores = torch.stack([(query_D * key_D).sum() / math.sqrt(len(query_D)) for key_D in keys])
    return sum(weight * value_D for weight, value_D in zip(scores.softmax(0), values, strict=True))


def slow_hilo(layer: HiLo, image_HWC: Tensor, num_heads: int, window_size: int, lofi_heads: int) -> Tensor:
    """HiLo with loops over tokens and heads, from the equations of the paper."""
    H, W, C = image_HWC.shape
    s, D = window_size, C // num_heads
    rows, cols = math.ceil(H / s), math.ceil(W / s)
    padded_HWC = torch.zeros(rows * s, cols * s, C)
    padded_HWC[:H, :W] = image_HWC
    tokens = list(itertools.product(range(rows * s), range(cols * s)))
    hifi_heads = num_heads - lofi_heads
    out_HWC = torch.zeros(H, W, C)
    if hifi_heads:
        qkv = {at: layer.h_qkv(padded_HWC[at]).reshape(3, hifi_heads, D) for at in tokens}
        for h, w in itertools.product(range(H), range(W)):
            mates = [at for at in tokens if at[0] // s == h // s and at[1] // s == w // s]
            heads = [
                attend(qkv[h, w][0, a], [qkv[at][1, a] for at in mates], [qkv[at][2, a] for at in mates])
                for a in range(hifi_heads)
            ]
            out_HWC[h, w, : hifi_heads * D] = layer.h_proj(torch.cat(heads))
    if lofi_heads:
        corners = itertools.product(range(0, rows * s, s), range(0, cols * s, s))
        pooled = [padded_HWC[h : h + s, w : w + s].mean((0, 1)) for h, w in corners]
        kv = [layer.l_kv(token_C).reshape(2, lofi_heads, D) for token_C in pooled]
        for h, w in itertools.product(range(H), range(W)):
            q = layer.l_q(padded_HWC[h, w]).reshape(lofi_heads, D)
            heads = [attend(q[a], [t[0, a] for t in kv], [t[1, a] for t in kv]) for a in range(lofi_heads)]
            out_HWC[h, w, hifi_heads * D :] = layer.l_proj(torch.cat(heads))
    return out_HWC


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (2, 7)])
@pytest.mark.parametrize("window_size", [1, 2, 3])
@pytest.mark.parametrize(("alpha", "lofi_heads"), [(0.0, 0), (0.3, 1), (0.5, 2), (0.9, 3), (1.0, 4)])
@torch.no_grad()
def test_hilo_agrees_with_a_slow_loop(size, window_size, alpha, lofi_heads):
    layer = random_layer(window_size, alpha)
    x_BHWC = torch.randn(2, *size, DIM)
    lofi_heads = HEADS if window_size == 1 else lofi_heads
    slow = torch.stack([slow_hilo(layer, image, HEADS, window_size, lofi_heads) for image in x_BHWC])
    torch.testing.assert_close(layer(x_BHWC), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_heads", [1, 3, 6])
@torch.no_grad()
def test_any_number_of_heads_agrees_with_a_slow_loop(num_heads):
    layer = random_layer(2, 0.5, num_heads)
    image_HWC = torch.randn(3, 4, DIM)
    slow = slow_hilo(layer, image_HWC, num_heads, 2, num_heads // 2)
    torch.testing.assert_close(layer(image_HWC[None])[0], slow, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_window_larger_than_the_map_is_padded():
    layer = random_layer(5, 0.5)
    image_HWC = torch.randn(2, 3, DIM)
    slow = slow_hilo(layer, image_HWC, HEADS, 5, 2)
    torch.testing.assert_close(layer(image_HWC[None])[0], slow, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_window_of_one_is_plain_attention():
    layer = random_layer(1, 0.0)
    assert not hasattr(layer, "h_qkv")
    plain = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    plain.in_proj_weight.copy_(torch.cat([layer.l_q.weight, layer.l_kv.weight]))
    plain.in_proj_bias.copy_(torch.cat([layer.l_q.bias, layer.l_kv.bias]))
    plain.out_proj.load_state_dict(layer.l_proj.state_dict())
    x_BHWC = torch.randn(2, 3, 5, DIM)
    x_BNC = x_BHWC.flatten(1, 2)
    expected, _ = plain(x_BNC, x_BNC, x_BNC)
    torch.testing.assert_close(layer(x_BHWC).flatten(1, 2), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_counts_as_keys_and_in_the_pooling():
    layer = random_layer(2, 0.5)
    x_BHWC = torch.randn(1, 3, 3, DIM)
    by_hand = layer(F.pad(x_BHWC, (0, 0, 0, 1, 0, 1)))[:, :3, :3]
    torch.testing.assert_close(layer(x_BHWC), by_hand)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ArchError, match=r"num_heads must divide dim \(12\), but got 5"):
        HiLo(12, 5, 2, 0.5)


def test_the_biases_of_the_projections_can_be_left_out():
    layer = random_layer(2, 0.5, qkv_bias=False)
    names = {name for name, _ in layer.named_parameters() if name.endswith("bias")}
    assert names == {"l_proj.bias", "h_proj.bias"}


@torch.no_grad()
def test_equal_canonical_forms_build_equal_modules():
    one = ArchConfig(
        embed_dims=[8, 8, 12, 16],
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 4],
        alpha=[0.1, 0.2, 0.55, 0.3],
        window_size=[3, 2, 2, 1],
        mlp_ratios=[2.1, 2, 2, 2],
    )
    two = ArchConfig(
        embed_dims=[8, 8, 12, 16],
        depths=[1, 1, 1, 1],
        num_heads=[8, 8, 4, 4],
        alpha=[1, 1, 0.7, 1],
        window_size=[1, 5, 2, 1],
        mlp_ratios=[2, 2, 2.05, 2],
    )
    assert one.key() == two.key()
    x_BCHW = torch.randn(1, 3, 40, 33)
    outputs, shapes = [], []
    for arch in (one, two, one.canonical()):
        torch.manual_seed(0)
        model = build_model(arch, num_classes=4).eval()
        shapes.append({name: value.shape for name, value in model.state_dict().items()})
        outputs.append(model(x_BCHW))
    assert shapes[0] == shapes[1] == shapes[2]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
