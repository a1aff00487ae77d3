"""Throughput measured on the target device: `Ruler`, its worker process, device locks and timer."""

from hilo_nas.timing.cpu import CpuWatch
from hilo_nas.timing.exclusive import LOCAL_LOCKS, Claim, claims_of, hold, locks_folder
from hilo_nas.timing.ruler import TOGETHER, Cohort, Entrant, Ruler
from hilo_nas.timing.state import describe_use
from hilo_nas.timing.worker import RECORDED_VARIABLES, TUNED_ENVIRONMENT, Worker, call_twice

__all__ = [
    "LOCAL_LOCKS",
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
    "describe_use",
    "hold",
    "locks_folder",
]
