import pytest
from builders import build_record, demo_records, digits

from hilo_nas.errors import NotFoundError
from hilo_nas.study.front import Front
from hilo_nas.study.trial_differences import compare_trials, nearest_trials


def test_a_difference_has_its_interval_and_probabilities():
    front = Front.from_records([build_record(0, 1000.0, 0.5), build_record(1, 500.0, 0.7)])
    (found,) = compare_trials(front, digits(), 0, [1])
    assert (found.speed_ratio, found.value_difference) == (0.5, pytest.approx(0.2))
    assert found.faster_probability < 0.01
    assert found.better_probability > 0.99
    assert found.half_width == pytest.approx(1.96 * (0.025**2 + 0.0229**2) ** 0.5, rel=1e-2)


def test_changed_knobs_are_named():
    records = [build_record(i, params=digits().encode(build_record(i).arch)) for i in (0, 1)]
    (found,) = compare_trials(Front.from_records(records), digits(), 0, [1])
    assert found.knobs == ("depths_1 1 -> 2",)


def test_the_nearest_trials_come_first():
    front = Front.from_records(demo_records())
    assert nearest_trials(front, 3, at_most=2) == [0, 1]
    assert 3 not in nearest_trials(front, 3, at_most=10)


@pytest.mark.parametrize(("number", "state"), [(5, "infeasible"), (6, "failed"), (99, "does not exist")])
def test_only_complete_trials_are_compared(number, state):
    with pytest.raises(NotFoundError, match=state):
        compare_trials(Front.from_records(demo_records()), digits(), 2, [number])
