"""Brief timings of a search with the sampler hilo, as all other parts of the package see them."""

import dataclasses
import json

import pytest
from builders import (
    build_arch,
    build_calibration,
    build_condition,
    build_device,
    build_manifest,
    build_measurement,
    build_record,
    fresh,
)
from fakes import RESOURCES, write_timed_study

from hilo_nas import export_files
from hilo_nas.cli import main
from hilo_nas.errors import StudyMismatchError, UsageError
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.searching.finalists.quiet_moments import QuietRemeasurement
from hilo_nas.searching.opening.copied_results import check_timings, copy_scored, copy_timed, write_copies
from hilo_nas.searching.sampling.optuna_study import impute
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.csv_files import render_front, render_trials
from hilo_nas.study.front import Front
from hilo_nas.study.records import Subject, forms_under
from hilo_nas.study.stored_study import open_study
from hilo_nas.surrogate.observations import know_networks

PLAIN = build_space("digits", {**load_space("litv2_digits").to_dict(), "anchors": {}})
TRAINED = [build_arch(i) for i in (0, 3, 7)]
BRIEF = [build_arch(i) for i in (15, 27, 29)]
"""Networks that were only timed briefly, as trials 3 to 5."""
LATER = "2027-01-01T00:00:00+00:00"
BUSY = {
    "cores": 2,
    "others_cores": 1.0,
    "quietest": {"others_cores": 1.0},
    "with": [{"pid": 1234, "name": "python", "cores": 1.0}],
}


def ignore(event):
    """Receives an event."""


@pytest.fixture
def study(tmp_path, machine, monkeypatch):
    """A study with three trained networks and three that were timed briefly."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    study = write_timed_study(tmp_path, machine, TRAINED, space=PLAIN, sampler="hilo", trials=3)
    for number, arch in enumerate(BRIEF, start=3):
        study.write(timed_briefly(number, arch, machine.time(Subject(arch=arch), study.manifest.objective)))
    return fresh(study)


def timed_briefly(number, arch, timing, **fields):
    return build_record(
        number,
        value=None,
        arch=arch,
        state="timed",
        params=PLAIN.encode(arch),
        origin="sampler",
        measurements=(dataclasses.replace(timing, is_preliminary=True, seconds=1.5),),
        started_at=None,
        finished_at=None,
        seconds=1.5,
        **fields,
    )


def briefly_timed(study):
    return [record for record in fresh(study).records if record.is_timed_briefly]


# Results.


def test_a_brief_timing_is_on_no_front_even_with_a_score():
    record = build_record(0, measurements=(build_measurement(is_preliminary=True),))
    front = Front.from_records([record, build_record(1, 500.0, 0.4)])
    assert [member.number for member in front.members] == [1]
    assert [own.number for own in front.candidates] == [1]


def test_a_full_timing_comes_before_a_later_brief_one_of_another_form():
    full = build_measurement(1000.0)
    brief = build_measurement(1300.0, is_preliminary=True, measured_at=LATER, form="litv2/2")
    for order in ((full, brief), (brief, full)):
        (record,) = read_timings([build_record(0, measurements=order)], build_manifest())
        assert [timing.is_preliminary for timing in record.measurements] == [False, True]
        assert record.full_measurements == record.measurements[:1]
        assert not record.is_timed_briefly


def test_the_form_of_a_brief_timing_does_not_make_a_study_differ():
    brief = build_measurement(form="litv2/0", is_preliminary=True)
    records = [build_record(0), build_record(1, measurements=(brief,), state="timed")]
    assert forms_under(build_condition().label(), records) == {build_measurement().form}


def test_an_estimated_speed_is_that_of_a_full_timing():
    brief = build_record(1, 10.0, None, measurements=(build_measurement(10.0, is_preliminary=True),), state="timed")
    assert impute([build_record(0, 900.0), brief], chance_top1=0.1)["images_per_s"] == 900.0


def test_csv_files_mark_brief_timings(study):
    lines = [line.split(",") for line in render_trials(study.front()).splitlines()]
    column = lines[0].index("is_preliminary")
    assert [line[column] for line in lines[1:]] == ["False"] * 3 + ["True"] * 3
    assert len(render_front(study.front(), ties=True).splitlines()) <= 4


def test_the_status_counts_networks_that_were_timed_ahead_and_their_seconds(study, capsys):
    assert main(["status", study.name, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["measured"], content["timed_ahead"]) == (3, 3)
    assert content["states"] == {"complete": 3, "timed": 3}
    assert content["timing_s"] == 3 * 2.5 + 3 * 1.5
    assert sum(content["verdicts"].values()) == 3
    assert main(["status", study.name]) == 0
    text = capsys.readouterr().out
    assert "3 networks ahead" in text
    assert "3 timed" not in text


def test_an_export_for_optuna_marks_brief_timings(study, tmp_path):
    import optuna

    export_files(study, tmp_path / "out", format="optuna")
    storage = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    trials = optuna.load_study(study_name=study.name, storage=storage).get_trials()
    assert [trial.user_attrs.get("is_preliminary") for trial in trials] == [None] * 3 + [True] * 3
    assert all(trial.values is None for trial in trials[3:])


def test_a_record_names_a_brief_timing_as_such(study):
    first, *_, last = study.records
    assert "brief" not in repr(first)
    assert "brief" in repr(last)


# Timing again.


def test_timing_everything_again_leaves_brief_timings_out(study, machine):
    run_remeasure(RemeasureRequest(study=study.name, everything=True), ignore)
    assert [len(keys) for _, keys, _ in machine.cohorts] == [3]
    assert [record.key for record in briefly_timed(study)] == [arch.key() for arch in BRIEF]


def test_a_change_of_software_discards_brief_timings_and_the_study_can_be_resumed(study, machine):
    machine.form = "litv2/2"
    request = SearchConfig.of(study=study.name, trials=1, remeasure=False)
    with pytest.raises(StudyMismatchError):
        run_search(request, ignore)
    run_remeasure(RemeasureRequest(study=study.name), ignore)
    assert [len(keys) for _, keys, _ in machine.cohorts] == [3]
    ahead = fresh(study).records[3:]
    assert [(record.state, record.measurements, record.violations) for record in ahead] == [("timed", (), {})] * 3
    assert run_search(request, ignore)[1].measured == 4


def test_a_study_of_another_device_has_no_networks_that_were_only_timed_briefly(study, machine):
    machine.device_of["cuda"] = build_device(kind="cuda", model="Test GPU")
    run_remeasure(RemeasureRequest(study=study.name, device="cuda", into="there"), ignore)
    assert {record.key for record in open_study("there").records} == {arch.key() for arch in TRAINED}


def test_a_contended_brief_timing_is_not_repeated(study, machine):
    machine.load = BUSY
    busy = machine.time(Subject(arch=build_arch(31)), study.manifest.objective)
    assert busy.contention is not None
    study.write(timed_briefly(6, build_arch(31), busy))
    events = []
    moments = QuietRemeasurement(
        study, study.manifest, machine, RESOURCES, events.append, began=0.0, clock=lambda: 1e6, sleep=ignore
    )
    machine.load = {}
    assert not moments.remeasure_if_quiet(study.records)
    moments.wait_and_remeasure()
    assert machine.cohorts == []
    assert events == []


def test_a_new_calibration_changes_which_briefly_timed_networks_meet_a_limit(study):
    slow = build_calibration(128.0)
    manifest = dataclasses.replace(study.manifest, limits={"images_per_s": 800.0})
    label = manifest.objective.label()
    found = {}
    for name, calibration in {"old": manifest.calibrations[label], "new": slow}.items():
        changed = dataclasses.replace(manifest, calibrations={label: calibration})
        records = read_timings(study.records, changed)
        found[name] = [network.violations["images_per_s"] > 0 for network in know_networks(records, changed)]
    assert found == {"old": [False] * 6, "new": [False, True, True, True, True, True]}


# Copies.


def test_copied_timings_are_full_ones(study, machine):
    timing = machine.time(Subject(arch=build_arch(31)), study.manifest.objective)
    full = dataclasses.replace(
        timed_briefly(6, build_arch(31), timing), measurements=(dataclasses.replace(timing, is_preliminary=False),)
    )
    study.write(full)
    copies = copy_timed(study, study.manifest)
    assert [copy.key for copy in copies] == [*(arch.key() for arch in TRAINED), full.key]


def test_a_study_with_brief_timings_only_cannot_be_the_source_of_timings(tmp_path, machine):
    study = write_timed_study(tmp_path, machine, [], space=PLAIN)
    study.write(timed_briefly(0, BRIEF[0], machine.time(Subject(arch=BRIEF[0]), study.manifest.objective)))
    with pytest.raises(UsageError, match="timings under all its conditions"):
        check_timings(fresh(study), PLAIN)


def test_a_copied_full_timing_replaces_a_brief_one(study, tmp_path, machine):
    other = write_timed_study(tmp_path, machine, BRIEF[:1], "other", space=PLAIN)
    forms = {study.manifest.objective.label(): machine.form}
    write_copies(study, copy_scored(other, study.manifest, forms), ignore)
    record = fresh(study).records[3]
    assert (record.number, record.key, record.state) == (3, BRIEF[0].key(), "waiting")
    assert [timing.is_preliminary for timing in record.measurements] == [False]
