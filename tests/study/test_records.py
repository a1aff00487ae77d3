"""Trial records: the truth survives JSON, old files survive a failed write, and torn ones are named."""

import json
import os
import stat
from pathlib import Path

import pytest
from builders import build_arch, build_failed, build_infeasible, build_interrupted, build_record, build_score, records
from full_disk import run_on_full_disk
from hypothesis import HealthCheck, given, settings

from hilo_nas.errors import RecordError, StorageError
from hilo_nas.measurement import mean_score
from hilo_nas.study.records import (
    SCHEMA_VERSION,
    Subject,
    TrialRecord,
    load_records,
    write_atomically,
    write_record,
)
from hilo_nas.study.states import TrialState


def stored(tmp_path: Path, **changes) -> Path:
    """A record on disk whose fields were changed by hand; None takes a field away."""
    fields = {**build_record(3).to_dict(), **changes}
    path = tmp_path / "0003.json"
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records)
def test_records_survive_json(record):
    assert TrialRecord.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record


def test_records_survive_the_disk(tmp_path):
    written = [build_record(2), build_failed(10), build_infeasible(0), build_record(1)]
    written.append(TrialRecord(number=7, subject=Subject(timm="resnet18"), state="failed", reason="too slow"))
    for record in written:
        path = write_record(tmp_path, record)
        assert path.name == f"{record.number:04d}.json"
    assert load_records(tmp_path) == sorted(written, key=lambda record: record.number)


def test_records_come_in_the_order_of_their_numbers_beyond_four_digits(tmp_path):
    for number in (10000, 9999, 2):
        write_record(tmp_path, build_record(number, arch=build_arch(number % 32)))
    assert [record.number for record in load_records(tmp_path)] == [2, 9999, 10000]


def test_an_absent_folder_has_no_records(tmp_path):
    assert load_records(tmp_path / "trials") == []


def test_half_written_files_are_not_records(tmp_path):
    write_record(tmp_path, build_record(0))
    (tmp_path / ".0001.json.abc.tmp").write_text('{"half": ')
    assert [record.number for record in load_records(tmp_path)] == [0]


def test_a_record_starts_with_schema_version_number_and_key(tmp_path):
    text = write_record(tmp_path, build_record(3)).read_text()
    assert list(json.loads(text))[:3] == ["schema_version", "number", "key"]
    assert text.endswith("}\n")


def test_the_old_origin_of_a_baseline_is_read():
    record = build_record(origin="baseline:resnet18", subject=Subject(timm="resnet18"))
    fields = {**record.to_dict(), "origin": "peer:resnet18"}
    assert TrialRecord.from_dict(fields) == record


def test_a_record_of_a_newer_version_is_refused(tmp_path):
    path = stored(tmp_path, schema_version=SCHEMA_VERSION + 1, something_new=1)
    with pytest.raises(RecordError) as caught:
        load_records(tmp_path)
    assert str(caught.value) == (
        f"{path}: schema_version must be at most {SCHEMA_VERSION}, but got {SCHEMA_VERSION + 1}: a newer hilo-nas "
        "wrote it. Upgrade hilo-nas to read this study."
    )
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("text", ["", '{"schema_version": 1, "numb', "not json", "\x00\x00\x00"])
def test_a_torn_file_is_named(tmp_path, text):
    path = tmp_path / "0003.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"0003\.json: it is not complete JSON"):
        load_records(tmp_path)


def test_bytes_that_are_no_text_are_a_torn_file(tmp_path):
    (tmp_path / "0003.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RecordError, match=r"0003\.json: .*JSON"):
        load_records(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_json_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "0003.json").write_text(text)
    with pytest.raises(RecordError, match=r"0003\.json: "):
        load_records(tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"schema_version": None}, "schema_version is missing: this is not a trial record"),
        ({"key": "0" * 12}, "the key must be "),
        ({"key": None}, "the key must be .* but got None"),
        (
            {"state": "done"},
            "state must be one of waiting, running, timed, complete, stopped, infeasible, failed, but got 'done'",
        ),
        ({"colour": "red"}, "colour"),
        ({"subject": None}, "subject is missing"),
        ({"subject": {}}, "a subject must be either an architecture or a timm name"),
        ({"subject": {"arch": {"depths": [1, 1, 1, 1]}}}, "embed_dims is missing"),
        ({"subject": 3}, "subject must be a mapping, but got 3"),
        ({"number": 4}, "the file name must be .*, but the record says 4"),
        (
            {"measurements": [{"colour": "red"}]},
            r"measurements\[0\]\.colour .* newer version",
        ),
        ({"measurements": [{"ratio": 3}]}, "condition, device, .* are missing"),
        (
            {"measurements": [{"condition": {"batch_size": 0}}]},
            r"measurements\[0\].condition.batch_size must be a whole number >= 1, but got 0",
        ),
        ({"scores": [{"value": 0.5}]}, r"scores\[0\]: plan_hash, .* are missing"),
        ({"scores": 7}, "scores must be a list, but got 7"),
    ],
)
def test_a_record_that_was_changed_is_refused_by_name(tmp_path, changes, fault):
    stored(tmp_path, **changes)
    with pytest.raises(RecordError, match=rf"(?s)0003\.json: .*{fault}"):
        load_records(tmp_path)


def test_a_record_of_a_version_that_knew_no_other_proxies_has_no_scores_of_them(tmp_path):
    stored(tmp_path)
    fields = json.loads((tmp_path / "0003.json").read_text())
    del fields["other_scores"]
    (tmp_path / "0003.json").write_text(json.dumps(fields))
    assert load_records(tmp_path) == [build_record(3)]


def test_an_unchanged_record_is_accepted(tmp_path):
    stored(tmp_path)
    assert load_records(tmp_path) == [build_record(3)]


def test_a_subject_with_its_own_image_size_is_another_network():
    small, large = Subject(timm="resnet18"), Subject(timm="resnet18", img_size=256)
    assert (small.key, large.key) == ("timm:resnet18", "timm:resnet18@256")
    assert large.to_dict() == {"timm": "resnet18", "img_size": 256}
    assert Subject.from_dict(large.to_dict()) == large
    with pytest.raises(RecordError, match="img_size must be a whole number >= 1, but got 0"):
        Subject.from_dict({"timm": "resnet18", "img_size": 0})


def test_a_subject_is_an_architecture_or_a_timm_network():
    assert Subject(timm="resnet18").key == "timm:resnet18"
    assert Subject(arch=build_arch()).key == build_arch().key()
    for subject in (Subject(timm="resnet18"), Subject(arch=build_arch())):
        assert Subject.from_dict(subject.to_dict()) == subject
    for nothing in ({}, {"arch": build_arch(), "timm": "resnet18"}):
        with pytest.raises(RecordError, match="either an architecture or a timm name"):
            Subject(**nothing)


def test_only_trials_that_ended_without_failing_count_as_measured():
    measured = {state for state in TrialState if build_record(0, state=state).is_measured}
    assert measured == {"complete", "stopped", "infeasible"}


def test_an_interrupted_trial_is_told_from_a_failed_one():
    assert build_interrupted(0).is_interrupted
    assert not build_failed(0, "interrupted before it finished").is_interrupted  # texts are for people


def test_the_number_that_an_earlier_version_repeated_is_passed_over():
    record = build_record(8)
    assert TrialRecord.from_dict({**record.to_dict(), "retry_of": 7}) == TrialRecord.from_dict(record.to_dict())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"state": "failed", "reason": "interrupted before it finished: the disk was full"}, {"is_interrupted": True}),
        ({"state": "failed", "reason": "the worker died"}, {"is_interrupted": False}),
        ({"state": "infeasible", "reason": "interrupted before it finished"}, {"is_interrupted": False}),
        ({"state": "stopped", "reason": "due again: the budget was raised"}, {"is_raised": True}),
        ({"state": "complete", "origin": "retry:7"}, {"origin": "sampler"}),
        ({"state": "complete", "origin": "anchor:retry:7"}, {"origin": "anchor:retry:7"}),
    ],
)
def test_texts_of_earlier_versions_become_fields(old, new):
    fields = {**build_record(8, None, None).to_dict(), "schema_version": 1, **old}
    for name in ("is_interrupted", "is_raised"):
        del fields[name]
    record = TrialRecord.from_dict(fields)
    assert {name: getattr(record, name) for name in new} == new
    assert TrialRecord.from_dict(record.to_dict()) == record


def test_a_record_without_results_has_none():
    record = build_failed(0)
    assert record.measurement is None
    assert record.score is None


def test_the_score_that_counts_is_the_one_after_the_most_images_whatever_the_order():
    rungs = [build_score(top1, images_seen=images) for images, top1 in ((320, 0.3), (3008, 0.6), (1024, 0.7))]
    record = build_record(0, scores=tuple(rungs))
    assert record.score == rungs[1]
    assert [record.score_at(images) for images in (320, 1024, 3008)] == [rungs[0], rungs[2], rungs[1]]
    assert record.score_at(1000) is None


def test_seeds_count_together_where_they_saw_as_many_images():
    scores = (
        build_score(0.1, images_seen=320),
        build_score(0.50, images_seen=3008, seed=0),
        build_score(0.54, images_seen=3008, seed=1),
        build_score(0.9, images_seen=320, seed=1),
    )
    record = build_record(0, scores=scores)
    assert record.score == mean_score(scores[1:3])
    assert (record.score.value, record.score.seeds) == (pytest.approx(0.52), 2)
    assert record.score_at(320) == mean_score([scores[0], scores[3]])
    assert record.scores == scores  # single ones are what is kept
    assert TrialRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_stopped_trial_has_the_score_of_its_last_rung():
    record = build_record(0, state="stopped", scores=(build_score(0.2, images_seen=320),))
    assert TrialRecord.from_dict(record.to_dict()) == record
    assert record.is_measured
    assert record.score.images_seen == 320


def test_a_score_stored_before_there_were_seeds_is_of_one(tmp_path):
    scores = build_record(3).to_dict()["scores"]
    del scores[0]["seeds"]
    stored(tmp_path, scores=scores)
    (record,) = load_records(tmp_path)
    assert record.score.seeds == 1


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with path.open() as reader:  # an open reader still sees the old file, never a mixture
        write_atomically(path, "new ± é")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new ± é"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_is_written_as_far_as_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize("place", ["gone", "file"])
def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path, place):
    (tmp_path / "file").write_text("I am no folder")
    path = tmp_path / place / "0000.json"
    with pytest.raises(StorageError) as caught:
        write_atomically(path, "x")
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "choose a writable folder" in str(caught.value)
    assert (tmp_path / "file").read_text() == "I am no folder"


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "0000.json"
    path.write_text("old")
    said = run_on_full_disk(
        """
        import sys
        from pathlib import Path
        from hilo_nas.errors import StorageError
        from hilo_nas.study.records import write_atomically
        # full
        try:
            write_atomically(Path(sys.argv[1]), "x" * 100_000)
        except StorageError as error:
            print(error)
        """,
        path,
    )
    assert said.startswith(f"cannot write {path}: File too large. Free some space")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_json_cannot_say_is_not_half_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_record(tmp_path, build_record(0, violations={"params_m": float("nan")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ({"others_cores": -1}, r"device_state\.others_cores must be a number >= 0.0, but got -1"),
        (
            {"others_cores": 1, "quietest": {"steal_cores": "x"}},
            r"device_state\.quietest\.steal_cores must be",
        ),
        ({"others_cores": 1, "quietest": {}}, r"device_state\.quietest\.others_cores is missing"),
        ({"with": [{"pid": 1, "name": "x", "cores": "y"}]}, r"device_state\[0\]\.cores must be a number"),
        ({"throttle_reasons": "hot"}, r"device_state\.throttle_reasons must be a list"),
    ],
)
def test_what_a_device_said_of_itself_has_the_types_that_readers_rely_on(state, fault):
    fields = build_record(3).to_dict()
    fields["measurements"][0]["device_state"] = state
    with pytest.raises(RecordError, match=fault):
        TrialRecord.from_dict(fields)
