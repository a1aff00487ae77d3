"""Expected hypervolume improvement of networks whose speed and value are uncertain.

The hypervolume is the area that a front dominates above a reference point, in log images/s and value. A network of
known speed adds, in expectation, the sum over the steps of the front below its speed: the width of the step, times the
expected improvement over the best value among the networks at least that fast (Jones et al. 1998; for two objectives
Emmerich et al. 2011). An uncertain speed is integrated by Gauss-Hermite quadrature.

Array names carry a shape suffix: F members of the front, M networks, Q nodes of the quadrature.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from hilo_nas.surrogate.gaussian_process import Floats

__all__ = ["expected_excess", "expected_improvement", "staircase"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def staircase(speeds: Floats, values: Floats, ref_point: tuple[float, float]) -> tuple[Floats, Floats]:
    """Returns the steps of a front: lower ends in log images/s, ascending from the reference, and the best values.

    Step k reaches from its lower end to that of step k + 1, and the last one to infinity. Its best value is the largest
    value among the networks that are faster, at least the reference value.

    Args:
        speeds: Log images/s of networks, in any order. They need not be on the front.
        values: Their values.
        ref_point: Reference log images/s and value.
    """
    order = np.argsort(-speeds, kind="stable")
    ends, best = [math.inf], [ref_point[1]]
    for i in order:
        if speeds[i] > ref_point[0] and values[i] > best[-1]:
            ends.append(float(speeds[i]))
            best.append(float(values[i]))
    lows = [*ends[1:], ref_point[0]]
    return np.array(lows[::-1]), np.array(best[::-1])


def expected_excess(mean: Floats, sd: Floats, level: Floats | float) -> Floats:
    """Returns the expected excess of normal variables over a level, `E[max(value - level, 0)]`."""
    scaled = (mean - level) / sd
    density = np.exp(-0.5 * scaled * scaled) / math.sqrt(2 * math.pi)
    return np.asarray(sd * (scaled * ndtr(scaled) + density))


def expected_improvement(
    steps: tuple[Floats, Floats], speed_M: Floats, speed_sd_M: Floats, mean_M: Floats, sd_M: Floats
) -> Floats:
    """Returns the expected gain in hypervolume of each network, shape [M], in log images/s times value.

    Args:
        steps: Steps of the front (`staircase`).
        speed_M: Mean log images/s of the networks.
        speed_sd_M: Standard deviations of the log images/s; 0 for a known speed.
        mean_M: Mean values.
        sd_M: Standard deviations of the latent values, without the noise of a score.
    """
    lows, best = steps
    highs = np.append(lows[1:], math.inf)
    excess = expected_excess(mean_M[:, None], sd_M[:, None], best[None, :])
    gain_M = np.zeros(len(mean_M))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        speed_M1 = (speed_M + node * speed_sd_M)[:, None]
        widths = np.clip(np.minimum(speed_M1, highs) - lows, 0.0, None)
        gain_M += weight * (widths * excess).sum(axis=1)
    return gain_M
