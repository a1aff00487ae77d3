from __future__ import annotations

import contextlib
import gc
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from proxy.layers import Linear
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import HiloNasError, OutOfMemoryError, UsageError
from hilo_nas.events import Notice, TrainingProgressed, TrainingStarted
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.models import LITv2, build_model, build_subject
from hilo_nas.proxy.batches import Augmenter, ImageSet, Sampler, image_statistics
from hilo_nas.proxy.graph import GradientGraph, Pass, find_capture
from hilo_nas.proxy.micro_batches import MicroBatch
from hilo_nas.proxy.score import HeldOutResult, drop_error, predict, score_balanced, score_likelihood, score_top1
from hilo_nas.proxy.train import Training
from hilo_nas.proxy.worker_calls import score_network

CPU = torch.device("cpu")
TINY = {
    "arch": {"embed_dims": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "patch_size": 2},
}


def plan(**changes):
    return ProxyPlan(**{"img_size": 16, "batch_size": 32, "images": 256, "hflip": False, **changes})


def score(data, the_plan, seed=0, subject=TINY, emit=lambda event: None):
    return score_network(
        emit=emit, subject=subject, plan=the_plan.to_dict(), data=data.to_dict(), prepared={}, seed=seed, device="cpu"
    )["score"]


def comparable(fields):
    return {name: value for name, value in fields.items() if name not in ("seconds", "scored_at")}


def train(model, data, the_plan, emit=lambda event: None):
    training = Training(model, the_plan, data, seed=0, device=CPU, emit=emit)
    seen = list(training.steps(the_plan.budgets[-1]))
    return training, seen


# The whole training.


def test_a_tiny_network_learns_the_digits(digits16):
    fields = score(digits16, plan(images=6000))
    assert fields["value"] > 0.6
    assert fields["loss"] < math.log(10) * 0.7
    assert fields["n_val"] == 359


def test_a_score_is_plain_data_with_everything_that_it_must_tell(digits16):
    the_plan = plan(images=100)
    fields = json.loads(json.dumps(score(digits16, the_plan, seed=3), allow_nan=False))
    result = ProxyScore.from_dict(fields)
    assert result.plan_hash == the_plan.hash(digits16.content_hash)
    assert (result.images_seen, result.seed, result.device, result.micro_batch_size) == (128, 3, "cpu", 32)
    assert result.seeds == 1
    assert {"torch", "timm"} <= set(result.versions)
    assert result.scored_at.endswith("+00:00")


def test_a_training_may_be_scored_by_its_likelihood(digits16):
    found = score(digits16, plan(images=64, metric="likelihood"))
    assert found["metric"] == "likelihood"
    assert found["value"] == math.exp(-found["loss"])
    assert 0 < found["standard_error"] < 0.1


def test_the_same_seed_gives_the_same_score_and_another_seed_another(digits16):
    first, again, other = (comparable(score(digits16, plan(), seed=seed)) for seed in (5, 5, 6))
    assert first == again
    assert first["loss"] != other["loss"]


def test_a_neighbour_from_timm_is_trained_likewise(digits16):
    fields = score(digits16, plan(images=40, batch_size=20), subject={"timm": "resnet10t"})
    assert 0 <= fields["value"] <= 1


def test_reduced_precision_trains_too(digits16):
    assert math.isfinite(score(digits16, plan(images=64, precision="amp-bf16"))["loss"])


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_quantized_score_has_the_float_value_of_the_same_training(digits16, runtime):
    for library in {"openvino": ("openvino", "nncf"), "onnxruntime": ("onnxruntime", "onnxscript")}[runtime]:
        pytest.importorskip(library)
    in_float = score(digits16, plan(images=1024))
    in_int8 = score(digits16, plan(images=1024, int8_runtime=runtime, int8_version=INT8_VERSION))
    assert in_int8["float_value"] == in_float["value"]
    assert abs(in_int8["value"] - in_float["value"]) < 0.1
    assert in_int8["loss"] != in_float["loss"]
    assert 0 < in_int8["drop_error"] < in_int8["standard_error"]
    assert in_int8["plan_hash"] != in_float["plan_hash"]


def test_a_quantized_score_names_the_layers_that_stayed_in_float(digits16):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    quantized = plan(images=64, int8_runtime="onnxruntime", int8_version=INT8_VERSION)
    assert tuple(score(digits16, quantized, subject={"layer": "proxy.layers:Outliers"})["float_layers"]) == ("fc1",)
    assert not score(digits16, quantized)["float_layers"]


def test_a_plan_of_another_quantization_is_not_scored(digits16):
    with pytest.raises(UsageError, match=f"version '{INT8_VERSION}' of the quantization to INT8, but has '1'"):
        score(digits16, plan(images=64, int8_runtime="onnxruntime"))


def test_only_a_training_is_scored_in_int8():
    with pytest.raises(UsageError, match="int8_runtime needs a proxy that trains, but the proxy is params"):
        plan(proxy="params", images=1, recipe="formula-1", int8_runtime="openvino")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_converts_the_weights_is_refused(precision):
    with pytest.raises(UsageError, match=f"one of fp32, amp-bf16, amp-fp16, but got '{precision}'"):
        plan(precision=precision)


def test_no_more_images_are_held_out_than_the_plan_says(digits16):
    assert score(digits16, plan(images=32))["n_val"] == pytest.approx(0.2 * 1797, abs=10)
    assert score(digits16, plan(images=32, val_images=100))["n_val"] == pytest.approx(100, abs=10)


@pytest.mark.parametrize("change", [{"recipe": "sgd-7"}, {"img_size": 32}])
def test_a_plan_of_another_recipe_or_size_is_refused(digits16, change):
    with pytest.raises(UsageError):
        score(digits16, plan(**change))


def test_validation_data_of_its_own_is_scored_by_class_name(prepare, images):
    folder = images.folder("pets", {"cats": 9, "dogs": 9, "eels": 9}, size=(16, 16))
    other = images.folder("more", {"dogs": 4, "eels": 5}, seed=1, size=(16, 16))
    data = prepare(folder, img_size=16, val_data=other)
    training = Training(Linear(), plan(), data, seed=0, device=CPU, emit=lambda event: None)
    assert np.bincount(training.evaluate().labels).tolist() == [0, 4, 5]


def test_progress_is_told_up_to_the_end(digits16):
    events = []
    score(digits16, plan(images=300), emit=events.append)
    started, *progressed = events
    assert isinstance(started, TrainingStarted)
    assert all(isinstance(event, TrainingProgressed) for event in progressed)
    assert {event.images_total for event in events} == {320}
    seen = [event.images_seen for event in events]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[-1] == 320


def test_a_diverged_training_is_an_error_and_no_score(digits16):
    model = Linear()
    nn.init.constant_(model.fc.weight, math.inf)
    with pytest.raises(HiloNasError, match="diverged"):
        train(model, digits16, plan())


# Budget and batches.


@pytest.mark.parametrize(("images", "batch_size"), [(1, 32), (31, 32), (33, 32), (100, 7), (3000, 64)])
def test_every_batch_is_full_and_none_is_drawn_beyond_the_budget(digits16, images, batch_size):
    model = Linear()
    training, seen = train(model, digits16, plan(images=images, batch_size=batch_size))
    assert set(model.seen_in_training) == {batch_size}
    assert seen == [batch_size * (i + 1) for i in range(len(model.seen_in_training))]
    assert seen[-1] == training.images_seen == sum(model.seen_in_training)
    assert 0 <= seen[-1] - images < batch_size


def test_every_image_is_drawn_once_before_any_comes_again():
    places = np.array([3, 5, 8, 9, 11])
    sampler = Sampler(places, torch.Generator().manual_seed(0))
    drawn = torch.cat([sampler.draw(count) for count in (2, 7, 6)]).tolist()
    epochs = [drawn[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == places.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_held_out_images_are_never_trained_on(digits16):
    training = Training(Linear(), plan(images=1), digits16, seed=0, device=CPU, emit=lambda event: None)
    trained = set(training._sampler.draw(1797 - 359).tolist())
    assert len(trained) == 1797 - 359
    assert not trained & set(training._val_places.tolist())


def test_a_set_too_large_for_the_device_gives_the_same_batches(digits16):
    places = torch.tensor([7, 3, 1700])
    whole, mapped = (ImageSet(Path(digits16.path), CPU, digits16.class_names, max_mib=size) for size in (2048, 0))
    for ours, theirs in zip(whole.take(places), mapped.take(places), strict=True):
        assert torch.equal(ours, theirs)


def whole_statistics(images: ImageSet, places: np.ndarray) -> tuple[Tensor, Tensor]:
    """All pixels at once, as they are defined."""
    pixels_PC = images.take(torch.from_numpy(places))[0].flatten(0, 2).double() / 255
    return pixels_PC.mean(0).float(), pixels_PC.std(0).float().clamp(min=1e-3)


@pytest.mark.parametrize("at_once", [1, 100, 256, 10_000])
def test_statistics_in_chunks_are_those_of_all_pixels_at_once(digits16, at_once):
    images = ImageSet(Path(digits16.path), CPU, digits16.class_names)
    # Chunks of unlike content: the channels differ, and the images grow brighter.
    brightness = torch.linspace(0, 1, len(images.labels))[:, None, None, None]
    images._images_NSSC = (images._images_NSSC * brightness * torch.tensor([1.0, 0.5, 0.0])).to(torch.uint8)
    places = np.arange(3, 1797, 2)
    seen = image_statistics(images, places, at_once=at_once)
    for ours, expected in zip(seen, whole_statistics(images, places), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_statistics_look_at_an_even_choice_and_never_at_many_images_at_once(digits16):
    taken = []

    class Watched(ImageSet):
        def take(self, places):
            taken.append(len(places))
            return super().take(places)

    images = Watched(Path(digits16.path), CPU, digits16.class_names)
    image_statistics(images, np.arange(1797), at_most=700)
    assert (max(taken), sum(taken)) == (256, 599)


# Augmentation.


def ramp(count: int) -> Tensor:
    """Images of 16 pixels whose value is their column."""
    return torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(count, 16, 16, 3)


def augmenter(hflip: bool) -> Augmenter:
    return Augmenter(torch.zeros(3), torch.ones(3) / 255, hflip, torch.Generator().manual_seed(0))


def test_images_are_shifted_by_an_eighth_at_most_and_the_edge_is_repeated():
    shifted = augmenter(hflip=False).train(ramp(200))
    assert shifted.shape == (200, 3, 16, 16)
    offsets = shifted[:, 0, 0, 8] - 8
    assert set(offsets.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    expected = (torch.arange(16) + offsets[:, None]).clamp(0, 15)
    assert torch.equal(shifted[:, 1, 7], expected)


def test_images_are_mirrored_half_the_time_where_that_is_allowed():
    mirrored = augmenter(hflip=True).train(ramp(400))
    share = float((mirrored[:, 0, 0, 0] > mirrored[:, 0, 0, 15]).float().mean())
    assert 0.4 < share < 0.6


def test_scored_images_are_normalised_and_nothing_else():
    prepared = Augmenter(torch.tensor([0.5] * 3), torch.tensor([0.25] * 3), True, torch.Generator()).plain(ramp(1))
    assert torch.allclose(prepared[0, 0, 0], (torch.arange(16) / 255 - 0.5) / 0.25)


# Memory.


@pytest.mark.parametrize("message", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory: 3 bytes"])
def test_smaller_pieces_after_out_of_memory_give_the_same_weights(digits16, message):
    events = []
    the_plan = plan(images=120, batch_size=30)
    roomy, cramped = Linear(), Linear(limit=8, message=message)
    train(roomy, digits16, the_plan)
    training, seen = train(cramped, digits16, the_plan, emit=events.append)
    assert training.micro_batch.size == 7
    assert seen[-1] == 120
    assert max(cramped.seen_in_training) == 7
    notices = [event for event in events if isinstance(event, Notice)]
    assert [notice.level for notice in notices] == ["warning", "warning"]
    assert "7 images" in notices[1].text
    assert "batch norm" in notices[1].text
    assert torch.allclose(roomy.fc.weight, cramped.fc.weight, rtol=0, atol=1e-10)
    assert training.evaluate().loss == pytest.approx(train(Linear(), digits16, the_plan)[0].evaluate().loss, abs=1e-6)


@pytest.mark.slow
def test_a_lack_of_memory_in_scoring_leaves_the_steps_as_they_were(digits16):
    events = []
    the_plan = plan(images=96)
    training = Training(Linear(limit_in_scoring=5), the_plan, digits16, seed=0, device=CPU, emit=events.append)
    for _ in training.steps(64):
        assert training.evaluate().loss > 0
    assert list(training.steps(96)) == [96]
    assert training.model.seen_in_training == [32, 32, 32]
    assert training.micro_batch.size == 32
    texts = [event.text for event in events if isinstance(event, Notice)]
    assert all(f"{size} images" in text for size, text in zip((16, 8, 4), texts, strict=False))


@pytest.mark.slow
def test_out_of_memory_with_a_single_image_is_the_end(digits16):
    with pytest.raises(OutOfMemoryError, match="with a single image"):
        train(Linear(limit=0), digits16, plan())


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    found = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert {name.rpartition(".")[2] for name in found} == {"running_mean", "running_var", "num_batches_tracked"}
    return found


def one_step(data, *, fail_in_call: int | None, micro_batch_size: int) -> Training:
    """A training after one update of 24 images; memory runs out once, behind the batch norms of one forward pass."""
    torch.manual_seed(0)
    model = build_subject(TINY, data.num_classes, 3)
    training = Training(model, plan(images=24, batch_size=24), data, seed=0, device=CPU, emit=lambda event: None)
    training.micro_batch.size = micro_batch_size
    calls = []

    def fail(module, args, output):
        calls.append(len(args[0]))
        if len(calls) == fail_in_call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model.register_forward_hook(fail)
    assert list(training.steps(24)) == [24]
    return training


@pytest.mark.parametrize(("micro_batch_size", "fail_in_call"), [(24, 1), (12, 1), (12, 2)])
def test_an_attempt_that_ran_out_of_memory_leaves_no_trace_in_the_running_statistics(
    digits16, micro_batch_size, fail_in_call
):
    retried = one_step(digits16, fail_in_call=fail_in_call, micro_batch_size=micro_batch_size)
    smooth = one_step(digits16, fail_in_call=None, micro_batch_size=micro_batch_size // 2)
    assert retried.micro_batch.size == smooth.micro_batch.size
    expected = running_statistics(smooth.model)
    for name, value in running_statistics(retried.model).items():
        assert torch.equal(value, expected[name]), name
    for ours, theirs in zip(retried.model.parameters(), smooth.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# A graph of the pass, for which a plain repetition stands here; tests/gpu has the real one.


class Repetition:
    """Captures a pass by calling it a few times for nothing, and repeats it by calling it again for every batch."""

    def __init__(self, has_room: bool = True) -> None:
        self.has_room, self.made = has_room, 0

    def __call__(self, backward: Pass, inputs: Tensor, labels: Tensor) -> Pass:
        self.made += 1
        for _ in range(3):
            backward(torch.ones_like(inputs), labels)
        if not self.has_room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return backward


def train_captured(data, capture: Repetition | None, limit: int = 10**9) -> tuple[Training, list[Notice]]:
    """A training after three updates of 24 images; memory holds at most `limit` images at once."""
    torch.manual_seed(0)
    model = build_subject(TINY, data.num_classes, 3)

    def fail(module, args, output):
        if len(args[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model.register_forward_hook(fail)
    events = []
    training = Training(
        model,
        plan(images=72, batch_size=24),
        data,
        seed=0,
        device=CPU,
        emit=events.append,
        find_capture=lambda model, device: capture,
    )
    assert list(training.steps(72)) == [24, 48, 72]
    return training, [event for event in events if isinstance(event, Notice)]


def assert_same_network(ours: Training, theirs: Training) -> None:
    expected = theirs.model.state_dict()
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_making_a_graph_leaves_no_trace(digits16):
    repetition = Repetition()
    plain, _ = train_captured(digits16, None)
    captured, _ = train_captured(digits16, repetition)
    assert repetition.made == 1
    assert_same_network(captured, plain)


def test_a_graph_without_room_costs_nothing_else(digits16):
    repetition = Repetition(has_room=False)
    plain, _ = train_captured(digits16, None)
    captured, notices = train_captured(digits16, repetition)
    assert repetition.made == 1  # it is not tried again
    assert (captured.micro_batch.size, notices) == (24, [])
    assert_same_network(captured, plain)


def test_a_batch_without_room_is_cut_and_not_captured(digits16):
    repetition = Repetition()
    plain, _ = train_captured(digits16, None, limit=12)
    captured, notices = train_captured(digits16, repetition, limit=12)
    assert repetition.made == 0
    assert (captured.micro_batch.size, len(notices)) == (12, 1)
    assert_same_network(captured, plain)


def test_a_training_that_goes_on_with_smaller_pieces_lets_go_of_its_graph(digits16):
    training, _ = train_captured(digits16, Repetition())
    assert training._graph is not None
    training.load_state({**training.state(), "micro_batch_size": 12})
    assert list(training.steps(96)) == [96]
    assert training._graph is None


@pytest.mark.parametrize(
    ("build", "can_be_held"),
    [
        (lambda: build_model(ArchConfig.from_dict(TINY["arch"])), True),
        (lambda: build_model(ArchConfig.from_dict(TINY["arch"]), drop_path_rate=0.1), False),
        (lambda: LITv2(**TINY["arch"], drop_rate=0.5), False),
        (lambda: nn.Linear(2, 2), False),
    ],
)
def test_a_graph_is_for_a_litv2_without_dropout(build, can_be_held):
    assert (find_capture(build(), torch.device("cuda")) is GradientGraph) == can_be_held
    assert find_capture(build(), CPU) is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({}, None), ({"weight": math.inf}, "diverged"), ({"limit": 0}, "with a single image")],
    ids=str,
)
def test_the_network_is_gone_at_the_end_even_while_the_error_is_looked_at(digits16, arguments, error):
    subject = {"layer": "proxy.layers:Linear", "arguments": arguments}
    expected = pytest.raises(HiloNasError, match=error) if error else contextlib.nullcontext()
    with expected as caught:
        score(digits16, plan(), subject=subject)
    gc.collect()
    assert Linear.built[-1]() is None, caught


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(size):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        MicroBatch(8, lambda event: None).run(work, what="a test", effect="None.")


# Scores.


@pytest.mark.parametrize("seed", range(5))
def test_the_balanced_score_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(6, size=60, p=[0.5, 0.2, 0.1, 0.1, 0.1, 0.0])
    predictions = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 5, 60))
    result = HeldOutResult(labels=labels, predictions=predictions, losses=np.ones(len(labels)))
    assert score_balanced(result)[0] == pytest.approx(balanced_accuracy_score(labels, predictions))


@pytest.mark.parametrize("score_of", [score_top1, score_balanced])
def test_the_standard_error_is_what_repeated_draws_show(score_of):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [150, 50])
    found = np.where(labels == 0, 0.9, 0.6)
    draws = [
        score_of(
            HeldOutResult(
                labels=labels, predictions=np.where(rng.random(200) < found, labels, 2), losses=np.ones(len(labels))
            )
        )
        for _ in range(2000)
    ]
    scores, errors = np.array(draws).T
    # The binomial error of the pooled share counts the classes' difference in; it lies a little above the true spread.
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.12)


@pytest.mark.parametrize("metric", ["top1", "balanced", "likelihood"])
def test_the_error_of_a_drop_is_what_repeated_draws_of_images_show(metric):
    rng = np.random.default_rng(0)
    score_of = {"top1": score_top1, "balanced": score_balanced, "likelihood": score_likelihood}[metric]
    labels = np.repeat([0, 1, 2], [300, 200, 100])
    draws = []
    for _ in range(1000):
        before = np.where(rng.random(600) < 0.7, labels, (labels + 1) % 3)
        after = np.where(rng.random(600) < 0.1, (labels + 2) % 3, before)  # one in ten images changes
        losses = rng.exponential(1.0, 600)
        pair = (
            HeldOutResult(labels=labels, predictions=before, losses=losses),
            HeldOutResult(labels=labels, predictions=after, losses=losses + rng.exponential(0.1, 600)),
        )
        draws.append((score_of(pair[0])[0] - score_of(pair[1])[0], drop_error(metric, *pair)))
    drops, errors = np.array(draws).T
    assert np.mean(errors) == pytest.approx(np.std(drops), rel=0.12)


def test_equal_results_have_no_error_of_their_difference():
    same = HeldOutResult(labels=np.array([0, 1]), predictions=np.array([0, 0]), losses=np.array([0.1, 2.0]))
    assert drop_error("top1", same, same) == 0


class Stored:
    """Images that are their own logits, (N, C)."""

    def __init__(self, logits, labels):
        self.logits, self.labels = logits, labels

    def take(self, places):
        return self.logits[places], self.labels[places]


def look(logits, labels):
    micro_batch = MicroBatch(7, lambda event: None)
    places = np.arange(len(labels))
    return predict(torch.nn.Identity(), lambda stored: stored, Stored(logits, labels), places, micro_batch)


def test_the_likelihood_is_the_geometric_mean_of_the_true_classs_probability():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 4, generator=generator), torch.randint(4, (50,), generator=generator)
    found = torch.softmax(logits.double(), 1)[torch.arange(50), labels]
    value, _ = score_likelihood(look(logits, labels))
    assert value == pytest.approx(float(found.prod() ** (1 / 50)))
    guessing, error = score_likelihood(look(torch.zeros(50, 4), labels))
    assert (guessing, error) == (pytest.approx(1 / 4), pytest.approx(0))


def test_the_likelihoods_standard_error_is_what_repeated_draws_show():
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(500):
        labels = torch.randint(4, (200,), generator=generator)
        logits = torch.randn(200, 4, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 4)
        draws.append(score_likelihood(look(logits, labels)))
    scores, errors = np.array(draws).T
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.1)
