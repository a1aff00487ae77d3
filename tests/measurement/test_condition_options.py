"""Conditions and limits as a user writes them."""

import dataclasses

import pytest
from builders import build_condition, build_device

from hilo_nas.errors import UsageError
from hilo_nas.measurement import Condition
from hilo_nas.measurement.condition_options import (
    NamedDevice,
    Target,
    Targets,
    build_objective,
    build_requirements,
    expected_objective,
    named_devices,
)

OBJECTIVE = build_condition(threads=2)
SINGLE = build_condition(threads=2, batch_size=1)
"""A further condition: one image a call."""
HALF = build_condition(threads=2, precision="bf16")


def aims(*also, **limits):
    return build_requirements(OBJECTIVE, also, limits=limits)


def faults(*also):
    with pytest.raises(UsageError) as caught:
        aims(*also)
    return str(caught.value).split("\n")


def test_without_wishes_there_is_the_objective_alone():
    assert aims().conditions == (OBJECTIVE,)
    assert aims().limits == {}


def test_a_further_condition_differs_from_the_objective_only_in_what_it_says():
    found = aims("batch_size=1", " batch-size = 64 , channels-last = yes ,env=default,fused=0")
    assert found.conditions == (
        OBJECTIVE,
        SINGLE,
        dataclasses.replace(OBJECTIVE, batch_size=64, channels_last=True, env="default"),
    )
    assert found.limits == {}


def test_networks_are_timed_in_their_inference_form_unless_told_otherwise():
    assert build_objective({}, "cpu", 2) == Condition(device="cpu", threads=2, fused=True)
    assert not build_objective({"fused": False}, "cpu", 2).fused
    assert build_objective({"threads": 1}, "cpu", 2).threads == 1
    assert not build_objective({"runtime": "openvino"}, "cpu", 2).fused


def test_another_runtime_has_nothing_of_torchs_own():
    objective = build_objective({"channels_last": True, "compile": True}, "cpu", 2)
    found = build_requirements(objective, ["runtime=onnxruntime"]).conditions[1]
    assert found == Condition(device="cpu", threads=2, runtime="onnxruntime")
    other = build_objective({"runtime": "openvino"}, "cpu", 2)
    assert build_requirements(other, ["runtime=torch"]).conditions[1] == Condition(device="cpu", threads=2, fused=True)
    assert not build_requirements(other, ["runtime=torch,fused=no"]).conditions[1].fused
    with pytest.raises(UsageError, match=r"compile .* runtime openvino"):
        build_requirements(objective, ["runtime=openvino,compile=yes"])


def test_each_condition_has_limits_of_its_own():
    found = aims(
        "batch_size=1,max_latency_ms=20,max-memory-mib=1e3", "precision=bf16,min_images_per_s=5.5", max_latency_ms=90.0
    )
    assert found.conditions == (OBJECTIVE, SINGLE, HALF)
    assert found.limits == {
        "latency_ms": 90.0,
        f"latency_ms@{SINGLE.label()}": 20.0,
        f"memory_mib@{SINGLE.label()}": 1000.0,
        f"images_per_s@{HALF.label()}": 5.5,
    }


def test_all_faults_of_all_further_conditions_are_told_at_once():
    found = faults(
        "colour=red,batch_size=many,max_latency_ms=-3,compile=perhaps",
        "batch_size=1",
        "batch_size=0,precision=fp8",
        "batch_size=1,",
    )
    assert [line.partition(": ")[0] for line in found] == (
        ["timing.also colour=red,batch_size=many,max_latency_ms=-3,compile=perhaps"] * 4
        + ["timing.also batch_size=0,precision=fp8"] * 2
        + ["timing.also batch_size=1,"]
    )
    said = [line.partition(": ")[2] for line in found]
    assert said[0].startswith("must be FIELD=VALUE with one of batch_size, img_size, threads, ")
    assert said[0].endswith("max_memory_mib, but got 'colour=red'")
    assert said[1:6] == [
        "batch_size cannot be 'many'",
        "max_latency_ms cannot be '-3'",
        "compile cannot be 'perhaps'",
        "batch_size must be at least 1, but got 0",
        "precision must be one of fp32, bf16, fp16, amp-bf16, amp-fp16, int8, but got 'fp8'",
    ]
    assert said[6].endswith("but got ''")


@pytest.mark.parametrize("value", ["", "nan", "inf", "0", "-1", "1e999", "fast"])
def test_a_limit_must_be_a_number_above_zero(value):
    assert faults(f"batch_size=1,max_latency_ms={value}") == [
        f"timing.also batch_size=1,max_latency_ms={value}: max_latency_ms cannot be {value!r}"
    ]


@pytest.mark.parametrize(
    "text", ["batch_size=1,batch_size=2", "max_latency_ms=1,batch_size=1,max-latency-ms=2", "batch-size=1,batch_size=1"]
)
def test_what_is_given_twice_is_a_fault(text):
    (line,) = faults(text)
    assert line.endswith(" is given twice")


def test_a_condition_must_not_repeat_the_objective_or_another():
    law = "must differ from the objective and from the others, but is the same as"
    assert faults("max_latency_ms=3") == [f"timing.also max_latency_ms=3: {law} the objective"]
    assert faults("batch_size=0", "batch_size=1", "threads=2,batch_size=1") == [
        "timing.also batch_size=0: batch_size must be at least 1, but got 0",
        f"timing.also threads=2,batch_size=1: {law} timing.also batch_size=1",
    ]


def test_what_is_wrong_with_a_condition_whose_device_is_not_known_yet_is_wrong_on_every_device():
    fields = {"batch_size": 8, "cuda_graph": True}
    assert expected_objective(fields, "cuda:1") == Condition(device="cuda", fused=True, **fields)
    assert expected_objective(fields, None).cuda_graph  # there may be such a device
    with pytest.raises(UsageError, match="cuda_graph needs a cuda device, but got 'cpu'"):
        expected_objective(fields, "cpu")
    with pytest.raises(UsageError, match="batch_size must be at least 1, but got 0"):
        expected_objective({"batch_size": 0}, None)


@pytest.mark.parametrize("field", ["target", "name", "limits"])
def test_a_further_condition_has_no_other_fields(field):
    (line,) = faults(f"{field}=x")
    assert f"but got '{field}=x'" in line


def targets(*further, objective=None):
    """The CPU of `build_device` as the objective's device, and cards of the given models from `cuda:0` on."""
    cards = {
        NamedDevice(name=f"cuda:{i}"): Target(name=f"cuda:{i}", identity=build_device(kind="cuda", model=model))
        for i, model in enumerate(further)
    }
    return Targets(objective=objective or build_device(), further=cards)


def test_a_condition_on_another_kind_of_device_has_no_model():
    found = build_requirements(
        OBJECTIVE, ["device=cuda:0,batch_size=1,max_latency_ms=20"], targets=targets("NVIDIA L4")
    )
    further = build_condition(device="cuda", batch_size=1)
    assert found.conditions == (OBJECTIVE, further)
    assert found.limits == {f"latency_ms@{further.label()}": 20.0}
    assert found.devices == {further.label(): "cuda:0"}
    assert "model" not in further.to_dict()


def test_the_second_model_of_a_kind_is_in_its_condition_and_label():
    found = build_requirements(
        OBJECTIVE, ["device=cuda:0", "device=cuda:1"], targets=targets("NVIDIA L4", "A100 (40 GB)")
    )
    assert [condition.model for condition in found.conditions] == [None, None, "A100 (40 GB)"]
    label = "cuda-a100-40-gb-b32-32px-fp32"
    assert found.conditions[2].label() == label
    assert found.devices == {"cuda-b32-32px-fp32": "cuda:0", label: "cuda:1"}
    assert Condition(**found.conditions[2].to_dict()) == found.conditions[2]


def test_settings_that_only_another_device_has_are_left_out():
    graphs = build_objective({"cuda_graph": True}, "cuda", None)
    cpu = Target(name="cpu", identity=build_device(), threads=2)
    found = build_requirements(
        graphs,
        ["device=cpu"],
        targets=Targets(objective=build_device(kind="cuda"), further={NamedDevice(name="cpu"): cpu}),
    )
    assert (found.conditions[1].cuda_graph, found.conditions[1].threads) == (False, 2)


def test_named_devices_are_known_before_they_are_read():
    also = ["batch_size=1", "device=cuda:1", "device=cuda:1,batch_size=1", "device=cuda,model=NVIDIA L4"]
    assert named_devices(also) == (NamedDevice(name="cuda:1"), NamedDevice(name="cuda", model="nvidia-l4"))
    assert len(aims(*also).conditions) == 5
    assert str(named_devices(also)[1]) == "device=cuda,model=nvidia-l4"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("device=tpu", "device must be cpu, cuda, cuda:N or mps, but got 'tpu'"),
        ("device=cuda:all", "Only a search uses several devices; name one"),
        ("device=cpu,device=cuda", "device is given twice"),
        ("model=NVIDIA L4", "model needs a device"),
        ("device=cuda,model=--", "model must have a letter or a digit"),
        ("device=cpu,cuda_graph=yes", "cuda_graph needs a cuda device"),
    ],
)
def test_a_wrong_device_is_refused(text, fault):
    assert any(fault in line for line in faults(text))
    assert all(line.startswith(f"timing.also {text}: ") for line in faults(text))


def test_models_that_differ_only_in_case_and_signs_are_no_two_targets():
    law = r"cuda:1 and another target are both a100-40-gb and differ in model: A100 \(40 GB\) and a100 40-GB"
    with pytest.raises(UsageError, match=law):
        build_requirements(
            OBJECTIVE, ["device=cuda:0", "device=cuda:1,batch_size=1"], targets=targets("A100 (40 GB)", "a100 40-GB")
        )


def test_a_device_of_another_kind_that_is_not_known_yet_has_its_kind_in_the_label():
    graphs = build_objective({}, "cuda", None)
    labels = [condition.label() for condition in build_requirements(graphs, ["device=cpu", "device=cuda:1"]).conditions]
    assert [label.partition("-b32")[0] for label in labels] == ["cuda", "cpu", "cuda-cuda-1"]


def test_a_second_model_of_a_kind_without_letters_names_the_way_out():
    with pytest.raises(
        UsageError, match=r"must have a letter or a digit, but got '显卡'\. Time on it in its own study"
    ):
        build_requirements(OBJECTIVE, ["device=cuda:0", "device=cuda:1"], targets=targets("NVIDIA L4", "显卡"))
