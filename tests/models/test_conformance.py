"""This package's LITv2 against golden outputs of the official code, and official checkpoints in all their wrappings."""

import json
import logging
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from hilo_nas.arch.config import ArchConfig
from hilo_nas.models import LITv2, build_model, checkpoint_filter_fn, official_state_dict, prepare_for_inference

ASSETS = Path(__file__).parent.parent / "assets"
GOLDEN = json.loads((ASSETS / "golden.json").read_text())
GOLDEN_DENSE = json.loads((ASSETS / "golden_dense.json").read_text())
SMALLEST = "litv2_small_a10_ws4"


def arch_of(kwargs: dict) -> ArchConfig:
    """The architecture that the official constructor's arguments describe."""
    return ArchConfig(
        embed_dims=[kwargs["embed_dim"] * 2**i for i in range(4)],
        depths=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        alpha=[kwargs["alpha"]] * 4,
        window_size=[max(window, 1) for window in kwargs["local_ws"]],
    )


def draw(name: str, shape: list[int]) -> Tensor:
    """The golden value of a parameter, from its official name alone."""
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return torch.from_numpy(1 + 0.1 * np.abs(n))
    if len(shape) == 1:
        return torch.from_numpy(0.1 * n)
    scale = (0.5 if "conv_offset" in name else 1.0) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy((n * scale).astype(np.float32))


def official_weights(case: dict) -> dict[str, Tensor]:
    counters = {name: torch.tensor(0) for name in case["state"] if name.endswith("num_batches_tracked")}
    return {name: draw(name, shape) for name, shape in case["state"].items() if name not in counters} | counters


def golden_model(case: dict) -> LITv2:
    model = build_model(arch_of(case["kwargs"]), num_classes=10).eval()
    model.load_state_dict(checkpoint_filter_fn(official_weights(case), model))
    return model


def golden_input(case: dict) -> Tensor:
    batch, size = case["input"]
    n = np.random.RandomState(batch * 10007 + size).standard_normal((batch, 3, size, size))
    return torch.from_numpy(n.astype(np.float32))


FORMS = {
    "trained": lambda model: model,
    "prepared": prepare_for_inference,
    "prepared for a compiler": lambda model: prepare_for_inference(model, for_compile=True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_the_classifier_gives_the_official_logits(name, form):
    case = GOLDEN[name]
    model = golden_model(case)
    assert sum(p.numel() for p in model.parameters()) == case["params"]
    model = FORMS[form](model)
    ends = []  # the official stages end with the merging that begins our next stage
    for module in (*(stage.downsample for stage in model.layers[1:]), model.layers[3]):
        module.register_forward_hook(lambda module, args, output: ends.append(output))
    logits = model(golden_input(case))
    expected = torch.tensor(case["logits"])
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    seen = [[end.mean().item(), end.std().item()] for end in ends]
    np.testing.assert_allclose(seen, case["layer_mean_std"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GOLDEN_DENSE)
@torch.no_grad()
def test_the_backbone_gives_the_official_features_of_any_size(name, form):
    case = GOLDEN_DENSE[name]
    model = FORMS[form](golden_model(case))
    batch, _, H, W = case["input"]
    n = np.random.RandomState(2 * 10007 + H * 1009 + W).standard_normal((batch, 3, H, W))
    features = model.forward_intermediates(torch.from_numpy(n.astype(np.float32)), intermediates_only=True)
    for feature, stage in zip(features, case["stages"], strict=True):
        assert list(feature.shape) == stage["shape"]
        tolerance = 1e-4 * stage["absmax"]
        samples = feature.flatten()[:: stage["every"]][: len(stage["samples"])]
        assert (samples - torch.tensor(stage["samples"])).abs().max() <= tolerance
        assert feature.abs().max().item() == pytest.approx(stage["absmax"], abs=tolerance)
        assert feature.mean().item() == pytest.approx(stage["mean"], abs=tolerance)
        assert feature.std().item() == pytest.approx(stage["std"], abs=tolerance)


@pytest.fixture(scope="module")
def case():
    return GOLDEN[SMALLEST]


def assert_loads(checkpoint: dict, case: dict) -> None:
    model = build_model(arch_of(case["kwargs"]), num_classes=10)
    model.load_state_dict(checkpoint_filter_fn(checkpoint, model))
    expected = golden_model(case).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_wrapped_checkpoint_loads(case, wrapper):
    assert_loads({wrapper: official_weights(case), "epoch": 299}, case)


def test_a_checkpoint_of_a_parallel_model_loads(case):
    weights = {f"module.{name}": value for name, value in official_weights(case).items()}
    assert_loads({"model": weights}, case)


def test_a_dense_checkpoint_keeps_the_models_own_head(case):
    weights = {name: value for name, value in official_weights(case).items() if not name.startswith(("norm.", "head."))}
    norms = {f"norm{i}.{kind}": torch.randn(64 * 2**i) for i in (1, 2, 3) for kind in ("weight", "bias")}
    detector = {f"backbone.{name}": value for name, value in (weights | norms).items()}
    model = build_model(arch_of(case["kwargs"]), num_classes=10)
    head = model.head.fc.weight.clone()
    model.load_state_dict(checkpoint_filter_fn({"state_dict": detector | {"neck.weight": torch.zeros(1)}}, model))
    assert torch.equal(model.norm.weight, norms["norm3.weight"])
    assert torch.equal(model.norm.bias, norms["norm3.bias"])
    assert torch.equal(model.head.fc.weight, head)
    assert torch.equal(model.layers[1].downsample.dconv.weight, weights["layers.0.downsample.dconv.weight"])


def test_a_dense_checkpoint_without_the_last_norm_keeps_the_models_own(case):
    weights = {name: value for name, value in official_weights(case).items() if not name.startswith(("norm.", "head."))}
    model = build_model(arch_of(case["kwargs"]), num_classes=10)
    model.load_state_dict(checkpoint_filter_fn(weights, model))
    assert torch.equal(model.norm.weight, torch.ones(512))


def test_a_head_of_another_width_is_left_out_with_a_warning(case, caplog):
    model = build_model(arch_of(case["kwargs"]), num_classes=7)
    with caplog.at_level(logging.WARNING):
        weights = checkpoint_filter_fn(official_weights(case), model)
    model.load_state_dict(weights)
    assert weights["head.fc.weight"].shape == (7, 512)
    assert re.search(r"head\.fc\.weight.*\(10, 512\).*\(7, 512\)", caplog.text)


def test_a_model_without_a_head_takes_the_rest(case):
    model = build_model(arch_of(case["kwargs"]), num_classes=0)
    model.load_state_dict(checkpoint_filter_fn(official_weights(case), model))


def test_own_weights_pass_unchanged(case):
    model = golden_model(case)
    own = model.state_dict()
    passed = checkpoint_filter_fn(own, model)
    assert list(passed) == list(own)
    assert all(passed[name] is value for name, value in own.items())


def test_official_weights_go_out_as_they_came_in(case):
    weights = official_weights(case)
    back = official_state_dict(golden_model(case))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], value) for name, value in weights.items())


def test_timm_loads_an_official_checkpoint_file(case, tmp_path):
    torch.save({"model": official_weights(case)}, tmp_path / "official.pth")
    fields = arch_of(case["kwargs"]).to_dict()
    overlay = {"file": str(tmp_path / "official.pth"), "num_classes": 10}
    expected = golden_model(case).state_dict()
    for num_classes, features_only in ((10, False), (5, False), (10, True)):
        kwargs = fields | {"num_classes": num_classes, "features_only": features_only}
        model = timm.create_model("litv2", pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
        loaded = {name.replace("layers_", "layers."): value for name, value in model.state_dict().items()}
        same = [name for name in loaded if num_classes == 10 or not name.startswith("head.")]
        assert all(torch.equal(loaded[name], expected[name]) for name in same)
