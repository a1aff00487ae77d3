"""Confirming a front by further seeds: luck is dethroned, each on the front has its seeds, nothing is paid twice."""

import dataclasses

import pytest
from builders import (
    TINY,
    build_arch,
    build_data,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    build_score,
    fresh,
    write_study,
)
from fakes import FULL, RESOURCES, FakeMachine, top1, write_timed_study

from hilo_nas.errors import DeviceError, StorageError, WorkerDiedError
from hilo_nas.events import ConfirmationForeseen, Notice, SeedScored, TrainingProgressed
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.finalists.confirmation import confirm_front
from hilo_nas.study.front import Front
from hilo_nas.study.records import Subject
from hilo_nas.study.transitions import fail


class LuckyMachine(FakeMachine):
    """Every network scores about what it is worth; what luck it had with its first seed is in the study's records.

    Args:
        truth: Top-1 by key.
        happen: As of `FakeMachine`.
    """

    def __init__(self, truth, happen=lambda verb, count: None):
        super().__init__(happen)
        self.truth = truth

    def score(self, subject, plan, seed, until, task):
        score = super().score(subject, plan, seed, until, task)
        value = self.truth[subject.key] + (seed - 1.5) * 0.002
        return dataclasses.replace(score, value=value, standard_error=0.005)

    @property
    def trained(self):
        """(Key, seed) of each training, which were all to the end."""
        assert {images for _, _, images in self.legs} <= {FULL}
        return [(key, seed) for key, seed, _ in self.legs]


def trial(number, images_per_s, top1, **fields):
    is_litv2 = fields.get("subject", Subject(arch=TINY)).is_litv2
    name = build_plan().hash if is_litv2 else build_plan().baseline_hash
    score = build_score(top1, standard_error=0.005, seconds=60.0, plan_hash=name(build_data().hash))
    values = {"arch": build_arch(number), "measurements": (build_measurement(images_per_s),), "scores": (score,)}
    return build_record(number, **{**values, **fields})


@pytest.fixture
def study(tmp_path):
    """Trial 1 stands on the front by luck alone: worth 0.45, its first seed gave 0.75, and so hides trial 2."""
    records = [
        trial(0, 2000.0, 0.60),
        trial(1, 1500.0, 0.75),
        trial(2, 1200.0, 0.68),
        trial(3, 800.0, 0.80),
        trial(4, 700.0, 0.40, arch=build_arch(5)),  # build_arch(4) is the space's anchor
    ]
    return write_study(tmp_path, records=records, manifest=build_manifest(trials=5))


TRUTH = {build_arch(i).key(): value for i, value in {0: 0.60, 1: 0.45, 2: 0.68, 3: 0.80, 5: 0.40}.items()}


def confirm(folder, machine, events=None, *, further_seeds=2):
    emit = (lambda event: None) if events is None else events.append
    confirm_front(fresh(folder), fresh(folder).manifest, machine, RESOURCES, emit, further_seeds=further_seeds)


def numbers(some):
    return [record.number for record in some]


def seeds_of(folder):
    return {record.number: sorted(score.seed for score in record.scores) for record in fresh(folder).records}


def key(number):
    return build_arch(number).key()


def test_a_lucky_network_is_dethroned_and_who_it_hid_is_confirmed_in_turn(study):
    machine = LuckyMachine(TRUTH)
    assert numbers(Front.from_records(fresh(study).records).members) == [0, 1, 3]
    confirm(study, machine)
    records = fresh(study).records
    assert numbers(Front.from_records(records).members) == [0, 2, 3]
    assert seeds_of(study) == {0: [0, 1, 2], 1: [0, 1, 2], 2: [0, 1, 2], 3: [0, 1, 2], 4: [0]}
    assert machine.trained[-2:] == [(key(2), 1), (key(2), 2)]
    assert records[1].state == "complete"
    assert records[1].score.value == pytest.approx((0.75 + 0.449 + 0.451) / 3)


def test_each_round_is_priced_before_it_is_paid_for_and_told_seed_by_seed(study):
    events = []
    confirm(study, LuckyMachine(TRUTH), events)
    events = [event for event in events if not isinstance(event, TrainingProgressed)]
    first, second = [i for i, event in enumerate(events) if isinstance(event, ConfirmationForeseen)]
    assert (first, second) == (0, 7)
    assert events[0] == ConfirmationForeseen(networks=3, trainings=6, seconds=360.0)
    assert events[7] == ConfirmationForeseen(networks=1, trainings=2, seconds=120.0)
    assert events[1] == SeedScored(number=0, seed=1, value=0.599, done=1, total=6)
    assert [(e.number, e.seed, e.done) for e in events if isinstance(e, SeedScored)][-1] == (2, 2, 2)


def test_what_the_trainings_took_is_in_the_trials_cost(study):
    before = fresh(study).records[0].seconds
    confirm(study, LuckyMachine(TRUTH))
    assert fresh(study).records[0].seconds == before + 2 * 7.5


def test_a_confirmed_front_is_not_paid_for_again(study):
    confirm(study, LuckyMachine(TRUTH))
    records, events, machine = fresh(study).records, [], LuckyMachine(TRUTH)
    confirm(study, machine, events)
    assert (machine.legs, events, fresh(study).records) == ([], [], records)
    confirm(study, machine, further_seeds=3)
    assert {seed for _, seed in machine.trained} == {3}


def test_after_a_kill_only_the_missing_seeds_are_trained(study):
    def kill(verb, count):
        if count == 3:
            raise KeyboardInterrupt

    killed = LuckyMachine(TRUTH, kill)
    with pytest.raises(KeyboardInterrupt):
        confirm(study, killed)
    assert len(killed.trained) == 3
    machine = LuckyMachine(TRUTH)
    confirm(study, machine)
    assert not set(killed.trained) & set(machine.trained)
    assert seeds_of(study)[2] == [0, 1, 2]
    assert len(killed.trained) + len(machine.trained) == 8


def test_a_training_that_fails_is_a_warning_and_not_tried_for_ever(study):
    calls = []

    class Failing(LuckyMachine):
        def score(self, subject, plan, seed, until, task):
            calls.append((subject.key, seed))
            if (subject.key, seed) == (key(3), 1):
                raise WorkerDiedError("it was killed by signal 11")
            return super().score(subject, plan, seed, until, task)

    events = []
    confirm(study, Failing(TRUTH), events)
    assert calls.count((key(3), 1)) == 2  # a task whose worker is lost is repeated once
    assert seeds_of(study)[3] == [0, 2]
    repeated, warning = [event for event in events if isinstance(event, Notice)]
    assert repeated.text.startswith("it was killed by signal 11. ")
    assert warning.level == "warning"
    assert warning.text == "trial 3 could not be trained with seed 1: it was killed by signal 11"
    again = LuckyMachine(TRUTH)  # another day, another try
    confirm(study, again)
    assert again.trained == [(key(3), 1)]


@pytest.mark.parametrize("error", [DeviceError, StorageError])
def test_what_no_other_training_could_escape_ends_it(study, error):
    def fail(verb, count):
        raise error("gone")

    with pytest.raises(error):
        confirm(study, LuckyMachine(TRUTH, fail))


def test_networks_that_cannot_be_told_from_the_front_are_confirmed_too(tmp_path):
    records = [trial(0, 1000.0, 0.60), trial(1, 995.0, 0.595), trial(2, 500.0, 0.3)]
    folder = write_study(tmp_path, records=records)
    confirm(folder, LuckyMachine({key(0): 0.50, key(1): 0.595, key(2): 0.3}))
    assert seeds_of(folder) == {0: [0, 1, 2], 1: [0, 1, 2], 2: [0]}
    assert numbers(Front.from_records(fresh(folder).records).members) == [0, 1]


def test_ties_are_trained_up_to_sixteen_networks_and_the_others_are_told(tmp_path):
    records = [trial(i, 1000.0 - i / 10, 0.6 - i / 1e5) for i in range(20)]
    folder = write_study(tmp_path, records=records)
    events, machine = [], LuckyMachine({record.key: 0.6 - record.number / 1e5 for record in records})
    confirm(folder, machine, events)
    assert (len({key for key, _ in machine.trained}), len(machine.trained)) == (16, 32)
    assert events[0] == ConfirmationForeseen(networks=16, trainings=32, seconds=32 * 60.0)
    assert events[-1].text.startswith("4 networks ")
    left = [int(number) for number in events[-1].text.split("trials ")[1].split(", ")]
    assert len(left) == 4
    assert min(left) >= 12  # posteriors of nearly equal scores may change their order
    events.clear()
    confirm(folder, machine, events)
    assert (len(machine.trained), len(events)) == (32, 1)


def test_a_long_front_is_confirmed_whole(tmp_path):
    records = [trial(i, 2000.0 * 0.8**i, 0.2 + i / 25) for i in range(20)]
    folder = write_study(tmp_path, records=records)
    machine = LuckyMachine({record.key: 0.2 + record.number / 25 for record in records})
    confirm(folder, machine, further_seeds=1)
    assert sorted(set(machine.trained)) == sorted((record.key, 1) for record in records)


def test_those_whom_the_front_is_compared_with_are_confirmed_however_far_behind(study):
    fresh(study).write(trial(5, 100.0, 0.1, arch=TINY, origin="anchor:litv2_tiny"))
    for number, name in ((6, "resnet18"), (7, "resnet26")):
        fresh(study).write(trial(number, 90.0, 0.3, subject=Subject(timm=name), origin=f"baseline:{name}"))
    fresh(study).write(fail(fresh(study).records[7], "the worker died", scores=()))
    machine = LuckyMachine({**TRUTH, TINY.key(): 0.1, "timm:resnet18": 0.3})
    confirm(study, machine, further_seeds=1)
    seeds = seeds_of(study)
    assert (seeds[5], seeds[6], seeds[7]) == ([0, 1], [0, 1], [])
    assert seeds[4] == [0]


def test_networks_that_were_stopped_or_broke_a_limit_are_none_of_the_front(study):
    rung = (build_score(0.9, images_seen=1024),)
    fresh(study).write(trial(5, 3000.0, 0.9, state="stopped", scores=rung))
    fresh(study).write(trial(6, 3000.0, 0.9, state="infeasible"))
    machine = LuckyMachine(TRUTH)
    confirm(study, machine)
    assert not {record.key for record in fresh(study).records[5:]} & {key for key, _ in machine.trained}


def test_rungs_are_part_of_what_a_training_cost_and_no_seeds_of_the_budget(tmp_path):
    rung = build_score(0.4, images_seen=1024, seconds=20.0)
    folder = write_study(tmp_path, records=[trial(0, 1000.0, 0.6, scores=(rung, build_score(0.6, seconds=40.0)))])
    events = []
    confirm(folder, LuckyMachine({key(0): 0.6}), events)
    assert events[0] == ConfirmationForeseen(networks=1, trainings=2, seconds=120.0)
    assert fresh(folder).records[0].score_at(1024).seeds == 1


def test_seeds_taken_over_from_another_study_count(tmp_path):
    """A study of seed 0 that took over a network's score of seed 1, and another's of three seeds."""
    taken = tuple(build_score(0.5, seed=seed) for seed in (1, 2, 7))
    records = [trial(0, 1000.0, 0.6, scores=(build_score(0.6, seed=1),)), trial(1, 2000.0, 0.5, scores=taken)]
    folder = write_study(tmp_path, records=records)
    machine = LuckyMachine({key(0): 0.6, key(1): 0.5})
    confirm(folder, machine)
    assert machine.trained == [(key(0), 0), (key(0), 2)]


def test_a_finished_study_is_confirmed_without_measuring_more(tmp_path, machine):
    archs = [build_arch(0), build_arch(31), build_arch(3)]
    study = write_timed_study(tmp_path, machine, archs)
    request = SearchConfig.of(study="demo", confirm=2, remeasure=False)
    assert run_search(request, lambda event: None)[1].measured == 3
    assert machine.measured == []
    records = fresh(study).records
    assert {record.score.seeds for record in Front.from_records(records).members} == {3}
    assert {seed for _, seed, _ in machine.legs} == {1, 2}
    legs = len(machine.legs)
    run_search(request, lambda event: None)
    assert len(machine.legs) == legs
    events = []
    run_search(request.replace({"proxy.confirm": None, "search.trials": 1}), events.append)  # and the study goes on
    assert fresh(study).records[3].state == "complete"


def test_a_search_that_takes_over_scores_confirms_its_front(tmp_path, machine):
    source = write_timed_study(tmp_path, machine, [build_arch(0), build_arch(31)], "first")
    request = SearchConfig.of(
        space="litv2_digits", study="second", reuse="first", confirm=1, seed=1, trials=1,
        proxy_images=3000, proxy_batch_size=64, remeasure=False, reduction_factor=0,
    )  # fmt: skip
    folder, _ = run_search(request, lambda event: None)
    assert fresh(source).records[0].scores[0].seed == 0
    confirmed = Front.from_records(fresh(folder).records).members
    assert {record.score.seeds for record in confirmed} == {2}
    for record in confirmed:
        if record.key in {r.key for r in fresh(source).records}:
            assert [score.seed for score in record.scores if score.images_seen == FULL] == [0, 1]


def test_scores_beyond_a_studys_budget_are_not_taken_over(tmp_path, machine):
    source = write_timed_study(tmp_path, machine, [build_arch(0)], "first")
    (record,) = fresh(source).records
    beyond = dataclasses.replace(record.score, value=0.99, images_seen=3 * FULL)
    fresh(source).write(dataclasses.replace(record, scores=(record.score, beyond)))
    request = SearchConfig.of(
        space="litv2_digits", study="second", reuse="first", until_trials=2,
        proxy_images=3000, proxy_batch_size=64, remeasure=False, reduction_factor=0,
    )  # fmt: skip
    folder, _ = run_search(request, lambda event: None)
    scores = {record.key: record.score for record in fresh(folder).records}
    assert (scores[key(0)].images_seen, scores[key(0)].value) == (FULL, top1(build_arch(0)))
