"""The ruler on the CPU at hand, with tiny networks; no test asserts a time."""

import dataclasses
import json

import pytest
import torch

from hilo_nas.arch import ArchConfig
from hilo_nas.errors import DeviceError, MeasurementError
from hilo_nas.events import RoundTimed
from hilo_nas.measure import throughput
from hilo_nas.measure.device import check_device, identify_device, list_devices, peak_memory_mib, read_device
from hilo_nas.measurement import PROTOCOL, Condition, Measurement

TINY = ArchConfig(patch_size=2, embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))
SUBJECT = {"arch": TINY.to_dict()}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(throughput, "_TIMING_S", 0.05)
    monkeypatch.setattr(throughput, "_ROUNDS", (2, 3))
    monkeypatch.setattr(throughput, "_WARM_UP_S", 0.1)
    monkeypatch.setattr(throughput, "_CALIBRATION_ROUNDS", 2)
    monkeypatch.setattr(throughput, "_LATENCY_CALLS", 5)
    monkeypatch.setattr(throughput._Reference, "kept", None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def measured(subject=SUBJECT, emit=lambda event: None, **condition):
    condition = Condition(batch_size=2, img_size=32, **condition).to_dict()
    calibration = throughput.calibrate(condition, emit=emit)
    found = throughput.measure(subject, condition, calibration, 10, emit=emit)
    return Measurement.from_dict(json.loads(json.dumps(found))), calibration


def test_a_measurement_holds_its_samples_and_its_conditions():
    events = []
    found, calibration = measured(emit=events.append, threads=1)
    assert found.protocol == PROTOCOL
    assert found.threads == 1
    assert len(found.reference_seconds) == len(found.call_seconds) + 1 == len(found.ratios) + 1
    assert min(found.call_seconds) > 0
    assert found.latency_ms_p50 <= found.latency_ms_p95 <= found.latency_ms_p99
    assert found.images_per_s == pytest.approx(
        calibration["images_per_s"] * sorted(found.ratios)[len(found.ratios) // 2], rel=0.5
    )
    assert found.form.startswith("litv2/")
    assert found.device.torch == torch.__version__
    assert [type(event) for event in events].count(RoundTimed) == len(found.ratios)


def test_a_network_of_timm_is_measured_by_the_same_ruler():
    found, _ = measured({"timm": "test_resnet.r160_in1k"})
    assert found.form.startswith("timm/")
    assert found.images_per_s > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"])
def test_every_precision_is_timed_and_the_form_says_how(precision):
    found, _ = measured(precision=precision)
    assert found.condition.precision == precision
    assert ("fp32" in found.form) == (precision not in ("fp32", "fp16"))


def test_channels_last_is_timed():
    found, _ = measured(channels_last=True)
    assert found.condition.label() == "cpu-b2-32px-fp32-nhwc"


def test_peak_memory_counts_weights_and_the_largest_moment():
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.Linear(1024, 256)).eval()
    image = torch.zeros(512, 256)
    with torch.inference_mode():
        peak = peak_memory_mib(lambda: model(image), model, torch.device("cpu"))
    weights = 4 * (2 * 256 * 1024 + 1024 + 256) / 2**20
    both = 4 * 512 * (1024 + 256) / 2**20  # the hidden layer and the output live at once
    assert peak == pytest.approx(weights + both, rel=0.01)


def test_offsets_are_not_zero_while_timing():
    bench = throughput._Bench(Condition(batch_size=1, img_size=32))
    with torch.inference_mode():
        model = bench.build(SUBJECT, num_classes=10)
    offsets = [weight for name, weight in model.named_parameters() if "conv_offset.weight" in name]
    assert offsets
    assert all(weight.detach().any() for weight in offsets)


def test_a_reference_that_does_not_fit_is_named_with_the_way_out(monkeypatch):
    def does_not_fit(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(throughput, "build_subject", does_not_fit)
    with pytest.raises(MeasurementError, match=r"batch_size 2 at 32 px does not on cpu\. Use a smaller --batch-size"):
        throughput.calibrate(Condition(batch_size=2, img_size=32).to_dict(), emit=print)


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    if device in list_devices():
        pytest.skip("this machine has it")
    with pytest.raises(DeviceError, match=rf"no device {device}.*Use one of .*cpu"):
        check_device(device)


def test_identity_compares_what_matters_and_records_the_rest():
    identity = identify_device("cpu")
    assert identity.kind == "cpu"
    assert identity.differences(dataclasses.replace(identity, serial="another")) == {}
    changed = dataclasses.replace(identity, torch="1.0", driver="2")
    assert identity.differences(changed) == {"driver": (identity.driver, "2"), "torch": (identity.torch, "1.0")}


def test_the_device_at_hand_is_the_fastest_kind():
    found = read_device(None, emit=print)
    assert found["device"] == list_devices()[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", "fp16"])
def test_a_gpu_is_timed_with_its_own_memory_and_identity(precision):
    found, _ = measured(device="cuda", precision=precision)
    assert found.device.kind == "cuda"
    assert found.memory_mib > 0


@pytest.mark.gpu
def test_a_network_that_does_not_fit_a_gpu_is_out_of_memory():
    condition = Condition(device="cuda", batch_size=2, img_size=32).to_dict()
    calibration = throughput.calibrate(condition, emit=print)
    wide = ArchConfig(patch_size=2, embed_dims=(512, 1024, 2048, 4096), depths=(1, 1, 2, 2), num_heads=(8, 16, 32, 64))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**29 / total)  # half a GiB; the weights alone take more
    try:
        with pytest.raises(torch.OutOfMemoryError):
            throughput.measure({"arch": wide.to_dict()}, condition, calibration, 10, emit=print)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_reference_that_no_longer_fits_condemns_no_network(monkeypatch):
    condition = Condition(batch_size=2, img_size=32).to_dict()
    calibration = throughput.calibrate(condition, emit=print)
    monkeypatch.setattr(throughput._Reference, "kept", None)

    def does_not_fit(*arguments, **options):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(throughput, "build_subject", does_not_fit)
    with pytest.raises(MeasurementError, match="the reference network"):
        throughput.measure(SUBJECT, condition, calibration, 10, emit=print)


def test_a_compiled_network_is_timed_as_another_form():
    found, _ = measured(compile=True)
    assert found.form.endswith(" compiled")
    assert found.memory_mib > 0
