"""LITv2 as a timm model: sizes, precisions, features, heads, and the plain values that build it."""

import math

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import ArchError, UsageError
from hilo_nas.models import LITv2, build_model, build_subject, form_of
from hilo_nas.models.blocks import ConvFFN
from hilo_nas.models.dtm import DTM, DeformConv

FIELDS = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 4]}
ARCH = ArchConfig(**FIELDS)
PRECISIONS = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
    "amp-bf16": (torch.float32, torch.bfloat16),
    "amp-fp16": (torch.float32, torch.float16),
}


@pytest.fixture
def model() -> LITv2:
    torch.manual_seed(0)
    return build_model(ARCH, num_classes=5).eval()


@pytest.mark.parametrize(
    ("name", "params"), [("litv2_small", 27_844_000), ("litv2_medium", 48_830_368), ("litv2_base", 86_520_704)]
)
def test_the_published_models_have_the_published_sizes(name, params):
    with torch.device("meta"):
        model = timm.create_model(name)
        by_arch = build_model(PRESETS[name])
        logits = model(torch.empty(2, 3, 224, 224))
    assert sum(p.numel() for p in model.parameters()) == params
    assert model.state_dict().keys() == by_arch.state_dict().keys()
    assert logits.shape == (2, 1000)
    assert model.pretrained_cfg["architecture"] == name


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 100), (75, 131)])
@torch.no_grad()
def test_one_network_takes_every_image_size(model, size):
    assert model(torch.randn(2, 3, *size)).shape == (2, 5)
    features = model.forward_intermediates(torch.randn(1, 3, *size), intermediates_only=True)
    H, W = (math.ceil(side / 4) for side in size)
    for feature, width in zip(features, ARCH.embed_dims, strict=True):
        assert feature.shape == (1, width, H, W)
        H, W = H // 2, W // 2


def test_an_image_smaller_than_the_stride_is_refused(model):
    with pytest.raises(UsageError, match=r"at least 32 x 32 pixels with patch_size 4, but got 31 x 64. Use larger"):
        model(torch.randn(1, 3, 31, 64))


@torch.no_grad()
def test_widths_need_not_double_and_attention_may_be_anywhere():
    arch = ArchConfig(
        embed_dims=[12, 8, 30, 20],
        depths=[1, 2, 1, 1],
        num_heads=[3, 1, 5, 1],
        attention=["hilo", "none", "hilo", "none"],
        alpha=[0.5, 0, 0, 0],
        window_size=[3, 2, 7, 1],
        mlp_ratios=[1, 2.5, 3, 0.5],
        patch_size=2,
    )
    model = build_model(arch, num_classes=3, in_chans=1).eval()
    assert model(torch.randn(2, 1, 17, 30)).shape == (2, 3)
    assert [info["reduction"] for info in model.feature_info] == [2, 4, 8, 16]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_runs_forward_and_backward(precision):
    dtype, autocast = PRECISIONS[precision]
    torch.manual_seed(0)
    model = build_model(ARCH, num_classes=5, drop_path_rate=0.1).to(dtype).train()
    for module in model.modules():
        if isinstance(module, DeformConv):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
    x_BCHW = torch.randn(4, 3, 44, 70, dtype=dtype)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        logits = model(x_BCHW)
    assert logits.dtype == (autocast or dtype)
    logits.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("precision", ["bf16", "fp16", "amp-bf16", "amp-fp16"])
@torch.no_grad()
def test_every_precision_stays_near_float32(precision):
    dtype, autocast = PRECISIONS[precision]
    torch.manual_seed(0)
    merge = DTM(8, 16).eval()
    nn.init.normal_(merge.dconv.conv_offset.weight, std=0.3)
    x_BCHW = torch.randn(2, 8, 9, 6)
    expected = merge(x_BCHW)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        seen = merge.to(dtype)(x_BCHW.to(dtype))
    assert seen.dtype == dtype
    assert seen.shape == (2, 16, 4, 3)
    assert (seen.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_the_form_names_the_merging(model):
    assert model.form == "litv2/2 merging=gather"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (2, 3), (3, 2)])
def test_tiny_maps_pass_the_same_convolution_in_training(size):
    ffn = ConvFFN(4, 12).double()
    x_BHWC = torch.randn(3, *size, 4, dtype=torch.float64)
    seen, grads = [], []
    for mode in (True, False):
        y_BHWC = ffn.train(mode)(x_BHWC)
        seen.append(y_BHWC)
        grads.append(torch.autograd.grad(y_BHWC.square().sum(), list(ffn.parameters())))
    torch.testing.assert_close(*seen, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_merging_begins_as_an_ordinary_convolution():
    conv = DeformConv(4, 6)
    x_BCHW = torch.randn(2, 4, 7, 8)
    torch.testing.assert_close(conv(x_BCHW), nn.functional.conv2d(x_BCHW, conv.weight, conv.bias, stride=2))


def test_stochastic_depth_rises_over_all_blocks():
    model = build_model(ARCH, drop_path_rate=0.4)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x_BCHW = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model.train()(x_BCHW), model(x_BCHW))
    with torch.no_grad():
        assert torch.equal(model.eval()(x_BCHW), model(x_BCHW))


def test_weights_begin_as_the_official_ones_do():
    torch.manual_seed(0)
    model = build_model(ArchConfig(embed_dims=[64] * 4, depths=[1] * 4, num_heads=[4] * 4))
    mlp = model.layers[3].blocks[0].mlp
    assert mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert mlp.dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    assert model.layers[3].blocks[0].norm1.eps == 1e-5
    biases = [p for name, p in model.named_parameters() if name.endswith("bias") and "mlp" in name]
    assert not any(bias.any() for bias in biases)


def test_timm_builds_any_architecture_from_plain_values():
    model = timm.create_model("litv2", **ARCH.to_dict(), num_classes=7, in_chans=1, drop_path_rate=0.1, drop_rate=0.2)
    assert isinstance(model, LITv2)
    assert model.arch == ARCH
    assert model.head.drop.p == 0.2
    assert model(torch.randn(2, 1, 32, 40)).shape == (2, 7)


def test_all_invalid_fields_are_reported():
    with pytest.raises(ArchError, match=r"unknown field 'input_size'(.|\n)*num_heads is missing"):
        timm.create_model("litv2", embed_dims=[8] * 4, depths=[1] * 4, input_size=64)
    with pytest.raises(ArchError, match=r"stage 3: num_heads must divide embed_dims \(24\), but got 5"):
        timm.create_model("litv2", **FIELDS | {"num_heads": [1, 2, 5, 4]})


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 2), (3,)])
@pytest.mark.parametrize("feature_cls", [None, "getter"])
@torch.no_grad()
def test_features_only_gives_maps_in_nchw(out_indices, feature_cls):
    torch.manual_seed(0)
    whole = timm.create_model("litv2", **FIELDS).eval()
    model = timm.create_model("litv2", features_only=True, out_indices=out_indices, feature_cls=feature_cls, **FIELDS)
    weights = _renamed(whole, model)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    x_BCHW = torch.randn(2, 3, 64, 96)
    features = model.eval()(x_BCHW)
    expected = whole.forward_intermediates(x_BCHW, indices=list(out_indices), intermediates_only=True)
    assert model.feature_info.channels() == [f.shape[1] for f in features] == [8 * (i + 1) for i in out_indices]
    assert model.feature_info.reduction() == [64 // f.shape[2] for f in features] == [4 * 2**i for i in out_indices]
    for feature, reference in zip(features, expected, strict=True):
        torch.testing.assert_close(feature, reference)


def _renamed(whole: nn.Module, features: nn.Module) -> dict[str, torch.Tensor]:
    """Weights under the names that timm's feature wrappers give them."""
    prefix = "model." if any(name.startswith("model.") for name in features.state_dict()) else ""
    stage = "layers." if prefix else "layers_"
    return {prefix + name.replace("layers.", stage): value for name, value in whole.state_dict().items()}


@torch.no_grad()
def test_intermediates_are_the_stages_outputs(model):
    x_BCHW = torch.randn(2, 3, 64, 64)
    final, all_four = model.forward_intermediates(x_BCHW)
    assert len(all_four) == 4
    torch.testing.assert_close(final, model.forward_features(x_BCHW))
    torch.testing.assert_close(model.forward_head(final), model(x_BCHW))
    normed = model.forward_intermediates(x_BCHW, indices=1, norm=True, intermediates_only=True)
    assert torch.equal(normed[0], final)
    early, some = model.forward_intermediates(x_BCHW, indices=[0, 1], stop_early=True)
    assert torch.equal(early, all_four[1])
    assert [torch.equal(a, b) for a, b in zip(some, all_four[:2], strict=True)] == [True, True]
    late, _ = model.forward_intermediates(x_BCHW, indices=[0, 1])
    assert torch.equal(late, final)
    with pytest.raises(UsageError, match="output_fmt must be 'NCHW', but got 'NLC'"):
        model.forward_intermediates(x_BCHW, output_fmt="NLC")


@torch.no_grad()
def test_pruning_keeps_the_stages_asked_for(model):
    x_BCHW = torch.randn(1, 3, 64, 64)
    before = model.forward_intermediates(x_BCHW, indices=[1], intermediates_only=True)
    assert model.prune_intermediate_layers([1]) == [1]
    assert len(model.layers) == 2
    assert model.num_features == model.head_hidden_size == 16
    assert torch.equal(model(x_BCHW), before[0])
    model.reset_classifier(3, "avg")
    assert model(x_BCHW).shape == (1, 3)


@torch.no_grad()
def test_the_head_can_be_changed(model):
    x_BCHW = torch.randn(2, 3, 64, 96)
    assert model.num_features == model.head_hidden_size == 32
    model.reset_classifier(9)
    assert model.get_classifier().out_features == 9
    assert model(x_BCHW).shape == (2, 9)
    pooled = model.forward_head(model.forward_features(x_BCHW), pre_logits=True)
    torch.testing.assert_close(pooled, model.forward_features(x_BCHW).mean((2, 3)))
    model.reset_classifier(0)
    torch.testing.assert_close(model(x_BCHW), pooled)
    model.reset_classifier(0, "")
    assert model(x_BCHW).shape == (2, 32, 2, 3)


def test_gradient_checkpointing_changes_no_gradient():
    x_BCHW = torch.randn(2, 3, 64, 64)
    grads = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = build_model(ARCH, num_classes=5)
        model.set_grad_checkpointing(enable)
        model(x_BCHW).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_timm_groups_every_parameter_for_layer_decay(model):
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    mlps = [block.mlp for stage in model.layers for block in stage.blocks]
    in_order = [model.patch_embed.proj, *(mlp.fc1 for mlp in mlps), model.head.fc]
    by_depth = [scale[id(layer.weight)] for layer in in_order]
    assert by_depth == sorted(by_depth)
    assert by_depth[0] < by_depth[-1] == 1.0
    assert model.no_weight_decay() == set()
    assert model.group_matcher(coarse=True)["blocks"] == r"^layers\.(\d+)"


def test_subjects_are_built_from_plain_data():
    ours = build_subject({"arch": ARCH.to_dict()}, num_classes=4, in_chans=1).eval()
    assert isinstance(ours, LITv2)
    assert ours(torch.randn(1, 1, 32, 32)).shape == (1, 4)
    assert form_of(ours) == "litv2/2 merging=gather"
    with torch.device("meta"):
        assert build_subject("litv2_base", 10, 3).arch == PRESETS["litv2_base"]
        for spec in ({"timm": "resnet18"}, "timm:resnet18"):
            neighbour = build_subject(spec, num_classes=4, in_chans=1)
            assert neighbour(torch.empty(2, 1, 32, 32)).shape == (2, 4)
    assert form_of(neighbour) == f"timm/{timm.__version__} eager"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", r"'resnet18'.*timm:NAME"),
        ({"onnx": "a.onnx"}, r"a\.onnx.*timm:NAME"),
        ({"timm": "resnet1888"}, r"has no model 'resnet1888'. Use resnet18"),
        ({"arch": {"depth": 1}}, "unknown field 'depth'"),
    ],
)
def test_a_subject_that_names_no_network_is_refused(spec, message):
    with pytest.raises(UsageError, match=message):
        build_subject(spec, 10, 3)


@pytest.mark.parametrize("img_size", [None, 64, (64, 96), [32, 32]])
def test_an_image_size_is_accepted_because_any_size_runs(img_size):
    model = timm.create_model("litv2", img_size=img_size, num_classes=2, **FIELDS).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 48, 40)).shape == (1, 2)


@pytest.mark.parametrize("img_size", [8, (64, 8), (64,), (64, 64, 64)])
def test_an_image_size_below_the_stride_is_refused(img_size):
    with pytest.raises(
        UsageError, match=r"img_size must be one side or a height and a width of at least 32 pixels .* but got"
    ):
        timm.create_model("litv2", img_size=img_size, **FIELDS)
