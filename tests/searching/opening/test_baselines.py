"""Networks of others that a search is compared with: timed and trained as the space's are, but no candidates."""

import dataclasses

import pytest
from builders import (
    TINY,
    build_arch,
    build_device,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    fresh,
    write_study,
)
from fakes import RESOURCES, FakeMachine, write_speeds

from hilo_nas.errors import (
    DeviceError,
    HiloNasError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    UsageError,
    WorkerFailedError,
)
from hilo_nas.events import Notice, TrialFinished, TrialStarted
from hilo_nas.searching import RemeasureRequest, SearchConfig, estimate_cost, run_remeasure, run_search
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.sampling.optuna_study import impute
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.front import Front
from hilo_nas.study.records import FITS, Subject
from hilo_nas.study.stored_study import StoredStudy

BASELINES = ("timm:swift", "timm:clever")
BEST = {"swift": (9e9, 0.99), "clever": (1.0, 0.98)}
"""One that dominates every network of the space, one that is slower than all of them."""


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path, manifest=build_manifest(sampler="random", baselines=BASELINES))


def run(folder, machine=None, events=None, **changes):
    """Runs the study's loop as another process would: from what is on disk."""
    machine = machine or FakeMachine()
    machine.baselines = BEST
    manifest = dataclasses.replace(fresh(folder).manifest, **changes)
    loop = SearchLoop(fresh(folder), manifest, machine, RESOURCES, (events if events is not None else []).append)
    return loop.run(), machine


def fail(verb, *, error, name, times=99):
    """Makes a machine that raises where a baseline of that name is about to be measured, scored or counted."""

    class Failing(FakeMachine):
        left = times

        def spend(self, what, subject):
            if what == verb and subject.timm == name and self.left:
                self.left -= 1
                raise error

        def count(self, subject):
            self.spend("count", subject)
            return super().count(subject)

        def measure(self, subject, condition, rivals):
            self.spend("measure", subject)
            return super().measure(subject, condition, rivals)

        def score(self, subject, *arguments):
            self.spend("score", subject)
            return super().score(subject, *arguments)

    return Failing()


def baselines_of(folder):
    return [record for record in fresh(folder).records if record.is_baseline]


# In the loop.


def test_baselines_follow_the_anchors_and_do_not_count_as_networks_measured(folder):
    events = []
    finished, _ = run(folder, trials=3, events=events)
    records = fresh(folder).records
    assert [r.origin for r in records] == [
        "anchor:litv2_tiny",
        "baseline:swift",
        "baseline:clever",
        "sampler",
        "sampler",
    ]
    assert [r.key for r in records[1:3]] == list(BASELINES)
    assert {(r.state, r.params) for r in records[1:3]} == {("complete", None)}
    assert (finished.measured, finished.total) == (3, 3)
    assert [e.measured for e in events if isinstance(e, TrialFinished)] == [1, 1, 1, 2, 3]
    assert [e.is_baseline for e in events if isinstance(e, TrialFinished)] == [False, True, True, False, False]


def test_what_no_formula_knows_of_a_baseline_is_counted(folder):
    events = []
    _, machine = run(folder, trials=1, events=events)
    assert machine.counted == list(BASELINES)
    assert {(r.parameters, r.macs) for r in baselines_of(folder)} == {(5_000_000, 70_000_000)}
    assert [e.params_m for e in events if isinstance(e, TrialStarted)][1:] == [None, None]


def test_baselines_are_no_part_of_the_front_nor_do_they_beat_or_tie_anyone(folder):
    run(folder, trials=4)
    records = fresh(folder).records
    own = [record for record in records if not record.is_baseline]
    assert Front.from_records(records).members == Front.from_records(own).members != ()
    assert Front.from_records(records).ties == Front.from_records(own).ties
    assert Front.from_records(records).near(at_most=9) == Front.from_records(own).near(at_most=9)
    assert Front.from_records(baselines_of(folder)).members == ()


def test_no_network_is_timed_beside_a_baseline_as_a_rival(folder):
    _, machine = run(folder, trials=4)
    assert machine.rivals[1] == [TINY.key()]  # of a baseline
    assert not {key for rivals in machine.rivals for key in rivals} & set(BASELINES)


def test_a_baseline_teaches_the_sampler_nothing(folder):
    run(folder, trials=5, sampler="gp")
    events = []
    assert run(folder, trials=6, sampler="gp", events=events)[0].measured == 6
    assert not [event for event in events if isinstance(event, Notice)]  # the memory agreed with the records
    own = [record for record in fresh(folder).records if not record.is_baseline]
    assert impute(fresh(folder).records, chance_top1=0.1) == impute(own, chance_top1=0.1)


def test_a_baseline_is_compared_whatever_limits_it_breaks(tmp_path):
    space = build_space("limited", {**load_space("litv2_digits").to_dict(), "limits": {"params_m": 0.5}})
    limits = {"images_per_s": 10.0}
    folder = write_study(
        tmp_path, manifest=build_manifest(space=space, sampler="random", baselines=BASELINES, limits=limits)
    )
    run(folder, trials=1)
    assert [(r.state, r.violations) for r in baselines_of(folder)] == [("complete", {}), ("complete", {})]


def test_baselines_climb_every_rung_and_take_nobodys_place_there(tmp_path):
    plan = build_plan(rungs=(500, 1500))
    manifest = build_manifest(sampler="random", plan=plan, trials=12)
    alone = write_study(tmp_path, "alone", manifest=dataclasses.replace(manifest, name="alone"))
    # Where baselines were there before the first network, only the draws of the sampler would be others.
    beside = write_study(tmp_path, "beside", manifest=dataclasses.replace(manifest, name="beside", baselines=BASELINES))
    for folder in (alone, beside):
        run(folder)
    assert [len(record.scores) for record in baselines_of(beside)] == [3, 3]
    own = {r.key: r.state for r in fresh(beside).records if not r.is_baseline}
    assert own == {r.key: r.state for r in fresh(alone).records}
    assert set(own.values()) == {"complete", "stopped"}


def test_baselines_that_cannot_run_end_no_search_and_are_told_once(folder):
    error = WorkerFailedError("training failed: AssertionError: Input height (32) doesn't match model (224).")
    machine, events = fail("score", error=error, name="swift"), []
    assert run(folder, machine, events, trials=2)[0].measured == 2
    failed, other = baselines_of(folder)
    assert (failed.state, other.state) == ("failed", "complete")
    assert failed.reason == f"worker failed: {error}"
    assert failed.measurement is not None
    warned = [event.text for event in events if isinstance(event, Notice)]
    assert [(text.split()[0], text.endswith(f": worker failed: {error}")) for text in warned] == [("timm:swift", True)]
    events.clear()
    run(folder, trials=3, events=events)
    assert len(baselines_of(folder)) == 2
    assert not [event for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("verb", ["count", "measure", "score"])
def test_many_failing_baselines_are_not_a_fault_of_the_machine(tmp_path, verb):
    baselines = tuple(f"timm:broken{i}" for i in range(7))
    folder = write_study(tmp_path, manifest=build_manifest(sampler="random", baselines=baselines))

    def broken(what, count):
        if what == verb and any(record.state == "running" and record.is_baseline for record in fresh(folder).records):
            raise WorkerFailedError("no luck")

    assert run(folder, FakeMachine(broken), trials=3)[0].measured == 3
    assert {record.state for record in baselines_of(folder)} == {"failed"}


def test_a_streak_of_failures_on_both_sides_of_a_baseline_is_due_again_without_it(tmp_path):
    folder = write_study(tmp_path, manifest=build_manifest(sampler="random", baselines=("timm:swift",)))

    def broken(what, count):
        if what == "score" and fresh(folder).records[-1].key != "timm:swift":
            raise WorkerFailedError("no luck")

    with pytest.raises(HiloNasError, match="5 consecutive trials failed"):
        run(folder, FakeMachine(broken), trials=9)
    records = fresh(folder).records
    assert [record.is_interrupted for record in records] == [True, False, True, True, True, True]
    assert records[1].state == "complete"


def test_a_baseline_that_does_not_fit_into_memory_leaves_the_samplers_constraints_alone(folder):
    run(folder, fail("measure", error=NotEnoughMemoryError("CUDA out of memory"), name="swift"), trials=2)
    first = baselines_of(folder)[0]
    assert (first.state, first.reason) == ("failed", "out of memory while timing: CUDA out of memory")
    assert FITS not in first.violations


def test_a_baseline_that_the_world_cut_off_comes_again(folder):
    with pytest.raises(DeviceError):
        run(folder, fail("score", error=DeviceError("the GPU has gone"), name="swift", times=1), trials=2)
    _, machine = run(folder, trials=2)
    assert [(r.key, r.origin, r.state) for r in baselines_of(folder)] == [
        ("timm:swift", "baseline:swift", "complete"),
        ("timm:clever", "baseline:clever", "complete"),
    ]
    assert machine.measured.count("timm:swift") == 0  # its speed was there already


def test_baselines_come_even_where_no_more_networks_are_asked_for(folder):
    run(folder, trials=2, baselines=())
    finished, machine = run(folder, trials=2)
    assert (finished.measured, finished.stopped_by) == (2, "total")
    assert machine.scored == list(BASELINES)


# In a whole search.


def search(tmp_path, machine, events=None, **options):
    machine.baselines = BEST
    request = SearchConfig.of(**{"space": "litv2_digits", "study": "demo", "sampler": "random", **options})
    study, finished = run_search(request, (events if events is not None else []).append)
    return StoredStudy(study.path), finished


def test_a_stored_study_takes_on_further_baselines(tmp_path, machine):
    folder, _ = search(tmp_path, machine, until_trials=2, baselines=("timm:swift", "timm:swift"))
    assert fresh(folder).manifest.baselines == ("timm:swift",)
    before = fresh(folder).records
    _, finished = search(tmp_path, machine, baselines=("timm:clever",), space=None, sampler=None, remeasure=False)
    assert fresh(folder).manifest.baselines == BASELINES
    assert (finished.measured, finished.total) == (2, 2)
    assert [record.key for record in fresh(folder).records[len(before) :]] == ["timm:clever"]


def test_a_name_that_timm_does_not_know_is_refused_before_anything_is_spent(tmp_path, machine):
    machine.read_device = None
    for ask in (lambda: search(tmp_path, machine, baselines=("timm:swoft",)), lambda: price(tmp_path, "timm:swoft")):
        with pytest.raises(UsageError, match=r"timm has no model 'swoft'. Use swift or clever"):
            ask()
    assert not (tmp_path / "demo" / "manifest.yaml").exists()


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        (("",), "search.baselines must be a list of timm networks, as NAME or timm:NAME, but got ''"),
        (("timm:",), "search.baselines must be a list of timm networks, as NAME or timm:NAME, but got 'timm:'"),
        (
            ("onnx:a.onnx",),
            "search.baselines must be a list of timm networks, as NAME or timm:NAME, but got 'onnx:a.onnx'",
        ),
    ],
)
def test_a_baseline_is_named_as_timm_names_it(baselines, said):
    with pytest.raises(UsageError) as caught:
        SearchConfig.of(baselines=baselines)
    assert str(caught.value).startswith(said)


def test_a_baseline_may_be_named_without_the_prefix():
    assert SearchConfig.of(baselines=("efficientvit_b2", "timm:litv2_small")).search.baselines == (
        "timm:efficientvit_b2",
        "timm:litv2_small",
    )


def test_baselines_must_have_been_timed_where_the_other_networks_were(tmp_path, machine):
    write_speeds(tmp_path, [TINY], "the edge")
    with pytest.raises(UsageError, match=r"study the edge.* did not time timm:swift") as caught:
        search(tmp_path, machine, baselines=("swift",), speeds="the edge")
    assert "hilo-nas search --study 'the edge' --set search.baselines=timm:swift" in str(caught.value)


def test_baselines_that_were_timed_elsewhere_are_compared_once_they_are_named(tmp_path, machine):
    timer = StoredStudy(write_speeds(tmp_path, [TINY, build_arch(1)]).path)
    measurement = build_measurement(3.0, device=timer.manifest.device)
    timer.write(build_record(9, None, None, subject=Subject(timm="swift"), state="timed", measurements=(measurement,)))
    folder, _ = search(tmp_path, machine, speeds="edge", until_trials=1)
    (baseline,) = baselines_of(folder)
    assert baseline.state == "timed"
    assert Front.from_records(fresh(folder).records).standings[1:] == ()
    search(tmp_path, machine, space=None, sampler=None, baselines=("swift",), remeasure=False)
    (baseline,) = baselines_of(folder)
    assert (baseline.state, baseline.measurement.images_per_s) == ("complete", 3.0)
    assert machine.measured == []


def test_the_budget_of_baselines_is_told_before_they_are_tried(tmp_path, machine):
    events = []
    search(tmp_path, machine, events, until_trials=1, baselines=BASELINES)
    told = [i for i, e in enumerate(events) if isinstance(e, Notice) and e.text.startswith("2 baselines will each be")]
    begun = [i for i, e in enumerate(events) if isinstance(e, TrialStarted)]
    assert told[0] < begun[0]
    assert "images, in about" in events[told[0]].text


def test_a_baseline_scored_by_the_old_recipe_is_trained_again_and_timed_no_more(tmp_path, machine):
    folder, _ = search(tmp_path, machine, until_trials=1, baselines=("swift",))
    (baseline,) = baselines_of(folder)
    old = tuple(dataclasses.replace(score, plan_hash=fresh(folder).manifest.plan_hash) for score in baseline.scores)
    fresh(folder).write(dataclasses.replace(baseline, scores=old))
    (standing,) = [s for s in Front.from_records(fresh(folder).records).standings if s.kind == "baseline"]
    assert standing.verdict == "not measured"
    assert "recipe" in standing.sentence()
    search(tmp_path, machine, space=None, sampler=None, remeasure=False)
    (again,) = baselines_of(folder)
    assert (again.state, again.number) == ("complete", baseline.number)
    assert {score.plan_hash for score in again.scores} == {fresh(folder).manifest.plan_hash_of(again.subject)}


def test_anchors_and_baselines_are_timed_in_the_rounds_of_the_front(tmp_path, machine):
    folder, _ = search(tmp_path, machine, until_trials=4, baselines=BASELINES)
    records = fresh(folder).records
    compared = {record.key for record in Front.from_records(records).members} | {TINY.key(), *BASELINES}
    assert [set(keys) for _, keys, _ in machine.cohorts] == [compared]
    assert len({record.measurement.cohort for record in records if record.key in compared}) == 1
    search(tmp_path, machine, space=None, sampler=None)
    assert len(machine.cohorts) == 1  # they share their rounds already


def test_another_device_takes_the_baselines_along(tmp_path, machine):
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU", driver="580")
    folder, _ = search(tmp_path, machine, until_trials=2, baselines=BASELINES)
    request = RemeasureRequest(study=str(tmp_path / "demo"), device="cuda")
    there = run_remeasure(request, [].append)
    assert fresh(there).manifest.baselines == BASELINES
    assert [(r.key, r.origin, r.state) for r in baselines_of(there)] == [
        (r.key, r.origin, r.state) for r in baselines_of(folder)
    ]
    assert [standing.name for standing in Front.from_records(fresh(there).records).standings] == [
        "litv2_tiny",
        *BASELINES,
    ]


def test_a_baseline_that_no_longer_fits_is_no_infeasible_network(tmp_path, machine):
    folder, _ = search(tmp_path, machine, until_trials=2, baselines=BASELINES)
    machine.device_of["cpu"] = build_device(torch="3.0.0")
    machine.failures["timm:swift"] = OutOfMemoryError("CUDA out of memory")
    run_remeasure(RemeasureRequest(study=str(tmp_path / "demo")), [].append)
    lost, kept = baselines_of(folder)
    assert (lost.is_interrupted, lost.measurements, FITS in lost.violations) == (True, (), False)
    assert (kept.state, kept.measurement.device.torch) == ("complete", "3.0.0")


def test_networks_of_another_study_are_taken_over_without_its_baselines(tmp_path, machine):
    search(tmp_path, machine, until_trials=2, baselines=BASELINES)
    folder, finished = search(tmp_path, machine, study="next", reuse="demo", until_trials=3)
    assert (finished.measured, baselines_of(folder)) == (3, [])


# What it costs.


def price(tmp_path, *baselines, **options):
    request = SearchConfig.of(space="litv2_digits", study="demo", baselines=baselines, **options)
    return estimate_cost(request, [].append)


def test_a_dry_run_prices_the_baselines_that_are_still_to_be_tried(tmp_path, machine):
    machine.baselines = BEST
    cost = price(tmp_path, *BASELINES, trials=5)
    assert cost.baselines == 2
    assert cost.baselines_s >= 2 * 7.5  # the fake's trainings say that they took so long
    assert cost.total_s > cost.set_up_s + cost.baselines_s
    assert price(tmp_path, trials=5).baselines_s == 0
    search(tmp_path, machine, until_trials=1, baselines=BASELINES[:1])
    request = SearchConfig.of(study="demo", baselines=BASELINES)
    assert estimate_cost(request, [].append).baselines == 1


def test_a_baseline_that_cannot_be_tried_is_told_and_leaves_the_price_standing(tmp_path, machine):
    machine.baselines = BEST
    measure = machine.measure

    def refuse(subject, condition, rivals):
        if subject.timm == "swift":
            raise WorkerFailedError("timing failed")
        return measure(subject, condition, rivals)

    machine.measure = refuse
    events = []
    request = SearchConfig.of(space="litv2_digits", study="demo", baselines=("timm:swift",))
    assert estimate_cost(request, events.append).baselines_s == 0
    (text,) = [event.text for event in events if isinstance(event, Notice)]
    assert (text.split()[0], text.rpartition(": ")[2]) == ("timm:swift", "timing failed")
