"""Machines with a law of their own, so that searches run in milliseconds."""

import dataclasses
import math

from builders import (
    build_calibration,
    build_cohort,
    build_condition,
    build_device,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    build_score,
    write_study,
)

from hilo_nas.arch.cost import NetworkCost, count_macs, count_params
from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import DeviceError, HiloNasError, NoCheckpointError, UsageError
from hilo_nas.evaluation import Count, DeviceReport, Inspect, Preparation, Prepare, Scoring, Time, Timing
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.measurement import find_contention
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.space import find_params
from hilo_nas.study.records import Subject
from hilo_nas.testing import FakeEvaluator

FULL = build_plan().budgets[-1]
"""Images at which a training of `build_plan` ends."""
RESOURCES = Resources(data="prepared")
"""What a loop's tasks refer to where nothing prepares it."""


class FakeMachine(FakeEvaluator):
    """An evaluator whose networks have speeds that fall with multiply-adds, and values that rise with parameters.

    A test may put a function of its own in the place of one that answers a task (`read_device`, `measure`, `score` and
    so on).

    Args:
        happen: Called with a verb (`measure`, `score`, `count`, `calibrate`, `cohort`) and its call number; may raise.
        devices: By name, who they are; the first is the fastest.
        options: Of `FakeEvaluator`.
    """

    def __init__(self, happen=lambda verb, count: None, *, devices=None, **options):
        super().__init__(self.answer, **options)
        self.happen = happen
        self.before = lambda task: None
        """Called with each task; may raise."""
        self.device_of = devices or {"cpu": build_device()}
        self.measured, self.scored, self.rivals, self.counted = [], [], [], []
        self.legs, self.resumed, self.others = [], [], []
        """(Key, seed, images) of trainings' legs, and of those that found a checkpoint; (key, proxy) of others."""
        self.baselines = {}
        """By timm's name, a baseline's (images/s, top-1); (500, 0.5) for others."""
        self.form = "litv2/1 dcn=torchvision"
        self.factors = {}
        """By a network's key or a condition's label, how many times as fast as by the law."""
        self.failures = {}
        """By key, why a network cannot be timed."""
        self.data = {"name": "digits", "content_hash": "0123456789abcdef", "n_images": 1797, "hflip": False}
        self.num_classes = 10
        self.cohorts, self.calibrated, self.targets, self.grouped_by = [], [], [], []
        self.read_as, self.parted = [], []
        """Options of reading the images, of each call that prepared them."""
        self.load, self.looks = {}, []
        """What the device says of others while something is timed, and what it says from each look on."""
        self.loaded, self.prepared_facts = [], {}
        """Functions of the user's own that were to score, and what proxies say of what they prepared."""
        self.timings_s = []
        """Seconds per network of each timing."""
        self.files, self.closed = None, False
        self.checkpoint_bytes = 100
        self._objective = None

    def __call__(self, logs, *, purpose, idle_timeout_s, checkpoints=None, checkpoint_mib=0.0, jobs=1):
        """Answers the call of `use_evaluator`, and the next one too: commands of a test share one machine."""
        self.jobs = jobs
        self.files = None if checkpoints is None else CheckpointFiles(checkpoints, budget_mib=checkpoint_mib)
        return self

    def close(self):
        self.closed = True  # and ready for the next command of the test
        self._under_way.clear()

    def discard(self, references):
        if self.files is not None:
            self.files.discard(references)

    def answer(self, task):
        self.before(task)
        match task:
            case Inspect():
                name, identity, threads = self.read_device(task.target)
                forms = {condition.label(): self.read_form(condition) for condition in task.forms}
                contention = None if task.watch is None else self.read_contention(task.watch)
                return DeviceReport(target=name, identity=identity, threads=threads, forms=forms, contention=contention)
            case Prepare():
                return self.prepare(task)
            case Count():
                return self.count(Subject.from_dict(task.subject))
            case Time():
                if parts := [name for name, entry in task.entries.items() if "function" in entry.subject]:
                    return self.time_parts(parts, task.condition)
                self.timings_s.append(task.seconds)
                subjects = {name: Subject.from_dict(entry.subject) for name, entry in task.entries.items()}
                if not subjects:
                    return Timing(calibration=self.calibrate(task.condition))
                if len(subjects) == 1 and not task.is_brief:
                    ((name, subject),) = subjects.items()
                    return Timing(measurements={name: self.measure(subject, task.condition, task.rivals)})
                return self.measure_cohort(subjects, task.condition, task.is_brief)
        self.targets.append(task.target)
        subject = Subject.from_dict(task.subject)
        score = self.score(subject, task.plan, task.seed, task.until or task.plan.budgets[-1], task)
        return Scoring(score=score, checkpoint=task.checkpoint)

    def read_device(self, device):
        name = device or next(iter(self.device_of))
        if name not in self.device_of:
            raise DeviceError(f"this machine has no {name}")
        identity = self.device_of[name]
        return name, identity, 2 if identity.kind == "cpu" else None

    def read_form(self, condition):
        return self.form

    def read_contention(self, condition):
        if self.looks:
            self.load = self.looks.pop(0)
        return find_contention(self.load, threads=2, device=self.device_of[condition.device])

    def prepare(self, task):
        if task.images is not None:
            return Preparation(reference="prepared", facts=self.prepare_data(**task.images))
        if task.proxy is not None:
            self.loaded.append(task.source)
            return Preparation(reference=task.source, facts=dict(self.prepared_facts))
        if task.sheet is not None:
            return Preparation(reference=None, facts={"png": ""})
        if unknown := [name for name in task.timm_names if name not in self.baselines]:
            raise UsageError(f"timm has no model {unknown[0]!r}. Use {' or '.join(self.baselines)}.")
        return Preparation(reference=None, facts={})

    def prepare_data(self, source, img_size, *, cache_dir, val_data, group_by=None, options=None, max_cache_gib=None):
        self.grouped_by.append(group_by)
        self.read_as.append(ReadOptions.from_dict(options))
        return {**self.data, "class_names": [str(i) for i in range(self.num_classes)]}

    def count(self, subject):
        self.happen("count", len(self.counted))
        self.counted.append(subject.key)
        return NetworkCost(parameters=5_000_000, macs=70_000_000)

    def calibrate(self, condition):
        self.happen("calibrate", len(self.calibrated))
        self.calibrated.append(condition.label())
        return build_calibration(device=self.device_of[condition.device])

    def measure(self, subject, condition, rivals):
        self._objective = self._objective or condition
        if condition == self._objective:
            self.happen("measure", len(self.measured))
            self.measured.append(subject.key)
            self.rivals.append(list(rivals))
        if subject.key in self.failures:
            raise self.failure_of(subject.key)
        return self.time(subject, condition)

    def measure_cohort(self, subjects, condition, is_brief):
        self.happen("cohort", len(self.cohorts))
        name = f"cohort-{len(self.cohorts)}"
        self.cohorts.append((condition.label(), sorted(subjects), is_brief))
        speeds = {
            key: self.speed_of(subject, condition) for key, subject in subjects.items() if key not in self.failures
        }
        found = build_cohort(speeds, cohort=name, condition=condition, **self.facts(condition))
        return Timing(
            measurements={key: dataclasses.replace(timing, is_preliminary=is_brief) for key, timing in found.items()},
            failures={key: self.failure_of(key) for key in subjects if key in self.failures},
        )

    def time_parts(self, parts, condition):
        self.parted.append(condition.label())
        found = {name: build_measurement(100.0 * 2**i, condition=condition) for i, name in enumerate(parts)}
        return Timing(measurements=found)

    def failure_of(self, key):
        reason = self.failures[key]
        return reason if isinstance(reason, HiloNasError) else HiloNasError(reason)

    def score(self, subject, plan, seed, until, task):
        if task.until is None and not plan.declaration.is_quick:  # a dry run tries it for a moment
            return build_score(self.law(subject)[1])
        self.happen("score", len(self.scored))
        if plan.declaration.is_quick:
            self.others.append((subject.key, plan.proxy))
        self.scored.append(subject.key)
        self.legs.append((subject.key, seed, until))
        self.resume(task, until)
        name = plan.hash if subject.is_litv2 else plan.baseline_hash
        plan_hash = name(self.data["content_hash"])
        return build_score(
            self.value_of(subject, seed, until),
            seed=seed,
            images_seen=until,
            metric=plan.score_metric,
            plan_hash=plan_hash,
        )

    def resume(self, task, until):
        if task.checkpoint is None or self.files is None:
            if task.must_resume:
                raise NoCheckpointError(f"no checkpoint {task.checkpoint} is kept")
            return
        path = self.files.path_of(task.checkpoint)
        if path.is_file():
            self.resumed.append(self.legs[-1])
        elif task.must_resume:
            self.scored.pop()
            self.legs.pop()
            raise NoCheckpointError(f"no checkpoint {task.checkpoint} is kept")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(self.checkpoint_bytes))

    def value_of(self, subject, seed, until):
        return self.law(subject)[1] * (until / FULL) ** 0.1

    def law(self, subject):
        """A network's speed and top-1."""
        if subject.arch is None:
            return self.baselines.get(subject.timm, (500.0, 0.5))
        return speed(subject.arch), top1(subject.arch)

    def time(self, subject, condition):
        return build_measurement(self.speed_of(subject, condition), condition=condition, **self.facts(condition))

    def facts(self, condition):
        return {"device": self.device_of[condition.device], "form": self.form, "device_state": dict(self.load)}

    def speed_of(self, subject, condition):
        factor = self.factors.get(subject.key, 1.0) * self.factors.get(condition.label(), 1.0)
        return self.law(subject)[0] * factor * (condition.batch_size / 32) ** 0.5


class FakeTrainer(FakeMachine):
    """A machine whose trainings go on for longer than `FULL`, and are luckier with one seed than with another."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.checkpoint_bytes = 4

    def value_of(self, subject, seed, until):
        noise = int(subject.key[:4], 16) % 7 * seed / 1000
        return top1(subject.arch) * (until / 1e5) ** 0.1 + noise

    def score(self, subject, plan, seed, until, task):
        score = super().score(subject, plan, seed, until, task)
        if plan.declaration.is_quick:
            self.legs.pop()
            score = dataclasses.replace(score, value=1000 * top1(subject.arch))
        return dataclasses.replace(score, standard_error=0.01)


def speed(arch):
    """Images per second."""
    return 1e10 / (2e6 + count_macs(arch, 32, num_classes=10))


def top1(arch):
    """Accuracy between chance and 0.95."""
    return 0.95 - 0.85 * math.exp(-count_params(arch, num_classes=10) / 1e6)


def write_speeds(studies_dir, archs, name="edge", **fields):
    """A study without a proxy, of networks with the speeds that they have by the law; `fields` are its manifest's."""
    plan = build_plan(proxy="none", recipe="none-1", images=1)
    edge = build_device(model="Edge CPU (4 cores)", serial="edge")
    manifest = build_manifest(
        name, **{"device": edge, "plan": plan, "sampler": "random", "trials": len(archs), **fields}
    )
    records = [
        build_record(
            number,
            None,
            None,
            state="timed",
            arch=arch,
            params=find_params(manifest.space, arch),
            origin="random",
            measurements=tuple(
                build_measurement(speed(arch), condition=condition, device=manifest.device)
                for condition in manifest.conditions
            ),
        )
        for number, arch in enumerate(archs)
    ]
    return write_study(studies_dir, name, records, manifest)


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
        **{
            "device": machine.device_of[conditions[0].device],
            "sampler": "random",
            "trials": max(len(archs), 1),
            **fields,
        },
    )
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
