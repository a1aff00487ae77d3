"""Networks made ready to be timed: fused, converted, compiled, captured; each gives what the plain one gives."""

import copy
import dataclasses
import gc
import weakref

import pytest
import torch
from builders import TINY
from timing import layers
from timm.models.byobnet import MobileOneBlock
from torch import nn
from torch._dynamo.utils import counters

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.measurement import Condition
from hilo_nas.models import build_model
from hilo_nas.models.convert import openvino_file
from hilo_nas.timing.device import peak_memory_mib
from hilo_nas.timing.fuse import fuse
from hilo_nas.timing.prepared_network import capture_graph, prepare, read_form

MIXER = {"layer": "timing.layers:Mixer", "arguments": {"dim": 8}}
SMALL = Condition(batch_size=2, img_size=8)


def ready(subject=MIXER, **condition):
    with torch.inference_mode():
        return prepare(subject, dataclasses.replace(SMALL, **condition), num_classes=10)


def output(prepared):
    with torch.inference_mode():
        return prepared.call()


def randomised(model):
    """The network with weights and statistics that no folding can overlook, in evaluation mode."""
    torch.manual_seed(0)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return model.eval()


# Fused.


def test_batch_norms_are_folded_into_their_convolutions_and_the_output_stays():
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)))
    before, image = copy.deepcopy(model.state_dict()), torch.randn(2, 3, 8, 8)
    fused, how = fuse(model, image)
    assert how == "folded"
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    torch.testing.assert_close(fused(image), model(image))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_branches_are_reparameterised_and_the_output_stays():
    model = randomised(nn.Sequential(MobileOneBlock(3, 4, kernel_size=3)))
    image = torch.randn(2, 3, 8, 8)
    fused, how = fuse(model, image)
    assert how == "reparameterised"
    assert sum(1 for _ in fused.modules()) < sum(1 for _ in model.modules())
    torch.testing.assert_close(fused(image), model(image), rtol=1e-3, atol=1e-3)


def test_both_are_done_to_a_network_that_has_both():
    model = randomised(nn.Sequential(MobileOneBlock(3, 4, kernel_size=3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    assert fuse(model, torch.randn(2, 3, 8, 8))[1] == "reparameterised folded"


@pytest.mark.parametrize(
    "model",
    [layers.Mixer(8), layers.Spare(8), layers.Forked(8)],
    ids=["nothing to fold", "a part that is never used", "cannot be traced"],
)
def test_a_network_with_nothing_to_fold_stays_as_it_is_and_says_no_more(model):
    image = torch.randn(2, 4, 4, 8)
    model.eval()
    fused, how = fuse(model, image)
    assert how == "fused"
    assert torch.equal(fused(image), model(image))


LITV2 = {"arch": ArchConfig(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)).to_dict()}


@pytest.mark.parametrize("condition", [{}, {"channels_last": True}, {"compile": True}, {"precision": "bf16"}])
def test_a_litv2_is_timed_in_its_inference_form_and_the_record_says_which(condition, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    plain = ready(LITV2, img_size=32)
    fused = ready(LITV2, img_size=32, fused=True, **condition)
    tolerance = 1e-4 if condition.get("precision", "fp32") == "fp32" else 0.05
    assert (output(fused).float() - output(plain)).abs().max() <= tolerance * output(plain).abs().max()
    assert "batchnorms=folded" in fused.form.split()
    assert "batchnorms=folded" not in plain.form.split()
    assert ("compiled" in fused.form.split()) == ("compile" in condition)
    assert read_form(dataclasses.replace(SMALL, fused=True, **condition).to_dict(), emit=print) == fused.form


def test_weights_that_an_inference_form_packs_count_as_memory():
    plain, fused = ready(LITV2, img_size=32), ready(LITV2, img_size=32, fused=True)
    weights = sum(value.numel() * 4 for value in build_model(ArchConfig.from_dict(LITV2["arch"]), 10).parameters())
    for prepared in (plain, fused):
        with torch.inference_mode():
            assert prepared.read_memory_mib() * 2**20 > weights


def test_networks_built_in_inference_mode_can_be_fused():
    with torch.inference_mode():
        model = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
        image = torch.randn(2, 3, 8, 8)
        fused, how = fuse(model, image)
        assert how == "folded"
        torch.testing.assert_close(fused(image), model(image))


@pytest.mark.parametrize("off", [1e-2, float("nan")])
def test_a_fused_network_with_other_outputs_is_refused(off):
    model = layers.Lying(8, off=off).eval()
    with pytest.raises(ConversionError, match=r"Lying .*timing\.fused=false"):
        fuse(model, torch.randn(2, 4, 4, 8))


# Ready to be called.


def test_weights_and_images_are_the_same_every_time():
    assert torch.equal(output(ready()), output(ready()))


@pytest.mark.parametrize("condition", [{"fused": True}, {"channels_last": True}, {"compile": True}])
def test_other_forms_give_the_plain_forms_output(condition):
    torch.testing.assert_close(output(ready(**condition)), output(ready()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_compiler_packs_the_weights_of_a_network_on_a_cpu():
    counters.clear()
    compiled = ready(LITV2, img_size=32, fused=True, compile=True)
    ready({"training": LITV2}, img_size=32, compile=True)  # prepared before the first call of the other
    plain = ready(LITV2, img_size=32)
    torch.testing.assert_close(output(compiled), output(plain), rtol=1e-4, atol=1e-5)
    assert counters["inductor"]["mkldnn_linear_weight_pack_matcher_count"] > 10
    assert compiled.form.endswith("compiled frozen weights/2")
    frames = counters["frames"]["ok"]
    output(compiled)
    assert counters["frames"]["ok"] == frames  # the second call does not compile
    weights = sum(value.numel() * 4 for value in build_model(ArchConfig.from_dict(LITV2["arch"]), 10).parameters())
    with torch.inference_mode():
        memory_mib = compiled.read_memory_mib(), plain.read_memory_mib()
    assert memory_mib[0] > memory_mib[1] + weights / 2**20 / 2  # the packed weights are additional ones


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16", torch.bfloat16), ("amp-bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)],
)
def test_a_precision_is_that_of_the_output(precision, dtype):
    assert output(ready(precision=precision)).dtype == dtype


def test_many_compiled_networks_stay_compiled_side_by_side(monkeypatch):
    compiled = []

    def compile_once(model, **options):
        def backend(graph, inputs):
            compiled.append(graph)
            return graph.forward

        return torch_compile(model, backend=backend, **options)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_once)
    count = 12  # torch's own limit is 8 for networks of one class
    networks = []
    for i in range(count):
        networks.append(ready({"layer": "timing.layers:Mixer", "arguments": {"dim": 8 + i}}, compile=True))
        output(networks[-1])
    assert len(compiled) == count
    for network in reversed(networks):
        output(network)
    assert len(compiled) == count


def test_peak_memory_counts_weights_and_the_largest_moment():
    model = nn.Sequential(nn.Linear(256, 1024), nn.Linear(1024, 256)).eval()
    image = torch.zeros(512, 256)
    with torch.inference_mode():
        peak = peak_memory_mib(lambda: model(image), 2**20, torch.device("cpu"))
    both = 4 * 512 * (1024 + 256) / 2**20  # the hidden layer and the output live at once
    assert peak == pytest.approx(1 + both, rel=0.01)


def test_a_profiler_that_has_changed_leaves_memory_unsaid(monkeypatch):
    class Changed(torch.profiler.profile):
        def __exit__(self, *error):
            super().__exit__(*error)
            del self.profiler.kineto_results

    monkeypatch.setattr(torch.profiler, "profile", Changed)
    assert ready().read_memory_mib() is None


def test_the_form_of_a_condition_is_that_of_its_networks():
    for condition in ({}, {"precision": "bf16"}, {"fused": True, "channels_last": True}):
        asked = dataclasses.replace(SMALL, img_size=32, **condition)
        arch = ArchConfig(patch_size=2, embed_dims=(8, 8, 16, 16), depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2))
        with torch.inference_mode():
            network = prepare({"arch": arch.to_dict()}, asked, num_classes=3)
        assert read_form(asked.to_dict(), emit=print) == network.form


# Training steps.


@pytest.mark.parametrize("condition", [{}, {"precision": "amp-bf16"}, {"compile": True}])
def test_a_training_step_leaves_gradients_on_the_network_though_timing_wants_none(condition):
    found = ready({"training": MIXER}, **condition)
    model, gradients = output(found), {}
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        gradients[name] = parameter.grad.clone()
    assert model.training
    output(found)  # nothing adds up from step to step
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in model.named_parameters())
    assert found.form == "timing.layers.Mixer eager training" + " compiled" * bool(condition.get("compile"))


def test_a_steps_memory_is_the_same_after_other_steps():
    found = ready({"training": MIXER})
    first = found.read_memory_mib()
    output(found)
    assert found.read_memory_mib() == pytest.approx(first)
    assert first > ready().read_memory_mib()


@pytest.mark.parametrize("condition", [{"fused": True}, {"runtime": "onnxruntime"}])
def test_a_training_step_is_refused_in_forms_that_do_not_learn(condition):
    with pytest.raises(UsageError, match="runtime, fused and cuda_graph"):
        ready({"training": MIXER}, **condition)


# Graphs; what needs no GPU first.


class FakeGraph:
    """A capture on the CPU: a replay only counts."""

    def __init__(self):
        self.captured, self.replays = None, 0

    def capture(self, call, device):
        self.captured = weakref.ref(call)
        call()
        return self.replay

    def replay(self):
        self.replays += 1


def test_what_a_graph_reads_lives_as_long_as_the_graph_and_its_memory_is_that_of_a_call():
    graph, captured = FakeGraph(), dataclasses.replace(SMALL, device="cuda", cuda_graph=True)
    with torch.inference_mode():
        found = prepare(MIXER, captured, num_classes=10, target="cpu", capture=graph.capture)
    plain = ready()
    gc.collect()
    assert found.form == f"{plain.form} graph"
    assert graph.captured() is not None  # and with it the input and the network, which a graph knows by address only
    assert found.read_memory_mib() == pytest.approx(plain.read_memory_mib())
    assert graph.replays == 0
    found.call()
    assert graph.replays == 1


@pytest.mark.gpu
def test_a_replay_gives_what_the_call_gives():
    device, seen = torch.device("cuda:0"), {}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 4, 3)).eval().to(device)
    image = torch.randn(2, 3, 16, 16, device=device)

    def call():
        seen["output"] = model(image)

    with torch.inference_mode():
        replay = capture_graph(call, device)
        for seed in (1, 2):
            torch.manual_seed(seed)
            image.copy_(torch.randn(2, 3, 16, 16))
            expected = model(image)
            replay()
            torch.cuda.synchronize()
            torch.testing.assert_close(seen["output"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_network_that_no_graph_can_hold_is_refused_with_the_way_out():
    device = torch.device("cuda:0")
    image = torch.randn(4, device=device)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"timing\.cuda_graph=false"):
        capture_graph(lambda: image.sum().item(), device)


# Other runtimes.


def test_what_another_runtime_runs_is_named_and_its_memory_is_not_seen():
    for library in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    subject = {"timm": "test_resnet.r160_in1k"}
    found = ready(subject, runtime="onnxruntime", img_size=32)
    assert found.form.split()[0] == ready(subject, img_size=32).form.split()[0]
    assert " onnxruntime/" in found.form
    assert "eager" not in found.form  # which is how torch would run it
    assert found.read_memory_mib() is None
    found.call()


def test_a_file_needs_a_runtime_that_reads_it():
    with pytest.raises(UsageError, match=r"onnx:net\.onnx .*--runtime onnxruntime"):
        ready({"onnx": "net.onnx"})
    with pytest.raises(UsageError, match=r"openvino:net\.xml .*--runtime openvino"):
        ready({"openvino": "net.xml"}, runtime="onnxruntime")


def test_an_openvino_file_is_run(tmp_path):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(5)).eval()
    network(torch.zeros(1, 3, SMALL.img_size, SMALL.img_size))
    openvino_file.write(network, tmp_path / "a.xml", shape=(3, SMALL.img_size, SMALL.img_size), metadata={})
    found = ready({"openvino": str(tmp_path / "a.xml")}, runtime="openvino")
    assert found.form.endswith("f32 file")
    found.call()


@pytest.mark.parametrize("runtime", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_a_litv2_is_timed_in_another_runtime(runtime):
    pytest.importorskip(runtime)
    found = ready({"arch": TINY.to_dict()}, runtime=runtime, img_size=32)
    assert "form=tokens" in found.form
    assert found.form.endswith(" weights/2")
    found.call()
