"""Upgrade of records and manifests from schema 1, written by earlier versions, to schema 2.

Schema 1 marked interruptions and retries by texts, named every result `proxy_top1`, stored images/s instead of the
ratio to the reference, and included the index of a GPU in its conditions.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import RecordError
from hilo_nas.measurement import PROTOCOL, Condition
from hilo_nas.measurement.fields import read_value
from hilo_nas.measurement.rounds import ratio

__all__ = ["upgraded", "upgraded_manifest"]

_INTERRUPTED, _RAISED, _RETRY = "interrupted before it finished", "due again: the budget was raised", "retry"
"""Texts used as marks: prefix of a reason, a reason, and prefix of an origin."""
_SAMPLED = "sampler"
_NAMES = {"proxy_top1": "value", "proxy_top1_se": "standard_error"}
_RATIOS = {
    "images_per_s": "ratio",
    "images_per_s_spread": "ratio_spread",
    "images_per_s_low": "ratio_low",
    "images_per_s_high": "ratio_high",
}
_DERIVED = ("ratios", "calibration_error")
"""Fields of a schema 1 measurement that schema 2 computes from the rounds and the current calibration instead."""
_MEDIAN_PROTOCOL = 1
"""Protocol that compared networks by the median of the ratios per round."""
_INDEX = re.compile(r"(?:^|(?<=@))cuda:?[0-9]+(?=$|-)")
"""Pattern for a GPU with its index, as a device or in a condition's label."""


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a schema 1 record as schema 2 fields. The record reader reports invalid values.

    Raises:
        RecordError: A field that must be a list has another type, or the speed of a measurement cannot be read.
    """
    found = {**values, "schema_version": 2}
    if "is_interrupted" not in values:
        reason = str(values.get("reason") or "")
        found["is_interrupted"] = values.get("state") == "failed" and reason.startswith(_INTERRUPTED)
        found["is_raised"] = reason == _RAISED
    kind, _, number = str(values.get("origin", _SAMPLED)).partition(":")
    if kind == _RETRY and number.isdecimal():
        found["origin"] = _SAMPLED
    for name in ("scores", "other_scores"):
        found[name] = [_renamed(score) for score in _items(values, name)]
    found["measurements"] = [_measurement(item) for item in _items(values, "measurements")]
    found["imputed"] = _renamed(values.get("imputed", {}))
    found["violations"] = _relabelled(values.get("violations", {}))
    return found


def upgraded_manifest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a schema 1 manifest as schema 2 fields. The manifest reader reports invalid values.

    Raises:
        RecordError: A condition has no calibration, or conditions or calibrations have the wrong type.
    """
    found = {**values, "schema_version": 2, "limits": _relabelled(values.get("limits", {}))}
    conditions, calibrations = found.pop("conditions", None), found.pop("calibrations", None)
    found.pop("device", None)  # each calibration holds the device
    if not isinstance(conditions, list) or not isinstance(calibrations, dict):
        raise RecordError("conditions must be a list, and calibrations must be a mapping by condition label")
    calibrations = _relabelled(calibrations)
    found["timings"] = []
    for item in conditions:
        condition = _without_index(item)
        label = read_value(Condition, condition).label()
        if label not in calibrations:
            raise RecordError(f"calibrations must hold one per condition, but {label} has none")
        found["timings"].append({"condition": condition, "calibration": calibrations[label]})
    return found


def _without_number(name: str) -> str:
    """Returns a device, a condition's label or a limit's name without the index of a GPU."""
    return _INDEX.sub("cuda", name)


def _items(values: Mapping[str, Any], name: str) -> list[Any]:
    items = values.get(name, [])
    if not isinstance(items, list):
        raise RecordError(f"{name} must be a list, but got {items!r:.80}")
    return items


def _renamed(fields: Any) -> Any:
    return {_NAMES.get(name, name): item for name, item in fields.items()} if isinstance(fields, dict) else fields


def _relabelled(fields: Any) -> Any:
    return {_without_number(name): item for name, item in fields.items()} if isinstance(fields, dict) else fields


def _without_index(condition: Any) -> Any:
    if isinstance(condition, dict) and isinstance(condition.get("device"), str):
        return {**condition, "device": _without_number(condition["device"])}
    return condition


def _measurement(fields: Any) -> Any:
    """Returns the measurement with the ratio to the reference, computed from its rounds.

    Without rounds, the reference's speed is 1 image/s.
    """
    if not isinstance(fields, dict):
        return fields
    found = {_RATIOS.get(name, name): item for name, item in fields.items() if name not in _DERIVED}
    found["condition"] = _without_index(found.get("condition"))
    try:
        relative = _ratio(fields) or fields["images_per_s"]
        reference = fields["images_per_s"] / relative
        found["reference_images_per_s"] = reference
        for old, new in _RATIOS.items():
            if fields.get(old) is not None:
                found[new] = fields[old] / reference
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise RecordError(f"a measurement cannot be read: {error!r}") from error
    return found


def _ratio(fields: Mapping[str, Any]) -> float | None:
    own, reference = fields["call_seconds"], fields["reference_seconds"]
    if not own or not reference:
        return None
    if fields.get("protocol", PROTOCOL) <= _MEDIAN_PROTOCOL:
        return float(statistics.median(fields["ratios"]))
    return ratio(own, reference)
