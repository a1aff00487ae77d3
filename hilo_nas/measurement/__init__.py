"""What was measured and under which condition, as plain values that survive JSON.

A `Measurement` is throughput, a `ProxyScore` is accuracy after a short training. Both carry all that is needed to
decide whether two of them may stand in one table.
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
