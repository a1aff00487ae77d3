"""Expected seconds of timings and trainings."""

import dataclasses
import math

import numpy as np
import pytest
from builders import build_measurement, build_record, build_score

from hilo_nas.surrogate.trial_seconds import TrialSeconds

BUDGET = 900


def trained(number, images_per_s, *seconds, state="complete", reached=BUDGET):
    """A network whose rungs took these seconds, the last of them at `reached` images."""
    scores = tuple(
        dataclasses.replace(build_score(0.5), seconds=own, images_seen=reached - 100 * (len(seconds) - 1 - rung))
        for rung, own in enumerate(seconds)
    )
    return build_record(number, images_per_s, None, state=state, scores=scores)


def seconds_at(records, images_per_s):
    return float(TrialSeconds(records, BUDGET).training(np.array([math.log(images_per_s)]))[0])


def test_twice_as_fast_is_expected_to_train_in_half_of_the_time():
    assert seconds_at([trained(0, 100.0, 10.0, 30.0)], 200.0) == pytest.approx(20.0)


def test_many_trainings_teach_the_slope():
    speeds = [10.0 * 2**step for step in range(12)]
    flat = [trained(number, speed, 8.0) for number, speed in enumerate(speeds)]
    assert seconds_at(flat, speeds[0]) < 1.5 * seconds_at(flat, speeds[-1])


@pytest.mark.parametrize("state", ["running", "stopped", "failed", "infeasible"])
def test_trainings_that_did_not_reach_the_budget_do_not_count(state):
    partial = trained(1, 400.0, 1.0, state=state, reached=300)
    assert seconds_at([trained(0, 100.0, 40.0), partial], 100.0) == pytest.approx(40.0)
    assert not TrialSeconds([partial], BUDGET).has_trained


def test_a_training_takes_the_mean_of_the_seeds():
    record = trained(0, 100.0, 40.0)
    again = dataclasses.replace(record.scores[0], seed=1, seconds=44.0)
    assert seconds_at([dataclasses.replace(record, scores=(*record.scores, again))], 100.0) == pytest.approx(42.0)


def test_trainings_that_cost_nothing_take_no_time():
    costs = TrialSeconds([trained(0, 100.0, 0.0)], BUDGET)
    assert (costs.has_trained, costs.median_training, costs.training(np.array([4.0])).tolist()) == (True, 0.0, [0.0])


def test_the_full_timings_of_a_network_count_together():
    timing = dataclasses.replace(build_measurement(), seconds=4.0)
    single = dataclasses.replace(timing, condition=timing.condition.vary(batch_size=1), seconds=2.0)
    assert TrialSeconds([build_record(0, None, None, measurements=(timing, single))], BUDGET).full_timing == 6.0


def test_brief_and_full_timings_have_their_own_means():
    full, brief = build_measurement(), dataclasses.replace(build_measurement(), is_preliminary=True, cohort="a/b")
    records = [
        build_record(0, None, None, measurements=(dataclasses.replace(full, seconds=4.0),)),
        build_record(1, None, None, measurements=(dataclasses.replace(brief, seconds=0.5),)),
    ]
    costs = TrialSeconds(records, BUDGET)
    assert (costs.full_timing, costs.brief_timing) == (4.0, 0.5)


def test_before_the_first_timing_a_full_one_costs_nothing_and_a_brief_one_is_assumed():
    costs = TrialSeconds([], BUDGET)
    assert (costs.full_timing, costs.has_trained) == (0.0, False)
    assert costs.brief_timing > 0
