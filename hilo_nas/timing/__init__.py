"""Throughput measured on the target device: `Ruler`, its worker process, device locks and timer."""

from hilo_nas.timing.cpu import CpuWatch
from hilo_nas.timing.exclusive import Claim, claims_of, hold
from hilo_nas.timing.ruler import TOGETHER, Cohort, Entrant, Ruler
from hilo_nas.timing.worker import RECORDED_VARIABLES, TUNED_ENVIRONMENT, Worker, call_twice

__all__ = [
    "RECORDED_VARIABLES",
    "TOGETHER",
    "TUNED_ENVIRONMENT",
    "Claim",
    "Cohort",
    "CpuWatch",
    "Entrant",
    "Ruler",
    "Worker",
    "call_twice",
    "claims_of",
    "hold",
]
