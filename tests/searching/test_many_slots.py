"""Searches with several trials under way: an evaluator ends them out of order, fails, hangs and loses workers."""

import collections
import dataclasses

import pytest
from builders import build_manifest, build_plan, digits, fresh, write_study
from fakes import RESOURCES, FakeMachine

from hilo_nas.errors import DeviceError, HiloNasError, WorkerDiedError, WorkerFailedError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.events import Notice, RungReached, TrialFinished, TrialStarted
from hilo_nas.searching.finalists.confirmation import confirm_front
from hilo_nas.searching.halving.budget_increase import increase_budget
from hilo_nas.searching.halving.rung_training import RungTraining
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import HangsError

RUNGS = build_plan(rungs=(300, 1000))
PLAIN = dataclasses.replace(digits(), anchors=())


def build_study(path, name="demo", **fields):
    values = {"space": PLAIN, "sampler": "random", "trials": 12, **fields}
    return write_study(path, name, manifest=build_manifest(name, **values))


def run(folder, machine, emit=lambda event: None, **options):
    loop = SearchLoop(fresh(folder), fresh(folder).manifest, machine, RESOURCES, emit, **options)
    finished = loop.run()
    held, stored = loop.records, fresh(folder).records
    assert [(r.number, r.key, r.state, len(r.scores)) for r in held] == [
        (r.number, r.key, r.state, len(r.scores)) for r in stored
    ]
    return finished


def scored(folder):
    """Each network with its values by images."""
    return {record.key: {s.images_seen: s.value for s in record.scores} for record in fresh(folder).records}


def once(*faults):
    """Makes a hook that raises each fault at the first task of its kind that comes after so many others."""
    left, seen = list(faults), collections.Counter()

    def before(task):
        seen[task.kind] += 1
        for fault in left:
            kind, count, error = fault
            if task.kind == kind and seen[kind] >= count:
                left.remove(fault)
                raise error

    return before


@pytest.mark.parametrize("seed", range(3))
def test_a_random_search_finds_the_same_networks_and_scores_whatever_the_slots(tmp_path, seed):
    found = []
    for slots in (1, 4):
        folder = build_study(tmp_path, f"with-{slots}", reduction_factor=None, seed=seed)
        machine = FakeMachine(slots=slots, seed=seed)
        assert run(folder, machine).measured == 12
        found.append(scored(folder))
    assert found[0] == found[1]
    assert len(found[0]) == 12


def test_four_trials_are_under_way_and_end_out_of_order(tmp_path):
    events = []
    folder = build_study(tmp_path, reduction_factor=None)
    run(folder, FakeMachine(slots=4), events.append)
    started = [event.number for event in events if isinstance(event, TrialStarted)]
    ended = [event.number for event in events if isinstance(event, TrialFinished)]
    assert started == sorted(started) == sorted(ended) == list(range(12))
    assert ended != started
    first = next(i for i, event in enumerate(events) if isinstance(event, TrialFinished))
    assert sum(isinstance(event, TrialStarted) for event in events[:first]) == 4


def test_a_single_slot_ends_each_trial_before_the_next_one_starts(tmp_path):
    events = []
    run(build_study(tmp_path), FakeMachine(), events.append)
    order = [event.number for event in events if isinstance(event, TrialStarted | TrialFinished)]
    assert order == [number for number in range(12) for _ in range(2)]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_and_nothing_done_twice_where_much_goes_wrong(tmp_path, seed):
    folder, events = build_study(tmp_path, plan=RUNGS, trials=24), []
    machine = FakeMachine(slots=4, seed=seed)
    lost = WorkerDiedError("it was killed by signal 9")
    machine.before = once(
        ("time", 2, WorkerFailedError("no luck")),
        ("time", 5, lost),
        ("score", 3, WorkerFailedError("it diverged")),
        ("score", 6, HangsError()),
        ("score", 9, lost),
        ("score", 14, lost),
    )
    assert run(folder, machine, events.append).measured == 24
    records = fresh(folder).records
    states = collections.Counter(str(record.state) for record in records)
    assert states["failed"] == 3  # one timing, one training and the one that hung; lost workers cost nothing
    assert states["running"] == 0
    assert len({record.key for record in records}) == len(records) == 27
    legs = collections.Counter(machine.legs)
    assert set(legs.values()) == {1}
    stored = [(r.key, s.seed, s.images_seen) for r in records for s in r.scores]
    assert sorted(stored) == sorted(legs)
    ended = collections.Counter(event.number for event in events if isinstance(event, TrialFinished))
    assert ended == dict.fromkeys(range(27), 1)
    assert sum(isinstance(event, Notice) for event in events) == 3  # one per lost worker


@pytest.mark.parametrize("seed", range(3))
def test_each_decision_at_a_rung_follows_from_the_records_on_disk_when_it_was_made(tmp_path, seed):
    folder = build_study(tmp_path, plan=RUNGS, trials=24)
    rung_training, decided = RungTraining(fresh(folder).manifest, RESOURCES, lambda event: None), []

    def check(event):
        if not isinstance(event, RungReached) or event.images_seen == RUNGS.budgets[-1]:
            return
        known = fresh(folder).records
        own = next(record for record in known if record.number == event.number)
        assert event.goes_on == rung_training.is_promoted(own, event.images_seen, known)
        assert event.compared == sum(record.score_at(event.images_seen) is not None for record in known)
        decided.append(event.goes_on)

    run(folder, FakeMachine(slots=4, seed=seed), check)
    assert {True, False} == set(decided)


def test_rivals_are_the_front_that_was_known_when_the_timing_began(tmp_path):
    folder, known = build_study(tmp_path, reduction_factor=None), {}

    class Watching(FakeMachine):
        def submit(self, task):
            if task.kind == "time":
                complete = {record.key for record in fresh(folder).records if record.state == "complete"}
                known[next(iter(task.entries))] = (set(task.rivals), complete)
            return super().submit(task)

    run(folder, Watching(slots=4))
    assert len(known) == 12
    assert all(rivals <= complete for rivals, complete in known.values())
    assert any(rivals for rivals, _ in known.values())


def test_a_stop_closes_all_trials_under_way_and_the_next_search_ends_them(tmp_path):
    folder, machine = build_study(tmp_path, reduction_factor=None), FakeMachine(slots=4)
    machine.before = once(("score", 4, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(folder, machine)
    cut = [record for record in fresh(folder).records if record.is_interrupted]
    assert len(cut) == 4
    assert machine.wait(1e6) == []  # what was under way is cancelled
    again = FakeMachine(slots=4)
    assert run(folder, again).measured == 12
    records = fresh(folder).records
    ended = {record.number: record for record in records}
    assert all((ended[r.number].key, ended[r.number].is_measured) == (r.key, True) for r in cut)
    assert set(collections.Counter(record.key for record in records).values()) == {1}
    timed = {record.key for record in cut if record.measurements}
    assert timed
    assert not timed & set(again.measured)  # their speeds were there already


def test_what_no_trial_could_escape_ends_them_all_and_holds_it_against_none(tmp_path):
    folder, machine = build_study(tmp_path, reduction_factor=None), FakeMachine(slots=4)
    machine.before = once(("score", 3, DeviceError("the device is gone")))
    with pytest.raises(DeviceError, match="the device is gone"):
        run(folder, machine)
    states = collections.Counter(str(record.state) for record in fresh(folder).records)
    assert "running" not in states
    assert sum(record.is_interrupted for record in fresh(folder).records) == 4


def test_trials_that_fail_one_after_the_other_end_the_search_and_are_due_again(tmp_path):
    folder, machine = build_study(tmp_path, reduction_factor=None), FakeMachine(slots=4)

    def fail(task):
        raise WorkerFailedError("no luck")

    machine.before = fail
    with pytest.raises(HiloNasError, match="5 consecutive trials failed"):
        run(folder, machine)
    assert all(record.is_interrupted for record in fresh(folder).records)
    assert run(folder, FakeMachine(slots=4)).measured == 12


def test_no_more_trials_are_begun_than_are_wanted(tmp_path):
    folder = build_study(tmp_path, reduction_factor=None, trials=6)
    run(folder, FakeMachine(slots=4))
    assert len(fresh(folder).records) == 6


def test_baselines_are_beside_the_total_with_many_slots_too(tmp_path):
    folder = build_study(tmp_path, reduction_factor=None, trials=2, baselines=("timm:swift", "timm:dull"))
    run(folder, FakeMachine(slots=4))
    assert [record.is_baseline for record in fresh(folder).records].count(True) == 2
    assert len(fresh(folder).records) == 4


def test_moments_between_trials_are_those_when_none_is_under_way(tmp_path):
    folder, seen = build_study(tmp_path, reduction_factor=None), []

    def between(records):
        seen.append({str(record.state) for record in records})
        return False

    run(folder, FakeMachine(slots=4), between=between)
    assert seen
    assert all("running" not in states for states in seen)


def test_a_raised_budget_is_reached_by_several_trainings_at_once(tmp_path):
    found = []
    for slots in (1, 4):
        folder = build_study(tmp_path, f"with-{slots}", reduction_factor=None, trials=6)
        machine = FakeMachine(slots=slots)
        machine.files = CheckpointFiles(folder.checkpoints_path, budget_mib=1.0)
        run(folder, machine)
        increase_budget(fresh(folder), fresh(folder).manifest, 9000)
        run(folder, machine)
        found.append(scored(folder))
        assert {str(record.state) for record in fresh(folder).records} == {"complete"}
    assert found[0] == found[1]


def test_a_front_is_confirmed_by_several_trainings_at_once(tmp_path):
    found = []
    for slots in (1, 4):
        folder = build_study(tmp_path, f"with-{slots}", reduction_factor=None)
        run(folder, FakeMachine())
        confirm_front(
            StoredStudy(folder.path),
            fresh(folder).manifest,
            FakeMachine(slots=slots),
            RESOURCES,
            lambda event: None,
            further_seeds=2,
        )
        found.append({r.key: sorted((s.seed, s.value) for s in r.scores) for r in fresh(folder).records})
    assert found[0] == found[1]
