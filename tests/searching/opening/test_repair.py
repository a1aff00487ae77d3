"""A repaired study is searched further: what is left of a damaged trial is neither timed nor trained again."""

import json

import pytest
from builders import fresh
from fakes import FakeMachine

import hilo_nas
from hilo_nas.study.stored_study import StoredStudy

SETTINGS = {"search.sampler": "random", "timing.remeasure": False, "study.checkpoint_mib": 0}


@pytest.fixture
def study(machine):
    found = hilo_nas.search("litv2_digits", study="demo", trials=4, settings=SETTINGS)
    return StoredStudy(found.path)


def resumed(study):
    """Repairs and resumes the study, and returns the machine that did the work."""
    machine = FakeMachine()
    assert hilo_nas.repair_study("demo").is_complete
    hilo_nas.search(study="demo", settings={"timing.remeasure": False}, evaluator=machine)
    assert [record.number for record in fresh(study).records] == [0, 1, 2, 3]
    assert {record.state for record in fresh(study).records} <= {"complete", "stopped"}
    return machine


def change(study, number, **changes):
    path = study.trials_path / f"{number:04d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_record_without_its_state_costs_no_work(study):
    keys = [record.key for record in fresh(study).records]
    change(study, 1, state="done")
    machine = resumed(study)
    assert machine.measured + machine.scored == []
    assert [record.key for record in fresh(study).records] == keys


def test_a_record_without_its_timing_is_timed_and_not_trained(study):
    key = fresh(study).records[1].key
    change(study, 1, measurements=[{"condition": 3}])
    machine = resumed(study)
    assert (machine.measured, machine.scored) == ([key], [])


def test_a_lost_record_gives_its_number_to_another_network_or_to_the_same(study):
    (study.trials_path / "0003.json").write_bytes(b"\0" * 100)
    assert len(resumed(study).measured) == 1


def test_a_resumed_study_of_an_earlier_version_gets_a_copy_of_its_manifest(study, machine):
    study.backup_path.unlink()
    hilo_nas.search(study="demo", settings={"timing.remeasure": False})
    assert study.backup_path.read_bytes() == study.manifest_path.read_bytes()


def test_the_restored_manifest_is_that_of_the_last_search(study, machine):
    hilo_nas.search(study="demo", trials=1, settings={"timing.remeasure": False})
    whole = study.manifest_path.read_bytes()
    study.manifest_path.write_bytes(whole[:200])
    assert hilo_nas.repair_study(study).is_complete
    assert study.manifest_path.read_bytes() == whole
