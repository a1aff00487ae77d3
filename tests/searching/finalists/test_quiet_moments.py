"""Contended timings are repeated when the machine is quieter, on a fake machine and a fake clock."""

import dataclasses

import pytest
from builders import build_arch, build_condition, fresh
from fakes import RESOURCES, FakeMachine, write_timed_study

from hilo_nas.errors import MeasurementError
from hilo_nas.events import Notice, TrialStarted
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.finalists.quiet_moments import QuietRemeasurement

BUSY = {
    "cores": 2,
    "others_cores": 1.0,
    "quietest": {"others_cores": 1.0},
    "with": [{"pid": 1234, "name": "python", "cores": 1.0}],
}
QUIET = {"cores": 2, "others_cores": 0.05, "quietest": {"others_cores": 0.0}, "with": []}
ARCHS = [build_arch(i) for i in (0, 3, 7, 27)]
"""The fake machine takes 2.5 s for each."""


class Desk:
    """A study whose networks were all timed under load, and its quieter moments, a minute after the search began."""

    def __init__(self, tmp_path, machine, *, top1s=None, **fields):
        machine.load = BUSY
        self.machine, self.events, self.now = machine, [], 60.0
        self.study = write_timed_study(tmp_path, machine, ARCHS, top1s=top1s, **fields)
        self.moments = QuietRemeasurement(
            self.study,
            fresh(self.study).manifest,
            machine,
            RESOURCES,
            self.events.append,
            began=0.0,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds):
        self.now += seconds

    @property
    def contended(self):
        return [record.number for record in fresh(self.study).records if record.measurement.contention]

    @property
    def texts(self):
        return [event.text for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def desk(tmp_path, machine):
    return Desk(tmp_path, machine, top1s=[0.5, 0.6, 0.7, 0.9])


def test_a_quiet_moment_is_used_for_as_many_as_a_tenth_of_the_time_allows(desk):
    desk.machine.looks = [QUIET]
    assert desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert desk.contended == [2, 3]  # 6 s of 60 are enough for two
    assert len(fresh(desk.study).records[0].measurements) == 2
    assert desk.texts[0] == "the machine is quieter: repeating the contended timing of trials 0, 1"


def test_under_load_nothing_is_timed(desk):
    assert not desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert (desk.machine.cohorts, desk.texts) == ([], [])
    assert desk.contended == [0, 1, 2, 3]


def test_without_time_left_the_machine_is_not_even_looked_at(desk):
    desk.now = 20.0
    desk.machine.looks = [QUIET]
    assert not desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert len(desk.machine.looks) == 1


def test_what_repeating_took_counts(desk):
    def take(verb, count):
        desk.now += 6.0

    desk.machine.looks, desk.machine.happen = [QUIET], take
    assert desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert not desk.moments.remeasure_if_quiet(fresh(desk.study).records)  # 6.6 s of 66 are allowed, and 6 are spent
    desk.now = 90.0
    assert desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert desk.contended == [3]


def test_quiet_timings_are_left_alone(tmp_path, machine):
    desk = Desk(tmp_path, machine)
    desk.now = 1000.0
    desk.machine.looks = [QUIET]
    assert desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert desk.contended == []
    assert not desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    desk.moments.wait_and_remeasure()
    assert len(machine.cohorts) == 1


def test_members_of_the_front_come_first(tmp_path, machine):
    desk = Desk(tmp_path, machine, top1s=[0.3, 0.4, 0.7, 0.9])
    front = [0, 1, 2, 3]
    beaten = Desk(tmp_path / "other", machine, top1s=[0.8, 0.3, 0.4, 0.9])
    for item, chosen in ((desk, front[:2]), (beaten, [0, 3])):
        machine.looks, machine.load = [QUIET], BUSY
        item.moments.remeasure_if_quiet(fresh(item.study).records)
        assert [n for n in front if n not in item.contended] == chosen


def test_before_the_front_is_reported_a_quieter_moment_is_waited_for(desk):
    desk.machine.looks = [BUSY, BUSY, QUIET]
    desk.moments.wait_and_remeasure()
    assert desk.now == 62.0
    assert desk.contended == [1, 2, 3]  # waiting took 2 s of 6
    waiting, stays = desk.texts[0], desk.texts[-1]
    assert "4 timings were contended at cpu-b32-32px-fp32" in waiting
    assert "other processes kept 1.0 of 2 cores busy (python 1234: 1.0)" in waiting
    assert "the timing of trials 1, 2, 3 stays contended" in stays
    assert "hilo-nas remeasure demo --all" in stays


def test_the_wait_ends_with_the_time_that_is_allowed_and_the_intervals_stay_wide(desk):
    desk.moments.wait_and_remeasure()
    assert 66.0 <= desk.now <= 67.0
    assert desk.contended == [0, 1, 2, 3]
    assert "trials 0, 1, 2, 3 stays contended" in desk.texts[-1]
    record = fresh(desk.study).records[0]
    assert record.measurement.half_width > 0.3 * record.measurement.images_per_s


def test_a_short_search_repeats_one_timing_all_the_same(desk):
    desk.now = 1.0
    desk.machine.looks = [QUIET]
    desk.moments.wait_and_remeasure()
    assert desk.contended == [1, 2, 3]


def test_each_condition_is_repeated(tmp_path, machine):
    conditions = (build_condition(), build_condition(batch_size=1))
    desk = Desk(tmp_path, machine, conditions=conditions)
    desk.now = 1000.0
    desk.machine.looks = [QUIET]
    desk.moments.wait_and_remeasure()
    assert [label for label, _, _ in machine.cohorts] == [condition.label() for condition in conditions]
    assert all(len(record.measurements) == 4 for record in fresh(desk.study).records)


def test_a_repetition_that_fails_is_told_and_ends_nothing(desk):
    def refuse(verb, count):
        raise MeasurementError("the reference does not fit")

    desk.machine.looks, desk.machine.happen = [QUIET], refuse
    desk.moments.remeasure_if_quiet(fresh(desk.study).records)
    assert desk.texts[-1] == "contended timings could not be repeated: the reference does not fit"
    assert not desk.moments.remeasure_if_quiet(fresh(desk.study).records)  # nothing new is on disk
    assert desk.contended == [0, 1, 2, 3]


@pytest.mark.parametrize(("remeasure", "left"), [(True, 0), (False, 3)])
def test_a_search_repeats_contended_timings_unless_it_is_not_to_time_again(tmp_path, machine, remeasure, left):
    machine.load, machine.looks = BUSY, [QUIET]
    study, _ = run_search(
        SearchConfig.of(space="litv2_digits", study="s", trials=3, sampler="random", remeasure=remeasure),
        lambda event: None,
    )
    records = fresh(study).records
    front_left = [record.number for record in records if record.measurement.contention]
    assert len(front_left) <= left
    assert any(len(record.measurements) > 1 for record in records) is remeasure


def test_a_search_uses_a_quiet_moment_between_two_trials(tmp_path, machine):
    def time(subject, condition):  # so short that a tenth of the search's time is enough for another one
        return dataclasses.replace(FakeMachine.time(machine, subject, condition), seconds=1e-9)

    machine.load, machine.looks, machine.time = BUSY, [BUSY, QUIET], time
    events = []
    request = SearchConfig.of(space="litv2_digits", study="s", trials=3, sampler="random")
    _, finished = run_search(request, events.append)
    told = [event.number if isinstance(event, TrialStarted) else getattr(event, "text", None) for event in events]
    again = "the machine is quieter: repeating the contended timing of trials 0, 1"
    assert [item for item in told if item in (0, 1, 2, again)] == [0, 1, again, 2]
    assert finished.measured == 3


def test_a_cpu_limit_is_not_waited_for_since_it_stays(desk):
    limited = {"cores": 2, "others_cores": 0.0, "quietest": {"others_cores": 0.0, "throttled_cores": 1.0}}
    for record in fresh(desk.study).records:
        timings = tuple(dataclasses.replace(item, device_state=limited) for item in record.measurements)
        fresh(desk.study).write(dataclasses.replace(record, measurements=timings))
    desk.moments.wait_and_remeasure()
    assert desk.machine.cohorts == []
    assert "set timing.threads" in desk.texts[-1]
    assert "remeasure" not in desk.texts[-1]
