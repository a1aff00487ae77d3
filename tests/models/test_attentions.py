"""Attention layers other than HiLo, compared with slow implementations that loop over tokens and heads."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hilo_nas.errors import ArchError, UsageError
from hilo_nas.models.attentions import (
    ELFATT,
    HMSA,
    MSA,
    SRA,
    XCA,
    CarrierAttention,
    ClusteredAttention,
    Linformer,
    PooledAttention,
    ShiftedWindowAttention,
    WindowAttention,
)

DIM, HEADS = 12, 3
D = DIM // HEADS
SIZES = [(4, 4), (5, 3), (1, 7)]
WINDOWED = [SRA, WindowAttention, ShiftedWindowAttention, HMSA, CarrierAttention, ELFATT]
OTHERS = [MSA, PooledAttention, XCA, ClusteredAttention]

size_param = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
window_param = pytest.mark.parametrize("window_size", [1, 2, 3, 9])


def random_layer(kind, *args, **options):
    """A layer in double precision whose biases and norms are not trivial, so that padded tokens have keys."""
    torch.manual_seed(0)
    layer = kind(DIM, *(args or (HEADS,)), **options).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def random_map(height, width, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, height, width, DIM, dtype=torch.float64)


def each_image(slow, x_BHWC):
    return torch.stack([slow(image_HWC) for image_HWC in x_BHWC])


def attend(query_D: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    scores = [math.exp((query_D * key_D).sum() / math.sqrt(len(query_D))) for key_D in keys]
    return sum(score * value_D for score, value_D in zip(scores, values, strict=True)) / sum(scores)


def attend_by_heads(query_C: Tensor, keys: list[Tensor], values: list[Tensor], heads: int = HEADS) -> Tensor:
    def part(x_C: Tensor, a: int) -> Tensor:
        return x_C.reshape(heads, -1)[a]

    return torch.cat(
        [attend(part(query_C, a), [part(k, a) for k in keys], [part(v, a) for v in values]) for a in range(heads)]
    )


def places(height: int, width: int) -> list[tuple[int, int]]:
    return list(itertools.product(range(height), range(width)))


def padded(image_HWC: Tensor, s: int) -> Tensor:
    H, W, C = image_HWC.shape
    whole = torch.zeros(math.ceil(H / s) * s, math.ceil(W / s) * s, C, dtype=image_HWC.dtype)
    whole[:H, :W] = image_HWC
    return whole


def windows_of(image_HWC: Tensor, s: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The places of each window of a map that the windows divide."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for h, w in places(*image_HWC.shape[:2]):
        found.setdefault((h // s, w // s), []).append((h, w))
    return found


def by_head(qkv_C: Tensor, heads: int = HEADS) -> Tensor:
    """Query, key and value of a product that is ordered head by head; shape (3, channels)."""
    return qkv_C.reshape(heads, 3, -1).transpose(0, 1).flatten(1)


def close(fast: Tensor, slow: Tensor) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@size_param
@torch.no_grad()
def test_plain_attention_agrees_with_a_slow_loop(size):
    layer = random_layer(MSA)

    def slow(image_HWC):
        out_HWC = torch.zeros_like(image_HWC)
        qkv = {at: layer.qkv(image_HWC[at]).reshape(3, DIM) for at in places(*size)}
        for at in places(*size):
            seen = attend_by_heads(qkv[at][0], [t[1] for t in qkv.values()], [t[2] for t in qkv.values()])
            out_HWC[at] = layer.proj(seen)
        return out_HWC

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_plain_attention_is_torchs_own():
    layer = random_layer(MSA)
    plain = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    plain.in_proj_weight.copy_(layer.qkv.weight)
    plain.in_proj_bias.copy_(layer.qkv.bias)
    plain.out_proj.load_state_dict(layer.proj.state_dict())
    x_BNC = (x_BHWC := random_map(3, 5)).flatten(1, 2)
    close(layer(x_BHWC).flatten(1, 2), plain(x_BNC, x_BNC, x_BNC)[0])


def attend_reduced(layer, image_HWC: Tensor, reduced: list[Tensor]) -> Tensor:
    """Every token of the map to a few."""
    out_HWC = torch.zeros_like(image_HWC)
    kv = [layer.kv(token_C).reshape(2, DIM) for token_C in reduced]
    for at in places(*image_HWC.shape[:2]):
        out_HWC[at] = layer.proj(attend_by_heads(layer.q(image_HWC[at]), [t[0] for t in kv], [t[1] for t in kv]))
    return out_HWC


@size_param
@window_param
@torch.no_grad()
def test_spatial_reduction_agrees_with_a_slow_loop(size, window_size):
    layer = random_layer(SRA, HEADS, window_size)

    def slow(image_HWC):
        if window_size == 1:
            return attend_reduced(layer, image_HWC, [image_HWC[at] for at in places(*size)])
        whole_HWC = padded(image_HWC, window_size)
        patches = [torch.cat([whole_HWC[at] for at in mates]) for mates in windows_of(whole_HWC, window_size).values()]
        return attend_reduced(layer, image_HWC, [layer.norm(layer.sr(patch)) for patch in patches])

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_the_reduction_is_the_papers_strided_convolution():
    layer = random_layer(SRA, HEADS, 2)
    x_BHWC = random_map(4, 6)
    weight = layer.sr.weight.reshape(DIM, 2, 2, DIM).permute(0, 3, 1, 2)
    reduced_BCHW = F.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, layer.sr.bias, stride=2)
    close(layer.reduce(x_BHWC), layer.norm(reduced_BCHW.flatten(2).transpose(1, 2)))


@pytest.mark.parametrize("size", [(7, 7), (5, 3), (9, 8), (3, 14), (15, 1)], ids=str)
@torch.no_grad()
def test_pooled_attention_agrees_with_a_slow_loop(size):
    layer = random_layer(PooledAttention)

    def bins(length):
        n = min(length, 7)
        return [range(i * length // n, math.ceil((i + 1) * length / n)) for i in range(n)]

    def reduce(image_HWC, rows, cols):
        mean_C = sum(image_HWC[at] for at in itertools.product(rows, cols)) / (len(rows) * len(cols))
        y_C = layer.norm(layer.sr(mean_C))
        return y_C * (1 + torch.erf(y_C / math.sqrt(2))) / 2

    def slow(image_HWC):
        reduced = [reduce(image_HWC, rows, cols) for rows, cols in itertools.product(bins(size[0]), bins(size[1]))]
        return attend_reduced(layer, image_HWC, reduced)

    x_BHWC = random_map(*size, batch=1)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@size_param
@torch.no_grad()
def test_linformer_agrees_with_a_slow_loop(size):
    tokens, rank = size[0] * size[1], 3
    layer = random_layer(Linformer, HEADS, tokens=tokens, rank=rank)

    def slow(image_HWC):
        x_NC = image_HWC.reshape(tokens, DIM)
        mixed = [sum(layer.mix[i, n] * x_NC[n] for n in range(tokens)) for i in range(2 * rank)]
        keys, values = [layer.k(x_C) for x_C in mixed[:rank]], [layer.v(x_C) for x_C in mixed[rank:]]
        return torch.stack([layer.proj(attend_by_heads(layer.q(x_C), keys, values)) for x_C in x_NC]).reshape(*size, -1)

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_mixing_tokens_before_the_projection_is_the_papers_mixing_after():
    layer = random_layer(Linformer, HEADS, tokens=15, rank=4, qkv_bias=False)
    x_NC = random_map(5, 3)[0].reshape(15, DIM)
    close(layer.k(layer.mix[:4] @ x_NC), layer.mix[:4] @ layer.k(x_NC))


def test_linformer_refuses_a_map_of_another_size():
    layer = Linformer(DIM, HEADS, tokens=16, rank=4)
    assert layer(torch.randn(1, 2, 8, DIM)).shape == (1, 2, 8, DIM)
    with pytest.raises(UsageError, match=r"\b16 tokens.* 5 x 3\b.*tokens=15"):
        layer(torch.randn(1, 5, 3, DIM))


def slow_windows(layer, image_HWC: Tensor, s: int, region) -> Tensor:
    """Every token to those of the padded map that lie in the same region."""
    whole_HWC = padded(image_HWC, s)
    qkv = {at: by_head(layer.qkv(whole_HWC[at])) for at in places(*whole_HWC.shape[:2])}
    out_HWC = torch.zeros_like(image_HWC)
    for at in places(*image_HWC.shape[:2]):
        mates = [qkv[other] for other in qkv if region(*other) == region(*at)]
        out_HWC[at] = layer.proj(attend_by_heads(qkv[at][0], [t[1] for t in mates], [t[2] for t in mates]))
    return out_HWC


@size_param
@window_param
@torch.no_grad()
def test_window_attention_agrees_with_a_slow_loop(size, window_size):
    layer = random_layer(WindowAttention, HEADS, window_size)
    x_BHWC = random_map(*size)

    def slow(image_HWC):
        return slow_windows(layer, image_HWC, window_size, lambda h, w: (h // window_size, w // window_size))

    close(layer(x_BHWC), each_image(slow, x_BHWC))


@pytest.mark.parametrize("size", [*SIZES, (6, 6), (8, 5)], ids=str)
@window_param
@torch.no_grad()
def test_shifted_windows_agree_with_a_slow_loop_that_shifts_the_windows_and_not_the_map(size, window_size):
    """Windows begin half a side in; what lies before the first, or after the last whole one, is a smaller window."""
    layer = random_layer(ShiftedWindowAttention, HEADS, window_size)
    x_BHWC = random_map(*size)
    shift_h, shift_w = (window_size // 2 if side > window_size else 0 for side in size)

    def slow(image_HWC):
        def region(h, w):
            return (h - shift_h) // window_size, (w - shift_w) // window_size

        return slow_windows(layer, image_HWC, window_size, region)

    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_shifted_windows_differ_from_windows_that_are_not():
    shifted = random_layer(ShiftedWindowAttention, HEADS, 2)
    plain = random_layer(WindowAttention, HEADS, 2)
    plain.load_state_dict(shifted.state_dict())
    x_BHWC = random_map(4, 4)
    assert not torch.allclose(shifted(x_BHWC), plain(x_BHWC))
    close(shifted(x_BHWC[:, :2, :2]), plain(x_BHWC[:, :2, :2]))


def test_a_mask_first_seen_in_inference_mode_serves_training():
    layer = ShiftedWindowAttention(DIM, HEADS, 3)
    x_BHWC = torch.randn(1, 10, 11, DIM)
    with torch.inference_mode():
        expected = layer(x_BHWC)
    y_BHWC = layer(x_BHWC)
    y_BHWC.sum().backward()
    torch.testing.assert_close(y_BHWC, expected)
    assert set(layer.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}


@size_param
@window_param
@torch.no_grad()
def test_hierarchical_attention_agrees_with_a_slow_loop(size, window_size):
    layer = random_layer(HMSA, HEADS, window_size)

    def slow(image_HWC):
        whole_HWC = padded(image_HWC, window_size)
        near = {at: whole_HWC[at] for at in places(*whole_HWC.shape[:2])}
        grids = windows_of(whole_HWC, window_size)
        if window_size > 1:
            qkv = {at: by_head(layer.local_qkv(token_C)) for at, token_C in near.items()}
            for mates in grids.values():
                keys, values = [qkv[at][1] for at in mates], [qkv[at][2] for at in mates]
                for at in mates:
                    near[at] = attend_by_heads(qkv[at][0], keys, values) + whole_HWC[at]
        kv = [layer.kv(sum(near[at] for at in mates) / window_size**2).reshape(2, DIM) for mates in grids.values()]
        out_HWC = torch.zeros_like(image_HWC)
        for at in places(*size):
            far_C = attend_by_heads(layer.q(near[at]), [t[0] for t in kv], [t[1] for t in kv])
            out_HWC[at] = layer.proj(far_C + near[at] if window_size > 1 else far_C)
        return out_HWC

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@size_param
@window_param
@torch.no_grad()
def test_carrier_tokens_agree_with_a_slow_loop(size, window_size):
    layer = random_layer(CarrierAttention, HEADS, window_size)

    def slow(image_HWC):
        whole_HWC = padded(image_HWC, window_size)
        windows = windows_of(whole_HWC, window_size)
        pooled = {at: sum(whole_HWC[mate] for mate in mates) / window_size**2 for at, mates in windows.items()}
        qkv = {at: layer.carrier_qkv(token_C).reshape(3, DIM) for at, token_C in pooled.items()}
        out_HWC = torch.zeros_like(whole_HWC)
        for at, mates in windows.items():
            seen = attend_by_heads(qkv[at][0], [t[1] for t in qkv.values()], [t[2] for t in qkv.values()])
            carrier_C = pooled[at] + layer.carrier_proj(seen)
            tokens = [*(whole_HWC[mate] for mate in mates), layer.norm(carrier_C)]
            inside = [by_head(layer.qkv(token_C)) for token_C in tokens]
            keys, values = [t[1] for t in inside], [t[2] for t in inside]
            *told, told_carrier = [layer.proj(attend_by_heads(t[0], keys, values)) for t in inside]
            for mate, told_C in zip(mates, told, strict=True):
                out_HWC[mate] = told_C + carrier_C + told_carrier
        return out_HWC[: size[0], : size[1]]

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_carriers_pass_information_between_windows():
    layer, alone = random_layer(CarrierAttention, HEADS, 2), random_layer(WindowAttention, HEADS, 2)
    x_BHWC = random_map(4, 4)
    changed = x_BHWC.clone()
    changed[:, 3, 3] += 1
    assert not torch.allclose(layer(x_BHWC)[:, 0, 0], layer(changed)[:, 0, 0])
    close(alone(x_BHWC)[:, 0, 0], alone(changed)[:, 0, 0])


@size_param
@torch.no_grad()
def test_cross_covariance_agrees_with_a_slow_loop(size):
    layer = random_layer(XCA)

    def slow(image_HWC):
        qkv = [layer.qkv(image_HWC[at]).reshape(3, HEADS, D) for at in places(*size)]
        out_NC = torch.zeros(len(qkv), DIM, dtype=torch.float64)
        for a, i in itertools.product(range(HEADS), range(D)):
            query_N = torch.stack([t[0, a, i] for t in qkv])
            weights = []
            for j in range(D):
                key_N = torch.stack([t[1, a, j] for t in qkv])
                cosine = (query_N * key_N).sum() / (query_N.square().sum().sqrt() * key_N.square().sum().sqrt())
                weights.append(math.exp(cosine * layer.temperature[a]))
            for n, t in enumerate(qkv):
                out_NC[n, a * D + i] = sum(weights[j] * t[2, a, j] for j in range(D)) / sum(weights)
        return layer.proj(out_NC).reshape(*size, DIM)

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


@torch.no_grad()
def test_cross_covariance_of_an_empty_map_is_a_number():
    layer = XCA(DIM, HEADS, qkv_bias=False)
    assert layer(torch.zeros(1, 2, 2, DIM)).isfinite().all()
    assert layer.half()(torch.zeros(1, 2, 2, DIM, dtype=torch.half)).isfinite().all()


def convolved(conv, tokens: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """A 3x3 depthwise convolution; places that hold no token count as zero."""
    out = {}
    for h, w in tokens:
        taps = [
            conv.weight[:, 0, 1 + dh, 1 + dw] * tokens[h + dh, w + dw]
            for dh, dw in itertools.product((-1, 0, 1), repeat=2)
            if (h + dh, w + dw) in tokens
        ]
        out[h, w] = sum(taps) + conv.bias
    return out


@pytest.mark.parametrize("num_heads", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 4), (5, 3)], ids=str)
@pytest.mark.parametrize("window_size", [1, 2, 9])
@torch.no_grad()
def test_elfatt_agrees_with_a_slow_loop(size, window_size, num_heads):
    layer = random_layer(ELFATT, num_heads, window_size)
    head_dim, near = DIM // num_heads, num_heads - num_heads // 2

    def slow_global(image_HWC):
        heads = num_heads // 2
        qkv = {at: layer.global_qkv(image_HWC[at]).reshape(3, heads, head_dim) for at in places(*size)}
        local = convolved(layer.global_conv, {at: t[2].flatten() for at, t in qkv.items()})
        out = {}
        for at, t in qkv.items():
            y = torch.zeros(heads, head_dim, dtype=torch.float64)
            for a, c in itertools.product(range(heads), range(head_dim)):
                of_query = math.exp(t[0, a, c]) / sum(math.exp(other) for other in t[0, a])
                of_keys = sum(math.exp(other[1, a, c]) for other in qkv.values())
                for other in qkv.values():
                    y[a] += of_query * math.exp(other[1, a, c]) / of_keys * other[2, a]
            out[at] = y.flatten() + local[at]
        return out

    def slow_local(image_HWC):
        whole_HWC = padded(image_HWC, window_size)
        out = {}
        for mates in windows_of(whole_HWC, window_size).values():
            qkv = {at: by_head(layer.local_qkv(whole_HWC[at]), near) for at in mates}
            local = convolved(layer.local_conv, {at: t[2] for at, t in qkv.items()})
            keys, values = [t[1] for t in qkv.values()], [t[2] for t in qkv.values()]
            for at, t in qkv.items():
                out[at] = attend_by_heads(t[0], keys, values, near) + local[at]
        return out

    def slow(image_HWC):
        of_local = slow_local(image_HWC)
        of_global = slow_global(image_HWC) if num_heads > 1 else None
        out_HWC = torch.zeros_like(image_HWC)
        for at in places(*size):
            out_HWC[at] = layer.proj(of_local[at] if of_global is None else torch.cat([of_global[at], of_local[at]]))
        return out_HWC

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))


def slow_clusters(hashes: list[list[bool]], n_clusters: int) -> list[int]:
    """K-means in Hamming space, bit by bit."""
    centres = [hashes[len(hashes) * k // n_clusters] for k in range(n_clusters)]
    cluster: list[int] = []
    for _ in range(10):
        distances = [[sum(b != c for b, c in zip(bits, centre, strict=True)) for centre in centres] for bits in hashes]
        cluster = [row.index(min(row)) for row in distances]
        for k in range(n_clusters):
            members = [bits for bits, at in zip(hashes, cluster, strict=True) if at == k]
            ones = [sum(column) for column in zip(*members, strict=True)] or [0] * len(centres[k])
            centres[k] = [
                old if 2 * count == len(members) else 2 * count > len(members)
                for old, count in zip(centres[k], ones, strict=True)
            ]
    return cluster


@pytest.mark.parametrize("n_clusters", [1, 3, 6, 100])
@pytest.mark.parametrize("size", [(4, 4), (5, 7)], ids=str)
@torch.no_grad()
def test_clustered_attention_agrees_with_a_slow_loop(size, n_clusters):
    layer = random_layer(ClusteredAttention, HEADS, n_clusters=n_clusters)
    seen = set()

    def slow(image_HWC):
        qkv = [layer.qkv(image_HWC[at]).reshape(3, HEADS, D) for at in places(*size)]
        out_NC = torch.zeros(len(qkv), DIM, dtype=torch.float64)
        for a in range(HEADS):
            hashes = [[bool((t[0, a] * plane_D).sum() > 0) for plane_D in layer.planes] for t in qkv]
            cluster = slow_clusters(hashes, min(n_clusters, len(qkv)))
            seen.update(cluster)
            for k in set(cluster):
                members = [n for n, at in enumerate(cluster) if at == k]
                mean_D = sum(qkv[n][0, a] for n in members) / len(members)
                y_D = attend(mean_D, [t[1, a] for t in qkv], [t[2, a] for t in qkv])
                for n in members:
                    out_NC[n, a * D : (a + 1) * D] = y_D
        return layer.proj(out_NC).reshape(*size, DIM)

    x_BHWC = random_map(*size)
    close(layer(x_BHWC), each_image(slow, x_BHWC))
    assert len(seen) > 1 or n_clusters == 1


@torch.no_grad()
def test_a_cluster_for_every_token_is_plain_attention():
    clustered, plain = random_layer(ClusteredAttention, HEADS, n_clusters=12), random_layer(MSA)
    plain.load_state_dict({name: value for name, value in clustered.state_dict().items() if name != "planes"})
    x_BHWC = random_map(3, 4)
    close(clustered(x_BHWC), plain(x_BHWC))


@torch.no_grad()
def test_the_hashing_planes_are_saved_with_the_weights():
    one, two = ClusteredAttention(DIM, HEADS, n_clusters=3), ClusteredAttention(DIM, HEADS, n_clusters=3)
    x_BHWC = torch.randn(2, 5, 5, DIM)
    assert not torch.equal(one.planes, two.planes)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x_BHWC), two(x_BHWC))


@pytest.mark.parametrize("layer", [*WINDOWED, *OTHERS])
def test_heads_that_do_not_divide_the_width_are_refused(layer):
    window = (2,) if layer in WINDOWED else ()
    with pytest.raises(ArchError, match=r"num_heads must divide dim \(12\), but got 5"):
        layer(12, 5, *window)
    with pytest.raises(ArchError, match=r"num_heads must be at least 1, but got 0"):
        layer(12, 0, *window)


@pytest.mark.parametrize("layer", WINDOWED)
def test_a_window_of_no_token_is_refused(layer):
    with pytest.raises(ArchError, match=r"window_size must be at least 1, but got 0"):
        layer(12, 3, 0)


@pytest.mark.parametrize("layer", [*WINDOWED, *OTHERS])
def test_the_biases_of_queries_keys_and_values_can_be_left_out(layer):
    window = (2,) if layer in WINDOWED else ()
    without = dict(layer(DIM, HEADS, *window, qkv_bias=False).named_parameters())
    gone = dict(layer(DIM, HEADS, *window).named_parameters()).keys() - without.keys()
    assert gone
    assert all(name.rpartition(".")[0].rpartition("_")[2] in ("q", "kv", "qkv") for name in gone)
    assert "proj.bias" in without


@torch.no_grad()
def test_layers_show_their_settings():
    assert "num_heads=3, window_size=2" in repr(SRA(DIM, HEADS, 2))
    assert "num_heads=3, n_clusters=25" in repr(ClusteredAttention(DIM, HEADS))
