"""Data frames of networks that were timed together: speeds, ratios to the speed of the first network, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hilo_nas.measurement import Measurement
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.rounds import ratio
from hilo_nas.measurement.verdicts import verdict_name

__all__ = ["COHORT_COLUMNS", "build_cohort_frame"]

COHORT_COLUMNS = (
    "name",
    "img_size",
    "images_per_s",
    "images_per_s_low",
    "images_per_s_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "is_paired",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "memory_mib",
    "rounds",
    "verdict",
    "form",
    "runtime",
    "condition",
    "device",
)
"""Columns of the data frame. `ratio` is the speed of a network divided by that of the first network. `is_paired` is
True if both networks were timed in the same rounds. Intervals are 95 % intervals."""


def build_cohort_frame(measurements: Mapping[str, Measurement]) -> pd.DataFrame:
    """Returns a row per network, in the order of `measurements`.

    Networks that were timed in the same rounds are compared round by round. Others are compared by their calibrated
    speeds, so the noise of the reference is part of their intervals.
    """
    names = list(measurements)
    rows = [_row(name, measurements[name], measurements[names[0]]) for name in names]
    return pd.DataFrame(rows, columns=list(COHORT_COLUMNS))


def _row(name: str, own: Measurement, first: Measurement) -> dict[str, Any]:
    is_paired = bool(own.cohort) and own.cohort == first.cohort
    if own is first:
        middle, low, high = 1.0, 1.0, 1.0
    elif is_paired:
        # Batch sizes can differ, so compare images instead of calls.
        scale = own.condition.batch_size / first.condition.batch_size
        middle = scale * ratio(own.call_seconds, first.call_seconds)
        low, high = (scale * end for end in interval(own.call_seconds, first.call_seconds))
    else:
        middle = own.images_per_s / first.images_per_s
        apart = sum((item.half_width / item.images_per_s) ** 2 for item in (own, first)) ** 0.5
        low, high = middle * (1 - apart), middle * (1 + apart)
    names = ("images_per_s", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "memory_mib", "form")
    absolute = own.images_per_s_interval or (None, None)
    return {
        "name": name,
        "img_size": own.condition.img_size,
        **{field: getattr(own, field) for field in names},
        "images_per_s_low": absolute[0],
        "images_per_s_high": absolute[1],
        "verdict": verdict_name(own),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "is_paired": is_paired,
        "rounds": len(own.call_seconds),
        "runtime": own.condition.runtime,
        "condition": own.condition.label(),
        "device": own.device.model,
    }
