"""What a device says of itself: a GPU through a library that is not there, and the CPU that drives it."""

import os
import sys
import types

import pytest

from hilo_nas.measurement import DeviceIdentity
from hilo_nas.measurement.verdicts import is_throttling
from hilo_nas.timing.state import DeviceWatch, describe_use


def device(kind, serial="host-1"):
    return DeviceIdentity(kind=kind, model="a model", driver="1", torch="2", serial=serial)


LOAD = {"cores": 2, "others_cores": 1.0}


def watch_of(identity, **load):
    """A watch of a device whose CPU says what is given."""
    return DeviceWatch(identity, types.SimpleNamespace(look=lambda: None, read=lambda: load))


CPU, GPU, MPS = device("cpu"), device("cuda", "0123-4567"), device("mps")


# A GPU.


class FakeNvml(types.ModuleType):
    """NVML as nvidia-ml-py shows it, for one card; what it says is set on it, what it lacks is deleted."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self):
        super().__init__("pynvml")
        self.clock, self.temperature, self.power_mw, self.reasons, self.pids = 1980, 45, 300_500, 0x0, []
        self.inits = self.shutdowns = 0
        self.refused = set()

    def _answer(self, name, value):
        if name in self.refused:
            raise NvmlError("Not Supported")
        return value

    def nvmlInit(self):
        self._answer("init", None)
        self.inits += 1

    def nvmlShutdown(self):
        self.shutdowns += 1

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-0123-4567":
            raise NvmlError("Not Found")
        return "the card"

    def nvmlDeviceGetClockInfo(self, card, kind):
        assert (card, kind) == ("the card", self.NVML_CLOCK_SM)
        return self._answer("clock", self.clock)

    def nvmlDeviceGetTemperature(self, card, sensor):
        assert (card, sensor) == ("the card", self.NVML_TEMPERATURE_GPU)
        return self._answer("temperature", self.temperature)

    def nvmlDeviceGetPowerUsage(self, card):
        return self._answer("power", self.power_mw)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card):
        return self._answer("reasons", self.reasons)

    def nvmlDeviceGetComputeRunningProcesses(self, card):
        return self._answer("processes", [types.SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in self.pids])


class NvmlError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_a_gpu_tells_clock_heat_and_power_before_and_after_and_who_else_is_there(nvml):
    nvml.pids = [os.getpid(), 4242, 17]
    watch = watch_of(GPU)
    nvml.clock, nvml.temperature, nvml.power_mw = 1410, 83, 699_900
    assert watch.read() == {
        "sm_clock_mhz": [1980, 1410],
        "temperature_c": [45, 83],
        "power_w": [300.5, 699.9],
        "throttle_reasons": [],
        "other_processes": [17, 4242],
    }


class SharedNvml(FakeNvml):
    """NVML of a card that others may use."""

    utilization, used_bytes = 0, 600 * 2**20

    def nvmlDeviceGetUtilizationRates(self, card):
        return self._answer("utilization", types.SimpleNamespace(gpu=self.utilization, memory=0))

    def nvmlDeviceGetMemoryInfo(self, card):
        return types.SimpleNamespace(used=self.used_bytes)


def test_a_gpu_that_others_keep_busy_is_told_of(monkeypatch):
    nvml = SharedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert describe_use(GPU) is None
    nvml.utilization, nvml.used_bytes = 87, 41_000 * 2**20
    assert describe_use(GPU).startswith("other programs use the GPU: utilization 87 %, 41,000 MiB of memory. ")
    assert describe_use(CPU) is None
    nvml.refused = {"utilization"}
    assert describe_use(GPU) is None
    assert nvml.inits == nvml.shutdowns


def test_without_the_library_no_other_program_is_seen(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert describe_use(GPU) is None


def test_the_library_is_left_as_it_was_found(nvml):
    watch_of(GPU).read()
    nvml.refused = {"power"}
    watch_of(GPU).read()
    assert nvml.inits == nvml.shutdowns == 4


@pytest.mark.parametrize(
    ("bits", "texts"),
    [
        (0x0, []),
        (0x1 | 0x2 | 0x10 | 0x100, []),  # idle, clocks set by hand, sync boost, display clocks: as they should be
        (0x04, ["software power cap"]),
        (0x08, ["hardware slowdown"]),
        (0x20, ["software thermal slowdown"]),
        (0x40 | 0x08, ["hardware slowdown", "hardware thermal slowdown"]),
        (0x80, ["hardware power brake"]),
    ],
)
def test_reasons_for_a_slower_clock_are_told_in_words(nvml, bits, texts):
    watch = watch_of(GPU)
    nvml.reasons = bits
    assert watch.read()["throttle_reasons"] == texts


def test_a_reason_seen_only_at_first_is_kept(nvml):
    nvml.reasons = 0x20
    watch = watch_of(GPU)
    nvml.reasons = 0x04
    assert watch.read()["throttle_reasons"] == ["software power cap", "software thermal slowdown"]


@pytest.mark.parametrize(
    ("reasons", "throttling"),
    [
        ([], False),
        (["software power cap"], False),
        (["software thermal slowdown"], True),
        (["hardware slowdown", "software power cap"], True),
    ],
)
def test_a_power_cap_alone_is_no_throttling(reasons, throttling):
    assert is_throttling({"throttle_reasons": reasons}) is throttling


def test_a_device_that_says_nothing_does_not_throttle():
    assert not is_throttling({})
    assert not is_throttling({"others_cores": 3.0})


@pytest.mark.parametrize("function", [name for name in vars(FakeNvml) if name.startswith("nvmlDevice")])
def test_a_library_without_a_function_says_nothing(nvml, monkeypatch, function):
    monkeypatch.delattr(FakeNvml, function)
    assert watch_of(GPU).read() == {}


@pytest.mark.parametrize("what", ["init", "clock", "temperature", "power", "reasons", "processes"])
def test_a_driver_that_refuses_says_nothing(nvml, what):
    nvml.refused = {what}
    assert watch_of(GPU).read() == {}


def test_a_driver_that_answers_only_later_tells_what_it_can(nvml):
    nvml.refused = {"init"}
    watch = watch_of(GPU)
    nvml.refused = set()
    assert watch.read()["sm_clock_mhz"] == [None, 1980]


def test_without_the_library_a_gpu_says_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert watch_of(GPU).read() == {}


def test_a_card_that_the_library_does_not_know_says_nothing(nvml):
    assert watch_of(device("cuda", "another")).read() == {}


def test_a_uuid_is_known_with_its_prefix_and_without(nvml):
    assert watch_of(device("cuda", "GPU-0123-4567")).read() == watch_of(GPU).read() != {}


@pytest.mark.parametrize("identity", [CPU, GPU, MPS])
def test_the_load_of_the_cpu_is_told_whatever_is_timed(nvml, identity):
    seen = watch_of(identity, **LOAD).read()
    assert {name: seen[name] for name in LOAD} == LOAD
    assert ("sm_clock_mhz" in seen) == (identity is GPU)


def test_other_kinds_of_device_say_nothing_of_themselves():
    assert watch_of(MPS).read() == {}
