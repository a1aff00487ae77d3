"""CPU contention: cores that a timing needed but other processes used, from the device state of the timing.

Bursts of load are harmless because a network's speed comes from its fast rounds, and bursts leave quiet rounds. A
constant load slows down every round, by a different factor for each network, and the rounds do not show it. Therefore
the load in the quietest fifth of a timing decides.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from hilo_nas.measurement.condition import DeviceIdentity

__all__ = ["Contention", "find_contention"]

_TOLERANCE = 0.2
"""Maximum number of lost cores in the quietest fifth of a timing without contention.

On a virtual machine with two cores, 18 quiet timings lost at most 0.13. Timings next to a process that computes all the
time lost at least 0.97. When the host stole 0.22 cores, the reference was 40 % slower (`benchmarks/constant_load.py`).
"""
_MEAN_TOLERANCE = 0.75
"""Maximum mean number of lost cores without contention, for records without the quietest fifth."""
_ERROR_PER_SHARE, _ERROR_BETWEEN_PER_SHARE = 0.7, 0.4
"""Relative standard errors of a speed, and of the ratio of two LITv2 networks, per share of cores lost to others.

With one of two cores busy, the images/s of three networks of `litv2_digits` had an error of 35 %, and their ratios one
of 17 % (root mean square of 20 timings each, CPU, 2 threads, `python -m benchmarks.constant_load timings FOLDER`). In
an earlier run, the error of the ratios was 21 %. The reference has convolutions, so its loss differs from a LITv2's.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contention:
    """Cores that a timing needed but did not have."""

    lost_cores: float
    needed_cores: int
    text: str
    """Cause of the contention with the number of lost cores, as a clause without a full stop."""
    can_pass: bool
    """True if the contention can end by itself. False for a CPU limit, which stays."""

    @property
    def relative_error(self) -> float:
        """Relative standard error of a speed due to the lost cores."""
        return _ERROR_PER_SHARE * self._share

    @property
    def relative_error_between(self) -> float:
        """Relative standard error of the ratio of two networks in the same rounds, due to the lost cores."""
        return _ERROR_BETWEEN_PER_SHARE * self._share

    @property
    def way_out(self) -> str:
        """Advice to the user, as a sentence."""
        if self.can_pass:
            return "Repeat the timing when the other work has ended."
        return "Raise that limit, or set timing.threads to the number of cores that it allows."

    @property
    def _share(self) -> float:
        return min(self.lost_cores / self.needed_cores, 1.0)


def find_contention(
    device_state: Mapping[str, Any], *, threads: int | None, device: DeviceIdentity
) -> Contention | None:
    """Returns the constant contention during a timing. None if the timing had the cores that it needed.

    Args:
        device_state: `Measurement.device_state` or `Calibration.device_state`.
        threads: Number of threads of a CPU timing, None for all cores. Other devices need one core to launch the work.
        device: Device of the timing. Its model gives the number of cores if the state does not.
    """
    if "others_cores" not in device_state:
        return None
    cores = device_state.get("cores") or _cores_of(device.model) or threads or 1
    needed = max(1, min((threads or cores) if device.kind == "cpu" else 1, cores))
    seen = device_state.get("quietest", device_state)
    lost = _lost(seen, cores - needed)
    if lost <= (_TOLERANCE if "quietest" in device_state else _MEAN_TOLERANCE):
        return None
    throttled = seen.get("throttled_cores", 0.0)
    return Contention(
        lost_cores=min(lost, needed),
        needed_cores=needed,
        text=_text(device_state, cores),
        can_pass=throttled < lost / 2,
    )


def _lost(seen: Mapping[str, Any], free: int) -> float:
    """Returns the cores that a timing lost: those that others used beyond the free ones, and those withheld."""
    others = max(seen["others_cores"] - free, 0.0)
    return float(others + seen.get("steal_cores", 0.0) + seen.get("throttled_cores", 0.0))


def _text(state: Mapping[str, Any], cores: int) -> str:
    clauses = []
    if (others := state["others_cores"]) >= 0.05:
        names = ", ".join(f"{item['name']} {item['pid']}: {item['cores']:.1f}" for item in state.get("with", ()))
        clauses.append(f"other processes kept {others:.1f} of {cores} cores busy" + f" ({names})" * bool(names))
    if (steal := state.get("steal_cores", 0.0)) >= 0.05:
        clauses.append(f"the host of this virtual machine withheld {steal:.1f} of {cores} cores (steal time)")
    if (throttled := state.get("throttled_cores", 0.0)) >= 0.05:
        clauses.append(f"the CPU limit of its control group withheld {throttled:.1f} cores")
    return " and ".join(clauses)


def _cores_of(model: str) -> int | None:
    found = re.search(r"\b(\d+) cores\b", model)
    return int(found[1]) if found else None
