"""Further conditions of a study, such as another target. Manifest and records with one of them as the objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from hilo_nas.errors import UsageError
from hilo_nas.measurement import Condition
from hilo_nas.space import LIMITS, SearchSpace, broken_limits
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord

__all__ = ["find_condition", "first_per_target", "further_targets", "manifest_under", "record_under"]


@dataclasses.dataclass(frozen=True)
class _LimitlessSpace(SearchSpace):
    """Space of a study whose limits are all among those of the manifest. It has the hash of the stored space."""

    stored_hash: str = ""

    def hash(self) -> str:
        """Returns the hash of the stored space."""
        return self.stored_hash


def find_condition(manifest: Manifest, name: str) -> Condition:
    """Returns the condition of a study with a label, or the only one whose label starts with `name`.

    Raises:
        UsageError: The study has no such condition, or several.
    """
    by_label = {condition.label(): condition for condition in manifest.conditions}
    found = [name] if name in by_label else [label for label in by_label if name and label.startswith(name)]
    if len(found) != 1:
        raise UsageError(
            f"condition must be one of {', '.join(by_label)}, but got {name!r}. Use a label or a unique start of one"
        )
    return by_label[found[0]]


def first_per_target(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Returns the first condition on each target, in their order."""
    found: list[Condition] = []
    for condition in conditions:
        if not any(condition.shares_target(other) for other in found):
            found.append(condition)
    return tuple(found)


def further_targets(manifest: Manifest) -> tuple[Condition, ...]:
    """Returns the first condition on each target other than the objective's. Empty for a study with one target."""
    return first_per_target(manifest.conditions)[1:]


def manifest_under(manifest: Manifest, condition: Condition) -> Manifest:
    """Returns the manifest of a study with another objective, for reading its records. It is never stored.

    Limits keep their conditions, so their names change: `latency_ms@cpu-b1-224px-fp32` becomes `latency_ms` under
    `cpu-b1-224px-fp32`.

    Args:
        manifest: Manifest of the study.
        condition: One of its conditions.
    """
    if condition == manifest.objective:
        return manifest
    limits: dict[str, float] = {}
    own = condition.label()
    for name, bound in manifest.limits_in_force.items():
        quantity, _, label = name.partition("@")
        if not LIMITS[quantity].is_free:
            label = label or manifest.objective.label()
            name = quantity if label == own else f"{quantity}@{label}"
        limits[name] = bound
    others = [other for other in manifest.conditions if other != condition]
    fields = {field.name: getattr(manifest.space, field.name) for field in dataclasses.fields(manifest.space)}
    space = _LimitlessSpace(**{**fields, "limits": {}, "stored_hash": manifest.space.hash()})
    return dataclasses.replace(manifest, space=space, conditions=(condition, *others), limits=limits)


def record_under(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    """Returns a record of a study as it counts under a further condition, for reading. It is never stored.

    The first measurement of a record is that of the objective (`TrialRecord.measurement`). So a network without a
    comparable timing under the condition has no measurements at all. The reason of an infeasible trial starts with the
    label of the objective if the network breaks a limit there, because its text does not name the objective.

    Args:
        record: Record with its timings in the order of `manifest`.
        manifest: Manifest of the study under the condition (`manifest_under`).
    """
    reason = record.reason
    if reason and any(limit in LIMITS and not LIMITS[limit].is_free for limit in broken_limits(record.violations)):
        objective = manifest.conditions[1]  # `manifest_under` puts the condition before it
        reason = f"{objective.label()}: {reason}"
    is_timed = any(manifest.rank_of(measurement) == 0 for measurement in record.measurements)
    return dataclasses.replace(record, measurements=record.measurements if is_timed else (), reason=reason)
