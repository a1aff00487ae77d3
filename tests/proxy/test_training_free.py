from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hilo_nas.errors import HiloNasError, OutOfMemoryError, UsageError
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.models import build_subject
from hilo_nas.proxy.batches import ImageSet, open_split
from hilo_nas.proxy.kinds import proxy_named, quick_names
from hilo_nas.proxy.micro_batches import memory_given_back
from hilo_nas.proxy.training_free import score_dss, score_naswot, score_zico
from hilo_nas.proxy.training_free import training_free_score as run_module
from hilo_nas.proxy.worker_calls import score_network

CPU = torch.device("cpu")
NAMES = quick_names()
NARROW = {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2}
WIDE = {**NARROW, "embed_dims": [16, 16, 32, 32]}
DEEP = {**WIDE, "depths": [2, 2, 3, 2]}


def litv2(arch, seed=0):
    torch.manual_seed(seed)
    return build_subject({"arch": arch}, 10, 3)


def batches(count, size=8, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, side, side, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(count)
    ]


def plan(**changes):
    return ProxyPlan(**{"img_size": 16, "batch_size": 32, "images": 256, "hflip": False, **changes})


def run(data, name, arch=NARROW, seed=0, subject=None, the_plan=None):
    scored = score_network(
        emit=lambda event: None,
        subject=subject or {"arch": arch},
        plan=(the_plan or plan()).for_comparison(name).to_dict(),
        data=data.to_dict(),
        prepared={},
        seed=seed,
        device="cpu",
    )
    return ProxyScore.from_dict(json.loads(json.dumps(scored["score"], allow_nan=False)))


# NASWOT.


class TwoReLUs(nn.Module):
    """A perceptron that keeps what its activations are given; one is a module, one a call."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.first, self.second, self.table = nn.Linear(3 * 16 * 16, 7), nn.Linear(7, 5), nn.Linear(4, 4)
        self.given: list[torch.Tensor] = []

    def forward(self, x):
        x = self.first(x.flatten(1))
        self.given.append(x.clone())
        x = self.second(self.act(x))
        self.given.append(x.clone())
        F.relu(self.table(torch.ones(1, 4)))  # of no image
        return F.gelu(x) + torch.sigmoid(x)


def naswot_by_loops(given):
    size = len(given[0])
    kernel = np.eye(size)
    for x in given:
        for i in range(size):
            for j in range(size):
                differ = sum(bool(a > 0) != bool(b > 0) for a, b in zip(x[i], x[j], strict=True))
                kernel[i, j] += x.shape[1] - differ
    return math.log(np.linalg.det(kernel))


def test_naswot_is_the_log_determinant_of_the_units_that_agree():
    torch.manual_seed(0)
    model = TwoReLUs()
    score = score_naswot(model, batches(1)[0][0])
    assert score == pytest.approx(naswot_by_loops(model.given), abs=1e-9)


def test_naswot_sees_every_gelu_of_a_litv2(monkeypatch):
    given = []
    real = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x: given.append(x.flatten(1).clone()) or real(x))
    score = score_naswot(litv2(NARROW), batches(1, size=3)[0][0])
    assert len(given) == 4 + 3  # blocks and token mergings
    assert score == pytest.approx(naswot_by_loops(given), abs=1e-9)


def test_images_of_one_code_leave_naswot_finite():
    images = batches(1)[0][0]
    distinct = score_naswot(litv2(NARROW), images)
    images[1] = images[0]
    assert 0 < score_naswot(litv2(NARROW), images) < distinct


def test_naswot_takes_the_batchs_statistics_whatever_was_seen_before():
    images = batches(1)[0][0]
    used = litv2(NARROW).train()
    used(3 + 5 * images)
    assert score_naswot(used.eval(), images) == score_naswot(litv2(NARROW), images)


def test_naswot_refuses_a_network_without_activations():
    with pytest.raises(UsageError, match="Sequential calls none on its images"):
        score_naswot(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), batches(1)[0][0])


# ZiCo.


def zico_by_loops(model, batches):
    model = copy.deepcopy(model).train()
    gradients: dict[str, list[list[float]]] = {}
    for images, labels in batches:
        model.zero_grad()
        nn.CrossEntropyLoss()(model(images), labels).backward()
        for name, module in model.named_modules():
            if type(module).__name__ in ("Linear", "Conv2d", "DeformConv"):
                gradients.setdefault(name, []).append(module.weight.grad.flatten().tolist())
    total = 0.0
    for layer in gradients.values():
        ratios = 0.0
        for values in zip(*layer, strict=True):
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
            if deviation > 0:
                ratios += sum(map(abs, values)) / len(values) / deviation
        total += math.log(ratios) if ratios else 0.0
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_zico_is_the_sum_of_the_layers_logarithms(count):
    model, data = litv2(NARROW), batches(count)
    assert score_zico(model, data) == pytest.approx(zico_by_loops(model, data), rel=1e-6)


def test_a_layer_whose_gradient_does_not_vary_does_not_count_in_zico():
    model, data = litv2(NARROW), batches(2)
    with torch.no_grad():
        model.layers[0].blocks[0].mlp.fc2.weight.zero_()  # fc1 and the convolution before it learn nothing at first
    assert score_zico(model, data) == pytest.approx(zico_by_loops(model, data), rel=1e-6)


def test_zico_leaves_the_weights_as_they_are():
    model = litv2(NARROW)
    before = [parameter.clone() for parameter in model.parameters()]
    score_zico(model, batches(2))
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_zico_of_one_minibatch_is_refused():
    with pytest.raises(UsageError, match="2 minibatches, but got 1"):
        score_zico(litv2(NARROW), batches(1))


# DSS.


def nuclear_norm(matrix):
    return float(np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False).sum())


def dss_by_loops(model, side):
    """The names of what counts are written out here, once more."""
    model = copy.deepcopy(model).double().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs()
    model(torch.ones(1, 3, side, side, dtype=torch.float64)).sum().backward()
    total = 0.0
    for stage in model.layers:
        for block in stage.blocks:
            if block.has_attn:
                for name in ("l_q", "l_kv", "l_proj", "h_qkv", "h_proj"):
                    if hasattr(block.attn, name):
                        weight = getattr(block.attn, name).weight
                        total += nuclear_norm(weight) * nuclear_norm(weight.grad)
            for layer in (block.mlp.fc1, block.mlp.fc2):
                for row, gradients in zip(layer.weight.tolist(), layer.weight.grad.tolist(), strict=True):
                    total += sum(abs(a * b) for a, b in zip(row, gradients, strict=True))
    return math.log(total)


@pytest.mark.parametrize("side", [16, 32])
def test_dss_is_the_logarithm_of_diversity_and_saliency(side):
    model = litv2(NARROW)
    expected = dss_by_loops(model, side)
    assert score_dss(model, side) == pytest.approx(expected, abs=1e-9)


def test_dss_does_not_know_what_batch_norm_has_seen():
    used = litv2(NARROW).train()
    used(3 + 5 * batches(1)[0][0])
    assert score_dss(used, 16) == score_dss(litv2(NARROW), 16)


def test_without_perceptrons_all_layers_outside_attention_are_salient():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 4, 3, groups=1, bias=False))
    model.add_module("attn", nn.Conv2d(4, 4, 1, bias=False))
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(4 * 2 * 2, 5, bias=False))
    weights = [module.weight.detach().double().abs() for module in (model.stem, model.attn, model.head)]
    # All is linear: each layer's saliency is the output itself, and attention's gradient can be written down.
    stem, attn, head = weights
    seen = stem.sum((1, 2, 3))
    mixed = attn[:, :, 0, 0] @ seen
    into = head.sum(0).reshape(4, 4).sum(1)
    output = float(mixed @ into)
    diversity = nuclear_norm(torch.outer(into, seen)) * nuclear_norm(attn[:, :, 0, 0])
    assert score_dss(model, 4) == pytest.approx(math.log(2 * output + diversity), abs=1e-12)


def test_of_a_perceptron_only_what_multiplies_every_position_by_one_matrix_is_salient():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("mlp", nn.Sequential(*(nn.Conv2d(3, 3, side, bias=False) for side in (1, 3, 1))))
    positive = copy.deepcopy(model).double()
    for parameter in positive.parameters():
        parameter.data = parameter.data.abs()
    output = float(positive(torch.ones(1, 3, 4, 4, dtype=torch.float64)).sum().detach())
    assert score_dss(model, 4) == pytest.approx(math.log(2 * output), abs=1e-12)


def test_a_deep_network_without_norms_does_not_overflow():
    torch.manual_seed(0)
    layers = [nn.Conv2d(64 if i else 3, 64, 3, padding=1) for i in range(50)]
    assert 88 < score_dss(nn.Sequential(*layers), 4) < 700  # beyond float32, below the end of float64


def test_dss_of_a_network_that_puts_out_nothing_is_an_error():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(HiloNasError, match=r"positive and finite, but is 0\.0"):
        score_dss(model, 4)


# As a worker runs them.


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_plain_data_with_everything_that_it_must_tell(digits16, name):
    score = run(digits16, name, seed=3)
    assert (score.metric, score.seed, score.device, score.n_val, score.loss) == (name, 3, "cpu", 0, None)
    assert score.plan_hash == plan().for_comparison(name).hash(digits16.content_hash)
    assert (score.images_seen, score.micro_batch_size) == (1, {"naswot": 32, "zico": 32, "dss": 1}[name])
    assert math.isfinite(score.value)
    assert score.standard_error > 0
    assert {"torch", "timm"} <= set(score.versions)
    assert score.scored_at.endswith("+00:00")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_score_and_another_seed_another(digits16, name):
    first, again, other = (run(digits16, name, seed=seed) for seed in (5, 5, 6))
    still = {"seconds": 0.0, "scored_at": ""}
    assert dataclasses.replace(first, **still) == dataclasses.replace(again, **still)
    assert first.value != other.value


def test_the_value_is_the_mean_of_three_networks_and_its_error_that_of_the_mean(digits16):
    values = [score_dss(litv2(NARROW, seed), 16) for seed in (6, 7, 8)]
    score = run(digits16, "dss", seed=2)
    assert score.value == pytest.approx(np.mean(values))
    assert score.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))


@pytest.mark.parametrize("name", ["naswot", "zico"])
def test_a_plainly_bigger_network_scores_higher(digits16, name):
    scores = [run(digits16, name, arch) for arch in (NARROW, WIDE, DEEP)]
    for smaller, bigger in itertools.pairwise(scores):
        noise = math.hypot(smaller.standard_error, bigger.standard_error)
        assert bigger.value - smaller.value > 3 * noise


@pytest.mark.parametrize(
    "network",
    [{"timm": "test_resnet"}, {"timm": "test_efficientnet"}, {"timm": "test_vit"}],
    ids=lambda network: network["timm"],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_neighbour_from_timm_is_scored_likewise(digits16, name, network):
    score = run(digits16, name, subject=network, the_plan=plan(batch_size=8))
    assert math.isfinite(score.value)
    assert score.value != 0


def test_only_training_images_are_looked_at(digits16):
    drawn = []

    class Watched(ImageSet):
        def take(self, places):
            drawn.extend(places.tolist())
            return super().take(places)

    images = Watched(Path(digits16.path), CPU, digits16.class_names)
    split = open_split(digits16, plan(), CPU)._replace(images=images)
    batches = run_module._Minibatches(split, plan(), seed=0)
    drawn.clear()  # of the statistics
    for _ in range(len(split.places) // 32):
        batches.draw()
    assert len(set(drawn)) == len(drawn) == batches.seen
    assert set(drawn) <= set(split.places.tolist())


def test_a_minibatch_holds_no_image_twice_where_there_are_few(prepare, images):
    data = prepare(images.folder("few", {"a": 6, "b": 6}))
    the_plan = plan(img_size=8, batch_size=64)
    split = open_split(data, the_plan, CPU)
    inputs, labels = run_module._Minibatches(split, the_plan, seed=0).draw()
    assert len(inputs) == len(labels) == len(split.places) < 12
    assert len(torch.unique(inputs, dim=0)) == len(inputs)


def test_what_a_score_does_not_depend_on_is_not_in_its_hash(digits16):
    def name_of(name="zico", **changes):
        return proxy_named(name).comparison_hash(plan(**changes).to_dict(), "data")

    assert name_of() == name_of(images=512) == name_of(precision="amp-bf16") == name_of(metric="balanced")
    others = [name_of("dss"), name_of(img_size=32), name_of(batch_size=16), name_of(val_fraction=0.5)]
    assert len({name_of(), *others, proxy_named("zico").comparison_hash(plan().to_dict(), "other")}) == 6


def test_an_unknown_name_and_images_of_another_size_are_refused(digits16):
    with pytest.raises(UsageError, match=r"one of training, .* dss, .* but got 'synflow'"):
        run(digits16, "synflow")
    with pytest.raises(UsageError, match=r"must be 16, .* but is 32"):
        run(digits16, "dss", the_plan=plan(img_size=32))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_lack_of_memory_is_told_and_the_network_is_gone_before_memory_is_given_back(monkeypatch, device):
    models, alive = [], []

    def work():
        model = nn.Linear(2, 2)
        models.append(weakref.ref(model))
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    def look():
        gc.collect()
        alive.append(models[0]() is not None)

    monkeypatch.setattr(torch.cuda, "empty_cache", look)
    with (
        pytest.raises(OutOfMemoryError, match="memory ran out in the proxy zico: CUDA out of memory"),
        memory_given_back(torch.device(device), what="the proxy zico"),
    ):
        work()
    assert alive == ([False] if device == "cuda" else [])
