"""Trainings rung by rung in a real loop with a fake evaluator: who is stopped, what is paid, what survives."""

import dataclasses

import pytest
from builders import TINY, build_arch, build_manifest, build_plan, build_record, build_score, fresh, write_study
from fakes import RESOURCES, FakeMachine

from hilo_nas.errors import UsageError, WorkerDiedError
from hilo_nas.events import Notice, RungReached
from hilo_nas.searching.halving.budget_increase import increase_budget, with_larger_budget
from hilo_nas.searching.halving.rung_training import extrapolate
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import build_sampler
from hilo_nas.study.front import Front

PLAN = build_plan(images=9 * 64, rungs=(64, 3 * 64))
LOW, MIDDLE, FULL = PLAN.budgets


def run(folder, machine=None, *, trials=None, events=None, checkpoint_mib=1.0, **options):
    """Runs the study's loop as another process would: from what is on disk."""
    manifest = fresh(folder).manifest
    if trials is not None:
        manifest = dataclasses.replace(manifest, trials=trials)
        fresh(folder).write_manifest(manifest)
    machine = machine or FakeMachine()
    emit = events.append if events is not None else (lambda event: None)
    machine(
        folder.logs_path,
        purpose="a test",
        idle_timeout_s=600.0,
        checkpoints=folder.checkpoints_path,
        checkpoint_mib=checkpoint_mib,
    )
    loop = SearchLoop(fresh(folder), manifest, machine, RESOURCES, emit, **options)
    loop.run()
    return fresh(folder).records, machine


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path, manifest=build_manifest(plan=PLAN, sampler="random"))


def images_of(record):
    return [score.images_seen for score in record.scores]


def test_some_are_trained_fully_and_the_others_are_stopped_at_a_rung_with_their_scores(folder):
    events = []
    records, machine = run(folder, trials=20, events=events)
    states = {record.state for record in records}
    assert states == {"complete", "stopped"}
    for record in records:
        assert images_of(record) == list(PLAN.budgets)[: len(record.scores)]
        assert (record.state == "complete") == (images_of(record)[-1] == FULL)
    stopped = [record for record in records if record.state == "stopped"]
    assert all(record.is_measured and "others did better after" in record.reason for record in stopped)
    assert len([leg for leg in machine.legs if leg[2] == FULL]) == len(records) - len(stopped)
    reached = [event for event in events if isinstance(event, RungReached)]
    assert len(reached) == len(machine.legs)
    assert [event.goes_on for event in reached if event.images_seen == FULL] == [False] * (20 - len(stopped))


def test_a_stopped_network_never_stands_on_the_front(folder):
    records, _ = run(folder, trials=20)
    star = next(record for record in records if record.state == "stopped")
    best = dataclasses.replace(star.scores[-1], value=0.999)
    fresh(folder).write(dataclasses.replace(star, scores=(*star.scores[:-1], best)))
    assert star.number not in {record.number for record in Front.from_records(fresh(folder).records).members}


def test_anchors_are_trained_fully_however_they_do(folder):
    class AnchorsAreBad(FakeMachine):
        def score(self, subject, plan, seed, until, task):
            score = super().score(subject, plan, seed, until, task)
            return dataclasses.replace(score, value=0.01) if subject.key == TINY.key() else score

    records = [build_record(i, 1e6, None, arch=build_arch(i), state="stopped") for i in range(8, 16)]
    for i, record in enumerate(records):
        score = build_score(0.9, images_seen=LOW)
        fresh(folder).write(dataclasses.replace(record, number=i, scores=(score,), imputed={"value": 0.9}))
    found, _ = run(folder, AnchorsAreBad(), trials=9)
    assert (found[-1].origin, found[-1].state) == ("anchor:litv2_tiny", "complete")


def test_without_stopping_all_are_trained_fully_and_scored_on_the_way(tmp_path):
    folder = write_study(tmp_path, manifest=build_manifest(plan=PLAN, sampler="random", reduction_factor=None))
    records, _ = run(folder, trials=8)
    assert [images_of(record) for record in records] == [[LOW, MIDDLE, FULL]] * 8


def test_a_training_that_is_cut_off_goes_on_from_its_last_rung(folder):
    def die(verb, count):
        if verb == "score" and count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, FakeMachine(die), trials=1)
    first = fresh(folder).records[0]
    assert (first.state, images_of(first)) == ("failed", [LOW, MIDDLE])
    (record,), machine = run(folder, trials=1)
    assert (record.key, images_of(record)) == (first.key, [LOW, MIDDLE, FULL])
    assert machine.legs == [(first.key, 0, FULL)]
    assert machine.measured == []


def test_the_rung_table_is_rebuilt_from_the_records(tmp_path):
    """In one go or in many processes, the same networks go on."""
    whole = write_study(tmp_path / "whole", manifest=build_manifest(plan=PLAN, sampler="random"))
    pieces = write_study(tmp_path / "pieces", manifest=build_manifest(plan=PLAN, sampler="random"))
    run(whole, trials=1)
    run(pieces, trials=1)
    for trials in range(2, 13):
        run(pieces, trials=trials)
    for trials in (5, 12):
        run(whole, trials=trials)
    networks = {record.key: record.state for record in fresh(pieces).records}
    common = [record for record in fresh(whole).records if record.key in networks]
    assert len(common) >= 3  # draws depend on where a search was resumed; who meets the same rivals fares the same
    assert {record.state for record in common} <= {"complete", "stopped"}


def test_a_failed_leg_fails_the_trial_and_keeps_its_scores(folder):
    def die(verb, count):
        if verb == "score" and count == 1 and len(died) < 2:  # a task whose worker is lost is repeated once
            died.append(1)
            raise WorkerDiedError("it was killed by signal 11")

    died = []
    records, _ = run(folder, FakeMachine(die), trials=1)
    assert (records[0].state, images_of(records[0])) == ("failed", [LOW])


# What the sampler is told.


def test_the_sampler_hears_what_a_stopped_network_would_have_reached(folder):
    records, _ = run(folder, trials=20)
    study = OptunaStudy(fresh(folder).manifest.space, build_sampler("random", 0))
    study.update(records)
    for record, trial in zip(records, study.trials, strict=True):
        values = trial.values
        if record.state == "stopped":
            assert values[1] == record.imputed["value"] > record.score.value
        else:
            assert values[1] == record.score.value


def test_extrapolation_adds_the_median_gain_of_those_that_were_trained_fully():
    def scored(number, low, full=None):
        scores = [build_score(low, images_seen=LOW)] + ([] if full is None else [build_score(full, images_seen=FULL)])
        return build_record(number, scores=tuple(scores), state="complete" if full else "stopped")

    stopped = scored(0, 0.2)
    assert extrapolate(stopped, [stopped], FULL) == 0.2
    others = [scored(1, 0.3, 0.5), scored(2, 0.3, 0.6), scored(3, 0.3, 0.4)]
    assert extrapolate(stopped, [stopped, *others], FULL) == pytest.approx(0.4)


def test_pruned_networks_can_be_told_as_such(folder):
    records, _ = run(folder, trials=12, prune=True)
    study = OptunaStudy(fresh(folder).manifest.space, build_sampler("random", 0), prune=True)
    study.update(records)
    states = [trial.state.name for trial in study.trials]
    names = {"complete": "COMPLETE", "stopped": "PRUNED"}
    assert states == [names[record.state] for record in records]
    assert "PRUNED" in states


# A larger budget.


def test_a_raised_budget_keeps_the_old_ones_as_rungs():
    manifest = with_larger_budget(build_manifest(plan=PLAN), 81 * 64)
    assert manifest.plan.budgets == (64, 3 * 64, 9 * 64, 27 * 64, 81 * 64)
    assert manifest.plan_hash == build_manifest(plan=PLAN).plan_hash
    with pytest.raises(UsageError, match="above 576 images, but got 100"):
        with_larger_budget(build_manifest(plan=PLAN), 100)


def test_rungs_above_an_old_budget_lie_as_far_apart_as_those_below_whatever_lay_between():
    manifest = with_larger_budget(
        with_larger_budget(build_manifest(plan=PLAN, reduction_factor=2.0), 20 * 64), 170 * 64
    )
    assert manifest.plan.budgets == tuple(64 * n for n in (1, 3, 9, 20, 60, 170))
    without = with_larger_budget(build_manifest(plan=build_plan(images=64)), 10 * 64)
    assert without.plan.budgets == (64, 3 * 64, 9 * 64, 10 * 64)


def test_after_a_raise_the_best_go_on_from_their_checkpoints_and_keep_their_records(folder):
    before, _ = run(folder, trials=20)
    manifest = increase_budget(fresh(folder), fresh(folder).manifest, 27 * 64)
    assert all(record.is_raised for record in fresh(folder).records)
    assert Front.from_records(fresh(folder).records).members == ()
    after, machine = run(folder)
    assert [record.key for record in after] == [record.key for record in before]
    assert machine.measured == []
    assert {until for _, _, until in machine.legs} <= {MIDDLE, FULL, 27 * 64}
    complete = [record for record in after if record.state == "complete"]
    assert 0 < len(complete) < sum(record.state == "complete" for record in before)
    assert all(images_of(record)[-1] == manifest.plan.budgets[-1] for record in complete)
    for old, new in zip(before, after, strict=True):
        assert new.scores[: len(old.scores)] == old.scores  # nothing paid for is lost


def test_a_raise_that_is_cut_off_is_finished_by_the_next_search(folder):
    run(folder, trials=12)
    increase_budget(fresh(folder), fresh(folder).manifest, 27 * 64)

    def stop(verb, count):
        if count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, FakeMachine(stop))
    assert any(record.is_raised for record in fresh(folder).records)
    records, _ = run(folder)
    assert not any(record.is_raised for record in records)
    assert any(record.state == "complete" for record in records)


def test_a_training_that_fails_after_a_raise_leaves_its_network_where_it_was(folder):
    run(folder, trials=12)
    increase_budget(fresh(folder), fresh(folder).manifest, 27 * 64)
    events = []

    def die(verb, count):
        raise WorkerDiedError("it was killed by signal 11")

    records, _ = run(folder, FakeMachine(die), events=events)
    failed = [record for record in records if "killed by signal 11" in (record.reason or "")]
    assert failed
    assert {record.state for record in records} == {"stopped"}
    told = [event.text for event in events if isinstance(event, Notice) and "stays at its rung" in event.text]
    assert len(told) == len(failed)
    assert all(images_of(record)[-1] in PLAN.budgets for record in records)


def test_a_raise_within_a_small_disk_budget_keeps_what_is_still_due(folder):
    run(folder, trials=8)
    increase_budget(fresh(folder), fresh(folder).manifest, 27 * 64)
    records, machine = run(folder, checkpoint_mib=0)
    assert not any("no checkpoint" in (record.reason or "") for record in records)
    assert len(machine.legs) > 1
    assert machine.legs == machine.resumed
    assert list(folder.checkpoints_path.iterdir()) == []


def test_networks_without_a_checkpoint_stay_where_they_were_and_that_is_told(folder):
    run(folder, trials=8, checkpoint_mib=0)
    increase_budget(fresh(folder), fresh(folder).manifest, 27 * 64)
    events = []
    records, machine = run(folder, events=events, checkpoint_mib=0)
    assert machine.legs == []
    lost = [record for record in records if "no checkpoint" in record.reason]
    assert len(lost) > 1
    assert all("others did better after" in record.reason for record in records if record not in lost)
    (text,) = [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert text.startswith(f"{len(lost)} networks stay at their rungs")


# Disk.


def test_a_search_drops_a_checkpoint_only_when_its_last_score_is_on_disk(folder):
    dropped = []

    class WatchedMachine(FakeMachine):
        def discard(self, references):
            before = set(folder.checkpoints_path.glob("*"))
            super().discard(references)
            gone = {path.stem for path in before.difference(folder.checkpoints_path.iterdir())}
            dropped.extend(record for record in fresh(folder).records if f"{record.key}-0" in gone)

    records, _ = run(folder, WatchedMachine(), trials=8, checkpoint_mib=0)
    assert sorted(dropped, key=lambda record: record.number) == list(records)
    assert {images_of(record)[-1] for record in dropped} >= {LOW, FULL}


def test_a_climb_goes_on_from_its_checkpoint_though_none_is_kept_afterwards(folder):
    _, machine = run(folder, trials=8, checkpoint_mib=0)
    beyond = [leg for leg in machine.legs if leg[2] > PLAN.budgets[0]]
    assert beyond
    assert machine.resumed == beyond
    assert list(folder.checkpoints_path.iterdir()) == []
