"""A ruler that never times: each network has a planted speed, the machine a planted habit."""

import contextlib
from random import Random

import pytest
from builders import build_condition, build_device, build_measurement

from hilo_nas.events import NetworkPrepared
from hilo_nas.measure import Cohort
from hilo_nas.measurement import Calibration, kind_of_device
from hilo_nas.rounds import interval, judge, ratio

ROUNDS = 40


def plant(name, own, reference, *, condition=None, cohort="one", calibrated=100.0):
    """A measurement whose samples are these, and whose figures follow from them."""
    low, high = interval(own, reference)
    return build_measurement(
        images_per_s=calibrated * ratio(own, reference),
        images_per_s_low=calibrated * low,
        images_per_s_high=calibrated * high,
        call_seconds=tuple(own),
        reference_seconds=tuple(reference),
        condition=condition or build_condition(),
        verdict=judge({name: own, "reference": reference}).verdict,
        cohort=cohort,
        device_state={"others_cores": 0.5},
    )


class Machine:
    """Draws rounds: `noise` is what differs from block to block, `drift` what a pass has in common, and a `neighbour`
    doubles the time of that share of the blocks."""

    def __init__(self, *, noise=0.0, drift=0.0, own_drift=0.0, neighbour=0.0, seed=0):
        self.noise, self.drift, self.own_drift, self.neighbour = noise, drift, own_drift, neighbour
        self.random = Random(seed)

    def rounds(self, seconds):
        """Seconds per call of each network, by its quiet seconds; all in the same rounds."""
        common = self.random.lognormvariate(0, self.drift)
        own = {name: value * common * self.random.lognormvariate(0, self.own_drift) for name, value in seconds.items()}
        return {name: [self._block(value) for _ in range(ROUNDS)] for name, value in own.items()}

    def _block(self, seconds):
        disturbed = 2.0 if self.random.random() < self.neighbour else 1.0
        return seconds * self.random.lognormvariate(0, self.noise) * disturbed


class FakeRuler:
    """Stands in for `Ruler`.

    Args:
        seconds_of: Quiet seconds of one call, by an entrant's name and the entrant.
        machines: By state (`quiet`, `bursty`), how the machine behaves.
        failing: Why an entrant cannot be timed, by its name.
    """

    def __init__(self, seconds_of, *, machine, failing=lambda name: None):
        self.seconds_of, self.machine, self.failing = seconds_of, machine, failing
        self.cohorts, self.singles = [], []

    def __call__(self, log, *, purpose, idle_timeout_s=600.0):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def read_device(self, device, emit):
        return device or "cpu", build_device(kind=kind_of_device(device or "cpu")), 2

    def calibrate(self, condition, emit):
        return Calibration(
            reference="timm:resnet18",
            images_per_s=100.0,
            images_per_s_spread=1.0,
            call_seconds=(0.1,),
            steady=True,
            device=build_device(),
        )

    def measure_cohort(self, entrants, emit, *, calibration=None, reference=None, seconds_each=None):
        self.cohorts.append(list(entrants))
        failures = {name: error for name in entrants if (error := self.failing(name))}
        # Who fails splits the cohort, as in the ruler itself.
        label = f"cohort {len(self.cohorts)}"
        names = [name for name in entrants if name not in failures]
        rounds = self.machine().rounds(
            {"reference": 0.1, **{name: self.seconds_of(name, entrants[name]) for name in names}}
        )
        anchor = rounds.pop("reference")
        measurements = {}
        for i, name in enumerate(names):
            emit(NetworkPrepared(name=name, done=i + 1, total=len(names)))
            measurements[name] = plant(
                name,
                rounds[name],
                anchor,
                condition=entrants[name].condition,
                cohort=f"{label} {i}" if failures else label,
            )
        return Cohort(measurements=measurements, failures=failures)

    def measure(self, entrant, calibration, emit, *, rivals=None, seconds_each=None):
        self.singles.append(entrant)
        return next(iter(self.measure_cohort({"one": entrant}, emit).measurements.values()))


@pytest.fixture
def machine():
    return Machine


@pytest.fixture
def ruler():
    """Builds a fake ruler: `ruler(seconds_of, machine=..., failing=...)`."""

    def build(seconds_of, *, machine=None, failing=lambda name: None):
        quiet = Machine()
        return FakeRuler(seconds_of, machine=machine or (lambda: quiet), failing=failing)

    return build


@pytest.fixture
def planted():
    """Builds a measurement from planted samples."""
    return plant


@pytest.fixture
def load(monkeypatch):
    """Puts a switch in the place of the load, and tells whether it is on."""
    switch = {"on": False, "devices": []}

    @contextlib.contextmanager
    def switched(device, *, seed=0):
        switch["on"] = True
        switch["devices"].append(device)
        try:
            yield 0
        finally:
            switch["on"] = False

    monkeypatch.setattr("hilo_nas.bench.ruler.bursty_load", switched)
    return switch
