"""Where a network's time goes: parts that make up the whole, floors that follow from what the device does at best."""

import pytest
import torch

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import PARTS, count_macs, count_parts
from hilo_nas.bench.stages.stage_parts import build_copy, build_part, build_product
from hilo_nas.bench.stages.stages_bench import StagesPlan, run_stages
from hilo_nas.bench.stages.stages_report import report_stages
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.measurement import Condition
from hilo_nas.models import build_model, fill_zero_weights
from hilo_nas.report import render_csv, render_markdown
from hilo_nas.timing.prepared_network import prepare

PLAN = StagesPlan(device="cpu", batch_size=2)
MACS_PER_S = 5e10
BYTES_PER_S = 2e10


def seconds_of(name, entrant):
    """A device that reaches half of its rates in every stage, and a tenth in the head."""
    if name == "product":
        return 2048**3 / MACS_PER_S
    if name == "copy":
        return 2**28 / BYTES_PER_S
    if name == "whole":
        return 2 * 2 * count_macs(PRESETS["litv2_small"], 224) / MACS_PER_S
    if name == "head":
        return 0.01
    return 2 * 2 * count_parts(PRESETS["litv2_small"], 224)[name].macs / MACS_PER_S


def bench(evaluator, path, **options):
    fake = evaluator(seconds_of, **options)
    return run_stages(PLAN, lambda event: None, logs=path, evaluator=fake), fake.answers


def test_parts_whole_product_and_copy_share_their_rounds(evaluator, tmp_path):
    _, fake = bench(evaluator, tmp_path)
    assert fake.cohorts == [[*PARTS, "product", "copy", "whole"]]


def test_shares_of_the_floor_follow_from_the_devices_own_rates(evaluator, tmp_path):
    findings, _ = bench(evaluator, tmp_path)
    assert findings.macs_per_s == pytest.approx(MACS_PER_S)
    assert findings.bytes_per_s == pytest.approx(BYTES_PER_S)
    rows = {row["part"]: row for row in findings.list_rows()}
    assert list(rows) == [*PARTS, "all parts", "the network"]
    for stage in PARTS[1:-1]:
        assert rows[stage]["bound"] == "products"
        assert rows[stage]["share_of_floor"] == pytest.approx(0.5)
        assert rows[stage]["share_of_floor_low"] <= 0.5 + 1e-9
    assert rows["head"]["bound"] == "memory"  # a batch of two hardly uses the classifier's weights
    weights = 4 * (2 * 768 + 769 * 1000)
    traffic = weights + 2 * 4 * (7 * 7 * 768 + 1000)
    assert rows["head"]["mib"] == pytest.approx(traffic / 2**20)
    assert rows["head"]["share_of_floor"] == pytest.approx(traffic / BYTES_PER_S / 0.01)
    assert sum(rows[part]["share_of_time"] for part in PARTS) == pytest.approx(1)
    assert rows["all parts"]["mmacs"] == pytest.approx(2 * count_macs(PRESETS["litv2_small"], 224) / 1e6)


def test_a_part_that_fails_leaves_the_others(evaluator, tmp_path):
    out = OutOfMemoryError("does not fit")
    findings, _ = bench(evaluator, tmp_path, failing=lambda name: out if name == "stage 3" else None)
    rows = {row["part"]: row for row in findings.list_rows()}
    assert rows["stage 3"]["verdict"] == "failed"
    assert rows["stage 3"]["failure"] == "does not fit"
    assert rows["stage 2"]["share_of_floor"] == pytest.approx(0.5)
    assert rows["all parts"]["time_ms"] is None
    # Half of the rate, but for the head's time: the failed part's floor is the network's all the same.
    assert rows["the network"]["share_of_floor"] == pytest.approx(0.5, rel=0.01)
    report = report_stages(findings, "hilo-nas bench stages")
    assert report.failures == {"stage 3": "does not fit"}


@pytest.mark.parametrize("name", ["product", "copy"])
def test_without_the_devices_rates_there_is_nothing_to_say(evaluator, tmp_path, name):
    with pytest.raises(MeasurementError, match=f"the {name} .*: no room"):
        bench(evaluator, tmp_path, failing=lambda own: OutOfMemoryError("no room") if own == name else None)


def test_the_report_says_what_the_device_does_at_best(evaluator, tmp_path):
    findings, _ = bench(evaluator, tmp_path)
    report = report_stages(findings, "hilo-nas bench stages --device cpu")
    text = render_markdown(report)
    assert "50 billion multiply-adds per s" in text
    assert "| stage 3 |" in text
    assert "share_of_floor_low" in render_csv(report.tables[0])


def test_all_faults_of_a_plan_are_reported_at_once():
    with pytest.raises(UsageError) as caught:
        StagesPlan(network="resnet50", precision="amp-bf16", seconds=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "network must be one of litv2_small, litv2_medium, litv2_base, but got 'resnet50'"
    assert lines[1] == "precision must be one of fp32, bf16, fp16, but got 'amp-bf16'"
    assert lines[2] == "seconds must be above 0, but got 0"
    with pytest.raises(UsageError, match="at least 32 pixels"):
        StagesPlan(img_size=16)


@torch.no_grad()
def test_parts_put_together_are_the_network():
    """Each part runs on a fixed input. On the outputs of the previous part, the parts give the network's output."""
    arch = PRESETS["litv2_small"]
    images = torch.randn(1, 3, 64, 64)
    torch.manual_seed(1)
    network = build_model(arch, num_classes=10).eval()
    fill_zero_weights(network)
    common = {"arch": arch.to_dict(), "batch_size": 1, "img_size": 64, "device": "cpu", "precision": "fp32"}
    y = images
    for part in PARTS:
        torch.manual_seed(1)
        module = build_part(part=part, num_classes=10, in_chans=3, **common)
        assert module.x.shape == y.shape
        module.x = y
        y = module(None)
    expected = network(images)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.inference_mode()
def test_the_product_and_the_copy_do_what_they_say():
    product = build_product(side=64, device="cpu", precision="fp32", num_classes=10, in_chans=3)
    assert product(None).shape == (64, 64)
    copy = build_copy(n_bytes=4096, device="cpu", num_classes=10, in_chans=3)
    assert torch.equal(copy(None), copy.x)
    assert copy.x.numel() * 4 == 4096


def test_parts_are_timed_in_the_layout_that_the_network_has_them_in():
    subject = {
        "function": "hilo_nas.bench.stages.stage_parts:build_part",
        "arguments": {
            "part": "stage 2",
            "arch": PRESETS["litv2_small"].to_dict(),
            "batch_size": 2,
            "img_size": 32,
            "device": "cpu",
            "precision": "fp32",
        },
    }
    with torch.inference_mode():
        found = prepare(subject, Condition(batch_size=2, img_size=32), num_classes=10)
        assert found.call().is_contiguous(memory_format=torch.channels_last)
    assert "batchnorms=folded" in found.form.split()
    module = build_part(num_classes=10, in_chans=3, **subject["arguments"])
    moved = module.to(memory_format=torch.contiguous_format)
    assert moved.x.is_contiguous(memory_format=torch.channels_last)
    offsets = moved.part.downsample.conv_offset.weight
    assert offsets.is_contiguous(memory_format=torch.channels_last)
