"""Typical uses of a prepared network: each gives the right outputs or an error that names an alternative."""

import copy
import dataclasses
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import DeviceError, HiloNasError, InferenceFormError
from hilo_nas.models import LITv2, build_model, prepare_for_inference, randomize_constant_weights
from hilo_nas.models.inference import PreparedLITv2
from hilo_nas.models.inference.images import ImageCheck
from hilo_nas.models.inference.operators import PLAIN

ARCH = ArchConfig(
    embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4), alpha=(0.9, 0.9, 0.5, 0.5), patch_size=2
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHARES = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""How far outputs may be from float32, as a share of the largest."""
precisions = pytest.mark.parametrize("precision", DTYPES)
deprecated = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
"""TorchScript, which torch warns of."""


def trained(seed: int = 0) -> LITv2:
    torch.manual_seed(seed)
    model = build_model(ARCH, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    randomize_constant_weights(model)
    return model


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def assert_answers_as(network: nn.Module, model: LITv2, dtype: torch.dtype) -> None:
    """A network gives a model's outputs, in a dtype, and has its weights."""
    with torch.no_grad():
        found, expected = network(images(dtype)), model(images())
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= SHARES[dtype] * expected.abs().max()
    weights = model.state_dict()
    assert list(network.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def prepared(precision: str, model: LITv2 | None = None) -> PreparedLITv2:
    return prepare_for_inference(model or trained(), precision=precision)


@precisions
def test_the_state_dict_is_that_of_the_training_form(precision):
    network, other = prepared(precision), build_model(ARCH, num_classes=5).eval()
    other.load_state_dict(network.state_dict(), strict=True)
    assert_answers_as(network, other, DTYPES[precision])


@precisions
@pytest.mark.parametrize("is_nested", [False, True])
def test_loading_weights_changes_the_answers(precision, is_nested):
    network, other = prepared(precision), trained(seed=1)
    if is_nested:
        parent = nn.Sequential(nn.Identity(), network)
        result = parent.load_state_dict({f"1.{name}": value for name, value in other.state_dict().items()})
        assert list(parent.state_dict()) == [f"1.{name}" for name in other.state_dict()]
    else:
        result = network.load_state_dict(other.state_dict())
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert_answers_as(network, other, DTYPES[precision])


@pytest.mark.parametrize("is_nested", [False, True])
def test_weights_that_do_not_fit_are_refused_and_named(is_nested):
    model = trained()
    network = prepared("fp32", model)
    module, prefix = (nn.Sequential(network), "0.") if is_nested else (network, "")
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    lacking = {name: value for name, value in weights.items() if "head" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.fc\.weight") as caught:
        module.load_state_dict(lacking)
    assert "product" not in str(caught.value)  # the parts' own names concern nobody
    with pytest.raises(RuntimeError, match=r"Unexpected key.*nothing"):
        module.load_state_dict(weights | {f"{prefix}nothing": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.fc\.bias"):
        module.load_state_dict(weights | {f"{prefix}head.fc.bias": torch.zeros(7)})
    result = module.load_state_dict(lacking, strict=False)
    assert result.missing_keys == [f"{prefix}head.fc.weight", f"{prefix}head.fc.bias"]
    assert_answers_as(network, model, torch.float32)


def test_changing_the_state_dict_or_the_model_given_changes_nothing():
    model = trained()
    network, same = prepared("fp32", model), copy.deepcopy(model)
    for value in network.state_dict().values():
        value.zero_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert_answers_as(network, same, torch.float32)
    assert_answers_as(network.half().float(), same, torch.float32)


def saved(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "torch.save": saved,
    "nested deepcopy": lambda network: copy.deepcopy(nn.Sequential(network))[0],
    "prepared again": lambda network: prepare_for_inference(network, precision=network.precision),
}


@precisions
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_answers_the_same_and_is_on_its_own(precision, way):
    model = trained()
    network = prepared(precision, model)
    network.note = "kept"
    again = COPIES[way](network)
    assert again.form == network.form
    assert getattr(again, "note", "kept") == "kept"
    again.load_state_dict(trained(seed=1).state_dict())
    assert_answers_as(again, trained(seed=1), DTYPES[precision])
    assert_answers_as(network, model, DTYPES[precision])


@precisions
def test_a_saved_state_dict_loads_with_weights_only(precision, tmp_path):
    torch.save(prepared(precision).state_dict(), tmp_path / "weights.pt")
    other = prepared(precision, trained(seed=1))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_answers_as(other, trained(), DTYPES[precision])


CONVERSIONS = {
    "half": (lambda network: network.half(), torch.float16),
    "bfloat16": (lambda network: network.bfloat16(), torch.bfloat16),
    "float": (lambda network: network.float(), torch.float32),
    "to dtype": (lambda network: network.to(torch.float16), torch.float16),
    "to device and dtype": (lambda network: network.to("cpu", torch.bfloat16), torch.bfloat16),
    "nested": (lambda network: nn.Sequential(network).half()[0], torch.float16),
    "there and back": (lambda network: network.half().bfloat16().float(), torch.float32),
}


@precisions
@pytest.mark.parametrize("way", CONVERSIONS)
def test_another_dtype_prepares_it_again_from_the_weights_given(precision, way):
    model = trained()
    network = prepared(precision, model)
    convert, dtype = CONVERSIONS[way]
    assert convert(network) is network
    assert next(network.parameters()).dtype == dtype
    assert network.form == prepare_for_inference(model, precision=network.precision).form
    assert_answers_as(network, model, dtype)


@precisions
@pytest.mark.parametrize("way", [lambda n: n.cpu(), lambda n: n.to("cpu"), lambda n: n.eval(), lambda n: n.train(False),
                                 lambda n: n.to(memory_format=torch.channels_last), lambda n: n.requires_grad_(False),
                                 lambda n: n.share_memory(), lambda n: n.apply(lambda module: None)])  # fmt: skip
def test_what_changes_nothing_leaves_it_as_it_is(precision, way):
    network = prepared(precision)
    assert way(network) is network
    assert_answers_as(network, trained(), DTYPES[precision])


def test_an_image_of_another_floating_dtype_is_converted():
    for precision, dtype in DTYPES.items():
        network = prepared(precision)
        for other in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            with torch.no_grad():
                assert torch.equal(network(images(other)), network(images(other).to(dtype)))


def in_autocast(network: nn.Module) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(images())


def optimised(network: nn.Module) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(images()).sum().backward()
    optimizer.step()


REFUSED = {
    "double": (lambda n: n.double(), r"torch.float64.*training_form"),
    "integers": (lambda n: n(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)), r"normalised floating-point values.*uint8"),
    "one image": (lambda n: n(images()[0]), r"\(B, 3, H, W\).*got \(3, 32, 32\).*unsqueeze"),
    "one channel": (lambda n: n(images()[:, :1]), r"got \(2, 1, 32, 32\)"),
    "four channels": (lambda n: n(torch.zeros(2, 4, 32, 32)), r"got \(2, 4, 32, 32\)"),
    "channels last": (lambda n: n(images().permute(0, 2, 3, 1)), r"got \(2, 32, 32, 3\).*permute"),
    "no image": (lambda n: n(images()[:0]), r"B at least 1, but got \(0, 3, 32, 32\)"),
    "another device": (lambda n: n(torch.empty(2, 3, 32, 32, device="meta")), r"must be on cpu.*but got meta"),
    "features of one image": (lambda n: n.forward_intermediates(images()[0]), r"got \(3, 32, 32\)"),
    "autocast": (in_autocast, r"must not run under autocast.*amp-bf16"),
    "backward": (lambda n: n(images()).sum().backward(), r"training_form"),
    "backward to images": (lambda n: n(images().requires_grad_()).sum().backward(), r"training_form"),
    "backward of features": (
        lambda n: n.forward_intermediates(images(), intermediates_only=True)[1].sum().backward(),
        r"training_form",
    ),
    "an optimizer": (optimised, r"training_form"),
    "train": (lambda n: n.train(), r"training_form"),
    "train of a parent": (lambda n: nn.Sequential(n).train(), r"training_form"),
    "requires_grad_": (lambda n: n.requires_grad_(), r"training_form"),
    "grad checkpointing": (lambda n: n.set_grad_checkpointing(), r"training_form"),
    "a part moved": (lambda n: n.layers.half(), r"a part of a prepared network.*whole network"),
    "a product moved": (lambda n: n.layers[0].blocks[0].fc1.half(), r"a part of a prepared network"),
    "a part copied": (lambda n: copy.deepcopy(n.layers[0]), r"FusedStage.*copied or pickled"),
    "a part replaced": (lambda n: setattr(n, "head", nn.Identity()), r"head of a prepared network cannot be replaced"),
    "scripting": (lambda n: torch.jit.script(n), r"torch.jit.script cannot capture.*training_form"),
}  # fmt: skip


@deprecated
@precisions
@pytest.mark.parametrize("way", REFUSED)
def test_an_unsupported_call_is_refused_and_leaves_the_network_usable(precision, way):
    network = prepared(precision)
    do, message = REFUSED[way]
    with pytest.raises(InferenceFormError, match=message):
        do(network)
    assert not network.training
    assert_answers_as(network, trained(), DTYPES[precision])


CAPTURES = {
    "export": lambda network, image: torch.export.export(network, (image,)),
    "trace": lambda network, image: torch.jit.trace(network, image),
    "compile": lambda network, image: torch.compile(network)(image),
}


@pytest.mark.slow
@deprecated
@pytest.mark.parametrize("way", CAPTURES)
def test_a_form_with_packed_weights_cannot_be_captured(way):
    network = prepared("fp32")
    if "onednn" not in network.form:
        pytest.skip("this torch has no packed weights here")
    with pytest.raises(InferenceFormError, match=r"cannot capture a network prepared.*training_form.*for_compile=True"):
        CAPTURES[way](network, images())
    torch.compiler.reset()
    assert_answers_as(network, trained(), torch.float32)


@pytest.mark.slow
@deprecated
@pytest.mark.parametrize("way", ["export", "trace"])
def test_the_form_for_a_compiler_can_be_captured(way):
    network = prepare_for_inference(trained(), for_compile=True)
    captured = CAPTURES[way](network, images())
    run = captured.module() if way == "export" else captured
    with torch.no_grad():
        assert torch.allclose(run(images()), network(images()), atol=1e-5)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    network = prepared("fp32")
    if not torch.cuda.is_available():
        for move in (lambda: network.cuda(), lambda: network.to("cuda:0")):
            with pytest.raises(DeviceError, match=r"but torch raised: .* cpu\."):
                move()
        with pytest.raises(DeviceError, match=r"but got cuda: .*state_dict"):
            prepare_for_inference(trained(), device="cuda")
    with pytest.raises(HiloNasError, match="meta"):
        network.to("meta")
    state = network.__getstate__() | {"_device": torch.device("cuda", 99)}  # pickled on another machine
    with pytest.raises(DeviceError, match=r"but got cuda:99: .*torch\.save\(network\.state_dict\(\)"):
        PreparedLITv2.__new__(PreparedLITv2).__setstate__(state)
    assert_answers_as(network, trained(), torch.float32)


class PackedNowhere(PreparedLITv2):
    """A prepared network that records the devices for packing, so that the test needs no GPU."""

    def _pack(self, device: torch.device, precision: str, for_compile: bool) -> None:
        packed = [*vars(self).get("packed", ()), device]
        self.__dict__.update(packed=packed, _device=device, _dtype=torch.float32, _precision=precision)
        self.__dict__.update(_for_compile=for_compile, _packed_state=self._current_state())


def test_a_network_prepared_for_cuda_is_moved_from_one_cuda_device_to_another():
    zero, one = torch.device("cuda", 0), torch.device("cuda", 1)
    model = trained()
    with FakeTensorMode():  # tensors on devices that are not there
        network = PackedNowhere(model, device=torch.device("cuda"), precision="fp32", for_compile=False)
        assert network.packed == [zero]
        network.to("cuda:0")
        assert network.packed == [zero]
        network.to("cuda:1").to("cuda:1")
        assert network.packed == [zero, one]


def test_images_on_another_device_of_the_same_kind_are_refused():
    with FakeTensorMode():
        take = ImageCheck(3, dataclasses.replace(PLAIN, device=torch.device("cuda", 1)))
        with pytest.raises(InferenceFormError, match=r"images must be on cuda:1, .* but got cuda:0. Use network"):
            take(torch.empty(1, 3, 32, 32, device="cuda"))
        assert take(torch.empty(1, 3, 32, 32, device="cuda:1")).device == torch.device("cuda", 1)


def change_weight(network: PreparedLITv2) -> None:
    with torch.no_grad():
        network.head.fc.weight.zero_()


def change_part(network: PreparedLITv2) -> None:
    network.head.fc = nn.Linear(32, 5)


@pytest.mark.parametrize("change", [change_weight, change_part])
def test_weights_changed_in_place_are_never_passed_off_as_those_given(change):
    network = prepared("fp32")
    change(network)
    for use in (network.state_dict, network.half, network.training_form, lambda: copy.deepcopy(network)):
        with pytest.raises(InferenceFormError, match="must not be changed in place, but they were"):
            use()
    network.load_state_dict(trained().state_dict())
    assert_answers_as(network, trained(), torch.float32)


@precisions
def test_a_new_head_is_put_into_both_forms(precision):
    network = prepared(precision)
    network.reset_classifier(3)
    assert network.num_classes == 3
    model = network.training_form()
    assert model.num_classes == 3
    assert_answers_as(network, model, DTYPES[precision])
    network.reset_classifier(0)
    with torch.no_grad():
        assert network(images()).shape == (2, 32)


def test_stages_are_removed_from_both_forms():
    network, model = prepared("fp32"), trained()
    assert network.prune_intermediate_layers([0, 1]) == model.prune_intermediate_layers([0, 1])
    assert_answers_as(network, model, torch.float32)
    assert len(network.layers) == 2


def test_the_training_form_learns_again():
    model = prepared("bf16").training_form()
    assert type(model) is LITv2
    model.train()(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())


def test_it_takes_other_weights_where_it_was_prepared_in_inference_mode():
    with torch.inference_mode():
        network = prepare_for_inference(build_model(ARCH, num_classes=5))
    network.load_state_dict(trained().state_dict())
    assert_answers_as(network, trained(), torch.float32)
    with torch.inference_mode():
        network.load_state_dict(trained(seed=1).state_dict())
    assert_answers_as(network, trained(seed=1), torch.float32)


@precisions
def test_threads_get_the_same_answer(precision):
    network, found = prepared(precision), []

    def run() -> None:
        with torch.inference_mode():
            found.append(network(images(DTYPES[precision])))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(answer, found[0]) for answer in found)


def test_a_layer_behind_it_learns_where_it_runs_without_gradients():
    network, head = prepared("fp32"), nn.Linear(5, 2)
    with torch.no_grad():
        features = network(images())
    head(features).sum().backward()
    assert head.weight.grad is not None


def test_packing_that_fails_leaves_the_network_as_it_was(monkeypatch):
    network = prepared("fp32")

    def fail(*args, **kwargs):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(nn, "Sequential", fail)
        with pytest.raises(MemoryError):
            network.half()
    assert_answers_as(network, trained(), torch.float32)
