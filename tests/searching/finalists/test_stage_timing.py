"""Times of the parts of the front, which a search and a re-timing store."""

import dataclasses

import pytest
from builders import build_device, fresh

from hilo_nas.arch.cost import PARTS
from hilo_nas.errors import MeasurementError, StorageError
from hilo_nas.events import Notice
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.study.stage_times import StageTimes, load_stage_times


def search(events=None, **options):
    config = SearchConfig.of(**{"space": "litv2_digits", "study": "demo", "sampler": "random", **options})
    return run_search(config, (events if events is not None else []).append)[0]


def times_of(study):
    return load_stage_times(study.stages_path).networks


def front_of(study):
    return {record.key for record in fresh(study).front().members}


def test_a_search_times_the_parts_of_its_front_once(machine):
    study = search(until_trials=3)
    found = times_of(study)
    assert found.keys() == front_of(study)
    manifest = fresh(study).manifest
    assert all(own.fits(manifest.objective, manifest.device) for own in found.values())
    assert all(list(own.seconds) == list(PARTS) for own in found.values())
    assert len(machine.parted) == len(found)
    search(space=None, sampler=None)
    assert len(machine.parted) == len(found)
    search(space=None, sampler=None, until_trials=8)
    assert times_of(study).keys() >= front_of(study)


def test_a_timing_of_the_front_times_its_parts_again(machine):
    study = search(until_trials=3)
    count = len(machine.parted)
    run_remeasure(RemeasureRequest(study="demo"), [].append)
    assert len(machine.parted) == count + len(front_of(study))


def test_another_device_has_times_of_its_own(machine):
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU", driver="580")
    search(until_trials=3)
    there = run_remeasure(RemeasureRequest(study="demo", device="cuda"), [].append)
    assert {own.device.model for own in times_of(there).values()} == {"Test GPU"}
    assert times_of(there).keys() == front_of(there)


def test_new_software_times_the_parts_again(machine):
    study = search(until_trials=3)
    machine.device_of["cpu"] = build_device(torch="3.0.0")
    run_remeasure(RemeasureRequest(study="demo"), [].append)
    assert {own.device.torch for own in times_of(study).values()} == {"3.0.0"}


@pytest.mark.parametrize(
    "settings", [{"runtime": "openvino"}, {"compile": True}, {"fused": False}, {"remeasure": False}]
)
def test_parts_are_left_out_where_they_cannot_be_timed_or_nobody_wants_them(machine, settings):
    study = search(until_trials=2, **settings)
    assert machine.parted == []
    assert not study.stages_path.exists()


def test_a_failure_is_a_warning(machine):
    def fail(parts, condition):
        raise MeasurementError("no room")

    machine.time_parts = fail
    events = []
    study = search(events, until_trials=2)
    texts = [event.text for event in events if isinstance(event, Notice) and "parts of trial" in event.text]
    assert len(texts) == 1
    assert texts[0].endswith("could not be timed: no room")
    assert times_of(study) == {}


def test_a_failed_timing_keeps_the_earlier_times(machine):
    study = search(until_trials=3)
    known = times_of(study)

    def fail(parts, condition):
        raise MeasurementError("no room")

    machine.time_parts = fail
    run_remeasure(RemeasureRequest(study="demo"), [].append)
    assert times_of(study).items() >= known.items()


def test_a_path_that_cannot_be_written_is_named_before_the_search(machine):
    study = search(until_trials=2)
    study.stages_path.unlink()
    study.stages_path.mkdir()
    with pytest.raises(StorageError, match=r"stages\.json"):
        search(space=None, sampler=None, until_trials=3)


def test_a_damaged_file_is_replaced(machine):
    study = search(until_trials=2)
    known = times_of(study)
    study.stages_path.write_text("{")
    search(space=None, sampler=None)
    assert times_of(study).keys() == known.keys()
    one = next(iter(known))
    changed = {**known, one: dataclasses.replace(known[one], condition="another")}
    StageTimes(networks=changed).write(study.stages_path)
    search(space=None, sampler=None)
    assert times_of(study)[one].condition == known[one].condition
