"""Which runtimes a machine has, and which of several timings is worth its form."""

import pytest
from builders import build_condition, build_measurement

from hilo_nas.errors import ConversionError, DeviceError, MeasurementError, UsageError, WorkerDiedError
from hilo_nas.evaluation import Inspect, Runtimes, choose_fastest, find_runtimes


def test_each_runtime_is_asked_to_run_a_network_under_the_condition(evaluator, events):
    fake, condition = evaluator(None), build_condition(precision="bf16", fused=True, channels_last=True)
    found = find_runtimes(condition, fake, events.append, target="cuda:1")
    assert found == Runtimes(found=("onnxruntime", "openvino"))
    assert fake.submitted == [
        Inspect(target="cuda:1", forms=(build_condition(precision="bf16", runtime=runtime),))
        for runtime in ("onnxruntime", "openvino")
    ]
    assert events == []


@pytest.mark.parametrize("kind", [UsageError, DeviceError, ConversionError, WorkerDiedError])
def test_a_runtime_that_cannot_run_here_is_skipped_with_the_reason(evaluator, events, kind):
    fake = evaluator(None, missing={"onnxruntime": kind("it is not for this machine")})
    found = find_runtimes(build_condition(), fake, events.append)
    assert found.found == ("openvino",)
    assert found.skipped == {"onnxruntime": "it is not for this machine"}
    assert events[-1].text == "runtime onnxruntime is skipped: it is not for this machine"


def test_a_precision_that_only_torch_has_leaves_torch_alone(evaluator, events):
    found = find_runtimes(build_condition(precision="amp-bf16"), evaluator(None), events.append)
    assert found.found == ()
    assert "has no autocast" in found.skipped["openvino"]


def test_an_error_of_the_machine_ends_the_choice(evaluator, events):
    fake = evaluator(None, missing={"openvino": MeasurementError("the device is gone")})
    with pytest.raises(MeasurementError):
        find_runtimes(build_condition(), fake, events.append)


def test_the_first_of_equally_fast_timings_is_chosen():
    timings = [build_measurement(speed) for speed in (90.0, 99.0, 100.0)]
    assert choose_fastest(timings) is timings[1]
    assert choose_fastest(timings[:1]) is timings[0]
