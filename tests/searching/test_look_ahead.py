"""Searches with the sampler hilo, which times networks before it proposes one."""

import collections
import dataclasses

import pytest
from builders import TINY, build_condition, build_device, build_manifest, build_plan, digits, fresh, write_study
from fakes import RESOURCES, FakeMachine, speed, write_speeds

from hilo_nas.errors import DeviceError, HiloNasError, NotEnoughMemoryError, OutOfMemoryError, WorkerFailedError
from hilo_nas.evaluation import Time
from hilo_nas.events import Notice, TrialFinished
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import FITS
from hilo_nas.study.stored_study import StoredStudy, open_study

SMALL = {
    "patch_size": [2],
    "embed_dims": [8, 16],
    "depths": [[1], [1], [1, 2], [1]],
    "head_dim": [8],
    "attention": [["none"], ["none"], ["hilo"], ["hilo"]],
    "alpha": [0.5],
    "window_size": [[1], [1], [2], [1]],
    "mlp_ratios": [2],
}
"""Four networks."""
PLAIN = build_space(
    "plain",
    {**SMALL, "embed_dims": [8, 16, 24], "depths": [[1, 2], [1, 2], [1, 2, 3], [1, 2]], "mlp_ratios": [2, 3]},
)
"""144 networks, so that a proposal takes milliseconds."""
OBJECTIVE, SINGLE = build_condition(), build_condition(batch_size=1)


class Machine(FakeMachine):
    """A machine on which a training takes ten minutes, so that brief timings are worth their seconds."""

    def score(self, *arguments):
        return dataclasses.replace(super().score(*arguments), seconds=600.0)


def build_study(path, name="demo", **fields):
    values = {"space": PLAIN, "sampler": "hilo", "trials": 12, "reduction_factor": None, **fields}
    return write_study(path, name, manifest=build_manifest(name, **values))


def run(folder, machine=None, emit=lambda event: None, *, study=None, **changes):
    machine = machine or Machine()
    manifest = dataclasses.replace(fresh(folder).manifest, **changes)
    return SearchLoop(study or fresh(folder), manifest, machine, RESOURCES, emit).run(), machine


def by_state(folder):
    found = collections.defaultdict(list)
    for record in fresh(folder).records:
        found[str(record.state)].append(record)
    return found


def seen(folder):
    """What a search decided, without the times of day."""
    return [
        (r.number, r.key, str(r.state), r.params, [m.is_preliminary for m in r.measurements], len(r.scores))
        for r in fresh(folder).records
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished search of 12 networks."""
    folder = build_study(tmp_path_factory.mktemp("whole"))
    finished, machine = run(folder)
    return folder, finished, machine


# A search without faults.


def test_only_networks_that_were_timed_in_full_are_trained(whole):
    folder, finished, machine = whole
    states = by_state(folder)
    assert (finished.measured, finished.stopped_by) == (12, "total")
    assert len(states["complete"]) == 12
    assert len(states["timed"]) >= 8
    for record in states["complete"]:
        assert [timing.is_preliminary for timing in record.measurements] == [False]
    assert set(machine.scored) == {record.key for record in states["complete"]}


def test_numbers_and_networks_are_unique_and_numbers_have_no_gap(whole):
    records = fresh(whole[0]).records
    assert [record.number for record in records] == list(range(len(records)))
    assert len({record.key for record in records}) == len(records)
    assert len(list(whole[0].trials_path.iterdir())) == len(records)


def test_brief_timings_share_rounds_and_a_network_is_timed_in_full_at_most_once(whole):
    _, _, machine = whole
    assert machine.cohorts
    assert all(is_brief for _, _, is_brief in machine.cohorts)
    briefly = [key for _, keys, _ in machine.cohorts for key in keys]
    assert len(set(briefly)) == len(briefly)
    in_full = [key for key, rivals in zip(machine.measured, machine.rivals, strict=True) if key not in briefly]
    assert len(set(in_full)) == len(in_full)


def test_a_network_keeps_its_number_from_a_brief_timing_to_its_training(whole):
    folder, _, machine = whole
    briefly = {key for _, keys, _ in machine.cohorts for key in keys}
    trained = [record for record in by_state(folder)["complete"] if record.key in briefly]
    assert trained
    ahead = [record.number for record in by_state(folder)["timed"]]
    assert min(record.number for record in trained) < max(ahead)


def test_an_anchor_is_tried_first_and_not_timed_ahead(tmp_path):
    folder = build_study(tmp_path, space=digits(), trials=3)
    _, machine = run(folder)
    first = fresh(folder).records[0]
    assert (first.key, first.state, first.origin) == (TINY.key(), "complete", "anchor:litv2_tiny")
    assert all(TINY.key() not in keys for _, keys, _ in machine.cohorts)


def test_more_trials_of_a_finished_search_continue_as_a_longer_search_would(tmp_path, whole):
    folder = build_study(tmp_path, trials=7)
    run(folder)
    run(folder, trials=12)
    assert seen(folder) == seen(whole[0])


# A search that was cut off.


class DyingStudy(StoredStudy):
    """A study whose process is killed before or after a write."""

    writes, dies_at, is_before = 0, 0, False

    def write(self, record):
        self.writes += 1
        if self.writes == self.dies_at and self.is_before:
            raise KeyboardInterrupt
        super().write(record)
        if self.writes == self.dies_at:
            raise KeyboardInterrupt


def kill(folder, count, *, is_before, machine=None):
    study = DyingStudy(folder.path)
    study.dies_at, study.is_before = count, is_before
    run(folder, machine, study=study)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    folder = build_study(tmp_path_factory.mktemp("short"), trials=7)
    study = DyingStudy(folder.path)
    run(folder, study=study)
    return folder, study.writes


@pytest.mark.parametrize(
    ("share", "is_before"), [(0.1, True), (0.2, False), (0.4, True), (0.6, False), (0.8, True), (0.9, False)]
)
def test_a_search_that_was_killed_between_two_writes_decides_as_an_uninterrupted_one(tmp_path, short, share, is_before):
    expected, writes = short
    folder = build_study(tmp_path, trials=7)
    with pytest.raises(KeyboardInterrupt):
        kill(folder, max(round(share * writes), 1), is_before=is_before)
    run(folder)
    assert seen(folder) == seen(expected)


@pytest.mark.slow
def test_a_search_may_be_killed_at_every_write(tmp_path, short):
    expected, writes = short
    for count in range(1, writes + 1):
        folder = build_study(tmp_path, f"cut-{count}", trials=7)
        with pytest.raises(KeyboardInterrupt):
            kill(folder, count, is_before=True)
        run(folder)
        assert seen(folder) == seen(expected), count


def test_a_search_that_is_killed_again_and_again_decides_as_an_uninterrupted_one(tmp_path, short):
    folder, kills = build_study(tmp_path, trials=7), 0
    while True:
        try:
            kill(folder, 9, is_before=False)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills > 2
    assert seen(folder) == seen(short[0])


# Faults.


class Faulty(Machine):
    """A machine on which groups, or networks within groups, fail."""

    fails = staticmethod(lambda key: None)
    """Returns the error of a network in a timing, or None."""

    def measure_cohort(self, subjects, condition, is_brief):
        self.failures = {key: error for key in subjects if (error := self.fails(key))}
        return super().measure_cohort(subjects, condition, is_brief)


def some(key):
    return int(key, 16) % 3 == 0


@pytest.mark.parametrize(
    ("error", "state"), [(OutOfMemoryError("too big"), "infeasible"), (WorkerFailedError("it crashed"), "failed")]
)
def test_a_network_that_fails_in_shared_rounds_gets_its_state_and_is_not_proposed_again(tmp_path, error, state):
    machine, events = Faulty(), []
    machine.fails = lambda key: error if some(key) else None
    folder = build_study(tmp_path, trials=12)
    finished, _ = run(folder, machine, events.append)
    lost = by_state(folder)[state]
    assert lost
    assert all(some(record.key) and not record.measurements and not record.scores for record in lost)
    assert {event.number for event in events if isinstance(event, TrialFinished)} >= {record.number for record in lost}
    assert finished.measured >= 12  # the networks of a group count that do not fit
    assert all((FITS in record.violations) == (state == "infeasible") for record in lost)
    assert len({record.key for record in fresh(folder).records}) == len(fresh(folder).records)


def test_a_single_network_that_does_not_fit_when_timed_in_full_is_infeasible(tmp_path):
    calls = []

    def happen(verb, count):
        if verb == "measure" and not calls and fresh(folder).records[-1].number > 5:
            calls.append(1)
            raise NotEnoughMemoryError("CUDA out of memory")

    folder = build_study(tmp_path, trials=12)
    run(folder, Machine(happen))
    (lost,) = by_state(folder)["infeasible"]
    assert lost.violations[FITS] == 1.0
    assert len(by_state(folder)["complete"]) == 11


def test_a_group_that_fails_as_a_whole_ends_the_timings_ahead_but_not_the_search(tmp_path):
    def happen(verb, count):
        if verb == "cohort" and count == 1:
            raise WorkerFailedError("no luck")

    machine, events = Machine(happen), []
    folder = build_study(tmp_path)
    finished, _ = run(folder, machine, events.append)
    assert finished.measured == 12
    assert len(machine.cohorts) == 1
    assert [event.level for event in events if isinstance(event, Notice)] == ["info", "warning"]
    assert len(by_state(folder)["complete"]) == 12


def test_a_search_in_which_every_timing_fails_ends_and_tries_the_networks_again_later(tmp_path):
    machine = Faulty()
    machine.fails = lambda key: WorkerFailedError("it crashed")
    folder = build_study(tmp_path)
    with pytest.raises(HiloNasError, match="consecutive trials failed"):
        run(folder, machine)
    lost = fresh(folder).records
    assert len(lost) == 20
    assert all(record.is_interrupted for record in lost)
    run(folder, trials=20)
    assert [(record.number, record.state) for record in fresh(folder).records[:20]] == [
        (number, "complete") for number in range(20)
    ]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("verb", ["cohort", "measure", "score"])
def test_a_fault_of_the_world_ends_the_search_and_loses_nothing_that_is_finished(tmp_path, verb, slots):
    faults = []

    def happen(what, count):
        if what == verb and count == 2 and not faults:
            faults.append(seen(folder))
            raise DeviceError("the GPU has gone")

    folder = build_study(tmp_path)
    with pytest.raises(DeviceError):
        run(folder, Machine(happen, slots=slots))
    records = {record.key: record for record in fresh(folder).records}
    for _, key, state, _, timings, scores in faults[0]:
        assert len(records[key].measurements) >= len(timings)
        assert len(records[key].scores) >= scores
        assert state == "running" or str(records[key].state) == state
    assert not by_state(folder)["running"]
    assert run(folder)[0].measured == 12


# Several slots.


@pytest.mark.parametrize("seed", range(2))
def test_several_slots_train_each_network_once_under_a_unique_number(tmp_path, seed):
    folder, events = build_study(tmp_path, trials=14), []
    machine = Machine(slots=4, seed=seed)
    finished, _ = run(folder, machine, events.append)
    records = fresh(folder).records
    assert finished.measured == 14
    assert len({record.key for record in records}) == len(records)
    assert len({record.number for record in records}) == len(records)
    assert max(collections.Counter(machine.scored).values()) == 1
    timed = {record.key for record in by_state(folder)["complete"] if not record.is_timed_briefly}
    assert set(machine.scored) == timed


def test_timings_ahead_run_while_networks_are_trained(tmp_path):
    folder, under_way = build_study(tmp_path, trials=14), []

    def before(task):
        if isinstance(task, Time) and task.is_brief:
            under_way.append(sum(record.state == "running" for record in fresh(folder).records))

    machine = Machine(slots=4)
    machine.before = before
    run(folder, machine)
    assert max(under_way) > 0


def test_nothing_is_timed_again_between_trials_while_networks_are_timed_ahead(tmp_path):
    """The call between trials runs tasks itself, so the evaluator must have no others."""
    folder, waiting, calls = build_study(tmp_path, trials=14), [], []

    def between(records):
        calls.append(len(waiting))
        return False

    machine = Machine(slots=3)
    submit, cohort = machine.submit, machine.measure_cohort

    def submit_noted(task):
        if isinstance(task, Time) and task.is_brief:
            waiting.append(task)
        return submit(task)

    def cohort_noted(*arguments):
        waiting.pop()
        return cohort(*arguments)

    machine.submit, machine.measure_cohort = submit_noted, cohort_noted
    SearchLoop(fresh(folder), fresh(folder).manifest, machine, RESOURCES, lambda event: None, between=between).run()
    assert calls
    assert set(calls) == {0}


# Limits and conditions.


def test_a_network_that_breaks_a_limit_is_not_trained(tmp_path):
    folder = build_study(tmp_path, trials=14, limits={"images_per_s": 1500.0})
    finished, machine = run(folder)
    assert finished.measured == 14
    assert all(speed(record.subject.arch) >= 1500 for record in by_state(folder)["complete"])
    for record in by_state(folder)["infeasible"]:
        assert record.violations["images_per_s"] > 0
        assert not record.is_timed_briefly
        assert record.key not in machine.scored


def test_a_brief_timing_alone_excludes_no_network(tmp_path):
    """Brief timings are ten times too slow here, so all of them break the limit."""

    class Slow(Machine):
        def measure_cohort(self, subjects, condition, is_brief):
            self.factors = dict.fromkeys(subjects, 0.1)
            try:
                return super().measure_cohort(subjects, condition, is_brief)
            finally:
                self.factors = {}

    folder = build_study(tmp_path, limits={"images_per_s": 300.0})
    _, machine = run(folder, Slow())
    briefly = {key for _, keys, _ in machine.cohorts for key in keys}
    states = by_state(folder)
    assert any(record.violations["images_per_s"] > 0 for record in states["timed"])
    assert not states["infeasible"]
    assert briefly & {record.key for record in states["complete"]}


def test_a_limit_that_no_network_meets_ends_the_search_at_its_total(tmp_path):
    folder = build_study(tmp_path, limits={"images_per_s": 1e6})
    finished, machine = run(folder)
    assert (finished.measured, finished.stopped_by) == (12, "total")
    assert len(by_state(folder)["infeasible"]) == 12
    assert machine.scored == []


def test_brief_timings_are_under_the_objective_and_full_ones_under_every_condition(tmp_path):
    folder = build_study(tmp_path, conditions=(OBJECTIVE, SINGLE), limits={f"latency_ms@{SINGLE.label()}": 9.0})
    _, machine = run(folder)
    assert {label for label, _, _ in machine.cohorts} == {OBJECTIVE.label()}
    states = by_state(folder)
    for record in (*states["complete"], *states["infeasible"]):
        assert [timing.condition for timing in record.measurements] == [OBJECTIVE, SINGLE]
        assert not record.is_timed_briefly
    assert all(len(record.measurements) == 1 for record in states["timed"] if record.is_timed_briefly)
    assert not any(
        "latency" in name for record in states["timed"] if record.is_timed_briefly for name in record.violations
    )


# Studies in which timings ahead are not worth it.


def test_with_copied_speeds_only_copied_networks_are_trained_and_nothing_is_timed(tmp_path, machine, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    archs = [
        digits().decode(params) for params in list(digits().neighbours(dict.fromkeys(digits().dimensions, 1)))[:12]
    ]
    write_speeds(tmp_path, archs)
    request = SearchConfig.of(study="new", speeds="edge", space="litv2_digits", sampler="hilo", rungs=1, trials=30)
    study, finished = run_search(request, lambda event: None)
    assert (finished.measured, finished.stopped_by) == (len(archs), "exhausted")
    assert machine.measured == machine.cohorts == []
    assert {record.key for record in open_study(study.path).records} == {arch.key() for arch in archs}


@pytest.mark.parametrize("proxy", ["params", "macs"])
def test_a_proxy_that_costs_nothing_needs_no_timings_ahead(tmp_path, machine, monkeypatch, proxy):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    request = SearchConfig.of(
        study="new", space="litv2_digits", sampler="hilo", proxy=proxy, trials=12, remeasure=False
    )
    study, finished = run_search(request, lambda event: None)
    assert finished.measured == 12
    assert [record.state for record in open_study(study.path).records] == ["complete"] * 12


def test_a_small_space_ends_when_every_network_was_trained(tmp_path):
    folder = build_study(tmp_path, space=build_space("small", SMALL), trials=10)
    finished, machine = run(folder)
    assert (finished.measured, finished.stopped_by) == (4, "exhausted")
    assert len(by_state(folder)["complete"]) == len(set(machine.scored)) == 4
    assert run(folder, trials=10)[0].stopped_by == "exhausted"


def test_a_space_without_a_choice_holds_one_network(tmp_path):
    space = build_space("small", {**SMALL, "embed_dims": [8], "depths": [[1], [1], [1], [1]]})
    folder = build_study(tmp_path, space=space, trials=3)
    finished, _ = run(folder)
    assert (finished.measured, finished.stopped_by) == (1, "exhausted")


def test_networks_within_narrow_limits_are_found_although_random_ones_are_not(tmp_path):
    """The limit is close to the size of the smallest network."""
    space = build_space("digits", {**digits().to_dict(), "anchors": {}, "limits": {"params_m": 0.09}})
    folder = build_study(tmp_path, space=space, trials=6)
    finished, _ = run(folder)
    assert finished.measured == 6
    assert all(record.parameters <= 0.09e6 for record in fresh(folder).records)


def test_rungs_and_timings_ahead_work_together(tmp_path):
    folder = build_study(tmp_path, plan=build_plan(rungs=(300, 1000)), reduction_factor=2)
    assert run(folder)[0].measured == 12
    states = by_state(folder)
    assert states["stopped"]
    assert all(not record.is_timed_briefly for record in (*states["stopped"], *states["complete"]))


# Stopped trainings.


class Noisy(Machine):
    """A machine whose scores at rungs differ by chance."""

    def value_of(self, subject, seed, until):
        return super().value_of(subject, seed, until) - (until < 3000) * (int(subject.key[:4], 16) % 5) / 25


HALVED = {"trials": 30, "reduction_factor": 2.0, "plan": build_plan(rungs=(300, 1000))}


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    folder = build_study(tmp_path_factory.mktemp("halved"), **HALVED)
    return folder, run(folder, Noisy())[1]


def test_a_stopped_training_continues_where_it_ended(halved):
    folder, machine = halved
    legs = collections.defaultdict(list)
    for place, (key, _, until) in enumerate(machine.legs):
        legs[key].append((place, until))
    assert all([until for _, until in own] == sorted({until for _, until in own}) for own in legs.values())
    paused = [key for key, own in legs.items() if own[-1][0] - own[0][0] >= len(own)]
    assert paused
    for record in fresh(folder).records:
        if record.key in paused:
            assert record.score.images_seen > min(score.images_seen for score in record.scores)


def test_no_network_has_two_records_when_its_training_continues(halved):
    records = fresh(halved[0]).records
    assert len({record.key for record in records}) == len(records)
    assert by_state(halved[0])["running"] == []


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_search_with_rungs_that_was_killed_ends_as_an_uninterrupted_one(tmp_path, halved, share):
    folder = build_study(tmp_path, **HALVED)
    writes = sum(1 + len(record.scores) for record in fresh(halved[0]).records)
    with pytest.raises(KeyboardInterrupt):
        kill(folder, round(share * writes), is_before=True, machine=Noisy())
    run(folder, Noisy())
    assert seen(folder) == seen(halved[0])


def test_a_space_without_further_networks_is_trained_to_its_end(tmp_path):
    space = build_space("small", {**SMALL, "depths": [[1, 2], [1], [1, 2], [1]], "mlp_ratios": [2, 3]})
    folder = build_study(tmp_path, **{**HALVED, "space": space, "trials": 100})
    finished, _ = run(folder, Noisy())
    states = by_state(folder)
    assert finished.stopped_by == "exhausted"
    assert (states["failed"], states["stopped"], states["running"]) == ([], [], [])
    assert len(states["complete"]) == finished.measured


def test_timings_that_cannot_be_compared_do_not_repeat_for_ever(tmp_path):
    folder = build_study(tmp_path)
    finished, machine = run(folder, Machine(devices={"cpu": build_device(serial="other", model="Other CPU")}))
    assert finished.measured == 12
    assert len(machine.cohorts) < 30


class CostlyMachine(FakeMachine):
    """A machine on which trainings of slow networks take longer, with the steepness of an exponent."""

    exponent = 0.0

    def score(self, subject, *arguments):
        images_per_s = self.law(subject)[0]
        return dataclasses.replace(
            super().score(subject, *arguments), seconds=600.0 * (2000 / images_per_s) ** self.exponent
        )


class SteepMachine(CostlyMachine):
    exponent = 3.0


def test_networks_whose_training_takes_longer_are_trained_less_often(tmp_path):
    folders = [build_study(tmp_path, name, trials=30) for name in ("flat", "steep")]
    for folder, machine in zip(folders, (CostlyMachine(), SteepMachine()), strict=True):
        run(folder, machine)
    flat, steep = (
        sorted(record.measurement.images_per_s for record in by_state(folder)["complete"]) for folder in folders
    )
    assert steep[len(steep) // 2] > 1.1 * flat[len(flat) // 2]
