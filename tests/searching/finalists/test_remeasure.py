"""Timing again: the front side by side, everything under new facts, a whole study on another device."""

import dataclasses
import errno
import json
import math
import os

import pytest
from builders import (
    TINY,
    build_arch,
    build_calibration,
    build_condition,
    build_device,
    build_failed,
    build_infeasible,
    build_interrupted,
    fresh,
)
from fakes import RESOURCES, speed, write_timed_study

from hilo_nas.errors import (
    DeviceError,
    MeasurementError,
    NotFoundError,
    OutOfMemoryError,
    StorageError,
    StudyLockedError,
    StudyMismatchError,
    UsageError,
    WorkerDiedError,
)
from hilo_nas.events import CohortTimed, Notice, SearchFinished
from hilo_nas.measurement import PROTOCOL
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.searching.finalists.remeasure import time_front
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.front import Front
from hilo_nas.study.records import FITS
from hilo_nas.study.stored_study import StoredStudy


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Lets commands name the studies of a test by their names."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))


ARCHS = [TINY, *(build_arch(i) for i in (0, 3, 7, 27, 29))]
"""By the fake's law: 1645, 1876, 1515, 1361, 1123 and 1104 images/s."""
TOP1S = [0.30, 0.50, 0.60, 0.70, 0.90, 0.59]
FRONT = [1, 2, 3, 4]
ANCHOR = 0
"""Timed beside the front, which is compared with it."""
OBJECTIVE, SINGLE = build_condition(), build_condition(batch_size=1)
PLAIN = build_space("digits", {**load_space("litv2_digits").to_dict(), "anchors": {}})
"""Without an anchor, which a search would try first."""


def remeasure(study, events=None, **options):
    request = RemeasureRequest(study=str(study.path), **options)
    return StoredStudy(run_remeasure(request, (events if events is not None else []).append).path)


def search(study, events=None, **options):
    request = SearchConfig.of(study=study.path, **options)
    return run_search(request, (events if events is not None else []).append)[1]


def meaning(study):
    """What a study says: its manifest, and per trial its state and the measurement that counts."""
    return fresh(study).manifest, [(r.state, r.reason, r.measurements_by_condition()) for r in fresh(study).records]


def notices(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.fixture
def study(tmp_path, machine):
    return write_timed_study(tmp_path, machine, ARCHS, top1s=TOP1S)


@pytest.fixture
def pair(tmp_path, machine):
    """Two networks under two conditions."""
    return write_timed_study(tmp_path, machine, ARCHS[1:3], conditions=(OBJECTIVE, SINGLE), space=PLAIN)


# The front.


def test_the_front_and_what_is_near_it_share_their_rounds_afterwards(study, machine):
    before = fresh(study).records
    assert [record.number for record in Front.from_records(before).members] == FRONT
    events = []
    assert remeasure(study, events).path == study.path
    after = fresh(study).records
    (cohort,) = {after[number].measurement.cohort for number in (ANCHOR, *FRONT)}
    assert cohort
    for old, new in zip(before, after, strict=True):
        if new.number in (ANCHOR, *FRONT):
            assert new.measurements[1:] == old.measurements
            assert dataclasses.replace(new, measurements=old.measurements) == old
        else:
            assert new == old
    (timed,) = [event for event in events if isinstance(event, CohortTimed)]
    assert (timed.networks, timed.condition, timed.verdict) == (5, "cpu-b32-32px-fp32", "steady")
    assert machine.closed


def test_a_tie_is_timed_with_the_front(tmp_path, machine):
    study = write_timed_study(tmp_path, machine, ARCHS, top1s=[*TOP1S[:5], 0.895], space=PLAIN)
    remeasure(study)
    assert machine.cohorts == [(OBJECTIVE.label(), sorted(ARCHS[i].key() for i in (1, 2, 3, 4, 5)), False)]


def test_what_was_timed_side_by_side_is_timed_again_only_when_asked_for(study, machine):
    emit = [].append
    for _ in range(2):
        time_front(fresh(study), fresh(study).manifest, machine, RESOURCES, emit)
    assert len(machine.cohorts) == 1
    remeasure(study)
    assert len(machine.cohorts) == 2
    front = Front.from_records(fresh(study).records).members
    assert {record.measurement.cohort for record in front} == {"cohort-1"}
    assert {len(record.measurements) for record in front} == {3}


def test_one_network_alone_has_nothing_to_be_compared_with(tmp_path, machine):
    study = write_timed_study(tmp_path, machine, ARCHS[:1])
    remeasure(study)
    assert machine.cohorts == []


@pytest.mark.parametrize("options", [{}, {"everything": True}, {"into": "there"}])
def test_a_study_without_a_timing_is_refused(tmp_path, machine, options):
    study = write_timed_study(tmp_path, machine, [])
    with pytest.raises(UsageError, match="timed network"):
        remeasure(study, **options)
    assert not StoredStudy(study.path.parent / "there").exists


def test_a_search_times_its_front_at_the_end_once_and_goes_on_from_the_new_values(study, machine):
    machine.factors[ARCHS[4].key()] = 0.9  # it was lucky when it was timed first
    search(study)
    assert len(machine.cohorts) == 1
    new = fresh(study).records[4].measurement
    assert new.images_per_s == pytest.approx(0.9 * speed(ARCHS[4]))
    search(study)
    assert len(machine.cohorts) == 1


def test_a_front_that_cannot_be_timed_again_just_now_spoils_no_search(study, machine):
    before = meaning(study)

    def refuse(verb, count):
        if verb == "cohort":
            raise MeasurementError("the reference does not fit")

    machine.happen = refuse
    events = []
    assert search(study, events).stopped_by == "total"
    assert ": the reference does not fit. " in notices(events)[-1]
    assert notices(events)[-1].endswith(": hilo-nas remeasure demo")
    assert isinstance(events[-1], SearchFinished)
    assert meaning(study) == before


def test_a_search_leaves_the_front_alone_where_it_is_told_to(study, machine):
    search(study, remeasure=False)
    assert machine.cohorts == []


def test_all_networks_are_timed_under_all_conditions_when_asked_for(pair, machine):
    remeasure(pair, everything=True)
    assert [label for label, _, _ in machine.cohorts] == [OBJECTIVE.label(), SINGLE.label()]
    for record in fresh(pair).records:
        found = record.measurements_by_condition()
        assert [m.cohort for m in found.values()] == ["cohort-0", "cohort-1"]
        assert record.measurement.condition == OBJECTIVE
        assert len(record.measurements) == 4


def test_a_network_that_cannot_be_timed_just_now_keeps_what_it_has(study, machine):
    before = fresh(study).records[2]
    machine.failures[before.key] = WorkerDiedError("killed by signal 9")
    remeasure(study)
    assert fresh(study).records[2] == before
    assert fresh(study).records[1].measurement.cohort


# Limits.


def limited(tmp_path, machine, **fields):
    """Two networks that keep a limit of speed, the slower one with 5 % to spare; and the limit."""
    bound = 0.95 * min(speed(ARCHS[1]), speed(ARCHS[2]))
    limits = {"images_per_s": bound}
    return write_timed_study(tmp_path, machine, ARCHS[1:3], limits=limits, space=PLAIN, **fields), bound


def test_a_network_that_no_longer_keeps_a_limit_becomes_infeasible(tmp_path, machine):
    study, bound = limited(tmp_path, machine)
    slower = min(fresh(study).records, key=lambda record: record.measurement.images_per_s)
    machine.factors[slower.key] = 0.9
    remeasure(study)
    record = fresh(study).records[slower.number]
    got = record.measurement.images_per_s
    assert record.state == "infeasible"
    assert record.reason == f"images_per_s >= {bound:g} is a limit, but got {got:.4g} (keeps it with 2%) (timed again)"
    assert record.violations == {"images_per_s": pytest.approx(math.log(bound / got))}
    assert record.scores == slower.scores  # what was paid for stays
    assert record not in Front.from_records(fresh(study).records).members


def test_a_limit_of_another_condition_is_judged_too(tmp_path, machine):
    limits = {f"latency_ms@{SINGLE.label()}": 1e3}
    study = write_timed_study(tmp_path, machine, ARCHS[1:3], limits=limits, conditions=(OBJECTIVE, SINGLE))
    machine.factors[SINGLE.label()] = 1e-3
    remeasure(study, everything=True)
    for record in fresh(study).records:
        assert record.state == "infeasible"
        assert record.reason.startswith("latency_ms <= 1000 at cpu-b1-32px-fp32 is a limit, but got ")


def test_a_network_with_a_score_that_keeps_its_limit_again_is_complete_again(tmp_path, machine):
    study, _ = limited(tmp_path, machine)
    before = [record.state for record in fresh(study).records]
    machine.factors[OBJECTIVE.label()] = 0.5
    remeasure(study, everything=True)
    assert {record.state for record in fresh(study).records} == {"infeasible"}
    machine.factors.clear()
    remeasure(study, everything=True)
    assert [record.state for record in fresh(study).records] == before == ["complete", "complete"]
    assert all(record.reason is None for record in fresh(study).records)


def test_a_network_without_a_score_that_keeps_its_limit_now_is_due_for_training(tmp_path, machine):
    study, bound = limited(tmp_path, machine, trials=3)
    arch = build_arch(1)  # by the law it keeps the limit, but it was disturbed when it was timed first
    slow = build_infeasible(2, bound / 2, arch=arch, params=PLAIN.encode(arch), imputed={"value": 0.5})
    fresh(study).write(slow)
    remeasure(study, everything=True)
    record = fresh(study).records[2]
    assert record.is_interrupted
    assert "since it was timed again" in record.reason
    search(study, remeasure=False)
    after = fresh(study).records
    assert [r.state for r in after if r.key == slow.key] == ["complete"]
    assert slow.key in machine.scored
    assert slow.key not in machine.measured  # its new speed serves
    remeasure(study, everything=True)  # what is closed stays closed
    assert [r.state for r in fresh(study).records] == [r.state for r in after]


def test_a_failed_trial_stays_failed_whatever_its_speed(tmp_path, machine):
    study, _ = limited(tmp_path, machine)
    failed = [
        build_failed(2, "data: broken", arch=ARCHS[3], measurements=fresh(study).records[0].measurements),
        build_interrupted(3, arch=ARCHS[4], measurements=fresh(study).records[0].measurements),
    ]
    for record in failed:
        fresh(study).write(record)
    machine.factors[OBJECTIVE.label()] = 0.5
    remeasure(study, everything=True)
    for record, old in zip(fresh(study).records[2:], failed, strict=True):
        assert (record.state, record.reason) == ("failed", old.reason)
        assert len(record.measurements) == 2


# Changed facts.


def change_torch(study, machine):
    machine.device_of["cpu"] = build_device(torch="3.0.0")


def change_driver(study, machine):
    machine.device_of["cpu"] = build_device(driver="7.0")


def change_form(study, machine):
    machine.form = "litv2/2 dcn=own"


def change_protocol(study, machine):
    manifest = fresh(study).manifest
    old = {
        label: dataclasses.replace(calibration, protocol=PROTOCOL - 1)
        for label, calibration in manifest.calibrations.items()
    }
    fresh(study).write_manifest(dataclasses.replace(manifest, calibrations=old))
    for record in fresh(study).records:
        timed = tuple(dataclasses.replace(m, protocol=PROTOCOL - 1) for m in record.measurements)
        fresh(study).write(dataclasses.replace(record, measurements=timed))


CHANGES = [change_torch, change_driver, change_form, change_protocol]


@pytest.mark.parametrize("change", CHANGES)
def test_under_changed_facts_every_network_is_timed_anew_under_every_condition(pair, machine, change):
    change(pair, machine)
    before = fresh(pair).records
    with pytest.raises(StudyMismatchError, match="hilo-nas remeasure demo"):
        search(pair)
    events = []
    remeasure(pair, events)
    assert machine.calibrated == [OBJECTIVE.label(), SINGLE.label()]
    assert [(label, len(keys)) for label, keys, _ in machine.cohorts] == [(OBJECTIVE.label(), 2), (SINGLE.label(), 2)]
    assert sum("all networks are timed again" in text for text in notices(events)) >= 1
    manifest, after = fresh(pair).manifest, fresh(pair).records
    assert manifest.device == machine.device_of["cpu"]
    assert {calibration.protocol for calibration in manifest.calibrations.values()} == {PROTOCOL}
    for old, new in zip(before, after, strict=True):
        counting = new.measurements_by_condition()
        assert list(counting) == [OBJECTIVE.label(), SINGLE.label()]
        assert new.measurement == counting[OBJECTIVE.label()]
        assert all(m.cohort and m.form == machine.form and manifest.is_comparable(m) for m in counting.values())
        assert {m.measured_at for m in new.measurements if not m.cohort} == {old.measurement.measured_at}
        assert all(m in new.measurements for m in old.measurements)
        assert new.scores == old.scores
    assert search(pair, remeasure=False).measured == 2  # no longer refused
    remeasure(pair)
    assert len(machine.cohorts) == 3  # from now on, only the front


def test_what_the_manifest_says_beside_the_facts_stays(pair, machine):
    before = fresh(pair).manifest
    change_torch(pair, machine)
    remeasure(pair)
    after = fresh(pair).manifest
    changed = {"device", "calibrations", "versions"}
    same = {field.name for field in dataclasses.fields(before)} - changed
    assert all(getattr(after, name) == getattr(before, name) for name in same)
    assert "torch" in after.versions
    assert after.versions != before.versions


def test_what_others_changed_before_the_lock_was_taken_counts(pair, machine):
    change_torch(pair, machine)
    read = machine.read_device

    def read_late(device):
        machine.read_device = read
        fresh(pair).write_manifest(dataclasses.replace(fresh(pair).manifest, trials=50))  # as a search writes it
        remeasure(pair)
        return read(device)

    machine.read_device = read_late
    remeasure(pair)
    # All were timed anew already, by the other one: this one only looks whether its calibrations hold.
    assert machine.calibrated == [OBJECTIVE.label(), SINGLE.label()] * 2
    assert [len(record.measurements) for record in fresh(pair).records] == [5, 5]
    assert fresh(pair).manifest.trials == 50


@pytest.mark.parametrize("change", [change_torch, change_form])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("the device has gone")])
@pytest.mark.parametrize("when", [("calibrate", 1), ("cohort", 0), ("cohort", 1)], ids=str)
def test_a_re_timing_that_is_cut_off_leaves_the_study_as_it_was(pair, machine, change, error, when):
    change(pair, machine)
    before = {path: path.read_bytes() for path in [pair.manifest_path, *pair.trials_path.iterdir()]}

    def stop(*happening):
        if happening == when:
            raise error

    machine.happen = stop
    with pytest.raises(type(error)):
        remeasure(pair)
    assert {path: path.read_bytes() for path in [pair.manifest_path, *pair.trials_path.iterdir()]} == before
    with locked(pair):
        pass  # nobody holds it any more


@pytest.mark.parametrize("change", [change_torch, change_protocol])
def test_records_written_before_a_crash_do_not_count_until_the_manifest_follows(study, machine, change, monkeypatch):
    change(study, machine)
    before = meaning(study)
    replace = os.replace

    def fill_up(source, target):
        if target.name == "0003.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", fill_up)
        with pytest.raises(StorageError, match="No space left on device"):
            remeasure(study)
    assert len(json.loads((study.trials_path / "0000.json").read_text())["measurements"]) == 2
    assert meaning(study) == before
    remeasure(study)
    assert {record.measurement.cohort for record in fresh(study).records} == {"cohort-1"}


def test_a_network_that_does_not_fit_any_more_is_infeasible_and_the_search_goes_on(pair, machine):
    change_torch(pair, machine)
    big = fresh(pair).records[1]
    machine.failures[big.key] = OutOfMemoryError("CUDA out of memory")
    remeasure(pair)
    record = fresh(pair).records[1]
    assert (record.state, record.reason) == ("infeasible", "out of memory while timing: CUDA out of memory")
    assert record.violations[FITS] > 0
    assert record.measurements == ()  # under the new facts it has no speed
    assert record.imputed["images_per_s"] > 0
    assert record.scores == big.scores
    assert search(pair, remeasure=False, until_trials=3).measured == 3
    told = {record.number: record.state for record in fresh(pair).records}
    assert told == {0: "complete", 1: "infeasible", 2: "complete"}


@pytest.mark.parametrize("change", [change_torch, change_form])
def test_a_network_that_fits_again_later_is_complete_again(pair, machine, change):
    change(pair, machine)
    big = fresh(pair).records[1]
    machine.failures[big.key] = OutOfMemoryError("CUDA out of memory")
    remeasure(pair)
    machine.failures.clear()
    machine.device_of["cpu"] = build_device(torch="4.0.0")
    remeasure(pair)
    record = fresh(pair).records[1]
    assert (record.state, record.reason, record.violations) == ("complete", None, {})
    assert record.measurement.device.torch == "4.0.0"


@pytest.mark.parametrize("change", [change_torch, change_form])
def test_a_network_whose_timing_crashes_is_due_again_and_keeps_its_score(pair, machine, change):
    change(pair, machine)
    lost = fresh(pair).records[1]
    machine.failures[lost.key] = WorkerDiedError("killed by signal 11")
    remeasure(pair)
    record = fresh(pair).records[1]
    assert record.is_interrupted
    assert record.reason.endswith("killed by signal 11")
    machine.failures.clear()
    search(pair, remeasure=False)
    again = fresh(pair).records[1]
    assert (again.key, again.state, again.scores) == (lost.key, "complete", lost.scores)
    assert machine.measured[-1] == lost.key  # its speed was another form's, or another torch's
    assert again.measurement.form == machine.form
    assert machine.scored == []
    remeasure(pair, everything=True)
    assert [r.state for r in fresh(pair).records] == ["complete", "complete"]


# Another device.


@pytest.fixture
def two_devices(machine):
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU", driver="580")
    return machine


def test_another_device_makes_a_new_study_that_takes_over_the_scores(study, two_devices):
    before = meaning(study)
    events = []
    folder = remeasure(study, events, device="cuda")
    assert (folder.name, folder.path.parent) == ("demo-cuda", study.path.parent)
    assert meaning(study) == before
    manifest, there = fresh(folder).manifest, fresh(study).manifest
    assert (manifest.name, manifest.objective.device, manifest.device.model) == ("demo-cuda", "cuda", "Test GPU")
    assert (manifest.space, manifest.plan, manifest.data) == (there.space, there.plan, there.data)
    assert set(manifest.calibrations) == {"cuda-b32-32px-fp32"}
    for old, new in zip(fresh(study).records, fresh(folder).records, strict=True):
        assert (new.number, new.subject, new.params, new.state) == (old.number, old.subject, old.params, old.state)
        assert new.scores == old.scores
        (measurement,) = new.measurements
        assert measurement.device.model == "Test GPU"
        assert manifest.is_comparable(measurement)
    assert len({record.measurement.cohort for record in fresh(folder).records}) == 1  # one interleaved cohort
    assert [record.origin for record in fresh(folder).records] == [
        "anchor:litv2_tiny",
        *(f"reuse:demo/{number}" for number in range(1, 6)),
    ]
    assert [standing.name for standing in Front.from_records(fresh(folder).records).standings] == ["litv2_tiny"]


def test_a_search_goes_on_in_the_study_of_another_device(pair, two_devices):
    folder = remeasure(pair, device="cuda")
    two_devices.scored.clear()
    assert search(folder, until_trials=3, remeasure=False).measured == 3
    assert two_devices.scored == [fresh(folder).records[2].key]


def test_the_new_study_has_the_name_that_was_asked_for(study, two_devices):
    assert remeasure(study, device="cuda", into="mine").name == "mine"
    assert fresh(remeasure(study, into="again")).manifest.objective.device == "cpu"


@pytest.mark.parametrize("into", [None, "mine"])
def test_a_study_that_is_there_already_is_not_written_over(study, two_devices, into):
    taken = remeasure(study, device="cuda", into=into)
    before = meaning(taken)
    with pytest.raises(UsageError) as caught:
        remeasure(study, device="cuda", into=into)
    assert f"study for cuda must be new, but {taken.name} exists" in str(caught.value)
    assert str(caught.value).endswith(f": hilo-nas remeasure {taken.name}")
    assert meaning(taken) == before
    assert len(two_devices.cohorts) == 1


def test_limits_and_conditions_are_those_of_the_other_device(tmp_path, two_devices):
    one, threads = build_condition(threads=2), build_condition(threads=2, batch_size=1)
    limits = {"images_per_s": 1.0, f"latency_ms@{threads.label()}": 900.0}
    study = write_timed_study(tmp_path, two_devices, ARCHS[1:3], conditions=(one, threads), limits=limits)
    manifest = fresh(remeasure(study, device="cuda")).manifest
    assert [condition.label() for condition in manifest.conditions] == ["cuda-b32-32px-fp32", "cuda-b1-32px-fp32"]
    assert manifest.limits == {"images_per_s": 1.0, "latency_ms@cuda-b1-32px-fp32": 900.0}


def test_a_network_that_breaks_a_limit_there_is_infeasible_there(tmp_path, two_devices):
    limits = {f"latency_ms@{SINGLE.label()}": 1e3}
    study = write_timed_study(tmp_path, two_devices, ARCHS[1:3], conditions=(OBJECTIVE, SINGLE), limits=limits)
    for record in fresh(study).records:  # as a search leaves them
        fresh(study).write(dataclasses.replace(record, violations={f"latency_ms@{SINGLE.label()}": -1.0}))
    two_devices.factors["cuda-b1-32px-fp32"] = 1e-3
    folder = remeasure(study, device="cuda")
    for record in fresh(folder).records:
        assert record.state == "infeasible"
        assert record.reason.startswith("latency_ms <= 1000 at cuda-b1-32px-fp32 is a limit")
        assert set(record.violations) == {"latency_ms@cuda-b1-32px-fp32"}
    back = remeasure(folder, device="cpu", into="back")
    assert {record.state for record in fresh(back).records} == {"complete"}


def test_conditions_that_are_one_on_the_other_device_become_one_with_the_stricter_limits(tmp_path, two_devices):
    graph = build_condition(device="cuda", cuda_graph=True)
    limits = {
        "latency_ms": 20.0,
        f"latency_ms@{graph.label()}": 10.0,
        f"images_per_s@{graph.label()}": 5.0,
    }
    conditions = (build_condition(device="cuda"), graph)
    study = write_timed_study(tmp_path, two_devices, ARCHS[1:3], conditions=conditions, limits=limits)
    manifest = fresh(remeasure(study, device="cpu")).manifest
    assert [condition.label() for condition in manifest.conditions] == ["cpu-b32-32px-fp32-t2"]
    assert manifest.limits == {"latency_ms": 10.0, "images_per_s": 5.0}


def test_a_condition_of_other_threads_stays_one_on_another_cpu(tmp_path, machine):
    conditions = (build_condition(threads=8), build_condition(threads=1))
    study = write_timed_study(tmp_path, machine, ARCHS[1:3], conditions=conditions)
    machine.device_of["cpu"] = build_device(model="Another CPU (2 cores)")
    manifest = fresh(remeasure(study, into="other")).manifest
    assert [condition.threads for condition in manifest.conditions] == [2, 1]


def test_a_machine_of_another_model_makes_a_new_study_without_being_asked(study, machine):
    machine.device_of["cpu"] = build_device(model="Another CPU (2 cores)")
    assert remeasure(study).name == "demo-cpu"


def test_a_second_card_of_the_same_model_times_the_study_itself(tmp_path, two_devices):
    study = write_timed_study(tmp_path, two_devices, ARCHS[1:3], conditions=(build_condition(device="cuda"),))
    two_devices.device_of["cuda:1"] = dataclasses.replace(two_devices.device_of["cuda"], serial="second")
    assert remeasure(study, device="cuda:1").path == study.path
    assert {record.measurement.condition.device for record in fresh(study).records} == {"cuda"}
    assert {task.target for task in two_devices.submitted} == {"cuda:1"}


def test_a_second_card_of_another_model_has_a_study_of_its_own(tmp_path, two_devices):
    study = write_timed_study(tmp_path, two_devices, ARCHS[1:3], conditions=(build_condition(device="cuda"),))
    two_devices.device_of["cuda:1"] = build_device(kind="cuda", model="Other GPU")
    two_devices.facts = lambda condition: {"device": two_devices.device_of["cuda:1"]}
    assert remeasure(study, device="cuda:1").name == "demo-cuda1"


def test_only_trials_with_a_result_move(study, two_devices):
    free = {"params_m": 0.5}
    fresh(study).write(build_failed(6, arch=build_arch(20)))
    fresh(study).write(build_infeasible(7, None, "params_m", arch=build_arch(21), violations=free))
    folder = remeasure(study, device="cuda")
    assert [record.number for record in fresh(folder).records] == list(range(6))


def test_a_network_that_did_not_fit_may_fit_there(study, two_devices):
    fresh(study).write(build_infeasible(6, None, "out of memory", arch=build_arch(20), violations={FITS: 1.0}))
    record = fresh(remeasure(study, device="cuda")).records[6]
    assert record.is_interrupted  # due for training
    assert record.violations == {}
    assert record.measurement


def test_a_network_that_fits_only_here_is_infeasible_there(study, two_devices):
    two_devices.failures[ARCHS[4].key()] = OutOfMemoryError("CUDA out of memory")
    folder = remeasure(study, device="cuda")
    record = fresh(folder).records[4]
    assert (record.state, record.measurements, record.violations[FITS]) == ("infeasible", (), 1.0)
    assert record.reason == "out of memory while timing: CUDA out of memory"


@pytest.mark.parametrize("when", [("calibrate", 0), ("cohort", 0)], ids=str)
def test_a_study_for_another_device_that_is_cut_off_leaves_nothing(study, two_devices, when):
    def stop(*happening):
        if happening == when:
            raise KeyboardInterrupt

    two_devices.happen = stop
    with pytest.raises(KeyboardInterrupt):
        remeasure(study, device="cuda")
    assert [path.name for path in study.path.parent.iterdir()] == ["demo"]


# Refusals.


def test_speeds_that_were_taken_elsewhere_are_not_timed_here(tmp_path, machine):
    study = write_timed_study(tmp_path, machine, ARCHS[:2], speeds="edge")
    for options in ({}, {"device": "cuda"}, {"everything": True}):
        with pytest.raises(UsageError, match=r"were timed in study edge\. Time them again there"):
            remeasure(study, **options)
    assert machine.cohorts == machine.calibrated == []


def test_a_study_that_is_being_searched_is_refused(study, machine):
    before = meaning(study)
    with locked(study), pytest.raises(StudyLockedError, match="study demo is locked"):
        remeasure(study)
    assert machine.cohorts == []
    assert meaning(study) == before


def test_a_study_being_searched_may_be_timed_elsewhere(study, two_devices):
    with locked(study):
        assert remeasure(study, device="cuda").exists


def test_a_study_or_a_device_that_is_not_there_is_refused(study, machine):
    with pytest.raises(NotFoundError, match="no study 'dmeo'"):
        run_remeasure(RemeasureRequest(study="dmeo"), lambda event: None)
    with pytest.raises(DeviceError, match="this machine has no cuda"):
        remeasure(study, device="cuda")
    with pytest.raises(UsageError, match="device must be cpu, cuda"):
        remeasure(study, device="toaster")


def test_a_re_timing_is_written_into_the_studys_log(study, machine):
    remeasure(study)
    kinds = [json.loads(line)["event"] for line in (study.logs_path / "events.jsonl").read_text().splitlines()]
    assert kinds == ["CalibrationStarted", "CohortTimed"]


def test_a_limit_that_the_space_sets_holds_after_a_re_timing_too(tmp_path, machine):
    bound = 0.95 * min(speed(arch) for arch in ARCHS[1:3])
    space = build_space(
        "digits", {**load_space("litv2_digits").to_dict(), "limits": {"images_per_s": bound, "params_m": 9}}
    )
    study = write_timed_study(tmp_path, machine, ARCHS[1:3], space=space)
    for record in fresh(study).records:
        fresh(study).write(dataclasses.replace(record, violations={"images_per_s": -0.1, "params_m": -3.0}))
    machine.factors[OBJECTIVE.label()] = 0.9
    remeasure(study)
    assert {len(record.violations) for record in fresh(study).records} == {2}
    assert "infeasible" in {record.state for record in fresh(study).records}


def test_an_old_reference_is_not_taken_for_the_new_one(pair, machine):
    stored = fresh(pair).manifest
    slow = {label: build_calibration(100.0) for label in stored.calibrations}
    fresh(pair).write_manifest(dataclasses.replace(stored, calibrations=slow))
    change_torch(pair, machine)
    remeasure(pair)
    assert {item.images_per_s for item in fresh(pair).manifest.calibrations.values()} == {256.0}
