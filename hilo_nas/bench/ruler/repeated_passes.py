"""What a ruler's passes brought: how well they agree in each state and way, and what each statistic makes of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.arch.config import ArchConfig
from hilo_nas.bench.cohort_timing import advise
from hilo_nas.bench.ruler.resolution import compare_statistics, resolve
from hilo_nas.errors import HiloNasError
from hilo_nas.measurement import VERDICTS, Measurement
from hilo_nas.measurement.rounds import verdict_name

__all__ = ["STATES", "WAYS", "RulerFindings", "TimedPass"]

STATES = ("quiet", "bursty")
WAYS = ("cohort", "alone")
_REFERENCE = "reference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedPass:
    """Every network timed once."""

    state: str
    """One of `STATES`."""
    way: str
    """One of `WAYS`."""
    number: int
    measurements: Mapping[str, Measurement]
    seconds: float
    """What the pass took, building and warming up included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RulerFindings:
    """All passes over the networks."""

    networks: Mapping[str, ArchConfig]
    """By key, all that were drawn."""
    passes: Sequence[TimedPass]
    failures: Mapping[str, HiloNasError]
    """By key, why a network could not be timed; it is left out of every figure."""

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Every state and way that was timed."""
        return list(dict.fromkeys((item.state, item.way) for item in self.passes))

    def of(self, state: str, way: str) -> list[TimedPass]:
        """Returns the passes in a state and way, less the networks that failed in any."""
        return [
            dataclasses.replace(
                item, measurements={key: m for key, m in item.measurements.items() if key not in self.failures}
            )
            for item in self.passes
            if (item.state, item.way) == (state, way)
        ]

    def summarize(self) -> list[dict[str, Any]]:
        """Returns a row for each state and way: how well its passes agree, and what they cost."""
        return [self._row(state, way) for state, way in self.ways]

    def _row(self, state: str, way: str) -> dict[str, Any]:
        passes = self.of(state, way)
        found = resolve([_speeds(item) for item in passes])
        every = [measurement for item in passes for measurement in item.measurements.values()]
        others = [m.device_state["others_cores"] for m in every if "others_cores" in m.device_state]
        return {
            "state": state,
            "way": way,
            "networks": len(passes[0].measurements),
            "passes": len(passes),
            **dataclasses.asdict(found),
            "smallest_ratio": found.smallest_ratio,
            # Alone, a measurement's seconds hold building and warming up too.
            "timed_s": statistics.fmean(m.seconds - sum(m.latency_seconds) for m in every) if way == "cohort" else None,
            "pass_s": statistics.fmean(item.seconds for item in passes) / len(passes[0].measurements),
            **{verdict: sum(verdict_name(m) == verdict for m in every) / len(every) for verdict in VERDICTS},
            "others_cores": statistics.median(others) if others else None,
        }

    def list_timings(self) -> list[dict[str, Any]]:
        """Returns a row for each network in each pass: the evidence."""
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
        """Returns a row for each state and statistic, from the same samples: those of the cohorts."""
        rows = []
        for state in STATES:
            samples = [
                {
                    _REFERENCE: next(iter(item.measurements.values())).reference_seconds,
                    **{key: measurement.call_seconds for key, measurement in item.measurements.items()},
                }
                for item in self.of(state, "cohort")
            ]
            for statistic, found in compare_statistics(samples, _REFERENCE).items():
                rows.append({"state": state, "statistic": statistic, **dataclasses.asdict(found)})
        return rows

    def advise(self) -> list[str]:
        """Returns what to do about a machine that was not quiet when it should have been."""
        return advise(m for item in self.passes if item.state == "quiet" for m in item.measurements.values())


def _speeds(item: TimedPass) -> dict[str, float]:
    return {key: measurement.images_per_s for key, measurement in item.measurements.items()}
