"""Measurements and their conditions as plain values that can be stored as JSON.

A `Measurement` holds the throughput of a network. A `ProxyScore` holds its accuracy after a short training. Both
contain all data that is needed to decide whether two values are comparable.
"""

from hilo_nas.measurement.condition import (
    ENVIRONMENTS,
    PRECISIONS,
    RUNTIMES,
    TORCH_ONLY,
    Condition,
    DeviceIdentity,
    kind_of_device,
)
from hilo_nas.measurement.contention import Contention, find_contention
from hilo_nas.measurement.proxy_score import (
    ProxyPlan,
    ProxyScore,
    mean_score,
)
from hilo_nas.measurement.timing_result import LATENCY_PROTOCOL, PROTOCOL, VERDICTS, Calibration, Measurement

__all__ = [
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
    "find_contention",
    "kind_of_device",
    "mean_score",
]
