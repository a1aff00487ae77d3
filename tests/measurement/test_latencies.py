"""Latency by undisturbed rounds: what other work did to a round is left out, and the interval tells how sure it is."""

import pytest
from builders import build_measurement

from hilo_nas.measurement.latencies import is_undisturbed, latency_figures
from hilo_nas.space import measured_chances

ROUNDS = 20


def figures(*, slow=(), reference_slow=(), calls=10, jitter=0.0):
    own = [0.02 if i in slow else 0.01 for i in range(ROUNDS)]
    reference = [0.02 if i in reference_slow else 0.01 for i in range(ROUNDS)]
    singles = [(i, own[i] * (1 + jitter * k / calls)) for i in range(ROUNDS) for k in range(calls)]
    return latency_figures([seconds for _, seconds in singles], [i for i, _ in singles], own, reference)


@pytest.mark.parametrize("disturbed", [{"slow": range(6)}, {"slow": range(6), "reference_slow": range(6)}])
def test_calls_of_disturbed_rounds_do_not_count(disturbed):
    assert figures(**disturbed) == figures()
    assert figures()["latency_ms_p95"] == pytest.approx(10.0)


def test_a_round_in_which_only_the_reference_was_disturbed_does_not_count():
    assert is_undisturbed([0.01] * 4, [0.01, 0.01, 0.02, 0.01]) == [True, True, False, True]


@pytest.mark.parametrize(("undisturbed", "p95"), [(0, 20.0), (1, 20.0), (5, 20.0), (6, 10.0)])
def test_too_few_undisturbed_rounds_decide_nothing(undisturbed, p95):
    """They would give an interval without width, which would call a limit kept or broken for certain."""
    found = figures(slow=range(10), reference_slow=range(10, ROUNDS - undisturbed))
    assert found["latency_ms_p95"] == pytest.approx(p95)


def test_the_interval_is_of_rounds_and_holds_the_value():
    found = figures(jitter=0.2)
    assert found["latency_ms_p95_low"] <= found["latency_ms_p95"] <= found["latency_ms_p95_high"]
    assert found == figures(jitter=0.2)
    own = [0.01 + 0.0001 * i for i in range(ROUNDS)]
    few = latency_figures(own, range(ROUNDS), own, [0.01] * ROUNDS)
    assert few["latency_ms_p95_low"] < few["latency_ms_p95"] <= few["latency_ms_p95_high"]


@pytest.mark.parametrize(("limit", "low", "high"), [(20.0, 0.45, 0.55), (22.0, 0.99, 1.0), (18.0, 0.0, 0.01)])
def test_a_limit_of_latency_is_judged_with_the_interval_of_p95(limit, low, high):
    measurement = build_measurement(
        latency_ms_p95=20.0, latency_ms_p95_low=19.4, latency_ms_p95_high=20.6, latency_protocol=2
    )
    assert low <= measured_chances({"latency_ms": limit}, [measurement])["latency_ms"] <= high
