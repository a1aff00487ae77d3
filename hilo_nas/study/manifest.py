"""A study's manifest: all that must stay the same for its trials to be comparable, and no path of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import yaml

from hilo_nas.errors import HiloNasError, RecordError
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
_WAY = "Restore it from a copy, or use another --study."


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which images a study's proxies are trained on: a name for people, a hash for comparison, no path."""

    name: str
    hash: str
    """Of the content of the images trained on and scored on, free of any image size, folder or machine."""
    num_classes: Size
    n_images: Count
    """Images of the training source."""
    source_hash: str | None = None
    """SHA-256 of the file whose function gave the training images, to tell whether it was edited; None without one.
    The images' own hash decides whether a study may go on."""
    reading: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of reading the images that differ from the defaults; see `hilo_nas.data.reading.ReadOptions`."""
    val_name: str | None = None
    """Name of the images of `data.val_source`; None where images of the training source are held out."""
    n_scored: Count | None = None
    """Images that networks are scored on; None in studies of earlier versions."""
    chance: Share | None = None
    """Share of the largest class among those images: the top-1 of always guessing it. None in studies of earlier
    versions."""

    pixels: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How pixels were made where that changed some: `background` under transparent images, and the `value_range` that
    was scaled to 8 bits. A deployed network needs the same."""
    unlike_timm: list[str] = dataclasses.field(default_factory=list)
    """Why timm's reader would read the training source otherwise, one phrase each."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, without those that a study of an earlier version lacks."""
        later = {field.name for field in dataclasses.fields(self)} - {*_FIRST_FIELDS}
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in later or value not in (None, {}, [])}


_FIRST_FIELDS = ("name", "hash", "num_classes", "n_images", "source_hash")
"""Fields of `DataIdentity` that every manifest has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a study is."""

    name: str
    space: SearchSpace
    conditions: tuple[Condition, ...]
    """The first is the objective; the others are recorded."""
    calibrations: dict[str, Calibration]
    """The reference's speed under each condition, by the condition's label. Its device is the condition's target."""
    data: DataIdentity
    plan: ProxyPlan
    sampler: str
    seed: Count
    trials: Count
    """Networks to be measured in all (`counts`); a later call may change it."""
    versions: dict[str, str]
    """Of the tool and its libraries when the study was made."""
    created_at: str
    limits: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """Limits that the command line set beside the space's own; see `hilo_nas.space.limits` for their names."""
    speeds: str | None = None
    """Name of the study whose timings were copied, where another machine timed the networks: nothing is timed here."""
    eta: Positive | None = 3.0
    """One of how many networks goes on at each rung of the plan; None where all are fully trained."""
    peers: tuple[str, ...] = ()
    """Networks of others that are timed and trained beside the space's, as `timm:NAME`; a later call may add some."""
    training_device: DeviceIdentity | None = None
    """Device that trained first; scores of others are comparable. None in studies of schema 1."""
    prepared: str | None = None
    """Hash of the facts that the proxy prepared before the first trial; None where it prepared none."""
    copied: Count = 0
    """Number of records when the last ones had been copied from other studies; fewer means that a copy was cut off."""
    schema_version: Count = _SCHEMA_VERSION

    @property
    def objective(self) -> Condition:
        """The condition whose speed is maximised."""
        return self.conditions[0]

    @property
    def device(self) -> DeviceIdentity:
        """The target of the objective."""
        return self.calibrations[self.objective.label()].device

    @cached_property
    def anchor_names(self) -> dict[str, str]:
        """Names of the space's anchors by their keys; kept, because a search asks for every record."""
        return {anchor.arch.key(): anchor.name for anchor in self.space.anchors}

    @property
    def limits_in_force(self) -> dict[str, float]:
        """The space's limits and the command line's, which come first."""
        return {**self.space.limits, **self.limits}

    @property
    def plan_hash(self) -> str:
        """The name of the study's training; see `ProxyPlan.hash`."""
        return self.plan.hash(self.data.hash)

    def plan_hash_of(self, subject: Subject) -> str:
        """Returns the name of the study's training of a network; see `ProxyPlan.baseline_hash`."""
        return self.plan_hash if subject.is_litv2 else self.plan.baseline_hash(self.data.hash)

    @property
    def chance(self) -> float:
        """What a network scores that guesses evenly; 0 where the metric knows no guessing."""
        return metric_named(self.plan.score_metric).chance(self.data.num_classes, None) or 0.0

    @property
    def guessing_score(self) -> float | None:
        """The score of always guessing the largest class; None where the metric knows no guessing."""
        return metric_named(self.plan.score_metric).chance(self.data.num_classes, self.data.chance)

    def interpret_scores(self, record: TrialRecord) -> TrialRecord:
        """Returns a stored record with its scores as this version reads them.

        Scores that do not say what guessing would score are told it. A baseline whose
        scores were taken by an earlier recipe counts as cut off, so that the next search trains it again.
        """
        chance = self.guessing_score
        if chance is None:
            return record
        if record.is_peer:
            named, proxy = self.plan_hash_of(record.subject), self.plan.declaration
            if named != self.plan_hash and self.plan_hash in {score.plan_hash for score in record.scores}:
                reason = f"its score was taken by recipe {proxy.version}, now {proxy.baseline_version}"
                scores = tuple(score for score in record.scores if score.plan_hash == named)
                record = interrupt(record, reason, scores=scores)
        if all(score.chance is not None for score in record.scores):
            return record
        scores = tuple(s if s.chance is not None else dataclasses.replace(s, chance=chance) for s in record.scores)
        return dataclasses.replace(record, scores=scores)

    def counts(self, record: TrialRecord) -> bool:
        """Returns whether a record counts towards `trials`: scored or infeasible; in a study without a proxy, timed."""
        is_timed = record.state == TrialState.TIMED and not record.is_peer
        return record.is_measured or (is_timed and not self.plan.declaration.gives_scores)

    def is_reference(self, record: TrialRecord) -> bool:
        """Returns whether a record is of a network that the search compares with: an anchor or a peer."""
        return record.is_peer or record.key in self.anchor_names

    def is_comparable(self, measurement: Measurement) -> bool:
        """Returns whether a measurement was taken under a condition of the study, on its device, by its protocol."""
        calibration = self.calibrations.get(measurement.condition.label())
        return (
            calibration is not None
            and measurement.protocol == calibration.protocol
            and not measurement.device.differences(calibration.device)
        )

    def rank_of(self, measurement: Measurement) -> int:
        """Returns a sorting key: the conditions in their order, and last what is not comparable."""
        if not self.is_comparable(measurement):
            return len(self.conditions)
        labels = [condition.label() for condition in self.conditions]
        return labels.index(measurement.condition.label())

    def to_yaml(self) -> str:
        """Returns the manifest as it is stored."""
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
            "eta": self.eta,
            "peers": list(self.peers),
            **({} if self.prepared is None else {"prepared": self.prepared}),
            **({"copied": self.copied} if self.copied else {}),
        }
        return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=110)

    @classmethod
    def from_yaml(cls, text: str) -> Manifest:
        """Builds the manifest that `to_yaml` wrote.

        Raises:
            RecordError: It is not a manifest, was changed by hand, or a newer version wrote it.
        """
        try:
            fields = parse_yaml(text)
        except yaml.YAMLError as error:
            raise RecordError(f"it is not YAML ({' '.join(str(error).split())}). {_WAY}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("schema_version"), int):
            raise RecordError(f"schema_version is missing: this is not a study's manifest. {_WAY}")
        if fields["schema_version"] > _SCHEMA_VERSION:
            raise RecordError(
                f"schema_version must be at most {_SCHEMA_VERSION}, but got {fields['schema_version']}: a newer "
                "hilo-nas made this study. Upgrade hilo-nas to use it."
            )
        # Space and plan are named by hashes of what they say, and hold no text of others but what a check has passed.
        fields = {name: item if name in ("space", "plan") else one_lined(item) for name, item in fields.items()}
        if fields["schema_version"] < _SCHEMA_VERSION:
            fields = upgraded_manifest(fields)
        try:
            manifest, stored = _build(cls, fields)
        except RecordError as error:
            raise RecordError(f"{error}\n{_WAY}") from error
        for part, found in {"space": manifest.space.hash(), "plan": manifest.plan_hash}.items():
            if stored[part] != found:
                raise RecordError(
                    f"the {part} was changed after the study was made (its hash is {found}, the manifest says "
                    f"{stored[part]}). Undo the change, or make a new study."
                )
        return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Timing:
    """A condition with the reference's speed under it, as a manifest stores them."""

    condition: Condition
    calibration: Calibration


def _build(cls: type[Manifest], fields: Mapping[str, Any]) -> tuple[Manifest, dict[str, Any]]:
    """Returns the manifest of some fields, with the hashes that they say; RecordError names all that are wrong."""
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
