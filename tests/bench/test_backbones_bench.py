import dataclasses

import pytest
from builders import build_condition, build_measurement

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import NetworkCost, count_macs, count_params
from hilo_nas.bench.backbones.backbones_bench import BackbonesPlan, group_networks, run_backbones
from hilo_nas.bench.backbones.backbones_report import report_backbones
from hilo_nas.bench.backbones.forms import NetworkForms, choose_form, list_forms, name_form
from hilo_nas.bench.backbones.known_backbones import BACKBONES, BASE, choose_backbones
from hilo_nas.errors import ConversionError, MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.evaluation import Runtimes
from hilo_nas.events import BenchStepped, Notice
from hilo_nas.report import render_markdown

SECONDS = {"litv2_small": 0.02, "resnet50": 0.03, "repvit_m1_1": 0.01}
IN_RUNTIMES = {"litv2_small": (1.2, 1.1), "resnet50": (1.5, 2.0), "repvit_m1_1": (0.9, 0.8)}
"""How many times as fast as plain torch each network is in ONNX Runtime and in OpenVINO."""


def seconds_of(name, entrant):
    """RepViT gains most from fusing, ResNet-50 a little from channels-last; nothing gains from both."""
    subject, condition = entrant.subject, entrant.condition
    network = subject.get("timm", "litv2_small")
    seconds = SECONDS[network]
    if condition.runtime != "torch":
        return seconds / IN_RUNTIMES[network][("onnxruntime", "openvino").index(condition.runtime)]
    if network == "repvit_m1_1" and condition.fused:
        seconds /= 1.3
    if network == "resnet50" and condition.channels_last:
        seconds /= 1.1
    return seconds / (2.0 if condition.compile else 1.0)


def count(subject):
    """Returns what no formula knows."""
    if subject["timm"] == "repvit_m1_1":
        raise OutOfMemoryError("no room to count")
    return NetworkCost(macs=4_089_184_256, parameters=25_557_032)


@pytest.fixture
def run(evaluator, planted_machine, tmp_path):
    """Runs the bench on a fake evaluator."""

    def bench(*, failing=lambda name: None, missing=None, **fields):
        plan = BackbonesPlan(**{"device": "cpu", "networks": ("resnet50", "repvit_m1_1"), **fields})
        quiet = planted_machine(noise=0.005)
        fake = evaluator(seconds_of, machine=lambda: quiet, failing=failing, count=count, missing=missing)
        events = []
        findings = run_backbones(plan, events.append, logs=tmp_path, evaluator=fake)
        return plan, findings, events, fake.answers

    return bench


def test_each_network_runs_plain_and_in_its_best_form(run):
    _, findings, _, fake = run()
    rows = {row["network"]: row for row in findings.list_rows()}
    assert {name: row["form"] for name, row in rows.items()} == {
        "litv2_small": "plain",
        "resnet50": "channels_last",
        "repvit_m1_1": "fused",
    }
    assert rows["repvit_m1_1"]["gain"] == pytest.approx(1.3, rel=0.01)
    assert (rows["repvit_m1_1"]["gain_is_paired"], rows["litv2_small"]["gain"]) == (True, 1.0)
    # Three heats of four forms (a fused LITv2 has one layout), then one cohort: a network that is best as it comes
    # runs once in it.
    assert [len(names) for names in fake.cohorts] == [3, 4, 4, 5]
    assert fake.cohorts[-1][0] == "litv2_small plain"


def test_ratios_are_best_to_best_and_plain_to_plain_in_the_same_rounds(run):
    _, findings, _, _ = run()
    rows = {row["network"]: row for row in findings.list_rows()}
    assert rows["resnet50"]["ratio"] == pytest.approx(0.02 / 0.03 * 1.1, rel=0.01)
    assert rows["resnet50"]["plain_ratio"] == pytest.approx(0.02 / 0.03, rel=0.01)
    assert all(row["ratio_is_paired"] and row["plain_ratio_is_paired"] for row in rows.values())
    assert (rows["litv2_small"]["ratio"], rows["litv2_small"]["group"]) == (1.0, 1)


def test_the_papers_ratio_is_compared_with_ours(run):
    _, findings, _, _ = run()
    (line,) = findings.list_headlines()
    assert line.startswith("LITv2-S over ResNet-50: 1.5")
    assert line.endswith("1.32 (A100), 1.16 (V100), 1.06 (RTX 6000), 1.15 (RTX 3090)")
    _, findings, _, _ = run(networks=("repvit_m1_1",))
    assert findings.list_headlines() == []


def test_compiled_forms_are_tried_where_wanted_with_the_best_of_the_others(run):
    plan, findings, _, fake = run(compile=True)
    assert [row["form"] for row in findings.list_rows()] == [
        "compiled",
        "channels_last compiled",
        "fused compiled",
    ]
    assert fake.cohorts[1] == ["plain", "compiled"]
    assert fake.cohorts[3] == ["plain", "channels_last", "channels_last compiled"]
    assert not BackbonesPlan().is_compiling("cpu")
    assert BackbonesPlan().is_compiling("cuda:1")
    assert plan.is_compiling("cpu")


def test_with_best_each_network_runs_in_its_fastest_runtime(run):
    _, findings, _, fake = run(best=True)
    rows = {row["network"]: row for row in findings.list_rows()}
    assert {name: row["form"] for name, row in rows.items()} == {
        "litv2_small": "onnxruntime",
        "resnet50": "openvino",
        "repvit_m1_1": "fused",
    }
    assert rows["resnet50"]["ratio"] == pytest.approx(0.02 / 1.2 / (0.03 / 2.0), rel=0.01)
    assert rows["resnet50"]["plain_ratio"] == pytest.approx(0.02 / 0.03, rel=0.01)
    assert all(row["ratio_is_paired"] and row["gain_is_paired"] for row in rows.values())
    in_torch = ["plain", "channels_last", "fused", "fused channels_last"]
    assert fake.cohorts[1] == [*in_torch, "onnxruntime", "openvino"]
    assert fake.cohorts[-1][:2] == ["litv2_small plain", "litv2_small onnxruntime"]


def test_a_runtime_that_this_machine_lacks_is_skipped_and_named(run):
    missing = {"openvino": UsageError("runtime openvino needs openvino, which is not installed")}
    plan, findings, events, _ = run(best=True, missing=missing)
    assert [row["form"] for row in findings.list_rows()] == ["onnxruntime", "onnxruntime", "fused"]
    assert findings.runtimes == Runtimes(found=("onnxruntime",), skipped={"openvino": str(missing["openvino"])})
    assert any(isinstance(event, Notice) and "openvino is skipped" in event.text for event in events)
    report = report_backbones(plan, findings, "hilo-nas bench backbones --best")
    text = render_markdown(report)
    assert "Runtimes tried: torch, ONNX Runtime." in text
    assert "Runtime skipped: OpenVINO, because runtime openvino needs openvino" in text
    assert report.stem.startswith("backbones-best-part-cpu-")


def test_a_network_that_a_runtime_cannot_run_continues_in_the_others(run):
    error = ConversionError("openvino must be able to express the network")
    _, findings, _, _ = run(best=True, failing=lambda name: error if name == "openvino" else None)
    rows = {row["network"]: row for row in findings.list_rows()}
    assert rows["resnet50"]["form"] == "onnxruntime"
    assert rows["resnet50"]["ratio_is_paired"]
    assert rows["resnet50"]["failure"] == f"resnet50 openvino: {error}"
    assert rows["resnet50"]["verdict"] != "failed"


def test_compiled_forms_share_the_rounds_of_the_fastest_runtime(run):
    _, findings, _, fake = run(best=True, compile=True)
    assert fake.cohorts[3] == ["plain", "channels_last", "openvino", "channels_last compiled"]
    # 1.1 times by channels-last and twice by compilation, compared with twice by OpenVINO
    assert [row["form"] for row in findings.list_rows()] == ["compiled", "channels_last compiled", "fused compiled"]


def test_the_batch_follows_the_device():
    assert BackbonesPlan().condition("cpu").batch_size == 8
    assert BackbonesPlan().condition("cuda").batch_size == 64
    assert BackbonesPlan(batch_size=3).condition("cuda").batch_size == 3


@pytest.mark.parametrize("fields", [{"networks": ("vgg16",)}, {"seconds": 0}, {"precision": "fp8"}, {"img_size": 0}])
def test_what_cannot_be_is_refused_before_anything_is_timed(fields):
    with pytest.raises(UsageError, match="must be"):
        BackbonesPlan(**fields)


def test_a_form_that_fails_is_reported_and_the_network_continues(run):
    error = ConversionError("a fused network must give the same output")
    _, findings, _, _ = run(failing=lambda name: error if name == "fused" else None)
    rows = {row["network"]: row for row in findings.list_rows()}
    assert rows["repvit_m1_1"]["form"] == "fused channels_last"
    assert "repvit_m1_1 fused: a fused network must give" in rows["repvit_m1_1"]["failure"]
    forms = {(row["network"], row["form"]): row for row in findings.list_forms()}
    assert forms["repvit_m1_1", "fused"]["failure"] == str(error)
    assert forms["repvit_m1_1", "fused channels_last"]["is_best"]


def test_a_network_that_does_not_fit_is_a_row_that_says_so(run):
    error = OutOfMemoryError("it does not fit")
    plan, findings, _, _ = run(failing=lambda name: error if name.startswith("resnet50") else None)
    rows = {row["network"]: row for row in findings.list_rows()}
    assert rows["resnet50"]["verdict"] == "failed"
    assert rows["resnet50"]["failure"] == "resnet50 plain: it does not fit"
    assert rows["repvit_m1_1"]["ratio_is_paired"]
    text = render_markdown(report_backbones(plan, findings, "hilo-nas bench backbones"))
    assert "* resnet50 plain: it does not fit" in text


def test_nothing_timed_is_an_error(run):
    with pytest.raises(MeasurementError, match="none of 3 networks could be timed; litv2_small plain: too large"):
        run(failing=lambda name: OutOfMemoryError("too large"))


def test_multiply_adds_that_cannot_be_counted_are_left_out(run):
    _, findings, events, _ = run()
    rows = {row["network"]: row for row in findings.list_rows()}
    assert rows["repvit_m1_1"]["gmacs"] is None
    assert rows["resnet50"]["gmacs"] == pytest.approx(4.09, abs=0.01)
    assert rows["litv2_small"]["gmacs"] == pytest.approx(3.724, abs=0.001)
    assert any("repvit_m1_1 could not be counted: no room" in getattr(event, "text", "") for event in events)
    assert [event.done for event in events if isinstance(event, BenchStepped)] == [0, 1, 2, 3]


def test_the_report_says_what_is_paired_and_how_to_make_it_again(run):
    plan, findings, _, _ = run()
    report = report_backbones(plan, findings, "hilo-nas bench backbones --device cpu")
    assert report.stem == "backbones-part-cpu-fp32-b8-pt2.9-2026-07"
    assert [table.name for table in report.tables] == ["", "forms"]
    text = render_markdown(report)
    for part in (
        "round by round",
        "FlopCounterMode",
        "LITv2-S over ResNet-50",
        "Test CPU (2 cores)",
    ):
        assert part in text
    assert text.rstrip().endswith("```console\nhilo-nas bench backbones --device cpu\n```")


# Forms and cohorts.


def network(backbone, **speeds):
    condition = build_condition()
    forms = {
        "plain": build_measurement(speeds.get("plain", 100.0), condition=condition),
        "fused": build_measurement(speeds.get("fused", 200.0), condition=dataclasses.replace(condition, fused=True)),
    }
    return NetworkForms(backbone=backbone, forms=forms, failures={}, cost=None)


def test_cohorts_hold_24_forms_at_most_and_each_holds_the_base():
    networks = [network(backbone) for backbone in BACKBONES]
    groups = group_networks(networks)
    assert len(groups) == 2
    assert all(group[0].backbone.name == BASE and 2 * len(group) <= 24 for group in groups)
    others = [item.backbone.name for group in groups for item in group[1:]]
    assert others == [backbone.name for backbone in BACKBONES if backbone.name != BASE]


def test_networks_that_no_form_of_runs_are_in_no_cohort():
    dead = NetworkForms(backbone=BACKBONES[3], forms={}, failures={"plain": OutOfMemoryError("no")}, cost=None)
    assert [item.backbone.name for group in group_networks([network(BACKBONES[0]), dead]) for item in group] == [BASE]
    assert group_networks([dead]) == []


def test_the_simpler_form_wins_where_a_timing_cannot_tell():
    assert name_form(network(BACKBONES[0], plain=100.0, fused=101.0).best) == "plain"
    assert name_form(network(BACKBONES[0], plain=100.0, fused=103.0).best) == "fused"
    slower = [build_measurement(speed) for speed in (90.0, 100.0, 99.9)]
    assert choose_form(slower) is slower[1]


def test_forms_are_listed_from_the_simplest_and_named_by_what_they_change():
    forms = list_forms(build_condition(), runtimes=("openvino",))
    names = ["plain", "channels_last", "fused", "fused channels_last", "openvino"]
    assert [name_form(form) for form in forms] == names
    assert name_form(forms[3].vary(compile=True)) == "fused channels_last compiled"
    own = list_forms(build_condition(), has_own_layout=True)
    assert [name_form(form) for form in own] == names[:3]


def test_a_form_that_found_nothing_to_fuse_is_no_form_of_its_own():
    plain = build_measurement(100.0, form="timm/1.0 eager")
    fused = build_measurement(120.0, form="timm/1.0 eager fused")
    folded = build_measurement(120.0, form="timm/1.0 eager folded")
    assert choose_form([plain, fused]) is plain
    assert choose_form([plain, folded]) is folded
    assert choose_form([fused]) is fused  # nothing else ran


# What was published, and what is counted.


def test_the_base_is_always_there_and_names_are_those_of_the_table():
    assert [backbone.name for backbone in choose_backbones(["convnext_tiny"])] == [BASE, "convnext_tiny"]
    assert len(choose_backbones()) == len({backbone.name for backbone in BACKBONES}) == 18
    with pytest.raises(UsageError, match=r"a network must be one of litv2_small, .*, but got 'vgg'"):
        choose_backbones(["vgg"])


def test_timm_knows_every_peer_and_the_weights_that_its_top1_is_of():
    import timm

    for backbone in BACKBONES:
        if backbone.weights == "paper":
            continue
        cfg = timm.get_pretrained_cfg(f"{backbone.name}.{backbone.weights}")
        assert cfg is not None, backbone.name
        assert cfg.input_size[-1] == backbone.top1_img_size, backbone.name
        assert timm.get_pretrained_cfg(backbone.name).fixed_input_size == backbone.has_img_size, backbone.name


def test_counting_agrees_with_the_formulas():
    from hilo_nas.models.macs import count_subject

    knobs = {"num_heads": 4, "window_size": 2, "alpha": 0.5}
    layer = {"layer": "hilo_nas.models.hilo:HiLo", "arguments": {"dim": 32, **knobs}}
    assert count_subject(layer, 8, emit=print) == {
        "macs": ATTENTION_KINDS["hilo"].macs(32, 8, 8, **knobs),
        "params": ATTENTION_KINDS["hilo"].params(32, **knobs),
    }
    arch = ArchConfig(embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), patch_size=2)
    found = count_subject({"arch": arch.to_dict()}, 32, emit=print)
    assert found["params"] == count_params(arch)
    assert found["macs"] == count_macs(arch, 32)
