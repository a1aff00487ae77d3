"""Timings as a study reads them: by the calibration in force, the better one of a network first."""

import dataclasses

import pytest
from builders import (
    build_arch,
    build_calibration,
    build_cohort,
    build_condition,
    build_device,
    build_manifest,
    build_measurement,
    build_record,
    build_score,
    fresh,
    write_study,
)

from hilo_nas.study.calibration import anchored, calibration_error
from hilo_nas.study.front import Front
from hilo_nas.study.stored_study import StoredStudy

LABEL = build_condition().label()


def probability_of_speed(own, other):
    """Returns the probability that the first of two trials is faster."""
    return Front.from_records([own, other]).probability_faster(own.number, other.number)


def recalibrated(folder, images_per_s):
    manifest = fresh(folder).manifest
    fresh(folder).write_manifest(dataclasses.replace(manifest, calibrations={LABEL: build_calibration(images_per_s)}))
    return folder


def speeds(folder):
    return [m.images_per_s for record in fresh(folder).records for m in record.measurements]


def timings(cohort, verdicts, when, faster=1.0, **fields):
    """A timing of each network in one cohort, by key; each with its verdict."""
    archs = [build_arch(i) for i in range(len(verdicts))]
    found = build_cohort(
        {arch.key(): 1000.0 * faster * (1 - 0.02 * i) for i, arch in enumerate(archs)}, cohort=cohort, **fields
    )
    return [
        dataclasses.replace(disturbed(found[arch.key()], verdict), measured_at=f"2026-07-0{when}T12:00:00+00:00")
        for arch, verdict in zip(archs, verdicts, strict=True)
    ]


def disturbed(measurement, verdict):
    """A steady measurement as it would be with another verdict; its fast rounds stay as they are."""
    if verdict == "throttled":
        return dataclasses.replace(measurement, device_state={"throttle_reasons": ["hardware thermal slowdown"]})
    if verdict == "contended":
        load = {"others_cores": 1.0, "cores": 2}
        return dataclasses.replace(measurement, device_state={**load, "quietest": load})
    if verdict == "bursty":
        slow = sorted(measurement.call_seconds)[-8:]
        calls = tuple(3 * seconds if seconds in slow else seconds for seconds in measurement.call_seconds)
        return dataclasses.replace(measurement, call_seconds=calls)
    return measurement


def trials(*cohorts):
    """Records whose measurements are of these cohorts, the first the newest."""
    return [
        build_record(i, arch=build_arch(i), measurements=own, scores=(build_score(),))
        for i, own in enumerate(zip(*cohorts, strict=True))
    ]


def read(tmp_path, records):
    return fresh(write_study(tmp_path, "s", records)).records


# By the calibration in force.


def test_a_study_whose_calibration_never_changed_reads_the_stored_values(tmp_path):
    (measurement,) = timings("c", ["steady"], 1)
    (record,) = read(tmp_path, trials([measurement]))
    assert record.measurement == measurement
    assert record.measurement.calibration_error > 0


def test_a_changed_calibration_changes_every_speed_and_interval_and_no_ratio(tmp_path):
    records = trials(timings("c", ["steady", "steady"], 1))
    before = read(tmp_path, records)
    after = fresh(recalibrated(StoredStudy(tmp_path / "s"), 1569.0)).records
    for old, new in zip(before, after, strict=True):
        for name in ("images_per_s", "images_per_s_low", "images_per_s_high", "images_per_s_spread"):
            assert getattr(new.measurement, name) == pytest.approx(getattr(old.measurement, name) * 1569 / 256)
        assert new.measurement.ratio == old.measurement.ratio
    assert probability_of_speed(*after) == probability_of_speed(*before)


def test_a_calibration_that_is_taken_back_gives_the_old_values(tmp_path):
    folder = write_study(tmp_path, "s", trials(timings("c", ["steady", "steady"], 1)))
    before = speeds(folder)
    for record in fresh(recalibrated(folder, 1569.0)).records:
        fresh(folder).write(record)  # as a search does
    assert speeds(recalibrated(folder, 256.0)) == pytest.approx(before, rel=1e-9)


def test_what_was_timed_under_other_facts_is_left_as_it_is(tmp_path):
    old = build_measurement(1000.0, protocol=1)
    (record,) = read(tmp_path, [build_record(0, measurements=(old,))])
    assert record.measurement == old
    assert record.measurement.calibration_error == 0


def test_a_timing_without_rounds_keeps_its_value():
    bare = build_measurement(1000.0, call_seconds=(), reference_seconds=())
    assert anchored(bare, build_calibration(640.0)).images_per_s == bare.images_per_s


@pytest.mark.parametrize(("rounds", "error"), [((0.1,) * 30, 0.02), ((0.1, 0.2) * 15, 0.02)])
def test_equal_fast_rounds_leave_the_error_between_calibrations(rounds, error):
    assert calibration_error(build_calibration(call_seconds=rounds), threads=2) == pytest.approx(error, rel=0.01)


def test_uneven_rounds_make_a_calibration_less_certain():
    uneven = build_calibration(call_seconds=tuple(0.1 + 0.01 * i for i in range(30)))
    assert calibration_error(uneven, threads=2) > 0.03


def test_cores_that_a_calibration_did_not_need_leave_it_certain():
    busy = {"cores": 16, "others_cores": 6.0, "quietest": {"others_cores": 6.0}}
    calibration = build_calibration(
        call_seconds=(0.1,) * 30, device_state=busy, device=build_device(model="X, 16 cores")
    )
    assert calibration_error(calibration, threads=1) == pytest.approx(0.02, rel=0.01)
    assert calibration_error(calibration, threads=16) > 0.2


# The better of several timings.


@pytest.mark.parametrize(
    ("newer", "older", "counts"),
    [
        ("steady", "steady", 0),
        ("bursty", "steady", 1),
        ("steady", "bursty", 0),
        ("throttled", "bursty", 1),
        ("contended", "throttled", 1),
        ("contended", "contended", 0),
        ("bursty", "bursty", 0),
    ],
)
def test_of_two_timings_the_better_counts_and_of_equal_ones_the_newer(tmp_path, newer, older, counts):
    pair = timings("new", [newer], 2, 1.1), timings("old", [older], 1)
    (record,) = read(tmp_path, trials(*pair))
    assert record.measurement.cohort == ("new", "old")[counts]
    assert record.measurement == pair[counts][0]
    assert len(record.measurements) == 2
    assert next(iter(record.measurements_by_condition().values())) == pair[counts][0]


def test_the_choice_is_made_for_a_whole_cohort(tmp_path):
    """The newer cohort was disturbed: a member that is steady in itself counts by the older one too."""
    newer, older = timings("new", ["steady", "bursty", "bursty"], 2), timings("old", ["steady"] * 3, 1)
    assert {record.measurement.cohort for record in read(tmp_path, trials(newer, older))} == {"old"}


def test_a_better_timing_of_a_form_that_is_no_longer_run_does_not_count(tmp_path):
    newer, older = timings("new", ["bursty"], 2, form="litv2/2"), timings("old", ["steady"], 1, form="litv2/1")
    (record,) = read(tmp_path, trials(newer, older))
    assert record.measurement.form == "litv2/2"


def test_a_pair_is_compared_in_the_best_cohort_that_both_share(tmp_path):
    """Shared in a steady and a newer bursty cohort; each was last timed alone."""
    alone = [
        dataclasses.replace(measurement, cohort=f"alone-{i}", ratio=(900.0 + 90 * i) / 256)
        for i, measurement in enumerate(timings("x", ["steady"] * 2, 3))
    ]
    bursty = list(reversed(timings("bursty", ["bursty"] * 2, 2)))
    steady = timings("steady", ["steady"] * 2, 1)
    first, second = trials(alone, bursty, steady)
    assert probability_of_speed(first, second) == probability_of_speed(*trials(steady)) > 0.99
    assert probability_of_speed(second, first) == pytest.approx(1 - probability_of_speed(first, second))


def test_of_equally_good_cohorts_a_pair_is_compared_in_the_newest(tmp_path):
    newer, older = list(reversed(timings("new", ["steady"] * 2, 2))), timings("old", ["steady"] * 2, 1)
    for cohorts in ((newer, older), (older, newer)):
        first, second = trials(*cohorts)
        assert probability_of_speed(first, second) < 0.01


def test_networks_that_never_shared_rounds_are_compared_by_the_timings_that_count(tmp_path):
    first = dataclasses.replace(timings("a", ["steady"], 1)[0], cohort="a")
    second = dataclasses.replace(timings("b", ["steady", "steady"], 1)[1], cohort="b")
    pair = (
        trials(
            [first],
        )[0],
        trials([first, second])[1],
    )
    assert 0.5 < probability_of_speed(*pair) < 0.9


def test_the_manifest_survives_a_changed_calibration_with_all_its_hashes(tmp_path):
    manifest = build_manifest("s")
    changed = dataclasses.replace(manifest, calibrations={LABEL: build_calibration(1569.0)})
    assert changed.plan_hash == manifest.plan_hash
    assert type(changed).from_yaml(changed.to_yaml()) == changed
