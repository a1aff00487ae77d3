"""The manifest of a study.

It holds everything that must stay the same to keep the trials comparable. It holds no local paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import yaml

from hilo_nas.errors import HiloNasError, NewerVersionError, RecordError
from hilo_nas.files.safe_yaml import parse_yaml
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, Measurement, ProxyPlan
from hilo_nas.measurement.fields import (
    Count,
    Finite,
    Positive,
    Share,
    Size,
    named_faults,
    read_field,
    read_value,
    to_plain,
)
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.space import SearchSpace
from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.schema_1 import upgraded_manifest
from hilo_nas.study.states import TrialState
from hilo_nas.study.transitions import interrupt
from hilo_nas.text.one_line import one_lined

__all__ = ["DataIdentity", "Manifest"]

_SCHEMA_VERSION = 2
_SCHEMA_OF_TARGETS = 3
"""Schema of a study with several targets. A version that knows only schema 2 would time them all on one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Identity of a study's data set: a name for people, a hash for comparison, and no path."""

    name: str
    hash: str
    """Hash of the content of all training and validation images. It does not depend on image size, folder or
    machine."""
    num_classes: Size
    n_images: Count
    """Number of images in the training source."""
    source_hash: str | None = None
    """SHA-256 of the file with the user function that provides the training images, or None without such a function.
    It shows that the file was edited. `hash` decides whether a study can be resumed."""
    reading: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Read options that differ from the defaults of `hilo_nas.data.reading.ReadOptions`."""
    val_name: str | None = None
    """Name of the image set `data.val_source`. None if images of the training source are held out instead."""
    n_scored: Count | None = None
    """Number of images used for scoring. None in studies of earlier versions."""
    chance: Share | None = None
    """Share of the largest class among the images used for scoring, which is the top-1 of always guessing this class.
    None in studies of earlier versions."""

    pixels: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Pixel conversions that changed some images: the `background` behind transparent images, and the `value_range`
    that was scaled to 8 bits. A deployed network needs the same conversions."""
    unlike_timm: list[str] = dataclasses.field(default_factory=list)
    """Reasons why timm's reader would read the training source differently, one phrase each."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data. Empty fields that earlier versions did not have are omitted."""
        later = {field.name for field in dataclasses.fields(self)} - {*_FIRST_FIELDS}
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in later or value not in (None, {}, [])}


_FIRST_FIELDS = ("name", "hash", "num_classes", "n_images", "source_hash")
"""Fields of `DataIdentity` that every manifest has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Definition of a study: its space, conditions, limits, proxy plan, data and sampler."""

    name: str
    space: SearchSpace
    conditions: tuple[Condition, ...]
    """The first condition is the objective. The others are only recorded."""
    calibrations: dict[str, Calibration]
    """Speed of the reference under each condition, by the condition's label. The device of a calibration is the target
    device of the condition."""
    data: DataIdentity
    plan: ProxyPlan
    sampler: str
    seed: Count
    trials: Count
    """Total number of networks to measure, as `counts` counts them. A resumed search may change it."""
    versions: dict[str, str]
    """Versions of hilo-nas and its libraries when the study was created."""
    created_at: str
    limits: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """Limits from the search settings, in addition to the limits of the space. `hilo_nas.space.limits` defines their
    names."""
    speeds: str | None = None
    """Name of the study that provided the timings, if another machine timed the networks. Such a study times
    nothing itself."""
    reduction_factor: Positive | None = 3.0
    """Reduction factor of successive halving. None if all networks are trained with the full budget."""
    baselines: tuple[str, ...] = ()
    """Baselines that are timed and trained for comparison, as `timm:NAME`. A resumed search may add some."""
    training_device: DeviceIdentity | None = None
    """The first training device. Scores from other devices are comparable. None in studies of schema 1."""
    prepared: str | None = None
    """Hash of the facts that the proxy prepared before the first trial (`Work.prepare`). None if it prepares
    nothing."""
    copied: Count = 0
    """Number of records after the last copy from other studies. If there are fewer records, the copy was
    interrupted."""

    @property
    def objective(self) -> Condition:
        """Condition under which the search maximizes speed."""
        return self.conditions[0]

    @property
    def schema_version(self) -> int:
        """Lowest schema that holds the study."""
        has_one_target = all(condition.shares_target(self.objective) for condition in self.conditions)
        return _SCHEMA_VERSION if has_one_target else _SCHEMA_OF_TARGETS

    @property
    def device(self) -> DeviceIdentity:
        """Target device of the objective condition."""
        return self.calibrations[self.objective.label()].device

    @cached_property
    def anchor_names(self) -> dict[str, str]:
        """Names of the space's anchors by architecture key. Cached because a search needs it for every record."""
        return {anchor.arch.key(): anchor.name for anchor in self.space.anchors}

    @property
    def limits_in_force(self) -> dict[str, float]:
        """Limits of the space and of the search settings, by name. The search settings override the space."""
        return {**self.space.limits, **self.limits}

    @property
    def plan_hash(self) -> str:
        """Hash of the plan and the data set, from `ProxyPlan.hash`. Scores with equal hashes are comparable."""
        return self.plan.hash(self.data.hash)

    def plan_hash_of(self, subject: Subject) -> str:
        """Returns the plan hash for scores of a network. Baselines other than LITv2 use `ProxyPlan.baseline_hash`."""
        return self.plan_hash if subject.is_litv2 else self.plan.baseline_hash(self.data.hash)

    @property
    def chance(self) -> float:
        """Score of uniform guessing, or 0 if the metric does not define it."""
        return metric_named(self.plan.score_metric).chance(self.data.num_classes, None) or 0.0

    @property
    def guessing_score(self) -> float | None:
        """Score of always guessing the largest class, or None if the metric does not define it."""
        return metric_named(self.plan.score_metric).chance(self.data.num_classes, self.data.chance)

    def interpret_scores(self, record: TrialRecord) -> TrialRecord:
        """Returns a stored record with its scores as this version interprets them.

        Scores without a `chance` field get `guessing_score`. A baseline with scores from an earlier recipe becomes
        interrupted, so the next search trains it again.
        """
        chance = self.guessing_score
        if chance is None:
            return record
        if record.is_baseline:
            named, proxy = self.plan_hash_of(record.subject), self.plan.declaration
            if named != self.plan_hash and self.plan_hash in {score.plan_hash for score in record.scores}:
                reason = f"its score is from recipe {proxy.version}, but the current recipe is {proxy.baseline_version}"
                scores = tuple(score for score in record.scores if score.plan_hash == named)
                record = interrupt(record, reason, scores=scores)
        if all(score.chance is not None for score in record.scores):
            return record
        scores = tuple(s if s.chance is not None else dataclasses.replace(s, chance=chance) for s in record.scores)
        return dataclasses.replace(record, scores=scores)

    def counts(self, record: TrialRecord) -> bool:
        """Returns True if a record counts towards `trials`.

        Scored and infeasible networks count. In a study without a proxy, timed networks count too. Baselines never
        count.
        """
        is_timed = record.state == TrialState.TIMED and not record.is_baseline
        return record.is_measured or (is_timed and not self.plan.declaration.gives_scores)

    def is_reference(self, record: TrialRecord) -> bool:
        """Returns True if the network of a record is an anchor or a baseline."""
        return record.is_baseline or record.key in self.anchor_names

    def is_comparable(self, measurement: Measurement) -> bool:
        """Returns True if a measurement has a condition of the study and the device and protocol of its calibration."""
        calibration = self.calibrations.get(measurement.condition.label())
        return (
            calibration is not None
            and measurement.protocol == calibration.protocol
            and not measurement.device.differences(calibration.device)
        )

    def rank_of(self, measurement: Measurement) -> int:
        """Returns the index of the measurement's condition in `conditions`, as a sorting key.

        A measurement that is not comparable gets the number of conditions, so that it comes last.
        """
        if not self.is_comparable(measurement):
            return len(self.conditions)
        labels = [condition.label() for condition in self.conditions]
        return labels.index(measurement.condition.label())

    def to_yaml(self) -> str:
        """Returns the text of `manifest.yaml`."""
        fields = {
            "schema_version": self.schema_version,
            "name": self.name,
            "trials": self.trials,
            "sampler": self.sampler,
            "seed": self.seed,
            "space": {"name": self.space.name, "hash": self.space.hash(), **self.space.to_dict()},
            "timings": [
                {"condition": condition.to_dict(), "calibration": to_plain(self.calibrations[condition.label()])}
                for condition in self.conditions
            ],
            "training_device": to_plain(self.training_device),
            "data": self.data.to_dict(),
            "plan": {**self.plan.to_dict(), "hash": self.plan_hash},
            "versions": self.versions,
            "created_at": self.created_at,
            "limits": self.limits,
            "speeds": self.speeds,
            "reduction_factor": self.reduction_factor,
            "baselines": list(self.baselines),
            **({} if self.prepared is None else {"prepared": self.prepared}),
            **({"copied": self.copied} if self.copied else {}),
        }
        return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=110)

    @classmethod
    def from_yaml(cls, text: str) -> Manifest:
        """Returns the manifest from the text of `to_yaml`, also from earlier versions.

        Raises:
            RecordError: The text is not a manifest, or was edited.
            NewerVersionError: A newer version wrote the text.
        """
        try:
            fields = parse_yaml(text)
        except yaml.YAMLError as error:
            raise RecordError(f"it is not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("schema_version"), int):
            raise RecordError("schema_version is missing: this is not a study's manifest")
        if fields["schema_version"] > _SCHEMA_OF_TARGETS:
            raise NewerVersionError(
                f"schema_version must be at most {_SCHEMA_OF_TARGETS}, but got {fields['schema_version']}: a newer "
                "hilo-nas created this study. Upgrade hilo-nas to use it."
            )
        # Space and plan must stay as they are, because their hashes are compared below. Their text has been validated.
        fields = {
            _OLD_NAMES.get(name, name): item if name in ("space", "plan") else one_lined(item)
            for name, item in fields.items()
        }
        if fields["schema_version"] < _SCHEMA_VERSION:
            fields = upgraded_manifest(fields)
        del fields["schema_version"]  # the conditions decide it
        manifest, stored = _build(cls, fields)
        for part, found in {"space": manifest.space.hash(), "plan": manifest.plan_hash}.items():
            if stored[part] != found:
                raise RecordError(
                    f"the {part} was changed after the study was created: its hash is {found}, but the manifest says "
                    f"{stored[part]}. Undo the change, or create a new study."
                )
        return manifest


_OLD_NAMES = {"peers": "baselines", "eta": "reduction_factor"}
"""Current name of each field that had another name in manifests of earlier versions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Timing:
    """A condition with its calibration, as stored in a manifest."""

    condition: Condition
    calibration: Calibration


def _build(cls: type[Manifest], fields: Mapping[str, Any]) -> tuple[Manifest, dict[str, Any]]:
    """Returns the manifest built from plain fields, and the hashes of space and plan that the file contains.

    Raises:
        RecordError: Some fields are invalid. The message lists all of them.
    """
    values = dict(fields)
    faults: list[str] = []

    def read(name: str, reader: Callable[[Any], Any]) -> Any:
        try:
            return reader(values.pop(name, None))
        except HiloNasError as error:
            faults.extend(named_faults(name, error))
            return None

    space, space_hash = read("space", _read_space) or (None, None)
    plan, plan_hash = read("plan", _read_plan) or (None, None)
    timings = read("timings", _read_timings) or ()
    read_rest = {
        "space": space,
        "plan": plan,
        "conditions": tuple(timing.condition for timing in timings),
        "calibrations": {timing.condition.label(): timing.calibration for timing in timings},
    }
    manifest = None
    try:
        manifest = read_value(cls, values, given=read_rest)
    except RecordError as error:
        faults += str(error).split("\n")
    if faults or manifest is None:
        raise RecordError("\n".join(faults))
    return manifest, {"space": space_hash, "plan": plan_hash}


def _read_space(fields: Any) -> tuple[SearchSpace, Any]:
    space = dict(read_field(fields, dict[str, Any]))
    name, stored = read_field(space.pop("name", None), str), space.pop("hash", None)
    return build_space(name, space), stored


def _read_plan(fields: Any) -> tuple[ProxyPlan, Any]:
    plan = dict(read_field(fields, dict[str, Any]))
    stored = plan.pop("hash", None)
    return ProxyPlan.from_dict(plan), stored


def _read_timings(items: Any) -> tuple[_Timing, ...]:
    timings = read_field(items, tuple[_Timing, ...])
    if not timings:
        raise RecordError(" must hold at least one condition, the objective, but is empty")
    return cast(tuple[_Timing, ...], timings)
