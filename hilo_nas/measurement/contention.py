"""Cores that a timing needed and others used, from what its device said of itself.

Bursts leave quiet rounds, and a network's speed is that of its fast rounds: they do no harm. A load that never pauses
slows down every round, one network more than another, and nothing in the rounds shows it. So the quietest fifth of a
timing decides.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from hilo_nas.measurement.condition import DeviceIdentity

__all__ = ["Contention", "find_contention"]

_TOLERANCE = 0.2
"""Cores that others may use, in the quietest fifth of a timing, of those that it needs.

At most 0.13 in 18 timings of a quiet virtual machine with two cores, 0.97 or more beside a process that computes all
the time; at 0.22, stolen by the host, the reference was 40 % slower (`benchmarks/constant_load.py`).
"""
_SURE = 0.75
"""Cores that others used on average from which a load was constant, where a record does not tell the quietest fifth."""
_ERROR_PER_SHARE, _ERROR_BETWEEN_PER_SHARE = 0.7, 0.4
"""Relative standard errors of a speed, and of the ratio of two LITv2 networks, per share of cores that others took.

With one of two cores busy, the images/s of three networks of `litv2_digits` were off by 35 % and their ratios by 17 %
(root mean square of 20 timings each, CPU, 2 threads, `python -m benchmarks.constant_load timings FOLDER`); in an
earlier run, ratios were off by 21 %. The reference, which has convolutions, loses more or less than a LITv2 does.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contention:
    """What was missing of the cores that a timing needed."""

    lost_cores: float
    needed_cores: int
    text: str
    """Who used them and how much, as a clause."""
    can_pass: bool
    """Whether it may be over when the timing is repeated; a CPU limit stays."""

    @property
    def relative_error(self) -> float:
        """Standard error of the speed over the speed, from the cores that were missing."""
        return _ERROR_PER_SHARE * self._share

    @property
    def relative_error_between(self) -> float:
        """Standard error of the ratio of two networks that were timed in the same rounds."""
        return _ERROR_BETWEEN_PER_SHARE * self._share

    @property
    def way_out(self) -> str:
        """What to do about it, as a sentence."""
        if self.can_pass:
            return "Time again when that work has ended."
        return "Raise that limit, or set timing.threads to the number that it allows."

    @property
    def _share(self) -> float:
        return min(self.lost_cores / self.needed_cores, 1.0)


def find_contention(
    device_state: Mapping[str, Any], *, threads: int | None, device: DeviceIdentity
) -> Contention | None:
    """Returns what a timing lost to others all the time; None where it had the cores that it needed.

    Args:
        device_state: `Measurement.device_state` or `Calibration.device_state`.
        threads: Threads of the timing, None for all cores; for a device other than the CPU one core launches the work.
        device: Where it was timed; the CPU's model tells the cores where the state does not.
    """
    if "others_cores" not in device_state:
        return None
    cores = device_state.get("cores") or _cores_of(device.model) or threads or 1
    needed = max(1, min((threads or cores) if device.kind == "cpu" else 1, cores))
    seen = device_state.get("quietest", device_state)
    lost = _lost(seen, cores - needed)
    if lost <= (_TOLERANCE if "quietest" in device_state else _SURE):
        return None
    throttled = seen.get("throttled_cores", 0.0)
    return Contention(
        lost_cores=min(lost, needed),
        needed_cores=needed,
        text=_text(device_state, cores),
        can_pass=throttled < lost / 2,
    )


def _lost(seen: Mapping[str, Any], free: int) -> float:
    """Cores missing: what others used beyond the free ones; time stolen or refused was that of the timing."""
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
