"""A fake evaluator with a law of its own, so that searches run in milliseconds."""

import dataclasses
import math
from pathlib import Path

from builders import (
    build_calibration,
    build_cohort,
    build_condition,
    build_data,
    build_device,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    build_score,
    build_speed_setting,
    write_study,
)

from hilo_nas.cost import NetworkCost, count_macs, count_params
from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.events import RoundTimed
from hilo_nas.measure import Cohort
from hilo_nas.measurement import ProxyPlan, find_contention
from hilo_nas.records import Subject
from hilo_nas.speeds import SpeedFolder

FULL = build_plan().budgets[-1]
"""Images at which a training of `build_plan` ends."""


class FakeExecutor:
    """Speed falls with multiply-adds, top-1 rises with parameters and images seen; `happen` may raise before either.

    Args:
        happen: Called with `("measure" | "score" | "count", call number of that verb)`.
    """

    def __init__(self, happen=lambda verb, count: None):
        self.happen = happen
        self.measured, self.scored, self.rivals = [], [], []
        self.legs = []
        """(key, seed, images) of each leg of a training."""
        self.resumed = []
        """Those of them that found a checkpoint."""
        self.checkpoint_bytes = 100
        self.peers = {}
        """By timm's name, a peer's (images/s, top-1); (500, 0.5) for others."""
        self.counted = []
        self.closed = False

    def measure(self, subject, emit, *, rivals=()):
        self.happen("measure", len(self.measured))
        self.measured.append(subject.key)
        self.rivals.append([rival.key for rival in rivals])
        emit(RoundTimed(condition="fake", round=1, rounds=1, images_per_s=1.0))
        return (build_measurement(self.law(subject)[0]),)

    def score(self, subject, seed, emit, *, until=FULL, checkpoint=None):
        self.happen("score", len(self.scored))
        self.scored.append(subject.key)
        self.legs.append((subject.key, seed, until))
        if checkpoint is not None:
            if checkpoint.is_file():
                self.resumed.append(self.legs[-1])
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_bytes(bytes(self.checkpoint_bytes))
        name = build_plan().hash if subject.is_litv2 else build_plan().baseline_hash
        value = self.law(subject)[1] * (until / FULL) ** 0.1
        return build_score(value, seed=seed, images_seen=until, plan_hash=name(build_data().hash))

    def count(self, subject, emit):
        self.happen("count", len(self.counted))
        self.counted.append(subject.key)
        return NetworkCost(parameters=5_000_000, macs=70_000_000)

    def law(self, subject):
        """A network's speed and top-1."""
        if subject.arch is None:
            return self.peers.get(subject.timm, (500.0, 0.5))
        return speed(subject.arch), top1(subject.arch)

    def close(self):
        self.closed = True


class FakeMachine(FakeExecutor):
    """A machine without processes: stands in for `LocalExecutor`, which is called to make it.

    Args:
        happen: Called with a verb (`measure`, `score`, `calibrate` or `cohort`) and its call number; may raise.
        devices: By name, who they are; the first is the fastest.
    """

    def __init__(self, happen=lambda verb, count: None, *, devices=None):
        super().__init__(happen)
        self.devices = devices or {"cpu": build_device()}
        self.form = "litv2/1 dcn=torchvision"
        self.factors = {}
        """By a network's key or a condition's label, how many times as fast as by the law."""
        self.failures = {}
        """By key, why a network cannot be timed."""
        self.data = {"name": "digits", "content_hash": "0123456789abcdef", "n_images": 1797, "hflip": False}
        self.num_classes = 10
        self.cohorts, self.calibrated, self.training_devices, self.grouped_by = [], [], [], []
        self.read_as = []
        """Options of reading the images, of each call that prepared them."""
        self.load, self.looks = {}, []
        """What the device says of others while something is timed, and what it says from each look on."""
        self.speeds = None
        self.loaded = []
        """Functions of the user's own that were to score."""
        self.prepared_facts = {}
        """What proxies say of what they prepared."""

    def __call__(self, logs, *, purpose, idle_timeout_s, timing_s=None):
        self.timing_s = timing_s
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def read_device(self, device, emit):
        name = device or next(iter(self.devices))
        if name not in self.devices:
            raise DeviceError(f"this machine has no {name}")
        identity = self.devices[name]
        return name, identity, 2 if identity.kind == "cpu" else None

    def identity_of(self, device, emit):
        return self.devices[device]

    def read_form(self, condition, emit):
        return self.form

    def calibrate(self, condition, emit):
        self.happen("calibrate", len(self.calibrated))
        self.calibrated.append(condition.label())
        return build_calibration(device=self.devices[condition.device])

    def prepare_data(self, source, img_size, *, cache_dir, val_data, group_by=None, options=None, emit):
        self.grouped_by.append(group_by)
        self.read_as.append(options)
        return {**self.data, "class_names": [str(i) for i in range(self.num_classes)]}

    def prepare_proxy(self, plan, data, source, device, emit):
        self.loaded.append(source)
        return {"facts": dict(self.prepared_facts), "local": {"function": source}}

    def set_up(self, conditions, calibrations, plan, data, *, prepared=None, training_device=None, speeds=None):
        self.conditions, self.plan, self.speeds = conditions, plan, speeds
        self.training_devices.append(training_device)

    def measure(self, subject, emit, *, rivals=()):
        if self.speeds is not None:
            return self.speeds.measurements_of(subject.key)
        super().measure(subject, emit, rivals=rivals)
        return tuple(self.time(subject, condition) for condition in self.conditions)

    def measure_cohort(self, subjects, condition, calibration, num_classes, emit, *, seconds_each=None):
        self.happen("cohort", len(self.cohorts))
        name = f"cohort-{len(self.cohorts)}"
        self.cohorts.append((condition.label(), sorted(subjects), seconds_each))
        speeds = {
            key: self.speed_of(subject, condition) for key, subject in subjects.items() if key not in self.failures
        }
        return Cohort(
            measurements=build_cohort(speeds, cohort=name, condition=condition, **self.facts(condition)),
            failures={key: self.failures[key] for key in subjects if key in self.failures},
        )

    def score(self, subject, seed, emit, *, until=FULL, checkpoint=None):
        score = super().score(subject, seed, emit, until=until, checkpoint=checkpoint)
        name = self.plan.hash if subject.is_litv2 else self.plan.baseline_hash
        return dataclasses.replace(score, plan_hash=name(self.data["content_hash"]), metric=self.plan.score_metric)

    def train(self, subject, plan, seed, emit, *, until=None, checkpoint=None):
        return build_score(self.law(subject)[1])

    def check_timm_names(self, names, emit):
        if unknown := [name for name in names if name not in self.peers]:
            raise UsageError(f"timm has no model {unknown[0]!r}. Use {' or '.join(self.peers)}.")

    def time(self, subject, condition):
        return build_measurement(self.speed_of(subject, condition), condition=condition, **self.facts(condition))

    def facts(self, condition):
        return {"device": self.devices[condition.device], "form": self.form, "device_state": dict(self.load)}

    def read_contention(self, condition, emit):
        if self.looks:
            self.load = self.looks.pop(0)
        return find_contention(self.load, threads=2, device=self.devices[condition.device])

    def speed_of(self, subject, condition):
        factor = self.factors.get(subject.key, 1.0) * self.factors.get(condition.label(), 1.0)
        return self.law(subject)[0] * factor * (condition.batch_size / 32) ** 0.5


class FakeWorkers:
    """Makes workers that train nothing: stands in for `hilo_nas.measure.Worker` in a sweep.

    Args:
        happen: Called with the function's name and its arguments before anything else; may raise.
    """

    def __init__(self, happen=lambda function, arguments: None):
        self.happen = happen
        self.legs, self.resumed, self.others = [], [], []
        """(key, seed, images) of each leg of a training and of those that found a checkpoint; (key, name) of others."""
        self.made = []

    def __call__(self, name, log, *, idle_timeout_s, environment):
        self.made.append((name, environment["OMP_NUM_THREADS"]))
        return self

    def call(self, function, arguments, emit):
        self.happen(function, arguments)
        subject, plan = Subject.from_dict(arguments["subject"]), ProxyPlan.from_dict(arguments["plan"])
        data_hash, seed = arguments["data"]["content_hash"], arguments["seed"]
        assert function == "hilo_nas.proxy.run:score_network"
        metric, plan_hash = plan.score_metric, plan.hash(data_hash)
        if plan.declaration.is_quick:
            self.others.append((subject.key, plan.proxy))
            value, seen = 1000 * top1(subject.arch), plan.budgets[-1]
        else:
            seen = arguments["until"]
            self.legs.append((subject.key, seed, seen))
            checkpoint = Path(arguments["checkpoint"])
            if checkpoint.is_file():
                self.resumed.append(self.legs[-1])
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text(str(seen))
            noise = int(subject.key[:4], 16) % 7 * seed / 1000
            value = top1(subject.arch) * (seen / 1e5) ** 0.1 + noise
        score = build_score(value, seed=seed, images_seen=seen, metric=metric, plan_hash=plan_hash)
        return {"score": dataclasses.asdict(dataclasses.replace(score, standard_error=0.01)), "further": []}

    def close(self):
        pass


def speed(arch):
    """Images per second."""
    return 1e10 / (2e6 + count_macs(arch, 32, num_classes=10))


def top1(arch):
    """Accuracy between chance and 0.95."""
    return 0.95 - 0.85 * math.exp(-count_params(arch, num_classes=10) / 1e6)


def write_speeds(path, archs, **fields):
    """A table of the speeds that networks have by the law; `fields` are its setting's."""
    folder = SpeedFolder(path)
    setting = build_speed_setting(**fields)
    folder.write_setting(setting)
    for number, arch in enumerate(archs):
        try:
            params = setting.space.encode(arch)
        except UsageError:  # an anchor outside the space
            params = None
        measurements = tuple(
            build_measurement(speed(arch), condition=condition, device=setting.device)
            for condition in setting.conditions
        )
        folder.write_record(
            build_record(
                number, None, None, arch=arch, state="timed", params=params, origin="sample", measurements=measurements
            )
        )
    return folder


def write_timed_study(studies_dir, machine, archs, name="demo", *, top1s=None, **fields):
    """A study of complete trials that a fake machine has timed, each network alone.

    Args:
        studies_dir: Where it is to lie.
        machine: The machine; its device is the study's.
        archs: The networks.
        name: Of the study.
        top1s: The networks' scores; those of the law if left out.
        fields: Of the manifest.
    """
    conditions = fields.get("conditions", (build_condition(),))
    manifest = build_manifest(
        name,
        **{"device": machine.devices[conditions[0].device], "sampler": "random", "trials": len(archs), **fields},
    )
    machine.set_up(conditions, manifest.calibrations, manifest.plan, {})
    anchors = {anchor.arch.key(): f"anchor:{anchor.name}" for anchor in manifest.space.anchors}
    records = []
    for number, arch in enumerate(archs):
        measurements = tuple(
            dataclasses.replace(
                machine.time(Subject(arch=arch), condition), protocol=manifest.calibrations[condition.label()].protocol
            )
            for condition in conditions
        )
        score = build_score(top1(arch) if top1s is None else top1s[number], plan_hash=manifest.plan_hash)
        records.append(
            build_record(
                number,
                arch=arch,
                params=manifest.space.encode(arch),
                origin=anchors.get(arch.key(), "sampler"),
                measurements=measurements,
                scores=(score,),
            )
        )
    return write_study(studies_dir, name, records, manifest)
