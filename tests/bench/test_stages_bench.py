"""Where a network's time goes: parts that make up the whole, floors that follow from what the device does at best."""

import json

import pytest
import torch
from builders import demo_records, write_study

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import PARTS, count_macs, count_parts
from hilo_nas.bench.stages.device_rates import build_copy, build_product
from hilo_nas.bench.stages.stages_bench import StagesPlan, run_stages
from hilo_nas.bench.stages.stages_report import report_stages
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.report import render_csv, render_markdown

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
    assert lines[0] == (
        "network must be STUDY:TRIAL, an architecture's .yaml file or litv2_small, litv2_medium, litv2_base, but got "
        "'resnet50'"
    )
    assert lines[1] == "precision must be one of fp32, bf16, fp16, but got 'amp-bf16'"
    assert lines[2] == "seconds must be above 0, but got 0"
    with pytest.raises(UsageError, match="must be a LITv2, but timm:resnet18 is not"):
        StagesPlan(network="timm:resnet18")
    with pytest.raises(UsageError, match="at least 32 pixels"):
        StagesPlan(img_size=16)


@torch.inference_mode()
def test_the_product_and_the_copy_do_what_they_say():
    product = build_product(side=64, device="cpu", precision="fp32", num_classes=10, in_chans=3)
    assert product(None).shape == (64, 64)
    copy = build_copy(n_bytes=4096, device="cpu", num_classes=10, in_chans=3)
    assert torch.equal(copy(None), copy.x)
    assert copy.x.numel() * 4 == 4096


def test_a_trial_and_a_file_can_be_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    record = next(record for record in write_study(tmp_path, "demo", demo_records()).records if record.number == 3)
    assert StagesPlan(network="demo:3", img_size=32).arch == record.subject.arch
    (tmp_path / "arch.yaml").write_text(json.dumps(record.subject.arch.to_dict()))
    assert StagesPlan(network=str(tmp_path / "arch.yaml"), img_size=32).arch.key() == record.key
