"""A fake machine for benchmarks: each network has a planted speed, and the machine has planted noise."""

import contextlib
from random import Random

from builders import build_calibration, build_condition, build_device, build_measurement

from hilo_nas.evaluation import Count, DeviceReport, Inspect, Time, Timing
from hilo_nas.measurement import kind_of_device
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.rounds import ratio
from hilo_nas.measurement.verdicts import judge

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


class Answers:
    """Answers of a fake evaluator: what it counts and times is planted.

    Args:
        seconds_of: Quiet seconds of one call, by an entrant's name and the entrant.
        machine: Returns how the machine behaves now.
        failing: Why an entrant cannot be timed, by its name.
        count: Returns the cost of the subject of a `Count`.
        missing: Why the machine cannot use a runtime, by its name.
    """

    def __init__(self, seconds_of, *, machine, failing, count, missing):
        self.seconds_of, self.machine, self.failing, self.count = seconds_of, machine, failing, count
        self.missing = missing
        self.cohorts = []
        """The names that were timed together, in turn."""

    def __call__(self, task):
        match task:
            case Inspect():
                target = task.target or "cpu"
                if errors := [self.missing[form.runtime] for form in task.forms if form.runtime in self.missing]:
                    raise errors[0]
                forms = {form.label(): "planted" for form in task.forms}
                identity = build_device(kind=kind_of_device(target))
                return DeviceReport(target=target, identity=identity, threads=2, forms=forms)
            case Count():
                return self.count(task.subject)
            case Time():
                return self.time(task.entries) if task.entries else Timing(calibration=build_calibration())

    def time(self, entries):
        self.cohorts.append(list(entries))
        failures = {name: error for name in entries if (error := self.failing(name))}
        # Who fails splits the cohort, as in the ruler itself.
        label = f"cohort {len(self.cohorts)}"
        names = [name for name in entries if name not in failures]
        rounds = self.machine().rounds(
            {"reference": 0.1, **{name: self.seconds_of(name, entries[name]) for name in names}}
        )
        anchor = rounds.pop("reference")
        measurements = {
            name: plant(
                name,
                rounds[name],
                anchor,
                condition=entries[name].condition,
                cohort=f"{label} {i}" if failures else label,
            )
            for i, name in enumerate(names)
        }
        return Timing(measurements=measurements, failures=failures)


class Load:
    """A switch in the place of the load, which tells whether it is on."""

    def __init__(self):
        self.is_on, self.devices = False, []

    @contextlib.contextmanager
    def __call__(self, device, *, seed=0):
        self.is_on = True
        self.devices.append(device)
        try:
            yield
        finally:
            self.is_on = False
