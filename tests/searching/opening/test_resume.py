"""Going on with a study: under its own conditions, on its own device, with its own software, or not at all."""

import dataclasses
import shutil

import pytest
from builders import build_arch, build_condition, build_device, build_manifest, build_plan, fresh
from fakes import write_timed_study

from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import DataError, DeviceError, StudyMismatchError
from hilo_nas.evaluation import Prepare
from hilo_nas.events import FrontChanged, Notice, SearchStarted
from hilo_nas.measurement import PROTOCOL
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.proxy.kinds.short_training import RECIPE
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Lets commands name the studies of a test by their names."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))


SINGLE = build_condition(batch_size=1)
SPACE = build_space("digits", {**load_space("litv2_digits").to_dict(), "limits": {"latency_ms": 50}})


LEAVE_OUT = "Leave out the settings that differ, or create a new study with --study NAME."
WAY = (
    "Search on the machine of the study, install the versions above, or time its networks again here: "
    "hilo-nas remeasure demo"
)


@pytest.fixture
def study(tmp_path, machine):
    """Two conditions, a limit of the space, one of the command line for each condition."""
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU")
    limits = {"memory_mib": 900.0, f"latency_ms@{SINGLE.label()}": 20.0}
    archs = [build_arch(0), build_arch(1)]
    return write_timed_study(
        tmp_path, machine, archs, space=SPACE, limits=limits, conditions=(build_condition(), SINGLE)
    )


def go_on(study, emit=lambda event: None, **options):
    """Asks for no more networks than there are."""
    request = SearchConfig.of(study=study.path, remeasure=False, **options)
    return run_search(request, emit)


def refusal(study, machine, **options):
    before = fresh(study).records, study.manifest_path.read_text()
    with pytest.raises(StudyMismatchError) as caught:
        go_on(study, trials=1, **options)
    assert (fresh(study).records, study.manifest_path.read_text()) == before
    assert machine.measured + machine.scored + machine.cohorts + machine.calibrated == []
    lines = str(caught.value).split("\n")
    assert lines[0].startswith(f"study {study.name} was created under other conditions")
    return lines[1:]


def test_a_study_goes_on_where_nothing_has_changed(study, machine):
    events = []
    folder, finished = go_on(study, events.append)
    assert (folder.path, finished.measured, finished.stopped_by) == (study.path, 2, "total")
    (started,) = [event for event in events if isinstance(event, SearchStarted)]
    assert (started.done, started.device) == (2, "cpu (Test CPU (2 cores))")
    (front,) = [event for event in events if isinstance(event, FrontChanged)]
    assert front.points == tuple((r.measurement.images_per_s, r.score.value) for r in folder.front().members) != ()


def test_options_that_are_the_studys_own_are_accepted(study, machine):
    options = {
        "device": "cpu",
        "batch_size": 32,
        "precision": "fp32",
        "also": ("batch_size=1,max_latency_ms=20",),
        "max_latency_ms": 50.0,  # the space's own
        "max_memory_mib": 900.0,
        "sampler": "random",
        "seed": 0,
        "proxy_images": 3000,
    }
    assert go_on(study, **options)[1].measured == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"batch_size": 8}, "timing.batch_size: 32 in the study, 8 now"),
        ({"runtime": "openvino"}, "timing.runtime: 'torch' in the study, 'openvino' now"),
        ({"env": "default"}, "timing.env: 'tuned' in the study, 'default' now"),
        ({"channels_last": True}, "timing.channels_last: False in the study, True now"),
        ({"threads": 1}, "timing.threads: None in the study, 1 now"),
        ({"also": ("batch_size=2",)}, "timing.also: ['cpu-b1-32px-fp32'] in the study, ['cpu-b2-32px-fp32'] now"),
        ({"max_latency_ms": 20.0}, "limit on latency_ms: 50.0 in the study, 20.0 now"),
        ({"min_images_per_s": 9.0}, "limit on images_per_s: None in the study, 9.0 now"),
        (
            {"also": ("batch_size=1,max_latency_ms=30",)},
            "limit on latency_ms@cpu-b1-32px-fp32: 20.0 in the study, 30.0 now",
        ),
        ({"speeds": "edge"}, "study.speeds: None in the study, 'edge' now"),
        ({"sampler": "gp"}, "search.sampler: 'random' in the study, 'gp' now"),
        ({"seed": 3}, "search.seed: 0 in the study, 3 now"),
        ({"metric": "balanced"}, "proxy.metric: 'top1' in the study, 'balanced' now"),
        ({"proxy_img_size": 16}, "proxy.img_size: 32 in the study, 16 now"),
        ({"class_from": "path"}, "data.class_from: 'first' in the study, 'path' now"),
        ({"class_from": "last"}, "data.class_from: 'first' in the study, 'last' now"),
        ({"background": "black"}, "data.background: 'white' in the study, 'black' now"),
        ({"value_range": (0.0, 4095.0)}, "data.value_range: None in the study, (0.0, 4095.0) now"),
        ({"skip_broken": True}, "data.skip_broken: False in the study, True now"),
        ({"group_by": "p[0-9]"}, "data.group_by: None in the study, 'p[0-9]' now"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_differs_is_refused_with_both_values(study, machine, options, line):
    *found, way = refusal(study, machine, **options)
    assert found == [f"  {line}"]
    assert way == LEAVE_OUT


def test_another_device_is_refused_with_the_way_to_a_study_there(study, machine):
    assert refusal(study, machine, device="cuda") == [
        "  timing.device: 'cpu' in the study, 'cuda' now",
        "  device kind: 'cpu' in the study, 'cuda' now",
        "  device model: 'Test CPU (2 cores)' in the study, 'Test GPU' now",
        LEAVE_OUT,
        f"{WAY} --device cuda",
    ]


def test_all_that_differs_is_told_at_once(study, machine):
    machine.device_of["cpu"] = build_device(torch="3.0.0")
    lines = refusal(study, machine, batch_size=8, seed=3, space="litv2_cifar")
    assert [line.split(":")[0].strip() for line in lines[:4]] == [
        "space",
        "timing.batch_size",
        "search.seed",
        "device torch",
    ]
    assert lines[4].startswith("Leave out the settings that differ")
    assert lines[5].endswith("hilo-nas remeasure demo")


@pytest.mark.parametrize(("name", "stored"), [("torch", "2.9.0"), ("driver", "6.1"), ("model", "Test CPU (2 cores)")])
def test_a_device_or_software_that_has_changed_is_refused_with_the_way_out(study, machine, name, stored):
    machine.device_of["cpu"] = build_device(**{name: "another"})
    assert refusal(study, machine) == [f"  device {name}: {stored!r} in the study, 'another' now", WAY]


def test_another_device_of_the_same_model_is_accepted(study, machine):
    machine.device_of["cpu"] = build_device(serial="host-2")
    assert go_on(study)[1].measured == 2


def test_a_study_of_one_card_resumes_on_another_of_the_same_model(tmp_path, machine):
    machine.device_of = {f"cuda{i}": build_device(kind="cuda", model="Test GPU", serial=i) for i in ("", ":0", ":1")}
    study = write_timed_study(tmp_path, machine, [build_arch(0)], conditions=(build_condition(device="cuda"),))
    before = fresh(study).manifest
    for device in ("cuda:0", "cuda:1"):
        machine.submitted.clear()
        assert go_on(study, device=device, trials=1)[1].measured >= 2
        assert {task.target for task in machine.submitted if task.kind in ("time", "score")} == {device}
    assert fresh(study).manifest == dataclasses.replace(before, trials=3)
    assert {record.measurement.condition.label() for record in fresh(study).records} == {"cuda-b32-32px-fp32"}


def test_another_way_of_timing_is_refused_with_the_way_out(study, machine):
    manifest = fresh(study).manifest
    old = {
        label: dataclasses.replace(calibration, protocol=PROTOCOL - 1)
        for label, calibration in manifest.calibrations.items()
    }
    fresh(study).write_manifest(dataclasses.replace(manifest, calibrations=old))
    assert refusal(study, machine) == [f"  timing protocol: {PROTOCOL - 1} in the study, {PROTOCOL} now", WAY]


def test_another_form_of_the_networks_is_refused_with_the_way_out(study, machine):
    machine.form = "litv2/2 dcn=own"
    lines = refusal(study, machine)
    assert lines == [
        *(
            f"  form under {label}: 'litv2/1 dcn=torchvision' in the study, 'litv2/2 dcn=own' now"
            for label in ("cpu-b32-32px-fp32", "cpu-b1-32px-fp32")
        ),
        WAY,
    ]


def test_one_network_of_another_form_is_enough_to_be_refused(study, machine):
    """What a re-timing that was killed while it wrote leaves behind."""
    record = fresh(study).records[1]
    other = [dataclasses.replace(measurement, form="litv2/9") for measurement in record.measurements]
    fresh(study).write(dataclasses.replace(record, measurements=(*other, *record.measurements)))
    assert "'litv2/9' in the study, 'litv2/1 dcn=torchvision' now" in refusal(study, machine)[0]


def test_the_form_of_a_study_without_networks_is_not_asked_for(tmp_path, machine):
    study = write_timed_study(tmp_path, machine, [])
    machine.read_form = None
    assert go_on(study, timeout_s=1e-9)[1].measured == 0


def test_another_recipe_of_training_is_refused_and_no_timing_mends_it(study, machine):
    plan = build_plan(recipe="sgd-0")
    fresh(study).write_manifest(dataclasses.replace(fresh(study).manifest, plan=plan))
    assert refusal(study, machine) == [
        f"  proxy recipe: 'sgd-0' in the study, {RECIPE!r} now",
        LEAVE_OUT,
    ]


def test_scores_of_another_quantization_are_refused_and_no_timing_mends_it(study, machine):
    plan = build_plan(int8_runtime="openvino")  # as stored before the quantization had a version
    fresh(study).write_manifest(dataclasses.replace(fresh(study).manifest, plan=plan))
    assert refusal(study, machine) == [
        f"  quantization of scores in INT8: '1' in the study, {INT8_VERSION!r} now",
        LEAVE_OUT,
    ]


def test_other_data_are_refused(study, machine):
    machine.data["content_hash"] = "f" * 16
    assert refusal(study, machine)[0] == (
        "  data.source: 'digits (0123456789ab)' in the study, 'digits (ffffffffffff)' now"
    )


def test_data_that_this_machine_does_not_know_are_asked_for(study, machine):
    manifest = fresh(study).manifest
    fresh(study).write_manifest(dataclasses.replace(manifest, data=dataclasses.replace(manifest.data, name="leaves")))
    with pytest.raises(DataError, match="data set leaves, but its path on this machine is unknown"):
        go_on(study)


def test_a_device_that_is_not_there_is_refused(study, machine):
    del machine.device_of["cpu"]
    with pytest.raises(DeviceError, match="this machine has no cpu"):
        go_on(study)


def test_another_version_that_times_the_same_is_only_told(study, machine):
    manifest = fresh(study).manifest
    fresh(study).write_manifest(dataclasses.replace(manifest, versions={**manifest.versions, "hilo-nas": "0.0.1"}))
    events = []
    go_on(study, events.append)
    texts = [event.text for event in events if isinstance(event, Notice)]
    assert any(" hilo-nas 0.0.1; this is " in text for text in texts)


def test_a_study_that_was_copied_is_the_same_study(study, machine, tmp_path):
    shutil.copytree(study.path, tmp_path / "elsewhere" / "copy")
    request = SearchConfig.of(study=str(tmp_path / "elsewhere" / "copy"), remeasure=False)
    folder, finished = run_search(request, lambda event: None)
    assert (folder.name, finished.measured) == ("copy", 2)


def test_manifests_hold_what_a_resumed_search_is_held_to():
    manifest = build_manifest(conditions=(build_condition(), SINGLE), limits={f"latency_ms@{SINGLE.label()}": 2.0})
    assert type(manifest).from_yaml(manifest.to_yaml()) == manifest


def test_the_images_are_grouped_as_the_study_says(study, machine):
    manifest = fresh(study).manifest
    fresh(study).write_manifest(dataclasses.replace(manifest, plan=build_plan(group_by="p[0-9]")))
    assert refusal(study, machine, group_by="q")[0] == "  data.group_by: 'p[0-9]' in the study, 'q' now"
    assert go_on(study, group_by="p[0-9]")[1].measured == go_on(study)[1].measured == 2
    assert machine.grouped_by == ["p[0-9]", "p[0-9]"]


def test_the_images_are_read_as_the_study_says(study, machine):
    manifest = fresh(study).manifest
    data = dataclasses.replace(manifest.data, reading={"background": "black", "value_range": [0.0, 4095.0]})
    fresh(study).write_manifest(dataclasses.replace(manifest, data=data))
    assert refusal(study, machine, background="white") == [
        "  data.background: 'black' in the study, 'white' now",
        LEAVE_OUT,
    ]
    go_on(study)
    go_on(study, background="black", value_range=(0.0, 4095.0))
    assert machine.read_as == [ReadOptions(background="black", value_range=(0.0, 4095.0))] * 2


def test_the_level_of_the_classes_may_be_named_where_the_study_took_the_first_unasked(study, machine):
    go_on(study, class_from="first")
    assert machine.read_as == [ReadOptions(class_from="first")]
    data = dataclasses.replace(fresh(study).manifest.data, reading={"class_from": "last"})
    fresh(study).write_manifest(dataclasses.replace(fresh(study).manifest, data=data))
    assert refusal(study, machine, class_from="first")[0] == "  data.class_from: 'last' in the study, 'first' now"


@pytest.mark.parametrize(
    ("stored", "now", "is_reported"), [("a" * 64, "b" * 64, True), ("a" * 64, "a" * 64, False), ("a" * 64, None, False)]
)
def test_an_edited_function_that_gives_the_same_images_is_told_and_accepted(study, machine, stored, now, is_reported):
    manifest = fresh(study).manifest
    data = dataclasses.replace(manifest.data, name="scans.py:load", source_hash=stored)
    fresh(study).write_manifest(dataclasses.replace(manifest, data=data))
    machine.data |= {"name": "scans.py:load", "source_hash": now}
    events = []
    assert go_on(study, events.append, data="digits")[1].measured == 2
    text = "scans.py:load was edited since this study was created, but its images are the same"
    assert (Notice(text=text) in events) == is_reported
    assert fresh(study).manifest.data == data


def test_a_function_that_gives_other_images_is_refused(study, machine):
    manifest = fresh(study).manifest
    data = dataclasses.replace(manifest.data, name="scans.py:load", source_hash="a" * 64)
    fresh(study).write_manifest(dataclasses.replace(manifest, data=data))
    machine.data |= {"name": "scans.py:load", "source_hash": "a" * 64, "content_hash": "f" * 16}
    with pytest.raises(StudyMismatchError, match=r"data.source: 'scans.py:load \(0123456789ab\)' in the study"):
        go_on(study, data="digits")


def test_the_budget_of_the_image_cache_reaches_the_evaluator_in_new_and_in_stored_studies(study, machine, tmp_path):
    go_on(study, max_cache_gib=2.5)
    new = SearchConfig.of(space="litv2_digits", study=tmp_path / "new", trials=1, remeasure=False, max_cache_gib=1.5)
    run_search(new, lambda event: None)
    prepared = [task.images for task in machine.submitted if isinstance(task, Prepare) and task.images is not None]
    assert [images["max_cache_gib"] for images in prepared] == [2.5, 1.5]
