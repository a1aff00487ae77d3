"""Searches on several equal devices: trials run on all of them, each network once, on one condition."""

import collections
import dataclasses

import pytest
from builders import build_manifest, fresh

from hilo_nas.errors import DeviceError, HiloNasError, UsageError
from hilo_nas.events import Notice, SearchStarted, TrialFinished, TrialStarted
from hilo_nas.searching import RemeasureRequest, SearchConfig, estimate_cost, run_remeasure, run_search
from hilo_nas.searching.forecast.budget_choice import SearchCosts
from hilo_nas.searching.forecast.dry_run import CostSample, build_cost
from hilo_nas.searching.forecast.tried_networks import TriedNetwork
from hilo_nas.study.stored_study import open_study
from hilo_nas.testing import FakeAnswers, FakeEvaluator

BOTH = "cuda:0,cuda:1"
PLAIN = {"space": "litv2_digits", "sampler": "random", "reduction_factor": 0.0, "remeasure": False}


class Answers(FakeAnswers):
    """Fake results that may differ by device, or fail.

    Args:
        speeds: Images/s of the reference on a device, one per timing; the last one stays.
        models: Model of a device.
        before: Called with each task; may raise.
    """

    def __init__(self, *, speeds=None, models=None, before=lambda task: None):
        super().__init__()
        self.speeds, self.models, self.before = speeds or {}, models or {}, before

    def __call__(self, task):
        self.before(task)
        return super().__call__(task)

    def identity_of(self, device):
        identity = super().identity_of(device)
        return dataclasses.replace(identity, model=self.models.get(device, identity.model))

    def reference_speed(self, device):
        left = self.speeds.get(device, [256.0])
        return left.pop(0) if len(left) > 1 else left[0]


def search(evaluator, emit=lambda event: None, **options):
    options = {**PLAIN, "study": "demo", "device": BOTH, "trials": 12, **options}
    return run_search(SearchConfig.of(**options), emit, evaluator=evaluator)


def resume(evaluator, emit=lambda event: None, **options):
    config = SearchConfig.of(study="demo", remeasure=False, **options)
    return run_search(config, emit, evaluator=evaluator)


def uses_in(evaluator, *kinds):
    return [run for run in evaluator.runs if run.task.kind in kinds and run.task.target is not None]


def overlaps(runs, *, same_device):
    """Pairs of tasks that ran at the same time."""
    return [
        (one, other)
        for i, one in enumerate(runs)
        for other in runs[:i]
        if (one.device == other.device) == same_device and one.begins < other.ends and other.begins < one.ends
    ]


@pytest.mark.parametrize("sampler", ["hilo", "tpe", "gp", "nsga2", "random"])
def test_each_network_is_tried_once_whichever_sampler_proposes(sampler):
    evaluator = FakeEvaluator(Answers())
    study, finished = search(evaluator, sampler=sampler)
    records = fresh(study).records
    assert finished.measured == 12
    assert len({record.key for record in records if record.is_measured}) == 12
    assert len({record.key for record in records}) == len(records)
    assert overlaps(evaluator.runs, same_device=True) == []
    assert overlaps(uses_in(evaluator, "score"), same_device=False)


def test_trials_run_on_both_devices_at_once_and_timings_of_one_device_never_overlap():
    evaluator, events = FakeEvaluator(Answers()), []
    study, _ = search(evaluator, events.append)
    uses = uses_in(evaluator, "time", "score")
    assert overlaps(uses, same_device=True) == []
    assert overlaps(uses_in(evaluator, "time"), same_device=False)
    trials = collections.Counter()
    for event in events:
        if isinstance(event, TrialStarted | TrialFinished):
            trials["running"] += 1 if isinstance(event, TrialStarted) else -1
            trials["most"] = max(trials["most"], trials["running"])
    assert trials == {"running": 0, "most": 2}
    records = fresh(study).records
    assert {record.measurement.device.serial for record in records} == {"fake-cuda:0", "fake-cuda:1"}
    assert {score.device for record in records for score in record.scores} == {"cuda:0", "cuda:1"}


def test_a_study_has_one_condition_whatever_device_a_network_was_timed_on():
    study, _ = search(FakeEvaluator(Answers()))
    manifest = study.manifest
    assert [condition.device for condition in manifest.conditions] == ["cuda"]
    assert all(manifest.is_comparable(record.measurement) for record in study.records)


def test_a_random_search_finds_the_same_networks_on_one_device_and_on_two():
    found = []
    for device in ("cuda:0", BOTH):
        study, _ = search(FakeEvaluator(Answers()), study=f"on-{device[-1]}", device=device)
        found.append({record.key: record.score.value for record in study.records})
    assert found[0] == found[1]


def test_all_devices_of_a_machine_are_used_if_asked_for():
    evaluator = FakeEvaluator(Answers(), cards=3)
    study, _ = search(evaluator, device="cuda:all")
    assert {run.device for run in uses_in(evaluator, "score")} == {"cuda:0", "cuda:1", "cuda:2"}
    assert study.name == "demo"


def test_a_new_study_is_named_after_the_kind_of_its_devices():
    assert search(FakeEvaluator(Answers()), study=None, trials=1)[0].name == "litv2_digits-cuda"


def test_a_study_made_on_two_devices_goes_on_with_one():
    study, _ = search(FakeEvaluator(Answers()))
    evaluator = FakeEvaluator(Answers())
    again, finished = resume(evaluator, trials=4, device="cuda:1")
    assert (finished.measured, again.path) == (16, study.path)
    assert {run.device for run in uses_in(evaluator, "time", "score")} == {"cuda:1"}
    assert len({record.key for record in again.records}) == 16
    plain = FakeEvaluator(Answers())
    assert resume(plain, trials=1)[1].measured == 17  # the kind in the manifest names the first device
    assert {run.task.target for run in uses_in(plain, "time", "score")} == {"cuda"}


def test_a_study_made_on_one_device_goes_on_with_two():
    search(FakeEvaluator(Answers()), device="cuda:0", trials=4)
    evaluator = FakeEvaluator(Answers())
    study, finished = resume(evaluator, trials=6, device=BOTH)
    assert finished.measured == 10
    assert {run.device for run in uses_in(evaluator, "score")} == {"cuda:0", "cuda:1"}
    assert len({record.key for record in study.records}) == 10


def test_an_interrupt_ends_the_trials_of_both_devices_and_the_next_search_ends_them_on_one():
    seen = collections.Counter()

    def interrupt(task):
        seen[task.kind] += 1
        if task.kind == "score" and seen["score"] == 6:
            raise KeyboardInterrupt

    evaluator = FakeEvaluator(Answers(before=interrupt))
    with pytest.raises(KeyboardInterrupt):
        search(evaluator)
    assert evaluator.wait(1e6) == []
    study = open_study("demo")
    cut = [record for record in study.records if record.is_interrupted]
    assert len(cut) == 2
    assert not any(str(record.state) == "running" for record in study.records)
    again, finished = resume(FakeEvaluator(Answers()), device="cuda:0")
    assert finished.measured == 12
    records = {record.number: record for record in fresh(again).records}
    assert all((records[r.number].key, records[r.number].is_measured) == (r.key, True) for r in cut)
    assert len({record.key for record in records.values()}) == len(records) == 12


def test_devices_of_different_models_are_refused_and_no_study_is_made(tmp_path):
    evaluator = FakeEvaluator(Answers(models={"cuda:1": "other card"}))
    with pytest.raises(DeviceError, match="cuda:0 and cuda:1 differ in model: fake card and other card"):
        search(evaluator)
    assert not (tmp_path / "demo" / "manifest.yaml").exists()


def test_devices_that_are_not_equally_fast_are_refused():
    evaluator = FakeEvaluator(Answers(speeds={"cuda:1": [220.0]}))
    with pytest.raises(DeviceError, match="cuda:0 and cuda:1 time the reference at 256 and 220 images/s"):
        search(evaluator)
    assert len(uses_in(evaluator, "time")) == 4  # each twice


def test_a_difference_that_does_not_repeat_is_no_difference():
    events = []
    search(FakeEvaluator(Answers(speeds={"cuda:1": [220.0, 254.0]})), events.append, trials=1)
    (text,) = [event.text for event in events if isinstance(event, Notice) and "count as equal" in event.text]
    assert text == "the speed of the reference compared with cuda:0: cuda:1 -0.8%. The devices count as equal"


def test_a_resumed_search_compares_its_devices_too():
    search(FakeEvaluator(Answers()), trials=1)
    with pytest.raises(DeviceError, match="must be equally fast"):
        resume(FakeEvaluator(Answers(speeds={"cuda:1": [220.0]})), trials=1, device=BOTH)


def test_a_single_device_is_compared_with_no_other():
    events, evaluator = [], FakeEvaluator(Answers())
    search(evaluator, events.append, trials=1, device="cuda:0")
    assert not any("count as equal" in event.text for event in events if isinstance(event, Notice))
    assert sum(not run.task.entries for run in uses_in(evaluator, "time")) == 1


def test_a_failed_trial_on_one_device_leaves_the_other_alone():
    seen = collections.Counter()

    def fail_once(task):
        seen[task.kind] += 1
        if task.kind == "score" and seen["score"] == 5:
            raise HiloNasError("it diverged")

    study, finished = search(FakeEvaluator(Answers(before=fail_once)))
    states = collections.Counter(str(record.state) for record in study.records)
    assert (finished.measured, states) == (12, {"complete": 12, "failed": 1})


def test_cohorts_without_training_are_timed_on_both_devices():
    evaluator = FakeEvaluator(Answers())
    study, finished = search(evaluator, proxy="none", sampler=None, reduction_factor=None, trials=40)
    cohorts = [run for run in uses_in(evaluator, "time") if run.task.entries]
    assert finished.measured == 40
    assert {run.device for run in cohorts} == {"cuda:0", "cuda:1"}
    assert overlaps(cohorts, same_device=True) == []
    assert len({record.key for record in study.records}) == 40


def test_the_expected_time_is_shared_by_the_devices():
    network = TriedNetwork(timing_s=2.0, training_s=8.0, per_image_s=0.0)
    manifest = build_manifest()
    found = []
    for count in (1, 2):
        sample = CostSample(networks=(network,), baselines=(network,), limits=None, knows_limits=True, at_once=count)
        config = SearchConfig.of(timeout_s=45.0, confirm=1)
        cost = build_cost(sample, config, manifest.plan, manifest.data, trials=10, set_up_s=5.0, reduction_factor=None)
        found.append((cost.total_s, cost.trials_by_timeout, cost.confirmation_s))
    assert found == [(115.0, 3, 40.0), (60.0, 7, 20.0)]


def test_a_plan_for_two_devices_has_room_for_twice_the_trials():
    costs = SearchCosts(timing_s=2.0, trained_share=1.0, fixed_s=4.0, per_image_s=0.004, extra_s=10.0)
    assert costs.on_devices(2).total_s(20, 1000, 1.0) == costs.total_s(20, 1000, 1.0) / 2
    assert costs.on_devices(1) == costs


def test_a_dry_run_counts_the_devices_of_its_target():
    config = SearchConfig.of(**PLAIN, study="planned", device=BOTH, trials=100)
    cost = estimate_cost(config, lambda event: None, evaluator=FakeEvaluator(Answers()))
    assert (cost.total_s - cost.set_up_s) / 100 < min(cost.trial_s)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:0,cuda:0", r"device must name different CUDA devices by number, but got 'cuda:0,cuda:0'"),
        ("cpu,cuda:0", "device must name different CUDA devices by number"),
        ("cuda,cuda:1", "device must name different CUDA devices by number"),
        ("cuda:0,", "device must be cpu, cuda, cuda:N or mps, but got ''"),
        ("cpu:all", "device must be cpu, cuda, cuda:N or mps, but got 'cpu:all'"),
    ],
)
def test_what_is_no_target_is_refused_before_anything_runs(device, said):
    evaluator = FakeEvaluator(Answers())
    with pytest.raises(UsageError, match=said):
        search(evaluator, device=device)
    assert evaluator.submitted == []


def test_a_front_is_timed_again_on_one_device():
    search(FakeEvaluator(Answers()), trials=4)
    with pytest.raises(UsageError, match="device must be cpu, cuda, cuda:N or mps, but got 'cuda:0,cuda:1'"):
        run_remeasure(RemeasureRequest(study="demo", device=BOTH), lambda event: None, evaluator=FakeEvaluator())


def test_a_search_says_on_how_many_devices_it_runs():
    events = []
    search(FakeEvaluator(Answers()), events.append, trials=1)
    (started,) = [event for event in events if isinstance(event, SearchStarted)]
    assert started.device == "cuda (2 x fake card)"
