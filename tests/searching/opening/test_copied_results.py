"""A search that takes over what another study paid for: scores of the same training, and timings on the same device."""

import dataclasses
import shutil

import pytest
from builders import (
    TINY,
    build_arch,
    build_calibration,
    build_condition,
    build_data,
    build_device,
    build_failed,
    build_infeasible,
    build_manifest,
    build_measurement,
    build_plan,
    fresh,
)
from fakes import speed, write_speeds, write_timed_study

from hilo_nas.errors import NotFoundError, StudyMismatchError
from hilo_nas.events import Notice
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.opening.copied_results import check_same, copy_scored
from hilo_nas.searching.sampling.optuna_study import impute
from hilo_nas.space import load_space
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import rule_out

ARCHS = [build_arch(i) for i in (0, 3, 7, 27)]
TOP1S = [0.50, 0.40, 0.70, 0.90]
"""By the fake's law the first is the fastest: trials 0, 2 and 3 are the front, 1 is not."""
CONDITION = build_condition(threads=2, fused=True)
"""What a search here times under."""
CALIBRATED = {CONDITION.label(): build_calibration()}


@pytest.fixture
def source(tmp_path, machine):
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU")
    return write_timed_study(tmp_path, machine, ARCHS, "source", top1s=TOP1S)


def search(source, events=None, **options):
    """Searches on the GPU in the space of the digits, without timing the front again."""
    request = SearchConfig.of(
        space="litv2_digits",
        study="new",
        remeasure=False,
        sampler="random",
        **{"rungs": 1, **options},
    )
    folder, finished = run_search(request, (events if events is not None else []).append)
    return folder, finished, fresh(folder).records


def test_networks_of_the_other_study_come_first_and_none_is_trained(source, machine):
    folder, finished, records = search(source, reuse="source", device="cuda", trials=1)
    assert (finished.measured, finished.total) == (5, 5)  # the four and one more
    assert [record.origin for record in records] == [
        "reuse:source/0",
        "reuse:source/2",
        "reuse:source/3",
        "reuse:source/1",  # not on the front
        "anchor:litv2_tiny",
    ]
    assert machine.scored == [TINY.key()]
    theirs = {record.key: record for record in fresh(source).records}
    for record in records[:-1]:
        assert record.scores == theirs[record.key].scores
        assert record.state == "complete"
        assert record.params == fresh(folder).manifest.space.encode(record.subject.arch)
        assert record.measurement.condition.device == "cuda"
        assert record.measurement.device.model == "Test GPU"


def test_an_anchor_of_both_studies_keeps_its_name_and_takes_over_its_score(source, machine):
    record = dataclasses.replace(fresh(source).records[0], number=4, subject=Subject(arch=TINY))
    fresh(source).write(record)
    _, finished, records = search(source, reuse="source", trials=1, timeout_s=1e-9)
    assert finished.total == 6
    _, _, records = search(source, until_trials=1)
    (first,) = [own for own in records if own.state == "complete"]
    assert (first.origin, first.scores) == ("anchor:litv2_tiny", record.scores)
    assert machine.scored == []


def test_a_baseline_of_both_studies_is_not_trained_again_and_one_of_the_other_alone_is_none(source, machine):
    theirs = [
        dataclasses.replace(
            fresh(source).records[0], number=number, subject=Subject(timm=name), params=None, origin=f"baseline:{name}"
        )
        for number, name in ((4, "resnet18"), (5, "resnet26"))
    ]
    name = fresh(source).manifest.plan_hash_of(theirs[0].subject)
    theirs = [
        dataclasses.replace(record, scores=tuple(dataclasses.replace(s, plan_hash=name) for s in record.scores))
        for record in theirs
    ]
    for record in theirs:
        fresh(source).write(record)
    machine.baselines = {"resnet18": (50.0, 0.2), "resnet26": (40.0, 0.1)}
    _, finished, records = search(source, reuse="source", trials=1, baselines=("timm:resnet18",))
    assert finished.total == 5  # baselines count for none of them
    (baseline,) = [record for record in records if record.is_baseline]
    assert (baseline.key, baseline.state, baseline.origin) == ("timm:resnet18", "complete", "baseline:resnet18")
    assert baseline.scores == theirs[0].scores
    assert machine.scored == [TINY.key()]


def test_more_networks_are_searched_after_those_taken_over(source, machine):
    _, finished, records = search(source, reuse="source", trials=2)
    assert finished.measured == 6
    assert [record.origin for record in records][-1] == "sampler"
    assert len({record.key for record in records}) == 6
    assert len(machine.scored) == 2


def test_a_resumed_search_needs_the_other_study_no_more(source, machine):
    search(source, reuse="source", until_trials=2)
    shutil.rmtree(source.path)
    events = []
    _, finished, records = search(source, events, until_trials=4)
    assert finished.measured == 4
    assert [record.origin for record in records if record.state == "complete"] == [
        "reuse:source/0",
        "reuse:source/2",
        "reuse:source/3",
        "anchor:litv2_tiny",
    ]
    assert [record.state for record in records].count("waiting") == 1
    assert len(machine.scored) == 1
    assert not [event for event in events if isinstance(event, Notice) and event.level == "warning"]


def test_how_much_was_taken_over_is_told(source, machine):
    events = []
    search(source, events, reuse="source", until_trials=1)
    assert "4 networks have copied scores of another study, 0 of them also copied timings" in [
        event.text for event in events if isinstance(event, Notice)
    ]


def test_a_search_may_be_told_of_the_other_study_when_it_is_resumed(source, machine):
    search(source, until_trials=1)
    _, _, records = search(source, reuse="source", until_trials=2)
    assert (records[1].origin, records[1].state) == ("reuse:source/0", "complete")
    assert [record.state for record in records[2:]] == ["waiting"] * 3


def test_networks_that_wait_tell_neither_rungs_nor_sampler_anything(source, machine):
    study, _, records = search(source, reuse="source", until_trials=1, rungs=3, proxy_images=3000)
    waiting = [record for record in records if record.state == "waiting"]
    assert len(waiting) == 4
    assert impute(waiting, chance_top1=0.1) == {"value": 0.1, "images_per_s": 1.0}
    assert study.front().members == tuple(record for record in records if record.state == "complete")


def test_timings_on_the_same_device_come_along(source, machine):
    fresh(source).write_manifest(
        dataclasses.replace(fresh(source).manifest, conditions=(CONDITION,), calibrations=CALIBRATED)
    )
    for record in fresh(source).records:
        timing = build_measurement(speed(record.subject.arch), condition=CONDITION)
        fresh(source).write(dataclasses.replace(record, measurements=(timing,)))
    study, finished, records = search(source, reuse="source", trials=1)
    assert study.manifest.objective == CONDITION
    assert (finished.measured, machine.measured) == (5, [TINY.key()])
    theirs = {record.key: record for record in fresh(source).records}
    assert all(record.measurements == theirs[record.key].measurements for record in records[:-1])


@pytest.mark.parametrize("change", ["form", "torch"])
def test_timings_of_another_form_or_software_are_taken_again(source, machine, change):
    fresh(source).write_manifest(
        dataclasses.replace(fresh(source).manifest, conditions=(CONDITION,), calibrations=CALIBRATED)
    )
    for record in fresh(source).records:
        timing = build_measurement(speed(record.subject.arch), condition=CONDITION)
        fresh(source).write(dataclasses.replace(record, measurements=(timing,)))
    if change == "form":
        machine.form = "litv2/2"
    else:
        machine.device_of["cpu"] = build_device(torch="9.9")
    _, finished, _ = search(source, reuse="source", trials=1)
    assert (finished.measured, len(machine.measured)) == (5, 5)


@pytest.mark.parametrize(("form", "copied"), [("litv2/1", True), ("litv2/1 weights/2", False)])
def test_timings_of_baselines_with_other_random_weights_are_not_copied(source, form, copied):
    folder = fresh(source)
    folder.write_manifest(dataclasses.replace(folder.manifest, conditions=(CONDITION,), calibrations=CALIBRATED))
    timing = build_measurement(50.0, condition=CONDITION, form="timm/1.0.22 eager")
    subject = Subject(timm="resnet18")
    name = fresh(source).manifest.plan_hash_of(subject)
    scores = tuple(dataclasses.replace(score, plan_hash=name) for score in folder.records[0].scores)
    folder.write(
        dataclasses.replace(
            folder.records[0],
            number=4,
            subject=subject,
            params=None,
            origin="baseline:resnet18",
            measurements=(timing,),
            scores=scores,
        )
    )
    found = copy_scored(StoredStudy(source.path), fresh(source).manifest, {CONDITION.label(): form})
    (baseline,) = [record for record in found if record.is_baseline]
    assert baseline.measurements == ((timing,) if copied else ())


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"proxy_batch_size": 16}, ["proxy batch_size: 64 there, 16 here"]),
        (
            {"precision": "int8", "runtime": "openvino"},
            [
                "proxy int8_runtime: None there, 'openvino' here",
                f"proxy int8_version: None there, {INT8_VERSION!r} here",
            ],
        ),
        (
            {"proxy_img_size": 16, "proxy_precision": "amp-bf16", "metric": "balanced", "proxy_batch_size": 8},
            [
                "proxy img_size: 32 there, 16 here",
                "proxy batch_size: 64 there, 8 here",
                "proxy precision: 'fp32' there, 'amp-bf16' here",
                "proxy metric: 'top1' there, 'balanced' here",
            ],
        ),
    ],
)
def test_scores_of_another_training_are_refused_with_each_difference(source, options, lines):
    with pytest.raises(StudyMismatchError) as caught:
        search(source, reuse="source", **options)
    first, *found, last = str(caught.value).split("\n")
    assert "study source" in first
    assert found == [f"  {line}" for line in lines]
    assert "study.reuse" in last
    assert [path.name for path in source.path.parent.iterdir()] == ["source"]  # no study came of it


def test_scores_in_int8_are_no_scores_in_float():
    quantized = build_manifest(plan=build_plan(int8_runtime="openvino"))
    with pytest.raises(StudyMismatchError, match="proxy int8_runtime: 'openvino' there, None here"):
        check_same(quantized, build_plan(), quantized.data)


def test_a_larger_budget_goes_on_from_the_scores_of_a_smaller_one(source, machine):
    """The training is the same without a horizon: what the other study paid for is a rung here."""
    _, _, records = search(source, reuse="source", proxy_images=9024, rungs=2, until_trials=5)
    assert records[0].origin == "reuse:source/0"
    assert [score.images_seen for score in records[0].scores] == [3008, 9024]
    assert [leg for leg in machine.legs if leg[0] == records[0].key] == [(records[0].key, 0, 9024)]


def test_scores_on_other_images_are_refused(source, machine):
    machine.data["content_hash"] = "f" * 16
    with pytest.raises(StudyMismatchError) as caught:
        search(source, reuse="source")
    assert str(caught.value).split("\n")[1:-1] == [
        "  data: 'digits (0123456789ab)' there, 'digits (ffffffffffff)' here"
    ]


def test_scores_of_another_training_are_refused_before_a_device_is_read(source, machine):
    """Neither a device nor the images are looked at: the one named is not there."""
    with pytest.raises(StudyMismatchError, match="proxy batch_size: 64 there, 16 here"):
        search(source, reuse="source", device="mps", proxy_batch_size=16)
    search(source, until_trials=1)
    fresh(source).write_manifest(dataclasses.replace(fresh(source).manifest, plan=build_plan(batch_size=16)))
    machine.device_of.clear()
    for name, error in (("source", StudyMismatchError), ("sauce", NotFoundError)):
        with pytest.raises(error):
            search(source, reuse=name, until_trials=2)


def test_whether_images_may_be_mirrored_is_told_by_the_images(source, machine):
    machine.data["hflip"] = True
    with pytest.raises(StudyMismatchError, match="proxy hflip: False there, True here"):
        search(source, reuse="source")


def test_a_study_of_another_training_is_refused_on_resume_too(source, machine):
    search(source, until_trials=1)
    plan = build_plan(batch_size=16)
    fresh(source).write_manifest(dataclasses.replace(fresh(source).manifest, plan=plan))
    with pytest.raises(StudyMismatchError, match="proxy batch_size: 16 there, 64 here"):
        search(source, reuse="source", until_trials=2)


def test_a_study_that_is_not_there_is_refused(source):
    with pytest.raises(NotFoundError, match="Did you mean source"):
        search(source, reuse="sauce")


def test_where_images_lie_does_not_matter(source):
    manifest = fresh(source).manifest
    fresh(source).write_manifest(dataclasses.replace(manifest, data=build_data(name="digits from elsewhere")))
    assert len(copy_scored(StoredStudy(source.path), build_manifest(plan=manifest.plan), {})) == 4


def test_only_complete_trials_are_taken_over(source):
    fresh(source).write(build_failed(4))
    fresh(source).write(build_infeasible(5))
    fresh(source).write(rule_out(fresh(source).records[0], "too slow", number=6))
    scored = copy_scored(StoredStudy(source.path), build_manifest(), {})
    assert [item.origin for item in scored] == [f"reuse:source/{number}" for number in (0, 2, 3, 1)]


def test_a_network_that_the_space_cannot_spell_is_tried_all_the_same(source, machine, tmp_path):
    content = {**load_space("litv2_digits").to_dict(), "mlp_ratios": [2.0], "anchors": {}}
    (tmp_path / "narrow.yaml").write_text(str(content))
    request = SearchConfig.of(
        space=str(tmp_path / "narrow.yaml"),
        study="narrow",
        data="digits",
        reuse="source",
        until_trials=3,
        sampler="random",
        remeasure=False,
        batch_size=32,
        rungs=1,
    )
    folder, finished = run_search(request, lambda event: None)
    assert finished.measured == 3
    done = [record for record in fresh(folder).records if record.state == "complete"]
    assert [record.params for record in done] == [None] * 3
    assert machine.scored == []


def test_what_breaks_this_studys_limits_is_infeasible_here(source, machine):
    bound = 0.99 * speed(ARCHS[0])
    _, _, records = search(source, reuse="source", until_trials=3, min_images_per_s=bound)
    assert [(record.origin, record.state) for record in records if record.state != "waiting"] == [
        ("reuse:source/0", "complete"),
        ("reuse:source/2", "infeasible"),
        ("anchor:litv2_tiny", "infeasible"),
    ]
    assert machine.scored == []


def test_where_another_machine_timed_only_its_networks_count_as_taken_over(source, machine, tmp_path):
    write_speeds(tmp_path, [ARCHS[1], ARCHS[2], build_arch(9), build_arch(10)])
    _, finished, records = search(source, reuse="source", speeds="edge", trials=1)
    assert (finished.measured, finished.total) == (3, 3)
    assert [record.origin for record in records[:2]] == ["reuse:source/2", "reuse:source/1"]
    assert sorted(record.state for record in records[2:]) == ["complete", "timed"]
    assert len(machine.scored) == 1


def test_the_study_itself_holds_no_path_of_the_other(source):
    folder, _, _ = search(source, reuse="source", until_trials=2, also=("batch_size=1",))
    assert str(source.path) not in folder.manifest_path.read_text()
    assert fresh(folder).manifest.conditions[1] == build_condition(batch_size=1, threads=2, fused=True)
