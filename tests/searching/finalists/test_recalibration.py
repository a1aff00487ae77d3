"""A bad calibration does not last: a search that resumes measures it anew, and limits are judged by their chances."""

import dataclasses
import math

import pytest
from builders import build_arch, build_calibration, build_condition, build_measurement, fresh
from fakes import speed, write_timed_study

from hilo_nas.events import CalibrationChanged, Notice
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.space import load_space, measured_chances
from hilo_nas.space.space_file import build_space

LABEL = build_condition().label()
ARCHS = [build_arch(1), build_arch(2)]
PLAIN = build_space("digits", {**load_space("litv2_digits").to_dict(), "anchors": {}})
STEADY = {"call_seconds": (0.1,) * 30}
LOADED = {"others_cores": 1.0, "cores": 1, "quietest": {"others_cores": 1.0}}


@pytest.fixture
def calibrate(machine):
    """Sets what the next calibrations of the machine find."""

    def set_to(images_per_s, **fields):
        found = build_calibration(images_per_s, **{**STEADY, **fields})
        machine.calibrate = lambda condition: found

    return set_to


def search(study, trials, **options):
    events = []
    request = SearchConfig.of(study=study.path, until_trials=trials, remeasure=False, **options)
    run_search(request, events.append)
    return events


def changes(events):
    return [event for event in events if isinstance(event, CalibrationChanged)]


def test_a_resumed_search_replaces_a_calibration_that_was_wrong(tmp_path, machine, calibrate):
    study = write_timed_study(tmp_path, machine, ARCHS, space=PLAIN)
    before, manifest = fresh(study).records, fresh(study).manifest
    calibrate(1569.0)
    (changed,) = changes(search(study, 3))
    assert (changed.condition, changed.old_images_per_s, changed.images_per_s) == (LABEL, 256.0, 1569.0)
    assert changed.ratio == pytest.approx(1569 / 256)
    for old, new in zip(before, fresh(study).records, strict=False):
        assert new.measurement.images_per_s == pytest.approx(old.measurement.images_per_s * 1569 / 256)
    after = fresh(study).manifest
    assert after == dataclasses.replace(manifest, calibrations=after.calibrations, trials=3)
    assert changes(search(study, 4)) == []


@pytest.mark.parametrize(
    ("images_per_s", "fields"),
    [
        (264.0, {}),
        (160.0, {"device_state": LOADED}),
        (160.0, {"call_seconds": (0.1, 0.1, 0.2) * 10}),
        (160.0, {"device_state": {"throttle_reasons": ["hardware thermal slowdown"]}}),
    ],
    ids=["within the interval", "contended", "bursty", "throttled"],
)
def test_a_calibration_that_is_near_or_was_not_steady_replaces_nothing(
    tmp_path, machine, calibrate, images_per_s, fields
):
    study = write_timed_study(tmp_path, machine, ARCHS, space=PLAIN)
    stored = fresh(study).manifest.calibrations
    calibrate(images_per_s, **fields)
    assert changes(search(study, 3)) == []
    assert fresh(study).manifest.calibrations == stored


def test_a_study_with_nothing_left_to_do_is_not_calibrated(tmp_path, machine, calibrate):
    study = write_timed_study(tmp_path, machine, ARCHS, space=PLAIN)
    calibrate(1569.0)
    assert changes(search(study, 2)) == []


def test_a_timing_again_replaces_a_wrong_calibration_too(tmp_path, machine, calibrate):
    study = write_timed_study(tmp_path, machine, ARCHS, space=PLAIN)
    calibrate(1569.0)
    events = []
    run_remeasure(RemeasureRequest(study=str(study.path)), events.append)
    assert len(changes(events)) == 1
    assert fresh(study).manifest.calibrations[LABEL].images_per_s == 1569.0


# Limits.


def loaded_study(tmp_path, machine):
    """A study that was calibrated under load: by it both networks broke a limit that they keep."""
    bound = 3 * max(speed(arch) for arch in ARCHS)
    study = write_timed_study(tmp_path, machine, ARCHS, limits={"images_per_s": bound}, space=PLAIN)
    for record in fresh(study).records:
        violations = {"images_per_s": math.log(bound / record.measurement.images_per_s)}
        fresh(study).write(
            dataclasses.replace(
                record, state="infeasible", reason="too slow", scores=(), violations=violations,
                imputed={"value": 0.1},
            )
        )  # fmt: skip
    return study


def test_networks_that_a_wrong_calibration_called_infeasible_are_trained_after_all(tmp_path, machine, calibrate):
    study = loaded_study(tmp_path, machine)
    calibrate(1569.0)
    search(study, 3)
    records = fresh(study).records[:2]
    assert [record.state for record in records] == ["complete", "complete"]
    assert [record.key for record in records] == [arch.key() for arch in ARCHS]
    assert not {arch.key() for arch in ARCHS} & set(machine.measured)  # their rounds are kept


def test_a_search_stopped_between_calibration_and_judgement_judges_in_the_next_one(tmp_path, machine, calibrate):
    study = loaded_study(tmp_path, machine)
    manifest = fresh(study).manifest
    fresh(study).write_manifest(
        dataclasses.replace(manifest, calibrations={LABEL: build_calibration(1569.0, **STEADY)})
    )
    calibrate(1569.0)
    assert changes(search(study, 3)) == []
    assert [record.state for record in fresh(study).records][:2] == ["complete", "complete"]


def test_a_trained_network_that_surely_breaks_a_limit_becomes_infeasible_and_a_doubtful_one_stays(
    tmp_path, machine, calibrate
):
    slow, fast = sorted(ARCHS, key=speed)
    bound = 0.9 * speed(slow)
    study = write_timed_study(tmp_path, machine, [slow, fast], limits={"images_per_s": bound}, space=PLAIN)
    calibrate(256.0 * 0.89)  # now 1 % below, the error of a calibration being 2 %
    search(study, 3)
    assert fresh(study).records[0].state == "complete"
    calibrate(256.0 * 0.7)
    search(study, 4)
    record = fresh(study).records[0]
    assert record.state == "infeasible"
    assert "images_per_s >=" in record.reason
    assert record.scores


@pytest.mark.parametrize(("images_per_s", "chance"), [(1000.0, 0.5), (1050.0, 0.98), (950.0, 0.01), (990.0, 0.33)])
def test_the_chance_to_keep_a_speed_has_the_error_of_the_calibration_in_it(images_per_s, chance):
    half = 0.01 * 1.96 * images_per_s
    measurement = build_measurement(
        images_per_s,
        images_per_s_low=images_per_s - half,
        images_per_s_high=images_per_s + half,
        calibration_error=0.02,
    )
    found = measured_chances({"images_per_s": 1000.0}, [measurement])
    assert found["images_per_s"] == pytest.approx(chance, abs=0.01)
    low, high = measurement.images_per_s_interval
    assert (high - low) / 2 == pytest.approx(1.96 * math.hypot(0.01, 0.02) * images_per_s)
    assert measurement.half_width == pytest.approx(half)  # what comparisons take


@pytest.mark.parametrize(("memory", "limit", "chance"), [(100.0, 100.0, 0.5), (99.0, 100.0, 1.0), (None, 1.0, 1.0)])
def test_memory_that_is_within_is_kept(memory, limit, chance):
    found = measured_chances({"memory_mib": limit}, [build_measurement(memory_mib=memory)])
    assert found["memory_mib"] >= chance


@pytest.mark.parametrize(
    ("beyond", "timings", "state"), [(1.001, 2, "infeasible"), (1.2, 1, "infeasible"), (0.99, 1, "complete")]
)
def test_a_network_that_may_keep_a_limit_is_timed_again_before_it_is_infeasible(
    tmp_path, machine, calibrate, beyond, timings, state
):
    one = build_space("one", {**PLAIN.to_dict(), "depths": [[1], [1], [1], [1]], "embed_dims": [16]})
    study = write_timed_study(tmp_path, machine, [], limits={}, space=one, trials=1)
    bound = beyond * speed(ARCHS[0])
    fresh(study).write_manifest(dataclasses.replace(fresh(study).manifest, limits={"images_per_s": bound}))
    calibrate(256.0)
    machine.law = lambda subject: (speed(ARCHS[0]), 0.5)
    events = search(study, 1)
    (record,) = fresh(study).records
    assert record.state == state
    assert len(machine.measured) == len(record.measurements) == timings
    told = [event.text for event in events if isinstance(event, Notice) and "is timed again, because" in event.text]
    assert len(told) == timings - 1
