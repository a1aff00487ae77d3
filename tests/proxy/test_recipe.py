"""The recipe: rates by inputs, a warm-up and then no schedule, averaged weights that are scored."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from hilo_nas.data import prepare_data
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import build_subject
from hilo_nas.proxy.recipe import (
    AVERAGE_POWER,
    BASE_BATCH,
    BASE_FAN_IN,
    BASE_LR,
    OFFSET_SCALE,
    WARMUP_IMAGES,
    WEIGHT_DECAY,
    build_average,
    build_optimizer,
    rate_share,
    warmup_share,
)
from hilo_nas.proxy.train import Training
from hilo_nas.space import list_shipped, load_space

TINY = {"arch": {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2}}
WIDE = {"arch": {"embed_dims": [32, 64, 128, 256], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}}
NETWORKS = {
    "litv2": TINY,
    "wide": WIDE,
    "depthwise": {"timm": "test_convnext"},
    "resnet": {"timm": "test_resnet"},
    "vit": {"timm": "test_vit", "arguments": {"img_size": 32}},
}


def build(name):
    torch.manual_seed(0)
    return build_subject(NETWORKS[name], 10, 3)


def training_of(data, subject=TINY, batch_size=32):
    plan = ProxyPlan(img_size=data.img_size, batch_size=batch_size, images=320, hflip=False)
    torch.manual_seed(0)
    model = build_subject(subject, data.num_classes, 3)
    return Training(model, plan, data, seed=0, device=torch.device("cpu"), emit=lambda event: None)


# Rates.


@pytest.mark.parametrize(
    ("name", "shape", "share"),
    [
        ("fc.weight", (7, BASE_FAN_IN), 1.0),
        ("fc.weight", (7, 4 * BASE_FAN_IN), 0.25),
        ("fc.weight", (10_000, 8), 1.0),  # outputs do not count
        ("conv.weight", (64, 64, 3, 3), BASE_FAN_IN / 576),
        ("depthwise.weight", (512, 1, 7, 7), 1.0),
        ("grouped.weight", (512, 32, 3, 3), BASE_FAN_IN / 288),
        ("patch_embed.proj.weight", (64, 3, 16, 16), BASE_FAN_IN / 768),
        ("gate.weight", (1, 4 * BASE_FAN_IN), 0.25),
        ("fc.bias", (10_000,), 1.0),
        ("odd.bias", (4, 4096), 1.0),
        ("norm.weight", (4096,), 1.0),
        ("logit_scale", (), 1.0),
        ("pos_embed", (1, 197, 192), 1.0),
        ("cls_token", (1, 1, 768), 1.0),
        ("down.conv_offset.weight", (8, 16, 2, 2), OFFSET_SCALE),
        ("down.conv_offset.weight", (8, 128, 2, 2), OFFSET_SCALE / 4),
        ("down.conv_offset.bias", (8,), 1.0),
    ],
)
def test_a_weight_learns_at_a_rate_that_falls_with_its_inputs(name, shape, share):
    assert rate_share(name, nn.Parameter(torch.zeros(shape))) == pytest.approx(share)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_one_group_at_its_rate_and_only_matrices_decay(name):
    model = build(name)
    next(model.parameters()).requires_grad_(False)
    groups = build_optimizer(model, BASE_BATCH).param_groups
    counts = Counter(id(parameter) for group in groups for parameter in group["params"])
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert counts == Counter(id(parameter) for parameter in trainable.values())
    assert len(trainable) == sum(1 for _ in model.parameters()) - 1
    for name, parameter in trainable.items():
        group = found[id(parameter)]
        assert group["lr"] == pytest.approx(BASE_LR * rate_share(name, parameter)), name
        assert group["weight_decay"] == (0.0 if name.endswith(".bias") or parameter.ndim <= 1 else WEIGHT_DECAY), name


def slow_fan_ins(model: nn.Module) -> dict[str, int]:
    """Inputs of an output of each layer, counted by calling it: how many entries of its input an output hangs on."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            x = torch.zeros(1, module.in_features, requires_grad=True)
            y = nn.functional.linear(x, torch.ones_like(module.weight))[0, 0]
        elif isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            x = torch.zeros(1, module.in_channels, height, width, requires_grad=True)
            y = nn.functional.conv2d(x, torch.ones_like(module.weight), groups=module.groups)[0, 0, 0, 0]
        else:
            continue
        found[f"{name}.weight"] = int((torch.autograd.grad(y, x)[0] != 0).sum())
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_inputs_is_that_of_one_output(name):
    model = build(name)
    parameters = dict(model.named_parameters())
    fan_ins = slow_fan_ins(model)
    assert len(fan_ins) > 5
    for layer, fan_in in fan_ins.items():
        scale = OFFSET_SCALE if "offset" in layer else 1.0
        assert rate_share(layer, parameters[layer]) == pytest.approx(scale * min(1, BASE_FAN_IN / fan_in)), layer


def test_parameters_shared_by_all_images_have_the_full_learning_rate():
    model = build("vit")
    shared = {name: rate_share(name, value) for name, value in model.named_parameters() if "." not in name}
    assert shared == {"cls_token": 1.0, "pos_embed": 1.0}


@pytest.mark.parametrize(("batch_size", "scale"), [(BASE_BATCH, 1.0), (4 * BASE_BATCH, 2.0), (BASE_BATCH // 4, 0.5)])
def test_the_learning_rate_is_proportional_to_the_root_of_the_batch_size(batch_size, scale):
    optimizer = build_optimizer(nn.Linear(4, 4), batch_size)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(scale * BASE_LR)] * 2


def test_rates_rise_to_the_whole_and_stay_there():
    shares = [warmup_share(images) for images in range(1, 4 * WARMUP_IMAGES, 100)]
    assert all(0 < share <= 1 for share in shares)
    assert shares == sorted(shares)
    assert warmup_share(WARMUP_IMAGES // 2) == pytest.approx(0.5)
    assert {warmup_share(images) for images in (WARMUP_IMAGES, WARMUP_IMAGES + 1, 10**9)} == {1.0}


def test_a_step_is_done_at_its_rate_whatever_the_end(digits16):
    rates = []
    for until in (64, 6400):
        training = training_of(digits16)
        whole = [group["lr"] for group in training._optimizer.param_groups]
        steps = training.steps(until)
        for images_seen in (32, 64):
            assert next(steps) == images_seen
            now = [group["lr"] for group in training._optimizer.param_groups]
            assert now == pytest.approx([rate * images_seen / WARMUP_IMAGES for rate in whole])
        rates.append(now)
    assert rates[0] == rates[1]


# The average.


def slow_average(values: list[Tensor]) -> Tensor:
    """Each update k of n weighs C(k + p - 2, p - 1) / C(n + p - 1, p): they sum to one, and grow like k^(p - 1)."""
    n, p = len(values), int(AVERAGE_POWER)
    weights = [math.comb(k + p - 2, p - 1) / math.comb(n + p - 1, p) for k in range(1, n + 1)]
    assert sum(weights) == pytest.approx(1)
    return sum(weight * value.double() for weight, value in zip(weights, values, strict=True))


@pytest.mark.parametrize("updates", [1, 2, 5, 40])
def test_the_average_is_a_power_law_over_all_updates_and_the_beginning_is_forgotten(updates):
    torch.manual_seed(0)
    model = nn.BatchNorm1d(50)
    average = build_average(model)
    weights, means = [], []
    for update in range(1, updates + 1):
        nn.init.normal_(model.weight)
        model.running_mean.normal_()
        model.num_batches_tracked += 1
        weights.append(model.weight.detach().clone())
        means.append(model.running_mean.clone())
        average.update(model, step=update)
    torch.testing.assert_close(average.module.weight.double(), slow_average(weights), rtol=0, atol=1e-5)
    torch.testing.assert_close(average.module.running_mean.double(), slow_average(means), rtol=0, atol=1e-5)
    assert average.module.num_batches_tracked == updates


def test_half_of_the_average_lies_in_the_last_tenth_of_the_way():
    n, p = 10_000, int(AVERAGE_POWER)
    late = sum(math.comb(k + p - 2, p - 1) for k in range(9 * n // 10 + 1, n + 1)) / math.comb(n + p - 1, p)
    assert late == pytest.approx(0.5, abs=0.05)


def test_a_training_averages_every_update_buffers_included(digits16):
    training = training_of(digits16)
    states = [
        {name: value.clone() for name, value in training.model.state_dict().items()} for _ in training.steps(8 * 32)
    ]
    assert len(states) == 8
    averaged = training._average.module.state_dict()
    assert any(name.endswith("running_var") for name in averaged)
    for name, value in averaged.items():
        raw = [state[name] for state in states]
        expected = slow_average(raw) if value.is_floating_point() else raw[-1].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6, msg=name)


def test_the_averaged_weights_are_scored_and_the_raw_ones_are_trained(digits16):
    training = training_of(digits16)
    assert list(training.steps(160))[-1] == 160
    loss = training.evaluate().loss
    raw = [parameter.detach().clone() for parameter in training.model.parameters()]
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.zero_()
    assert training.evaluate().loss == loss
    with torch.no_grad():
        for parameter, value in zip(training.model.parameters(), raw, strict=True):
            parameter.copy_(value)
        for parameter in training._average.module.parameters():
            parameter.zero_()
    assert training.evaluate().loss == pytest.approx(math.log(10))
    # The next update starts from the raw weights, and brings its share into the average that was set to zero.
    assert next(training.steps(192)) == 192
    for now, mean in zip(training.model.parameters(), training._average.module.parameters(), strict=True):
        torch.testing.assert_close(mean, now * AVERAGE_POWER / (6 + AVERAGE_POWER - 1), rtol=1e-4, atol=1e-7)


# Extreme networks.


@pytest.fixture(scope="module")
def digits32(tmp_path_factory):
    return prepare_data("digits", 32, cache_dir=tmp_path_factory.mktemp("digits"), emit=lambda event: None)


def extreme(space, largest):
    """The network whose knobs of these names are at their largest value, and the others at their smallest."""
    return space.decode(
        {
            knob.param: len(knob.choices) - 1 if knob.name in largest else 0
            for knob in space.knobs
            if knob.param in space.dimensions
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("largest", [("embed_dims", "mlp_ratios"), ("depths",)], ids=["wide", "deep"])
@pytest.mark.parametrize("space", list_shipped())
def test_an_extreme_network_of_a_shipped_space_does_not_diverge_at_the_whole_rate(digits32, space, largest):
    arch = extreme(load_space(space), ("patch_size", *largest))
    training = training_of(digits32, {"arch": arch.to_dict()}, batch_size=16)
    training.images_seen = WARMUP_IMAGES // 16 * 16
    losses = [float(training._latest_loss) for _ in training.steps(training.images_seen + 6 * 16)]
    assert max(losses) < losses[0] + 1
    assert min(losses) < losses[0]
