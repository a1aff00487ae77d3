"""Expected gain of further trainings, from joint draws of the values of networks.

Array names carry a shape suffix: D draws, F trained networks, M other networks, S steps of a front.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from hilo_nas.surrogate.gaussian_process import Floats
from hilo_nas.surrogate.improvement import staircase

__all__ = ["ExpectedGain", "expect_gains"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpectedGain:
    """Expected gain of the trainings of the first networks in an order."""

    hypervolume: float
    """Growth of the hypervolume, relative to that of the trained networks."""
    value: float
    """Largest growth of the best value among networks of at least `log_speed`."""
    log_speed: float


def expect_gains(
    speed_F: Floats,
    trained_DF: Floats,
    speed_DM: Floats,
    value_DM: Floats,
    ref_point: tuple[float, float],
    count: int,
) -> list[ExpectedGain]:
    """Returns the expected gain of training 1, 2, ... `count` networks, each chosen for the largest expected gain.

    Empty if no trained network is above the reference point.

    The networks are chosen before any of them is trained. A search that learns from each training chooses better.

    Args:
        speed_F: Log images/s of the trained networks.
        trained_DF: Joint draws of their values.
        speed_DM: Draws of the log images/s of other networks.
        value_DM: Joint draws of their values. Use `-inf` in draws in which a network is infeasible.
        ref_point: Reference log images/s and value.
        count: Number of networks.
    """
    networks = speed_DM.shape[1]
    fronts = [staircase(speed_F, drawn_F, ref_point) for drawn_F in trained_DF]
    speeds = np.unique(speed_F[speed_F > ref_point[0]])
    area = float(np.mean([_area(steps, float(speed_F.max())) for steps in fronts]))
    if not ((speed_F > ref_point[0]) & (trained_DF.mean(axis=0) > ref_point[1])).any() or not area > 0:
        return []  # nothing to which a gain could be relative
    before_DS = np.array([_best_at(speeds, steps) for steps in fronts])
    left, gained, found = np.ones(networks, dtype=bool), 0.0, list[ExpectedGain]()
    for _ in range(min(count, networks)):
        gain_DM = np.array([_gains(steps, speed_DM[drawn], value_DM[drawn]) for drawn, steps in enumerate(fronts)])
        gain_M = np.where(left, gain_DM.mean(axis=0), -1.0)
        best = int(gain_M.argmax())
        left[best] = False
        gained += float(gain_M[best])
        fronts = [
            _with(steps, float(speed_DM[drawn, best]), float(value_DM[drawn, best]), ref_point)
            for drawn, steps in enumerate(fronts)
        ]
        growth_S = (np.array([_best_at(speeds, steps) for steps in fronts]) - before_DS).mean(axis=0)
        s = int(growth_S.argmax()) if len(speeds) else None
        found.append(
            ExpectedGain(
                hypervolume=gained / area,
                value=0.0 if s is None else float(growth_S[s]),
                log_speed=ref_point[0] if s is None else float(speeds[s]),
            )
        )
    return found


def _gains(steps: tuple[Floats, Floats], speed_M: Floats, value_M: Floats) -> Floats:
    """Returns the growth of the hypervolume with each network, shape [M]."""
    lows_S, best_S = steps
    highs_S = np.append(lows_S[1:], math.inf)
    widths_MS = np.clip(np.minimum(speed_M[:, None], highs_S) - lows_S, 0.0, None)
    return np.asarray((widths_MS * np.clip(value_M[:, None] - best_S, 0.0, None)).sum(axis=1))


def _with(
    steps: tuple[Floats, Floats], speed: float, value: float, ref_point: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Returns the steps of a front with another network."""
    lows_S, best_S = steps
    # The network that ends step k, and is the first of step k - 1, has the speed where step k begins.
    speeds, values = np.append(lows_S[1:], speed), np.append(best_S[:-1], value)
    return staircase(speeds, values, ref_point)


def _best_at(speeds: Floats, steps: tuple[Floats, Floats]) -> Floats:
    """Returns the best value among networks of at least each speed."""
    lows_S, best_S = steps
    return best_S[np.searchsorted(lows_S, speeds, side="left") - 1]


def _area(steps: tuple[Floats, Floats], fastest: float) -> float:
    """Returns the hypervolume of a front whose fastest network has this log images/s."""
    lows_S, best_S = steps
    return float((np.diff(np.append(lows_S, max(fastest, lows_S[-1]))) * (best_S - best_S[-1])).sum())
