"""Measurements and their conditions as plain values that can be stored as JSON.

A `Measurement` holds the throughput of a network. A `ProxyScore` holds its accuracy after a short training. Both
contain all data that is needed to decide whether two values are comparable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.measurement.condition import (
        ALL_CUDA,
        ENVIRONMENTS,
        PRECISIONS,
        RUNTIMES,
        TORCH_ONLY,
        Condition,
        DeviceIdentity,
        devices_of,
        kind_of_device,
        kind_of_target,
        slug_of_model,
    )
    from hilo_nas.measurement.contention import Contention, find_contention
    from hilo_nas.measurement.proxy_score import (
        ProxyPlan,
        ProxyScore,
        mean_score,
    )
    from hilo_nas.measurement.timing_result import LATENCY_PROTOCOL, PROTOCOL, VERDICTS, Calibration, Measurement

__all__ = [
    "ALL_CUDA",
    "ENVIRONMENTS",
    "LATENCY_PROTOCOL",
    "PRECISIONS",
    "PROTOCOL",
    "RUNTIMES",
    "TORCH_ONLY",
    "VERDICTS",
    "Calibration",
    "Condition",
    "Contention",
    "DeviceIdentity",
    "Measurement",
    "ProxyPlan",
    "ProxyScore",
    "devices_of",
    "find_contention",
    "kind_of_device",
    "kind_of_target",
    "mean_score",
    "slug_of_model",
]

_HOMES = {
    **dict.fromkeys(("ALL_CUDA", "ENVIRONMENTS", "PRECISIONS", "RUNTIMES", "TORCH_ONLY"), "condition"),
    **dict.fromkeys(("Condition", "DeviceIdentity", "devices_of", "kind_of_device", "kind_of_target"), "condition"),
    "slug_of_model": "condition",
    **dict.fromkeys(("Contention", "find_contention"), "contention"),
    **dict.fromkeys(("ProxyPlan", "ProxyScore", "mean_score"), "proxy_score"),
    **dict.fromkeys(("LATENCY_PROTOCOL", "PROTOCOL", "VERDICTS", "Calibration", "Measurement"), "timing_result"),
}

__getattr__ = lazy_names(__name__, _HOMES)
