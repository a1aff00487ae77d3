"""A given list of networks, all timed and all trained: what is done once, what goes on, and what is refused."""

import dataclasses
import functools
from pathlib import Path

import pytest
from builders import build_plan, build_score, digits, fresh
from fakes import FakeTrainer

from hilo_nas.errors import DeviceError, HiloNasError, StudyMismatchError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.events import Notice, OtherProxyScored, SeedScored
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.sweeps.listing import list_swept
from hilo_nas.searching.sweeps.sweep import Sweep, SweepTraining, run_sweep
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Lets commands name the studies of a test by their names."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))


TABLE = build_plan(images=3000, rungs=(500, 1000))
BUDGETS = (512, 1024, 3008)
"""In whole batches of 64."""


@functools.cache
def listed():
    """Five networks; to find them, the whole space is gone through."""
    return list_swept(digits(), SearchConfig.of(), StoredStudy(Path("none")), 5, lambda event: None)


class Desk:
    """A study folder, a fake machine, and what was told."""

    def __init__(self, path):
        self.folder = StoredStudy(path / "swept")
        self.machine, self.told = FakeTrainer(), []

    def sweep(self, count, trainings, plan=TABLE, *, proxies=(), reuse=None, **options):
        request = SearchConfig.of(data="digits", device="cpu", **options)
        self.machine.files = CheckpointFiles(self.folder.checkpoints_path, budget_mib=request.study.checkpoint_mib)
        networks = listed()[:count]
        sweep = Sweep(space=digits(), networks=networks, plan=plan, trainings=trainings, proxies=proxies, reuse=reuse)
        return run_sweep(request, sweep, self.folder, self.told.append, evaluator=self.machine)

    def table(self, count=5, plan=TABLE, **options):
        return self.sweep(count, [SweepTraining(seed=0, images=plan.budgets[-1], networks=count)], plan, **options)

    @property
    def warnings(self):
        return [event.text for event in self.told if isinstance(event, Notice) and event.level == "warning"]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def seen(record, seed=0):
    return tuple(score.images_seen for score in record.scores if score.seed == seed)


def test_every_network_is_timed_and_scored_at_each_budget(desk):
    records = desk.table()
    assert [record.state for record in records] == ["complete"] * 5
    assert {seen(record) for record in records} == {BUDGETS}
    assert all(record.measurement and record.parameters and record.macs for record in records)
    assert list(fresh(desk.folder).records) == records
    assert fresh(desk.folder).manifest.reduction_factor is None
    news = [event for event in desk.told if isinstance(event, SeedScored)]
    assert [(event.done, event.total) for event in news] == [(i, 5) for i in range(1, 6)]
    assert news[0].value == records[0].scores[-1].value


def test_several_trainings_at_once_leave_the_same_records(desk, tmp_path):
    alone = [[(s.seed, s.images_seen, s.value) for s in record.scores] for record in desk.table()]
    desk.folder = StoredStudy(tmp_path / "together")
    desk.machine = FakeTrainer(slots=4)
    together = [[(s.seed, s.images_seen, s.value) for s in record.scores] for record in desk.table()]
    assert together == alone


def test_a_second_call_does_nothing_again(desk):
    first = desk.table(proxies=("naswot",))
    desk.machine.legs.clear()
    desk.machine.others.clear()
    assert desk.table(proxies=("naswot",)) == first
    assert (desk.machine.legs, desk.machine.others) == ([], [])
    assert len(desk.machine.cohorts) == 1


def test_a_longer_list_goes_on_with_a_shorter_one(desk):
    first = desk.table(3)
    records = desk.table(5)
    assert records[:3] == first
    assert len(records) == 5
    assert fresh(desk.folder).manifest.trials == 5


def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_leaves_the_rest_alone(desk):
    table = desk.table(5)
    desk.machine.legs.clear()
    records = desk.sweep(2, [SweepTraining(seed=1, images=3008, networks=2)], proxies=("zico",))
    assert [record.key for record in records] == [record.key for record in table[:2]]
    assert {seen(record, seed=1) for record in records} == {BUDGETS}
    assert {key for key, _, _ in desk.machine.legs} == {record.key for record in records}
    assert list(fresh(desk.folder).records[2:]) == table[2:]
    assert fresh(desk.folder).manifest.trials == 5
    assert len(desk.machine.cohorts) == 1


def test_budgets_are_those_of_all_calls_and_old_scores_keep_theirs(desk):
    table = desk.table(4)
    long = build_plan(images=20_000, rungs=(1000, 3010, 9000))
    desk.machine.legs.clear()
    desk.sweep(4, [SweepTraining(seed=1, images=20_032, networks=1)], long)
    manifest = fresh(desk.folder).manifest
    # 3,010 images are one batch more than 3,000; 1,000 are the same.
    assert (manifest.plan.rungs, manifest.plan.images) == ((500, 1000, 3000, 3010, 9000), 20_000)
    assert manifest.plan_hash == table[0].scores[0].plan_hash
    assert [leg[1:] for leg in desk.machine.legs] == [(1, n) for n in (512, 1024, 3008, 3072, 9024, 20_032)]
    desk.machine.legs.clear()
    assert desk.table(4)[1:] == table[1:]
    assert desk.machine.legs == []  # not even at budgets that came between
    assert fresh(desk.folder).manifest == manifest


def test_budgets_asked_for_are_no_conflict_with_a_stored_study(desk):
    desk.table(2, proxy_images=3000, rungs=3, rung_ratio=2.5)
    desk.table(2, proxy_images=9000, rungs=4, rung_ratio=3)
    with pytest.raises(StudyMismatchError, match=r"proxy\.img_size: 32 in the study, 48 now"):
        desk.table(2, proxy_img_size=48)


def test_a_training_goes_on_at_a_larger_budget(desk):
    desk.table(2)
    desk.machine.legs.clear()
    records = desk.table(2, build_plan(images=9000))
    assert [leg[1:] for leg in desk.machine.legs] == [(0, 9024)] * 2
    assert {seen(record) for record in records} == {(*BUDGETS, 9024)}


def test_courses_are_gone_through_in_their_order_after_the_other_proxies(desk):
    order = []
    desk.machine.before = lambda task: order.append((task.plan.proxy, task.seed)) if task.kind == "score" else None
    trainings = [SweepTraining(seed=seed, images=512, networks=count) for seed, count in ((0, 3), (1, 3), (2, 1))]
    desk.sweep(3, trainings, proxies=("naswot", "dss"))
    assert order == [
        *[("naswot", 0)] * 3,
        *[("dss", 0)] * 3,
        *[("training", 0)] * 3,
        *[("training", 1)] * 3,
        ("training", 2),
    ]


def test_scores_of_other_proxies_stand_beside_those_of_the_training(desk):
    record = desk.table(1, proxies=("naswot", "zico"))[0]
    assert [score.metric for score in record.other_scores] == ["naswot", "zico"]
    assert [score.metric for score in record.scores] == ["top1"] * 3
    told = [event for event in desk.told if isinstance(event, OtherProxyScored)]
    assert [(event.proxy, event.value) for event in told] == [
        (score.metric, score.value) for score in record.other_scores
    ]


def test_scores_of_other_proxies_that_are_not_comparable_any_more_are_taken_again(desk):
    record = desk.table(1, proxies=("naswot",))[0]
    old = dataclasses.replace(record.other_scores[0], plan_hash="of an older version", value=1.0)
    fresh(desk.folder).write(dataclasses.replace(record, other_scores=(old,)))
    again = desk.table(1, proxies=("naswot",))[0]
    assert [(score.plan_hash, score.value) for score in again.other_scores] == [
        (score.plan_hash, score.value) for score in record.other_scores
    ]


def test_a_network_that_cannot_be_trained_is_a_warning_and_tried_again_by_the_next_call(desk):
    def fail(task):
        if getattr(task, "until", None) == 1024 and task.subject == broken:
            raise HiloNasError("the training diverged")

    broken = listed()[1].subject.to_dict()
    desk.machine.before = fail
    records = desk.table(3)
    assert desk.warnings == ["network 1, seed 0: the training diverged"]
    assert [record.state for record in records] == ["complete", "timed", "complete"]
    assert seen(records[1]) == (512,)
    desk.machine.before = lambda task: None
    desk.machine.legs.clear()
    records = desk.table(3)
    assert (records[1].state, seen(records[1])) == ("complete", BUDGETS)
    assert [leg[2] for leg in desk.machine.legs] == [1024, 3008]


def test_what_is_wrong_with_all_networks_ends_the_sweep_and_keeps_what_is_done(desk):
    def fail(task):
        if task.kind == "score" and len(desk.machine.legs) == 4:
            raise DeviceError("the device is gone")

    desk.machine.before = fail
    with pytest.raises(DeviceError, match="the device is gone"):
        desk.table(3)
    assert [seen(record) for record in fresh(desk.folder).records] == [BUDGETS, (512,), ()]
    desk.machine.before = lambda task: None
    assert {seen(record) for record in desk.table(3)} == {BUDGETS}
    assert len(desk.machine.legs) == len(set(desk.machine.legs)) == 9


def test_a_training_goes_on_from_its_checkpoint_and_later_from_those_kept_within_the_disk_budget(desk):
    desk.table(4, checkpoint_mib=2.9 / 2**20)  # of the fake files of four bytes none
    assert [leg[2] for leg in desk.machine.resumed] == [1024, 3008] * 4
    assert list(desk.folder.checkpoints_path.iterdir()) == []
    desk.machine.resumed.clear()
    desk.sweep(4, [SweepTraining(seed=1, images=3008, networks=4)], checkpoint_mib=9 / 2**20)
    kept = {path.name for path in desk.folder.checkpoints_path.iterdir()}
    assert len(kept) == 2
    desk.machine.resumed.clear()
    desk.sweep(4, [SweepTraining(seed=1, images=9024, networks=4)], build_plan(images=9000), checkpoint_mib=9 / 2**20)
    assert {f"{key}-{seed}.pt" for key, seed, _ in desk.machine.resumed} == kept


def test_a_checkpoint_is_kept_until_the_last_score_is_on_disk(desk):
    dropped = []

    class WatchedTrainer(FakeTrainer):
        def discard(self, references):
            before = list(desk.folder.checkpoints_path.glob("*"))
            super().discard(references)
            if before and not list(desk.folder.checkpoints_path.iterdir()):
                dropped.extend(map(seen, fresh(desk.folder).records))

    desk.machine = WatchedTrainer()
    desk.table(1, checkpoint_mib=0)
    assert dropped == [BUDGETS]


def test_a_network_that_cannot_be_timed_has_failed_and_is_not_trained(desk):
    desk.machine.failures[listed()[1].subject.key] = "it does not fit"
    records = desk.table(3, proxies=("naswot",))
    assert [record.state for record in records] == ["complete", "failed", "complete"]
    assert (records[1].reason, records[1].scores, records[1].other_scores) == ("it does not fit", (), ())


def test_a_study_of_other_networks_is_refused_and_left_as_it_was(desk):
    desk.table(3)
    manifest, records = fresh(desk.folder).manifest, fresh(desk.folder).records
    fresh(desk.folder).write(dataclasses.replace(records[0], subject=records[1].subject))
    with pytest.raises(StudyMismatchError, match="must begin with the requested networks"):
        desk.table(5, build_plan(images=9000))
    assert fresh(desk.folder).manifest == manifest


def test_a_study_of_a_search_is_refused(desk):
    desk.table(2)
    fresh(desk.folder).write_manifest(dataclasses.replace(fresh(desk.folder).manifest, sampler="gp"))
    with pytest.raises(StudyMismatchError, match="was created by a search"):
        desk.table(2)


def trained(number, budgets, *, seed=0, top1=0.9):
    """A network of the list as it was trained elsewhere."""
    scores = tuple(build_score(top1, images_seen=images, seed=seed) for images in budgets)
    subject, origin = listed()[number].subject, f"reuse:there/{number}"
    return TrialRecord(number=number, subject=subject, state=TrialState.WAITING, origin=origin, scores=scores)


def test_what_was_trained_elsewhere_is_timed_here_and_trained_no_further_than_is_missing(desk):
    def reuse(manifest):
        assert manifest.plan.budgets == BUDGETS
        assert manifest.device == desk.machine.device_of["cpu"]
        return [trained(0, BUDGETS), trained(1, BUDGETS[:2]), trained(2, BUDGETS, seed=5)]

    records = desk.table(4, reuse=reuse)
    assert [record.origin for record in records] == ["reuse:there/0", "reuse:there/1", "reuse:there/2", "list"]
    assert [record.state for record in records] == ["complete"] * 4
    assert [seen(record) for record in records] == [BUDGETS] * 4
    assert [score.value == 0.9 for score in records[1].scores] == [True, True, False]
    assert seen(records[2], seed=5) == BUDGETS
    assert [leg for leg in desk.machine.legs if leg[0] == records[0].key] == []
    assert [images for key, _, images in desk.machine.legs if key == records[1].key] == [3008]
    assert all(record.measurement.cohort == "cohort-0" for record in records)
    assert list(fresh(desk.folder).records) == records


def test_own_scores_come_before_those_from_elsewhere(desk):
    before = desk.table(2, build_plan(images=512))
    desk.machine.legs.clear()
    records = desk.table(2, reuse=lambda manifest: [trained(0, BUDGETS)])
    assert records[0].scores[0] == before[0].scores[0]
    assert [score.value for score in records[0].scores[1:]] == [0.9, 0.9]
    assert records[0].origin == "list"
    assert {key for key, _, _ in desk.machine.legs} == {records[1].key}


def test_a_network_that_cannot_be_timed_takes_nothing_over(desk):
    desk.machine.failures[listed()[0].subject.key] = "it does not fit"
    (record,) = desk.table(1, reuse=lambda manifest: [trained(0, BUDGETS)])
    assert (record.state, record.scores) == ("failed", ())


def test_trainings_that_cannot_be_taken_over_leave_no_study_behind(desk):
    def refuse(manifest):
        raise StudyMismatchError("those were other images")

    with pytest.raises(StudyMismatchError, match="those were other images"):
        desk.table(2, reuse=refuse)
    assert not desk.folder.exists
    assert len(desk.table(2)) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"call_seconds": (0.1, 0.2, 0.3, 0.1) * 4},
        {"device_state": {"throttle_reasons": ["hardware slowdown"]}},
        {"device_state": {"others_cores": 1.0, "cores": 2}, "threads": 2},
    ],
)
def test_a_machine_that_was_not_steady_is_told_of_with_the_way_out(desk, fault):
    records = desk.table(3)
    assert desk.warnings == []
    (measurement,) = records[1].measurements
    disturbed = dataclasses.replace(measurement, **fault)
    fresh(desk.folder).write(dataclasses.replace(records[1], measurements=(disturbed,)))
    desk.table(3)
    (warning,) = desk.warnings
    assert warning.startswith("1 of 3 networks ")
    assert "hilo-nas remeasure swept --all" in warning


def test_a_stop_between_two_conditions_keeps_the_timings_of_the_first(desk):
    def stop(verb, count):
        if (verb, count) == ("cohort", 1):
            raise KeyboardInterrupt

    desk.machine.happen = stop
    with pytest.raises(KeyboardInterrupt):
        desk.table(also=("batch_size=1",))
    assert [len(record.measurements) for record in fresh(desk.folder).records] == [1] * 5
    desk.machine.happen = lambda verb, count: None
    desk.machine.cohorts.clear()
    records = desk.table(also=("batch_size=1",))
    assert len(desk.machine.cohorts) == 1
    assert [(record.state, len(record.measurements)) for record in records] == [("complete", 2)] * 5
