"""A search with the timings of another study: only its networks, nothing timed here, no second folder afterwards."""

import dataclasses
import shutil
from random import Random

import pytest
from builders import TINY, build_arch, build_condition, build_device, build_measurement, build_record, fresh
from fakes import speed, write_speeds, write_timed_study
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.errors import NotFoundError, SpaceExhaustedError, StudyMismatchError, UsageError
from hilo_nas.events import LimitsForeseen, Notice
from hilo_nas.measurement import PROTOCOL
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.sampling.nearby import find_nearest_in
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.study.transitions import fail

DIGITS = load_space("litv2_digits")
ARCHS = [build_arch(i) for i in (0, 3, 7, 15, 27)]


@pytest.fixture
def timer(tmp_path, machine):
    """Five networks, the anchor not among them, timed on a machine that is not this one."""
    machine.device_of = {"cuda": build_device(kind="cuda", model="Test GPU"), "cpu": build_device()}
    return write_speeds(tmp_path, ARCHS)


def search(timer, events=None, **options):
    options = {"speeds": timer.name, "space": "litv2_digits", "sampler": "random", "rungs": 1, **options}
    request = SearchConfig.of(**{"study": "new", **options})
    return run_search(request, (events if events is not None else []).append)


def resume(timer, events=None, **options):
    """Resumes the study of `search`, without naming the one that timed."""
    return search(timer, events, **{"speeds": None, "space": None, "sampler": None, **options})


def refusal(timer, error=UsageError, call=search, **options):
    with pytest.raises(error) as caught:
        call(timer, **options)
    return str(caught.value)


def tried(study):
    """Records of the networks that the search has begun."""
    return [record for record in open_study(study.path).records if record.state != "timed"]


# The nearest network of a pool.


def test_the_nearest_setting_of_the_pool_is_taken_by_each_knobs_own_range():
    dimensions = {"wide": 11, "narrow": 2}
    pool = [{"wide": 0, "narrow": 1}, {"wide": 9, "narrow": 0}]
    free = {"excess": lambda params: 0.0, "is_known": lambda params: False}
    assert find_nearest_in(pool, dimensions, {"wide": 0, "narrow": 0}, **free) == pool[1]  # 0.9 away, the other one 1
    assert find_nearest_in(pool, dimensions, {"wide": 0, "narrow": 1}, **free) == pool[0]


def test_what_is_known_or_beyond_a_limit_is_passed_over():
    dimensions = {"a": 4}
    pool = [{"a": i} for i in range(4)]
    found = find_nearest_in(pool, dimensions, {"a": 0}, excess=lambda p: 1.0 - p["a"], is_known=lambda p: p["a"] == 1)
    assert found == {"a": 2}
    with pytest.raises(SpaceExhaustedError):
        find_nearest_in(pool, dimensions, {"a": 0}, excess=lambda p: 1.0, is_known=lambda p: False)
    with pytest.raises(SpaceExhaustedError):
        find_nearest_in([], dimensions, {"a": 0}, excess=lambda p: 0.0, is_known=lambda p: False)


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_proposal_that_is_in_the_pool_is_left_alone(seed):
    random = Random(seed)
    pool = [DIGITS.sample(random) for _ in range(10)]
    free = {"excess": lambda params: 0.0, "is_known": lambda params: False}
    assert find_nearest_in(pool, DIGITS.dimensions, pool[3], **free) == pool[3]


# The search.


def test_only_networks_that_were_timed_are_tried_until_they_are_used_up(timer, machine):
    study, finished = search(timer, trials=20)
    assert (finished.measured, finished.stopped_by) == (5, "exhausted")
    assert {record.key for record in study.records} == {arch.key() for arch in ARCHS}
    assert {record.origin for record in study.records} == {f"speeds:edge/{number}" for number in range(5)}
    assert resume(timer, trials=1)[1].stopped_by == "exhausted"


def test_nothing_is_timed_and_the_training_is_on_the_device_at_hand(timer, machine):
    study, _ = search(timer, trials=3)
    assert machine.measured == machine.cohorts == machine.calibrated == []
    assert len(machine.scored) == len(tried(study)) == 3
    assert set(machine.targets) == {"cuda"}
    manifest, theirs = study.manifest, open_study(timer.path)
    assert manifest.device == theirs.manifest.device
    assert manifest.training_device == machine.device_of["cuda"]
    assert manifest.conditions == theirs.manifest.conditions
    assert manifest.speeds == "edge"
    measured = {record.key: record.measurements for record in theirs.records}
    for record in study.records:
        assert record.measurement.images_per_s == speed(record.subject.arch)
        assert manifest.is_comparable(record.measurement)
        assert record.measurements == measured[record.key]


def test_a_network_keeps_its_number_from_its_timing_to_its_training(timer):
    study, _ = search(timer, trials=2)
    assert sorted(record.number for record in study.records) == [0, 1, 2, 3, 4]
    assert sorted(record.state for record in study.records) == ["complete"] * 2 + ["timed"] * 3


def test_a_new_study_is_of_the_space_that_was_timed_unless_another_is_named(timer):
    study, _ = search(timer, trials=1, space=None)
    assert study.manifest.space.hash() == DIGITS.hash()
    with pytest.raises(NotFoundError, match="no study 'nowhere'"):
        search(timer, speeds="nowhere", space=None, study="other")


def test_whether_limits_can_be_kept_is_told_by_the_copied_timings(timer):
    events = []
    search(timer, events, trials=1, min_images_per_s=min(map(speed, ARCHS)))
    (foreseen,) = [event for event in events if isinstance(event, LimitsForeseen)]
    assert (foreseen.timed_by, foreseen.networks, foreseen.keeping) == ("edge", 5, 5)


def test_an_anchor_that_was_timed_comes_first(timer, tmp_path):
    again = write_speeds(tmp_path, [*ARCHS, TINY], "with-anchor")
    study, _ = search(again, trials=2)
    first, second = sorted(tried(study), key=lambda record: record.origin)
    assert (first.origin, first.number) == ("anchor:litv2_tiny", 5)
    assert second.origin.startswith("speeds:with-anchor/")


def test_limits_that_no_network_keeps_are_refused_with_the_nearest(timer, machine):
    best = max(speed(arch) for arch in ARCHS)
    said = refusal(timer, min_images_per_s=best * 2)
    assert f"none of the {len(ARCHS)} networks timed in study edge" in said
    assert f"has {best:.4g}" in said
    assert "hilo-nas search --study edge --trials N" in said
    assert machine.scored == []


def test_limits_are_held_against_the_copied_timings(timer, machine):
    bound = sorted(speed(arch) for arch in ARCHS)[2]
    study, _ = search(timer, trials=9, min_images_per_s=bound)
    states = {record.key: record.state for record in tried(study)}
    assert states == {arch.key(): "complete" for arch in ARCHS if speed(arch) >= bound}  # the others are not tried
    assert len(machine.scored) == 3


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_every_sampler_stays_within_what_was_timed(timer, sampler):
    study, _ = search(timer, trials=5, sampler=sampler, seed=1)
    assert {record.key for record in tried(study)} == {arch.key() for arch in ARCHS}


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_resumed_search_tries_what_an_uninterrupted_one_does(tmp_path, machine, sampler):
    timer = write_speeds(tmp_path, [build_arch(i) for i in range(12)])
    whole, _ = search(timer, trials=6, sampler=sampler, seed=3)
    expected = {record.key for record in tried(whole)}
    shutil.rmtree(whole.path)
    search(timer, trials=1, sampler=sampler, seed=3)
    for trials in (2, 3):
        study, _ = resume(timer, trials=trials)
    assert {record.key for record in tried(study)} == expected


def test_a_space_of_one_network_that_was_not_timed_has_nothing_to_try(timer, tmp_path, machine):
    one = {
        **DIGITS.to_dict(),
        "embed_dims": [16],
        "depths": [[1], [1], [1], [1]],
        "alpha": [0.5],
        "window_size": [[1], [1], [1], [1]],
        "mlp_ratios": [4],
        "anchors": {"wide": {**build_arch(27).to_dict(), "outside": True}},
    }
    (tmp_path / "one.yaml").write_text(str(one))
    space = load_space(str(tmp_path / "one.yaml"))
    assert space.n_configs == 1
    lone = write_speeds(tmp_path, [build_arch(27)], "lone", space=space)
    study, finished = search(lone, space=str(tmp_path / "one.yaml"), data="digits", trials=3)
    assert (finished.measured, finished.stopped_by) == (1, "exhausted")
    assert study.records[0].origin == "anchor:wide"


def test_timings_of_other_classes_are_told_of(timer, machine):
    machine.num_classes = 7
    events = []
    search(timer, events, trials=1)
    (text,) = [event.text for event in events if isinstance(event, Notice)]
    assert "study edge are of networks with 10 classes, but the images have 7" in text


def test_scores_of_a_third_study_come_first_where_their_networks_were_timed(timer, tmp_path, machine):
    write_timed_study(tmp_path, machine, [ARCHS[1], build_arch(9)], "scored", top1s=[0.6, 0.7])
    study, finished = search(timer, reuse="scored", trials=1)
    assert (finished.measured, finished.total) == (2, 2)
    first = study.records[0]
    assert (first.key, first.origin, first.state) == (ARCHS[1].key(), "reuse:scored/0", "complete")
    assert first.measurement.device == study.manifest.device  # timed where the others were
    assert len(machine.scored) == 1


# Refusals.


def test_a_study_that_is_not_there_is_refused(timer):
    assert "no study 'none' in" in refusal(timer, NotFoundError, speeds="none")


def test_timings_of_another_space_are_refused(timer, tmp_path):
    other = build_space("mine", {**DIGITS.to_dict(), "mlp_ratios": [4.0]})
    write_speeds(tmp_path, [], "other", space=other)
    assert refusal(timer, speeds="other") == (
        f"the timings must be of space litv2_digits ({DIGITS.hash()}), but those of study other are of mine "
        f"({other.hash()}). Search that space, or time this one: hilo-nas search litv2_digits --proxy none"
    )


def test_timings_of_another_protocol_are_refused(timer):
    study = open_study(timer.path)
    old = {
        label: dataclasses.replace(calibration, protocol=PROTOCOL - 1)
        for label, calibration in study.manifest.calibrations.items()
    }
    fresh(study).write_manifest(dataclasses.replace(study.manifest, calibrations=old))
    said = refusal(timer)
    assert f"timing protocol {PROTOCOL}, but those of study edge use {PROTOCOL - 1}." in said
    assert said.endswith(": hilo-nas remeasure edge")


def test_a_study_that_has_timed_nothing_yet_is_refused(timer, tmp_path):
    empty = StoredStudy(write_speeds(tmp_path, [], "empty").path)
    empty.write(fail(open_study(timer.path).records[0], "no memory", measurements=()))
    said = refusal(timer, speeds="empty")
    assert said.startswith("study empty must have a network with timings")
    assert said.endswith(": hilo-nas search --study empty")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 8}, "batch_size"),
        ({"img_size": 64, "precision": "bf16"}, "img_size, precision"),
        ({"env": "default", "also": ("batch_size=1",)}, "env"),
    ],
)
def test_conditions_beside_copied_timings_are_refused(timer, machine, options, named):
    said = refusal(timer, **options)
    assert said.startswith("study.speeds ")
    assert f"but got {named} as well" in said
    assert not (timer.path.parent / "new").exists()


# Resuming.


def test_a_search_needs_the_other_study_no_more(timer, machine):
    study, _ = search(timer, trials=2)
    shutil.rmtree(timer.path)
    events = []
    _, finished = resume(timer, events, trials=2)
    assert finished.measured == 4
    assert not any(isinstance(event, Notice) for event in events)
    assert {record.key for record in tried(study)} <= {arch.key() for arch in ARCHS}
    assert machine.measured == machine.cohorts == []


def test_software_of_the_training_box_may_change(timer, machine):
    search(timer, trials=1)
    machine.device_of = {"cpu": build_device(model="Third CPU", torch="9.0")}
    machine.form = "another"
    assert resume(timer, trials=1)[1].measured == 2


def test_one_more_timing_or_another_calibration_there_stops_no_search_here(timer):
    search(timer, trials=1)
    study = open_study(timer.path)
    study.write(dataclasses.replace(study.records[0], measurements=study.records[1].measurements))
    assert resume(timer, trials=1)[1].measured == 2


def test_networks_that_were_timed_since_join_when_the_study_is_named_again(timer):
    search(timer, trials=5)
    source, arch = open_study(timer.path), build_arch(9)
    timing = build_measurement(speed(arch), device=source.manifest.device)
    source.write(build_record(5, None, None, arch=arch, state="timed", measurements=(timing,)))
    assert resume(timer, trials=1)[1].stopped_by == "exhausted"
    study, finished = resume(timer, speeds="edge", trials=1)
    assert (finished.measured, finished.stopped_by) == (6, "total")
    assert study.records[5].origin == "speeds:edge/5"


def test_a_copying_that_was_cut_off_is_told_and_can_be_finished(timer):
    study, _ = search(timer, trials=1)
    lost = [record for record in study.records if record.state == "timed"][-2:]
    for record in lost:
        (study.trials_path / f"{record.number:04d}.json").unlink()
    events = []
    resume(timer, events, trials=1)
    (text,) = [event.text for event in events if isinstance(event, Notice)]
    assert text.startswith("2 of the records that study new should have copied")
    assert "study.speeds or study.reuse" in text
    events.clear()
    assert resume(timer, events, speeds="edge", trials=9)[1].measured == 5
    assert not any(isinstance(event, Notice) for event in events)


def test_conditions_other_than_those_of_the_timings_are_refused_when_resuming(timer):
    search(timer, trials=1)
    assert "batch_size: 32 in the study, 8 now" in refusal(timer, StudyMismatchError, resume, trials=1, batch_size=8)


def test_a_study_that_times_for_itself_takes_no_timings_later(timer):
    search(timer, speeds=None, trials=1)
    assert "speeds: None in the study, 'edge' now" in refusal(
        timer, StudyMismatchError, resume, speeds="edge", trials=1
    )


def test_the_manifest_keeps_the_studys_name(timer):
    study, _ = search(timer, trials=1, max_latency_ms=1e6)
    manifest = study.manifest
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest
    assert (manifest.limits, manifest.speeds, manifest.copied) == ({"latency_ms": 1e6}, "edge", 5)


def test_timings_under_several_conditions_serve_them_all(tmp_path, machine):
    conditions = (build_condition(), build_condition(batch_size=1))
    both = write_speeds(tmp_path, ARCHS, "both", conditions=conditions)
    study, _ = search(both, trials=1)
    assert [m.condition for m in tried(study)[0].measurements] == list(conditions)


def test_a_further_condition_of_the_timings_may_be_limited(tmp_path, machine):
    """One of two is named: the study has both, and the limit of the one; resuming may name it again."""
    single, many = build_condition(batch_size=1), build_condition(batch_size=64)
    timer = write_speeds(tmp_path, ARCHS, "three", conditions=(build_condition(), single, many))
    bound = sorted(speed(arch) for arch in ARCHS)[2]
    options = {"also": (f"batch_size=1,min_images_per_s={bound!r}",)}
    study, _ = search(timer, trials=9, **options)
    assert study.manifest.conditions == (build_condition(), single, many)
    assert study.manifest.limits == {f"images_per_s@{single.label()}": bound}
    states = {record.key: record.state for record in tried(study)}
    assert states == {arch.key(): "complete" for arch in ARCHS if speed(arch) >= bound}  # the others are not tried
    assert resume(timer, trials=1, **options)[1].stopped_by == "exhausted"
    said = refusal(timer, StudyMismatchError, resume, also=("batch_size=1,min_images_per_s=1",))
    assert f"images_per_s@{single.label()}: {bound!r} in the study, 1.0 now" in said
    said = refusal(timer, StudyMismatchError, resume, also=("batch_size=2",))
    assert "also: ['cpu-b1-32px-fp32', 'cpu-b64-32px-fp32'] in the study, ['cpu-b1-32px-fp32', 'cpu-b2-" in said


def test_a_condition_that_was_not_timed_is_refused_with_those_that_were(tmp_path, machine):
    timer = write_speeds(tmp_path, ARCHS, "two", conditions=(build_condition(), build_condition(batch_size=1)))
    machine.read_device = None  # told before
    said = refusal(timer, also=("batch_size=1", "batch_size=2,max_latency_ms=9", "precision=bf16"))
    assert "cpu-b2-32px-fp32, cpu-b32-32px-bf16: its conditions are cpu-b32-32px-fp32, cpu-b1-32px-fp32." in said
    assert " two " in said
