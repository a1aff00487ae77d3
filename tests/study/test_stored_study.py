"""A study's folder: found by name or path, read without a lock, refused with the way out."""

import csv
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders import (
    build_arch,
    build_calibration,
    build_condition,
    build_device,
    build_failed,
    build_infeasible,
    build_manifest,
    build_measurement,
    build_record,
    build_score,
    demo_records,
    fresh,
    records,
    write_study,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilo_nas.errors import NotFoundError, RecordError, StorageError, TrialStateError, UsageError
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.front import Front
from hilo_nas.study.local_settings import Local, load_local, write_local
from hilo_nas.study.pareto import dominates
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import (
    STUDIES_VARIABLE,
    StoredStudy,
    new_study,
    open_study,
    slug,
    studies_folder,
)


def told(some):
    """The records as they are read: timings in the order in which they count, scores with what guessing would give."""
    manifest = build_manifest()
    return [manifest.interpret_scores(record) for record in read_timings(some, manifest)]


@pytest.fixture(autouse=True)
def folder_of_studies(tmp_path, monkeypatch):
    monkeypatch.setenv(STUDIES_VARIABLE, str(tmp_path / "studies"))
    return tmp_path / "studies"


@pytest.fixture
def studies(tmp_path):
    """Three studies: two of similar names, and one elsewhere."""
    for name in ("my-gpu", "my-cpu"):
        write_study(tmp_path / "studies", name, demo_records())
    write_study(tmp_path / "elsewhere", "other")
    return tmp_path / "studies"


def test_a_study_is_found_by_its_name(studies):
    folder = open_study("my-gpu")
    assert folder.path == studies / "my-gpu"
    assert folder.name == "my-gpu"
    assert fresh(folder).manifest == build_manifest("my-gpu")
    assert list(fresh(folder).records) == told(demo_records())


def test_a_study_is_found_by_its_path(studies, tmp_path, monkeypatch):
    assert open_study(str(tmp_path / "elsewhere" / "other")).name == "other"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_study("other").name == "other"
    monkeypatch.chdir(tmp_path / "elsewhere" / "other")
    assert open_study(".").name == "other"


def test_an_unknown_study_is_answered_with_near_names(studies):
    with pytest.raises(NotFoundError) as caught:
        open_study("mygpu")
    assert str(caught.value).startswith(f"no study 'mygpu' in {studies}. Did you mean my-gpu")
    assert caught.value.exit_code == 2


def test_an_unknown_study_that_resembles_none_is_answered_with_those_there_are(studies):
    with pytest.raises(NotFoundError, match="Did you mean my-cpu or my-gpu"):
        open_study("zzzzzzzz")


@pytest.mark.parametrize("exists", [True, False])
def test_where_there_is_no_study_the_way_to_one_is_told(folder_of_studies, exists):
    if exists:
        folder_of_studies.mkdir()
    with pytest.raises(NotFoundError, match=r"no study 'any' in .*`hilo-nas search`"):
        open_study("any")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_disk_can_hold_is_no_study(name):
    with pytest.raises(NotFoundError, match="no study"):
        open_study(name)


def test_a_folder_without_a_manifest_is_no_study(folder_of_studies):
    (folder_of_studies / "rest" / "trials").mkdir(parents=True)
    assert not StoredStudy(folder_of_studies / "rest").exists
    with pytest.raises(NotFoundError):
        open_study("rest")


def test_studies_lie_where_the_environment_says_else_here(tmp_path, monkeypatch):
    monkeypatch.delenv(STUDIES_VARIABLE, raising=False)
    assert str(studies_folder()) == "studies"
    monkeypatch.setenv(STUDIES_VARIABLE, str(tmp_path / "mine"))
    assert STUDIES_VARIABLE == "HILO_NAS_STUDIES_DIR"
    assert studies_folder() == tmp_path / "mine"
    monkeypatch.setenv(STUDIES_VARIABLE, "")
    assert str(studies_folder()) == "studies"


def test_the_environment_moves_where_studies_are_found(studies, monkeypatch):
    monkeypatch.setenv(STUDIES_VARIABLE, str(studies))
    assert open_study("my-gpu").path == studies / "my-gpu"
    assert new_study("new").path == studies / "new"


@pytest.mark.parametrize(
    "name",
    [
        "a/",
        "/",
        "..",
        ".",
        "",
        "a\\b",
        "a\0b",
        " padded",
        "padded ",
        "../..",
        "*",
        "a\nb",
        "a\x1b[31m",
        "-rf",
        "$(x)",
        "[/x]",
    ],
)
def test_a_new_study_needs_the_name_of_a_folder(name):
    with pytest.raises(UsageError) as caught:
        new_study(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("path", ["a/b", "/abs/b", "../up", "./b"])
def test_a_new_study_may_be_named_by_its_path(path):
    assert new_study(path).path == Path(path)


@pytest.mark.parametrize(
    "name", ["my-gpu", "a b", "2026.07", "größer", "gro\u0308\u00dfer", "漢字", ".hidden", "a,b=c@d+e"]
)
def test_a_new_study_may_have_any_folder_name(folder_of_studies, name):
    folder = new_study(name)
    assert folder.path == folder_of_studies / name
    assert not folder.exists
    assert not folder.path.exists()


def test_reading_a_study_writes_nothing(studies):
    def listing():
        return {path: path.stat().st_mtime_ns for path in studies.rglob("*")}

    before = listing()
    folder = open_study("my-gpu")
    _ = fresh(folder).manifest
    StoredStudy(folder.path).record(2)
    load_local(folder.local_path)
    assert StoredStudy(folder.path).front().probabilities()
    assert listing() == before


def test_a_complete_trial_is_loaded_by_its_number(studies):
    stored = demo_records()[3]
    read = open_study("my-gpu").record(3)
    assert dataclasses.replace(read, scores=stored.scores) == stored  # reading adds the chance to a score


def test_a_trial_that_is_not_in_the_study_is_refused_with_those_that_are(studies, tmp_path):
    with pytest.raises(NotFoundError) as caught:
        open_study("my-gpu").record(7)
    assert str(caught.value) == "study my-gpu has no trial 7: its trials are 0 to 6"
    with pytest.raises(NotFoundError, match="study other has no trial 0: it has none yet"):
        StoredStudy(tmp_path / "elsewhere" / "other").record(0)


@pytest.mark.parametrize(
    ("number", "start"),
    [
        (5, "trial 5 of study my-gpu is infeasible (images_per_s >= 900 is a limit, but got 10)."),
        (6, "trial 6 of study my-gpu is failed (the worker died)."),
    ],
)
def test_a_trial_that_cannot_serve_is_refused_with_those_that_can(studies, number, start):
    with pytest.raises(TrialStateError) as caught:
        open_study("my-gpu").record(number)
    assert str(caught.value) == start + " Trials on the front: 4, 3, 2."
    assert caught.value.exit_code == 2


def test_a_trial_that_cannot_serve_where_none_can_is_refused_without_a_way(tmp_path):
    folder = write_study(tmp_path, "s", [build_failed(0), build_record(1, None, None, state="running")])
    with pytest.raises(TrialStateError, match=r"^trial 0 of study s is failed \(the worker died\)\.$"):
        StoredStudy(folder.path).record(0)
    with pytest.raises(TrialStateError, match=r"^trial 1 of study s is running\.$"):
        StoredStudy(folder.path).record(1)


def test_the_front_is_the_best_of_both_the_fastest_first():
    assert [record.number for record in Front.from_records(demo_records()).members] == [4, 3, 2]
    assert [record.number for record in Front.from_records(list(reversed(demo_records()))).members] == [4, 3, 2]


def test_only_complete_and_scored_trials_stand_on_the_front():
    some = [
        build_record(0, 10.0, 0.1),
        build_record(1, 9000.0, 0.9, state="infeasible"),
        build_record(2, 9000.0, 0.9, state="running"),
        build_record(3, 9000.0, None),
        build_record(4, None, 0.9),
        build_infeasible(5, 9000.0, imputed={"value": 0.99}),
        build_failed(6),
    ]
    assert [record.number for record in Front.from_records(some).members] == [0]
    assert Front.from_records(some[1:]).members == ()
    assert Front.from_records([]).members == ()


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=8))
def test_no_trial_of_the_front_is_beaten(pairs):
    some = [build_record(i, float(speed), top1 / 6) for i, (speed, top1) in enumerate(pairs)]
    front = [(r.measurement.images_per_s, r.score.value) for r in Front.from_records(some).members]
    assert front == sorted(front, key=lambda point: -point[0])
    assert bool(front) == bool(some)
    for record in some:
        point = (record.measurement.images_per_s, record.score.value)
        assert (point in front) != any(dominates(other, point) for other in front)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, max_size=3, unique_by=lambda record: record.number))
def test_a_study_survives_the_disk(tmp_path_factory, some):
    folder = write_study(tmp_path_factory.mktemp("studies"), "s", some)
    assert list(fresh(folder).records) == told(sorted(some, key=lambda record: record.number))
    assert fresh(folder).manifest == build_manifest("s")


def test_a_manifest_that_cannot_be_understood_is_named(studies):
    path = studies / "my-gpu" / "manifest.yaml"
    path.write_text("schema_version: 99\n")
    with pytest.raises(RecordError) as caught:
        _ = fresh(open_study("my-gpu")).manifest
    assert str(caught.value).startswith(f"{path}: schema_version must be at most 3, but got 99: a newer hilo-nas")


def test_a_manifest_that_is_no_text_is_named(studies):
    (studies / "my-gpu" / "manifest.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RecordError, match=r"manifest\.yaml: it is not UTF-8 .*Repair the study: hilo-nas repair"):
        _ = fresh(open_study("my-gpu")).manifest


def test_a_torn_record_is_named(studies):
    path = studies / "my-gpu" / "trials" / "0002.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(RecordError, match=r"0002\.json: .*JSON"):
        _ = fresh(open_study("my-gpu")).records


def test_a_manifest_that_is_gone_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*manifest\.yaml: No such file"):
        _ = StoredStudy(tmp_path).manifest


def test_what_is_local_is_kept_apart_and_may_be_missing(tmp_path):
    folder = write_study(tmp_path, "s")
    assert load_local(folder.local_path) == Local()
    write_local(folder.local_path, {"data.source": "/data/cifar", "proxy.name": None})
    assert load_local(folder.local_path) == Local(values={"data.source": "/data/cifar"})
    assert yaml.safe_load((folder.path / "local.yaml").read_text())["data"] == "/data/cifar"
    assert "/data" not in folder.manifest_path.read_text()


def test_a_record_may_gain_a_measurement_later(tmp_path):
    folder = write_study(tmp_path, "s", [build_record(0, None, None, state="running")])
    finished = build_record(0, arch=build_arch(0))
    fresh(folder).write(finished)
    assert list(fresh(folder).records) == told([finished])


def test_of_several_measurements_those_count_that_the_manifest_says(tmp_path):
    """In the file the newest come first; those under other software than the manifest's are of a cut-off re-timing."""
    single = build_condition(batch_size=1)
    new = build_device(torch="3.0.0")
    timed = [
        build_measurement(4.0, device=new),
        build_measurement(3.0, device=new, condition=single),
        build_measurement(2.0, condition=single),
        build_measurement(1.0),
    ]
    record = build_record(0, measurements=tuple(timed))
    folder = write_study(tmp_path, "s", [record], build_manifest("s", conditions=(build_condition(), single)))
    (loaded,) = fresh(folder).records
    assert [m.images_per_s for m in loaded.measurements] == [1.0, 2.0, 4.0, 3.0]
    assert {label: m.images_per_s for label, m in loaded.measurements_by_condition().items()} == {
        "cpu-b32-32px-fp32": 1.0,
        "cpu-b1-32px-fp32": 2.0,
    }
    fresh(folder).write_manifest(build_manifest("s", conditions=(build_condition(), single), device=new))
    assert StoredStudy(folder.path).record(0).measurement.images_per_s == 4.0


def test_of_measurements_under_equal_facts_the_one_written_first_counts(tmp_path):
    record = build_record(0, measurements=(build_measurement(2.0), build_measurement(1.0)))
    folder = write_study(tmp_path, "s", [record])
    assert list(fresh(folder).records) == told([record])


def test_a_study_is_read_without_torch_and_optuna(studies):
    child = """
import sys
from pathlib import Path
from hilo_nas.study.stored_study import open_study
study = open_study(Path(sys.argv[1]) / "my-gpu")
study.manifest
loaded = [name for name in ("torch", "timm", "optuna", "pandas") if name in sys.modules]
print(len(study.front().members), *loaded)
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", child, str(studies)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["3"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("my gpu-1.2+x=@,é", "my gpu-1.2+x=@,é"),
        ("../../../etc/passwd", "_.._.._etc_passwd"),
        ("..", "_"),
        ("-rf", "rf"),
        ("a\nb\x1b[2Jc\0", "a_b_2Jc_"),
        ("", "_"),
        ("é" * 200, "é" * 80),
    ],
)
def test_a_strangers_name_is_a_safe_part_of_a_files_name(name, safe):
    assert slug(name) == safe


def test_a_study_is_opened_by_its_name_or_its_folder(studies):
    study = open_study("my-gpu")
    assert study.path == open_study(studies / "my-gpu").path
    assert (study.manifest, study.records) == (fresh(study).manifest, fresh(study).records)
    with pytest.raises(NotFoundError, match="Did you mean my-gpu"):
        open_study("mygpu")


def test_a_study_is_loaded_once(studies):
    study = open_study("my-gpu")
    manifest, front = study.manifest, study.front()
    shutil.rmtree(study.path)
    assert [record.number for record in study.front().members] == [4, 3, 2]
    assert study.front() is front
    assert study.manifest is manifest


def test_the_objective_is_the_condition_of_a_front_unless_another_is_named(tmp_path):
    single = build_condition(batch_size=1)
    timings = (build_measurement(1000.0), build_measurement(10.0, condition=single))
    records = [build_record(0, measurements=timings), build_record(1, 900.0, 0.6)]
    study = StoredStudy(
        write_study(tmp_path, "s", records, build_manifest("s", conditions=(build_condition(), single))).path
    )
    assert study.front(build_condition().label()) is study.front()
    assert [len(study.front(label).members) for label in (None, single.label())] == [2, 1]
    with pytest.raises(UsageError, match=f"condition must be one of .*{single.label()}, but got 'batch'"):
        study.front("batch")


def retimed(record, cohort, speed, minute, verdict):
    """The record with a further timing, taken with others, that comes first."""
    reference = build_measurement().reference_seconds[0]
    rounds = [32 / speed * (1.5 if verdict == "bursty" and i % 3 == 0 else 1.0) for i in range(16)]
    timing = build_measurement(
        speed,
        cohort=cohort,
        call_seconds=tuple(rounds),
        reference_seconds=(reference,) * 16,
        measured_at=f"2026-07-02T12:{minute:02d}:00+00:00",
    )
    return dataclasses.replace(record, measurements=(timing, *record.measurements))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 8),
            st.sampled_from(["new", "complete", "running", "a", "b", "c"]),
            st.sampled_from(["steady", "bursty"]),
            st.sampled_from([700.0, 950.0, 1200.0]),
        ),
        max_size=8,
    )
)
def test_what_was_written_is_what_another_process_reads(tmp_path_factory, steps):
    study = StoredStudy(write_study(tmp_path_factory.mktemp("studies"), "s", demo_records()).path)
    study.front()
    for minute, (number, step, verdict, speed) in enumerate(steps):
        known = {record.number: record for record in study.records}
        record = known.get(number) or build_record(number, None, None, state="running", arch=build_arch(number + 9))
        if step == "complete":
            record = dataclasses.replace(record, state=TrialState.COMPLETE, scores=(build_score(0.7),))
        elif step == "running":
            record = dataclasses.replace(record, state=TrialState.RUNNING)
        elif step in "abc":
            record = retimed(record, step, speed, minute, verdict)
        study.write(record)
        if step == "new":
            calibration = build_calibration(320.0 + 10 * minute)
            study.write_manifest(build_manifest("s", calibrations={build_condition().label(): calibration}))
    other = StoredStudy(study.path)
    assert study.records == other.records
    assert study.manifest == other.manifest
    assert study.front().members == other.front().members
    assert study.front().ties == other.front().ties


def test_csv_files_are_kept_while_a_study_is_written_and_after_an_error(tmp_path):
    study = StoredStudy(write_study(tmp_path, "s", demo_records()).path)

    def cells(column):
        with (study.path / "front.csv").open(newline="") as file:
            return [row[column] for row in csv.DictReader(file)]

    def search():
        with study.keeping_csv_files():
            assert (cells("number"), set(cells("on_front_probability"))) == (["4", "3", "2"], {""})
            study.write(build_record(7, 5000.0, 0.99))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    assert (cells("number"), cells("on_front_probability")) == (["7"], ["1.0"])
