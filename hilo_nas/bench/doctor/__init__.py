"""Check of this machine: what it is, what makes timings unreliable here, and the command that helps."""

from hilo_nas.bench.doctor.finding import Finding
from hilo_nas.bench.doctor.host import check_host
from hilo_nas.bench.doctor.noise import check_timing

__all__ = ["Finding", "check_host", "check_timing"]
