"""What only a CUDA device can show: its kernels in every precision, training on it, and its memory.

Not in the default run; `pytest -m gpu tests/gpu` on a machine that has one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models.test_conformance import GOLDEN, golden_input, golden_model
from torch import Tensor, nn

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.data import CachedData, prepare_data
from hilo_nas.errors import OutOfMemoryError
from hilo_nas.events import Event, Notice, TrainingProgressed
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.measurement.proxy_score import PROXY_PRECISIONS
from hilo_nas.models import LITv2, build_model, build_subject, prepare_for_inference
from hilo_nas.models.dtm import DeformConv
from hilo_nas.models.inference import triton_kernels
from hilo_nas.proxy.graph import find_capture
from hilo_nas.proxy.train import Training
from hilo_nas.proxy.worker_calls import score_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    # Drivers and libraries warn of things that differ from machine to machine.
    pytest.mark.filterwarnings("default"),
]

DEVICE = "cuda"
ARCH = ArchConfig(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4), alpha=(0.5,) * 4)
TINY = ArchConfig(
    embed_dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), alpha=(0.5,) * 4, patch_size=2
)
PRECISIONS = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
    "amp-bf16": (torch.float32, torch.bfloat16),
    "amp-fp16": (torch.float32, torch.float16),
}
SIZES = [(32, 32), (33, 47), (75, 131)]


@pytest.fixture(autouse=True)
def started() -> None:
    """Memory can be asked for only when the device has been started."""
    torch.cuda.init()


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Float32 in full, without TF32 (convolutions use it by default)."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> CachedData:
    return prepare_data("digits", 16, cache_dir=tmp_path_factory.mktemp("digits"), emit=lambda event: None)


def wandering(arch: ArchConfig = ARCH) -> LITv2:
    """A network whose token merging samples off the grid."""
    torch.manual_seed(0)
    model = build_model(arch, num_classes=5)
    for module in model.modules():
        if isinstance(module, DeformConv):
            nn.init.normal_(module.conv_offset.weight, std=0.1)
    return model


def under(autocast: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(DEVICE, dtype=autocast) if autocast else contextlib.nullcontext()


def distance(seen: Tensor, expected: Tensor) -> float:
    """The greatest difference over the greatest value, computed on the CPU."""
    seen, expected = seen.detach().cpu().float(), expected.detach().cpu().float()
    return float((seen - expected).abs().max() / expected.abs().max())


# The network.


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_runs_forward_and_backward(precision, size, channels_last):
    dtype, autocast = PRECISIONS[precision]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = wandering().train().to(device=DEVICE, dtype=dtype, memory_format=layout)
    x_BCHW = torch.randn(4, 3, *size).to(device=DEVICE, dtype=dtype, memory_format=layout)
    with under(autocast):
        logits = model(x_BCHW)
    assert logits.shape == (4, 5)
    assert logits.dtype == (autocast or dtype)
    assert logits.isfinite().all()
    logits.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
@torch.no_grad()
def test_every_precision_stays_near_float32(exact_float32, precision, size):
    dtype, autocast = PRECISIONS[precision]
    model = wandering().eval().to(DEVICE)
    x_BCHW = torch.randn(2, 3, *size).to(DEVICE)
    expected = model(x_BCHW)
    with under(autocast):
        seen = copy.deepcopy(model).to(dtype)(x_BCHW.to(dtype))
    assert distance(seen, expected) < 0.1


@pytest.mark.parametrize("size", SIZES)
def test_float32_gives_what_the_cpu_gives(exact_float32, size):
    on_cpu = wandering().eval()
    on_device = copy.deepcopy(on_cpu).to(DEVICE)
    x_BCHW = torch.randn(3, 3, *size)
    expected, seen = on_cpu(x_BCHW), on_device(x_BCHW.to(DEVICE))
    assert distance(seen, expected) < 1e-3
    for logits in (expected, seen):
        logits.square().mean().backward()
    expected_P, seen_P = (
        torch.cat([parameter.grad.cpu().flatten() for parameter in model.parameters()]) for model in (on_cpu, on_device)
    )
    assert (seen_P - expected_P).norm() < 1e-2 * expected_P.norm()


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_the_classifier_gives_the_official_logits(exact_float32, name, is_prepared):
    case = GOLDEN[name]
    model = golden_model(case)
    model = prepare_for_inference(model, device=DEVICE) if is_prepared else model.to(DEVICE)
    assert distance(model(golden_input(case).to(DEVICE)), torch.tensor(case["logits"])) < 1e-4


# Its inference form.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_the_inference_form_stays_near_float32_in_every_precision(exact_float32, precision, size):
    dtype, autocast = PRECISIONS[precision]
    model = wandering().eval()
    x_BCHW = torch.randn(2, 3, *size)
    prepared = prepare_for_inference(model, device=DEVICE, precision=precision)
    assert ("columns=triton/1" in prepared.choices) == triton_kernels.is_available(DEVICE)
    with under(autocast):
        seen = prepared(x_BCHW.to(device=DEVICE, dtype=dtype))
    assert distance(seen, model(x_BCHW)) < (1e-3 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@torch.no_grad()
def test_the_inference_form_compiles_whole_and_gives_the_same(exact_float32, precision):
    dtype, _ = PRECISIONS[precision]
    prepared = prepare_for_inference(wandering().eval(), device=DEVICE, precision=precision, for_compile=True)
    x_BCHW = torch.randn(2, 3, 64, 64, device=DEVICE, dtype=dtype)
    compiled = torch.compile(prepared, fullgraph=True, dynamic=False)
    assert distance(compiled(x_BCHW), prepared(x_BCHW)) < (1e-3 if precision == "fp32" else 0.05)


@torch.no_grad()
def test_a_graph_holds_the_inference_form():
    prepared = prepare_for_inference(wandering().eval(), device=DEVICE, precision="fp16")
    x_BCHW = torch.randn(2, 3, 64, 64, device=DEVICE, dtype=torch.float16)
    expected = prepared(x_BCHW)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen = prepared(x_BCHW)
    graph.replay()
    torch.cuda.synchronize()
    assert distance(seen, expected) < 1e-3


# The proxy training.


def plan(**changes) -> ProxyPlan:
    return ProxyPlan(**{"img_size": 16, "batch_size": 32, "images": 6000, "hflip": False, **changes})


def train(
    data: CachedData, the_plan: ProxyPlan, arch: ArchConfig, events: list[Event], device: str = DEVICE
) -> ProxyScore:
    scored = score_network(
        emit=events.append,
        prepared={},
        subject={"arch": arch.to_dict()},
        plan=the_plan.to_dict(),
        data=data.to_dict(),
        seed=0,
        device=device,
    )
    return ProxyScore.from_dict(scored["score"])


@pytest.mark.parametrize("precision", PROXY_PRECISIONS)
def test_a_tiny_network_learns_the_digits(digits, precision):
    events: list[Event] = []
    score = train(digits, plan(precision=precision), TINY, events)
    assert score.value > 0.4  # chance is 0.1
    assert math.isfinite(score.loss)
    assert score.loss < math.log(10)
    assert (score.images_seen, score.micro_batch_size, score.device) == (6016, 32, DEVICE)
    seen = [event.images_seen for event in events if isinstance(event, TrainingProgressed)]
    assert seen[-1] == 6016
    assert not [event for event in events if isinstance(event, Notice)]


def test_a_training_begins_on_the_card_as_on_the_cpu(exact_float32, digits):
    losses = []
    for device in (DEVICE, "cpu"):
        events: list[Event] = []
        score = train(digits, plan(images=32), TINY, events, device=device)
        (first,) = {event.loss for event in events if isinstance(event, TrainingProgressed) and event.images_seen}
        losses.append((first, score.loss))
    # The same weights and images, shifted alike; then the same step.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-2)


def begin(data: CachedData, arch: ArchConfig, *, precision: str, **options: Any) -> Training:
    torch.manual_seed(0)
    model = build_subject({"arch": arch.to_dict()}, data.num_classes, 3)
    the_plan = plan(precision=precision)
    return Training(model, the_plan, data, seed=0, device=torch.device(DEVICE), emit=lambda event: None, **options)


def run(training: Training, steps: int) -> Training:
    until = training.images_seen + steps * training.plan.batch_size
    assert len(list(training.steps(until))) == steps
    return training


def gradient(training: Training) -> Tensor:
    return torch.cat([p.grad.flatten().double() for p in training.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("precision", PROXY_PRECISIONS)
def test_a_captured_pass_trains_as_the_plain_one(exact_float32, digits, precision):
    tolerance = 1e-3 if precision == "fp32" else 0.05
    trainings: list[Training] = []
    gradients: list[Tensor] = []

    def watch(part: str) -> contextlib.AbstractContextManager[object]:
        if part == "update":  # before they are clipped, or a wrong scale would not be seen
            gradients.append(gradient(trainings[-1]))
        return contextlib.nullcontext()

    for find in (lambda model, device: None, find_capture):
        trainings.append(begin(digits, TINY, precision=precision, watch=watch, find_capture=find))
        # The first pass is plain in both, so that the second begins alike.
        run(trainings[-1], 2)
    plain, captured = trainings
    assert (plain._graph, captured._graph is not None) == (None, True)
    expected, found = gradients[1], gradients[3]
    assert (found - expected).norm() < tolerance * expected.norm()
    seen = dict(captured.model.named_buffers())
    for name, value in plain.model.named_buffers():
        assert distance(seen[name], value) < tolerance, name
    assert captured.evaluate().loss == pytest.approx(plain.evaluate().loss, rel=tolerance)


def test_a_training_goes_on_with_a_new_graph_as_it_would_have(exact_float32, digits):
    whole, leg, rest = (begin(digits, TINY, precision="fp32") for _ in range(3))
    run(whole, 4)
    rest.load_state(copy.deepcopy(run(leg, 2).state()))
    run(rest, 2)
    assert rest._graph is not None
    assert (gradient(rest) - gradient(whole)).norm() < 1e-2 * gradient(whole).norm()
    assert rest.evaluate().loss == pytest.approx(whole.evaluate().loss, rel=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in ATTENTION_KINDS if kind != "none"])
def test_a_graph_holds_a_pass_through_every_kind_of_attention(digits, kind):
    arch = dataclasses.replace(TINY, attention=("none", "none", kind, kind), window_size=(1, 1, 2, 2))
    training = run(begin(digits, arch, precision="amp-bf16"), 4)
    assert training._graph is not None
    assert math.isfinite(training.evaluate().loss)


def test_the_loss_scale_comes_down_from_an_overflow_and_the_network_learns_after_it(digits):
    torch.manual_seed(0)
    model = build_subject({"arch": TINY.to_dict()}, digits.num_classes, 3)
    training = Training(
        model,
        plan(images=60 * 32, precision="amp-fp16"),
        digits,
        seed=0,
        device=torch.device(DEVICE),
        emit=lambda event: None,
    )
    assert training._scaler.is_enabled()
    training._scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**40)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    steps = training.steps(60 * 32)
    assert next(steps) == 32
    # The first step overflows: it is left out, and the next is tried at half the scale.
    assert training._scaler.get_scale() == 2.0**39
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert list(steps)[-1] == 60 * 32
    assert 1 <= training._scaler.get_scale() < 2.0**39
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert math.isfinite(training.evaluate().loss)


# Memory.


WIDE = ArchConfig(
    embed_dims=(64, 64, 128, 128), depths=(1, 1, 1, 1), num_heads=(2, 2, 4, 4), alpha=(0.5,) * 4, patch_size=1
)
"""About 2 MB of activations for an image of 16 pixels, so that 1,024 of them drown weights and workspaces."""


@contextlib.contextmanager
def at_most_bytes(limit: int) -> Iterator[None]:
    """Lets torch's allocator take so much of the card and no more."""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_is_halved_and_the_budget_is_kept(digits):
    the_plan = plan(images=2048, batch_size=1024)
    torch.cuda.reset_peak_memory_stats()
    whole = train(digits, the_plan, WIDE, [])
    assert whole.micro_batch_size == 1024
    peak = torch.cuda.max_memory_allocated()
    events: list[Event] = []
    with at_most_bytes(int(0.7 * peak)):
        cramped = train(digits, the_plan, WIDE, events)
    assert 1 <= cramped.micro_batch_size < 1024
    assert cramped.images_seen == 2048
    assert math.isfinite(cramped.loss)
    notices = [event for event in events if isinstance(event, Notice)]
    assert notices
    assert all(notice.level == "warning" and notice.text.startswith("memory ran out in") for notice in notices)
    assert train(digits, the_plan, WIDE, []).micro_batch_size == 1024


def test_a_network_that_does_not_fit_at_all_is_told_by_its_own_error(digits):
    huge = ArchConfig(embed_dims=(256, 512, 1024, 2048), depths=(1, 1, 1, 1), num_heads=(8, 8, 8, 8), patch_size=2)
    torch.cuda.empty_cache()
    with at_most_bytes(torch.cuda.memory_reserved() + 2**21), pytest.raises(OutOfMemoryError, match="memory ran out"):
        train(digits, plan(images=32), huge, [])
    assert train(digits, plan(images=32), TINY, []).images_seen == 32


def test_a_training_gives_its_memory_back(digits):
    the_plan = plan(images=2048, batch_size=1024)
    train(digits, the_plan, WIDE, [])  # what libraries keep for themselves is there after the first
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    train(digits, the_plan, WIDE, [])
    assert torch.cuda.max_memory_reserved() > reserved + 100 * 2**20
    assert torch.cuda.memory_allocated() <= allocated + 2**20
    assert torch.cuda.memory_reserved() <= reserved + 64 * 2**20
