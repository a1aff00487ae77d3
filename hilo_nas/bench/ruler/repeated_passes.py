"""Findings of the ruler benchmark: agreement of repeated timings, and a comparison of statistics.

A pass times every network once. Passes are repeated in each state of the machine (`quiet`, or `bursty` with an
artificial load) and in each way of timing (`cohort`: all networks in the same rounds; `alone`: one after the other).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.arch.config import ArchConfig
from hilo_nas.bench.cohort_timing import advise
from hilo_nas.bench.ruler.resolution import compare_statistics, summarize_passes
from hilo_nas.errors import HiloNasError
from hilo_nas.measurement import VERDICTS, Measurement
from hilo_nas.measurement.verdicts import verdict_name

__all__ = ["STATES", "WAYS", "RulerFindings", "TimedPass"]

STATES = ("quiet", "bursty")
WAYS = ("cohort", "alone")
_REFERENCE = "reference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedPass:
    """One pass: a timing of every network."""

    state: str
    """One of `STATES`."""
    way: str
    """One of `WAYS`."""
    number: int
    measurements: Mapping[str, Measurement]
    seconds: float
    """Seconds of the pass, including building and warm-up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RulerFindings:
    """All passes of the ruler benchmark."""

    networks: Mapping[str, ArchConfig]
    """All drawn architectures by key."""
    passes: Sequence[TimedPass]
    failures: Mapping[str, HiloNasError]
    """Errors of networks that failed, by key. These networks are left out of all results."""

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Timed combinations of a state of the machine (quiet, bursty) and a way of timing (cohort, alone)."""
        return list(dict.fromkeys((item.state, item.way) for item in self.passes))

    def list_passes(self, state: str, way: str) -> list[TimedPass]:
        """Returns the passes in a state and way, without the networks that failed in any pass."""
        return [
            dataclasses.replace(
                item, measurements={key: m for key, m in item.measurements.items() if key not in self.failures}
            )
            for item in self.passes
            if (item.state, item.way) == (state, way)
        ]

    def summarize(self) -> list[dict[str, Any]]:
        """Returns a row for each state and way, with the agreement and cost of its passes."""
        return [self._row(state, way) for state, way in self.ways]

    def _row(self, state: str, way: str) -> dict[str, Any]:
        passes = self.list_passes(state, way)
        found = summarize_passes([_speeds(item) for item in passes])
        every = [measurement for item in passes for measurement in item.measurements.values()]
        others = [m.device_state["others_cores"] for m in every if "others_cores" in m.device_state]
        return {
            "state": state,
            "way": way,
            "networks": len(passes[0].measurements),
            "passes": len(passes),
            **dataclasses.asdict(found),
            "smallest_ratio": found.smallest_ratio,
            # With "alone", a measurement's seconds include building and warm-up.
            "timed_s": statistics.fmean(m.seconds - sum(m.latency_seconds) for m in every) if way == "cohort" else None,
            "pass_s": statistics.fmean(item.seconds for item in passes) / len(passes[0].measurements),
            **{verdict: sum(verdict_name(m) == verdict for m in every) / len(every) for verdict in VERDICTS},
            "others_cores": statistics.median(others) if others else None,
        }

    def list_timings(self) -> list[dict[str, Any]]:
        """Returns a row for each network in each pass."""
        names = ("images_per_s", "images_per_s_low", "images_per_s_high", "verdict", "seconds", "measured_at")
        return [
            {
                "state": item.state,
                "way": item.way,
                "pass": item.number,
                "network": key,
                "rounds": len(measurement.call_seconds),
                **{name: getattr(measurement, name) for name in names},
            }
            for item in self.passes
            for key, measurement in item.measurements.items()
        ]

    def compare_statistics(self) -> list[dict[str, Any]]:
        """Returns how well each statistic of the rounds (`STATISTICS`) repeats, as a row per state of the machine.

        It uses the passes in which all networks were timed together (`cohort`).
        """
        rows = []
        for state in STATES:
            samples = [
                {
                    _REFERENCE: next(iter(item.measurements.values())).reference_seconds,
                    **{key: measurement.call_seconds for key, measurement in item.measurements.items()},
                }
                for item in self.list_passes(state, "cohort")
            ]
            for statistic, found in compare_statistics(samples, _REFERENCE).items():
                rows.append({"state": state, "statistic": statistic, **dataclasses.asdict(found)})
        return rows

    def advise(self) -> list[str]:
        """Returns advice about the machine if timings in the quiet state were not steady."""
        return advise(m for item in self.passes if item.state == "quiet" for m in item.measurements.values())


def _speeds(item: TimedPass) -> dict[str, float]:
    return {key: measurement.images_per_s for key, measurement in item.measurements.items()}
