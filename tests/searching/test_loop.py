import dataclasses
import itertools
import json
import os
import signal
import time

import pytest
from builders import TINY, build_manifest, fresh, write_study
from fakes import RESOURCES, FakeMachine, speed

from hilo_nas.errors import (
    DeviceError,
    HiloNasError,
    NotEnoughMemoryError,
    StorageError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerHungError,
)
from hilo_nas.events import FrontChanged, Notice, TrialFinished, TrialStarted
from hilo_nas.measurement import PROTOCOL
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.tasks.signals import defer_signals
from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import SCHEMA_VERSION, Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

SMALL = {
    "patch_size": [2],
    "embed_dims": [8, 16],
    "depths": [[1], [1], [1, 2], [1]],
    "head_dim": [8],
    "attention": [["none"], ["none"], ["hilo"], ["hilo"]],
    "alpha": [0.5],
    "window_size": [[1], [1], [2], [1]],
    "mlp_ratios": [2],
}
"""Four networks."""


def run(folder, machine=None, *, study=None, trials=None, events=None, timeout_s=None, clock=None, **changes):
    """Runs the study's loop as another process would: from what is on disk, unless its open study is given."""
    manifest = dataclasses.replace(fresh(folder).manifest, **changes)
    if trials is not None:
        manifest = dataclasses.replace(manifest, trials=trials)
    machine = machine or FakeMachine()
    emit = events.append if events is not None else (lambda event: None)
    options = {"clock": clock} if clock else {}
    loop = SearchLoop(study or fresh(folder), manifest, machine, RESOURCES, emit, **options)
    return loop.run(timeout_s=timeout_s), machine


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path, manifest=build_manifest(sampler="random"))


def small_study(tmp_path, **changes):
    space = build_space("small", {**SMALL, **changes})
    return write_study(tmp_path, manifest=build_manifest(space=space, sampler="random"))


def keys(folder):
    return [record.key for record in fresh(folder).records]


def test_four_and_four_trials_are_eight_networks_numbered_in_order(folder):
    run(folder, trials=4)
    first = keys(folder)
    finished, machine = run(folder, trials=8)
    assert keys(folder)[:4] == first
    assert [record.number for record in fresh(folder).records] == list(range(8))
    assert len(set(keys(folder))) == 8
    assert (finished.measured, finished.stopped_by) == (8, "total")
    assert len(machine.measured) == 4


def test_anchors_come_first_and_are_marked(folder):
    run(folder, trials=2)
    first, second = fresh(folder).records
    assert (first.origin, first.key, second.origin) == ("anchor:litv2_tiny", TINY.key(), "sampler")


def test_a_record_is_on_disk_as_running_before_anything_is_spent(folder):
    seen = []

    def look(verb, count):
        records = fresh(folder).records
        seen.append((verb, len(records), records[-1].state, len(records[-1].measurements)))

    run(folder, FakeMachine(look), trials=2)
    assert seen == [
        ("measure", 1, "running", 0),
        ("score", 1, "running", 1),
        ("measure", 2, "running", 0),
        ("score", 2, "running", 1),
    ]


def test_a_failed_trial_has_its_reason_and_does_not_count(folder):
    # The fake counts calls that returned; a task whose worker is lost is repeated once.
    failures = []

    def happen(verb, count):
        if verb == "score" and count == 1 and len(failures) < 2:
            failures.append(1)
            raise WorkerDiedError("it was killed by signal 11")

    events = []
    finished, _ = run(folder, FakeMachine(happen), trials=3, events=events)
    records = fresh(folder).records
    assert [record.state for record in records] == ["complete", "failed", "complete", "complete"]
    assert records[1].reason == "worker died: it was killed by signal 11"
    assert records[1].measurement is not None
    assert finished.measured == 3
    assert len(set(keys(folder))) == 4  # a network that failed is not tried again
    assert [event.state for event in events if isinstance(event, TrialFinished)][1] == "failed"


def test_one_failure_after_the_other_ends_the_search_with_the_reason(folder):
    def always(verb, count):
        raise WorkerDiedError("no luck")

    with pytest.raises(HiloNasError) as caught:
        run(folder, FakeMachine(always), trials=20)
    assert str(caught.value) == (
        "5 consecutive trials failed with the same cause, the last one with: worker died: no luck. Check this machine "
        f"with: hilo-nas doctor. The output of the workers is in {folder.logs_path}. The next search in this study "
        "tries these networks again, once. Resume with: hilo-nas search --study demo"
    )
    assert len(fresh(folder).records) == 5


def test_a_network_that_failed_twice_is_not_tried_by_later_searches(folder):
    def always(verb, count):
        raise WorkerHungError("it was silent")

    for number in range(3):
        with pytest.raises(HiloNasError) as caught:
            run(folder, FakeMachine(always), trials=20)
        said = str(caught.value)
        assert "same cause, the last one with: worker hung: it was silent. If its work is slow" in said
        assert "study.idle_timeout_s=3600" in said
        assert ("tries none of these networks again, because each failed twice" in said) == (number == 1)
    first, second = fresh(folder).records[:5], fresh(folder).records[5:]
    assert {(record.failures, record.is_interrupted) for record in first} == {(2, False)}
    assert {(record.failures, record.is_interrupted) for record in second} == {(1, True)}
    finished, machine = run(folder, trials=6)
    assert finished.measured == 6
    assert not {record.key for record in first} & set(machine.measured)


def test_failures_of_several_causes_are_counted_by_cause(folder):
    causes = iter([WorkerHungError("silent"), *[WorkerFailedError("a fault")] * 4])

    def always(verb, count):
        raise next(causes)

    with pytest.raises(HiloNasError, match=r"failed \(4 with worker failed, 1 with worker hung\), the last one with"):
        run(folder, FakeMachine(always), trials=20)


def test_networks_of_a_streak_of_failures_are_due_again(folder):
    def always(verb, count):
        raise WorkerDiedError("no luck")

    with pytest.raises(HiloNasError, match="The next search in this study tries these networks again"):
        run(folder, FakeMachine(always), trials=20)
    lost = {record.key for record in fresh(folder).records}
    assert all("worker died: no luck" in record.reason for record in fresh(folder).records)
    assert {record.failures for record in fresh(folder).records} == {1}
    run(folder, trials=6)
    assert lost < {record.key for record in fresh(folder).records if record.state == "complete"}


def test_a_gap_in_the_numbers_overwrites_no_record(folder):
    run(folder, trials=6, sampler="gp")
    (folder.trials_path / "0002.json").unlink()
    kept = fresh(folder).records
    run(folder, trials=8, sampler="gp")
    records = fresh(folder).records
    assert records[:5] == kept
    assert [record.number for record in records] == [0, 1, 3, 4, 5, 6, 7, 8]
    events = []
    run(folder, trials=9, sampler="gp", events=events)
    assert not any(isinstance(event, Notice) for event in events)  # the database agrees in spite of the gap


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_record_is_written(number):
    def stop(number, frame):
        raise KeyboardInterrupt

    steps = []

    def work():
        with defer_signals():
            steps.append("begun")
            signal.raise_signal(number)  # to this thread: another one may be given what is sent to the process
            steps.append("written")

    previous = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(number, previous)
    assert steps == ["begun", "written"]


def test_a_stop_during_the_last_write_keeps_the_score(folder):
    class SlowStudy(StoredStudy):
        def write(self, record):
            if record.scores:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
            super().write(record)

    with pytest.raises(KeyboardInterrupt):
        run(folder, study=SlowStudy(folder.path), trials=3)
    first = fresh(folder).records[0]
    assert (first.state, len(first.scores)) == ("complete", 1)
    assert run(folder, trials=2)[0].measured == 2
    assert keys(folder).count(first.key) == 1


def test_a_stop_while_the_speed_is_written_keeps_the_speed(folder):
    stopped = []

    class SlowStudy(StoredStudy):
        def write(self, record):
            super().write(record)
            if record.measurements and not stopped:
                stopped.append(record)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        run(folder, study=SlowStudy(folder.path), trials=3)
    cut = fresh(folder).records[0]
    assert (cut.is_interrupted, cut.measurements) == (True, stopped[0].measurements)
    _, machine = run(folder, trials=2)
    assert cut.key not in machine.measured


def test_out_of_memory_while_timing_is_infeasible_and_counts(folder):
    def too_big(verb, count):
        if verb == "measure" and count == 1:
            raise NotEnoughMemoryError("CUDA out of memory")

    calls = []

    def happen(verb, count):
        if verb == "measure" and count == 1 and not calls:
            calls.append(1)
            too_big(verb, count)

    run(folder, FakeMachine(happen), trials=4, sampler="gp")
    records = fresh(folder).records
    assert [record.state for record in records].count("infeasible") == 1
    assert records[1].reason == "out of memory while timing: CUDA out of memory"
    assert len(records) == 4
    assert not records[1].scores
    assert set(records[1].imputed) == {"images_per_s", "value"}


@pytest.mark.parametrize("verb", ["measure", "score"])
def test_an_interrupted_trial_keeps_what_it_measured_and_is_tried_again_first(folder, verb):
    def stop(happening, count):
        if happening == verb and count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, FakeMachine(stop), trials=4)
    cut = fresh(folder).records[1]
    assert (cut.state, cut.is_interrupted, len(cut.measurements)) == ("failed", True, int(verb == "score"))
    _, machine = run(folder, trials=4)
    records = fresh(folder).records
    again = records[1]
    assert (again.key, again.origin, again.state, again.is_interrupted) == (cut.key, cut.origin, "complete", False)
    assert again.seconds >= cut.seconds
    assert (cut.key in machine.measured) == (verb == "measure")  # a speed already paid for is taken over
    assert [record.state for record in records] == ["complete"] * 4
    assert len({record.key for record in records}) == 4


def test_what_a_killed_search_left_running_is_closed_and_tried_again_once(folder):
    run(folder, trials=2)
    space = fresh(folder).manifest.space
    lost = space.decode(dict.fromkeys(space.dimensions, 0))
    params = space.encode(lost)
    fresh(folder).write(TrialRecord(number=2, subject=Subject(arch=lost), state=TrialState.RUNNING, params=params))
    run(folder, trials=4)
    records = fresh(folder).records
    assert (records[2].key, records[2].state) == (lost.key(), "complete")
    assert "running" not in {record.state for record in records}
    run(folder, trials=5)
    assert [record.key for record in fresh(folder).records].count(lost.key()) == 1


def test_a_search_stores_no_database_and_passes_over_one_of_an_older_version(folder):
    (folder.path / "study.db").write_bytes(b"of an older version")
    run(folder, trials=6, sampler="gp")
    events = []
    run(folder, trials=8, sampler="gp", events=events)
    assert not any(isinstance(event, Notice) for event in events)
    assert (folder.path / "study.db").read_bytes() == b"of an older version"
    assert [path.name for path in folder.path.glob("*.db*")] == ["study.db"]


def test_a_second_run_continues_the_draws_of_the_first(tmp_path):
    folders = [write_study(tmp_path, name, manifest=build_manifest(name, sampler="random")) for name in ("a", "b")]
    run(folders[0], trials=9)
    run(folders[1], trials=5)
    run(folders[1], trials=9)
    assert keys(folders[0]) == keys(folders[1])
    assert len(set(keys(folders[0]))) == 9


def test_a_small_space_ends_when_every_network_was_tried(tmp_path):
    folder = small_study(tmp_path)
    finished, _ = run(folder, trials=10)
    assert (finished.measured, finished.stopped_by) == (4, "exhausted")
    assert len(set(keys(folder))) == 4
    assert run(folder, trials=10)[0].stopped_by == "exhausted"


def test_a_space_without_a_choice_holds_one_network(tmp_path):
    folder = small_study(tmp_path, embed_dims=[8], depths=[[1], [1], [1], [1]])
    finished, _ = run(folder, trials=3)
    assert (finished.measured, finished.stopped_by) == (1, "exhausted")


def test_no_trial_begins_after_the_timeout(folder):
    now = [0.0]

    def spend(verb, count):
        now[0] += 10

    finished, _ = run(folder, FakeMachine(spend), trials=50, timeout_s=45, clock=lambda: now[0])
    assert (finished.measured, finished.stopped_by) == (3, "timeout")
    assert fresh(folder).records[0].seconds == 20


@pytest.mark.parametrize("error", [DeviceError("the GPU has gone"), StorageError("the disk is full")])
def test_a_fault_of_the_world_ends_the_search_and_loses_no_candidate(folder, error):
    def gone(verb, count):
        if count == 1:
            raise error

    with pytest.raises(type(error), match=str(error)):
        run(folder, FakeMachine(gone), trials=4)
    cut = fresh(folder).records[-1]
    assert cut.is_interrupted
    run(folder, trials=4)
    (again,) = [record for record in fresh(folder).records if record.key == cut.key]
    assert (again.number, again.state) == (cut.number, "complete")


def test_an_anchor_outside_the_space_is_measured_but_teaches_the_sampler_nothing(tmp_path):
    outside = {**TINY.to_dict(), "embed_dims": [16, 24, 32, 64], "num_heads": [1, 1, 1, 2], "outside": True}
    folder = small_study(tmp_path, anchors={"odd": outside})
    finished, _ = run(folder, trials=4, sampler="gp")
    first = fresh(folder).records[0]
    assert (first.origin, first.params, first.state) == ("anchor:odd", None, "complete")
    assert finished.measured == 4
    assert run(folder, trials=5, sampler="gp")[0].measured == 5


def test_an_anchor_beyond_a_free_limit_is_neither_measured_nor_trained(tmp_path):
    folder = small_study(tmp_path, limits={"params_m": 0.08}, anchors={"big": TINY.to_dict() | {"outside": True}})
    _, machine = run(folder, trials=3)
    first = fresh(folder).records[0]
    assert (first.state, first.measurements) == ("infeasible", ())
    assert first.reason.startswith("params_m <= 0.08 is a limit, but got 0.3")
    assert first.key not in machine.measured + machine.scored


@pytest.mark.parametrize("sampler", [pytest.param("gp", marks=pytest.mark.slow), "tpe"])
def test_candidates_beyond_a_limit_cost_no_training_and_become_few(tmp_path, sampler):
    space = build_space("limited", {**_limited_space(), "limits": {"params_m": 0.5, "images_per_s": 1870}})
    free = build_space("free", _limited_space())
    shares = _shares(free, params_m=0.5, images_per_s=1870)
    assert 0.4 < shares["params_m"] < 0.6  # half the proposals break the one limit
    assert 0.25 < shares["images_per_s"] < 0.42  # and a third of the rest the other
    folder = write_study(tmp_path, manifest=build_manifest(space=space, sampler=sampler))
    _, machine = run(folder, trials=30)
    records = fresh(folder).records
    assert len(records) == 30
    assert all(record.parameters <= 0.5e6 for record in records)  # free limits cost no trial at all
    broken = [record for record in records if record.state == "infeasible"]
    assert broken
    assert all(speed(record.subject.arch) < 1870 and not record.scores for record in broken)
    assert not {record.key for record in broken} & set(machine.scored)
    late = [record.number for record in broken if record.number >= 15]
    assert len(late) <= 3
    assert all(set(record.violations) == {"params_m", "images_per_s"} for record in records)


def _limited_space():
    return {
        **SMALL,
        "embed_dims": [8, 12, 16, 20, 24],
        "head_dim": [4],
        "depths": [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 6], [1, 2, 3]],
        "mlp_ratios": [2, 3, 4],
    }


def _shares(space, *, params_m, images_per_s):
    """Of evenly drawn settings, how many break the first limit, and of the rest, how many the second."""
    from random import Random

    from hilo_nas.arch.cost import count_params

    random = Random(1)
    archs = [space.decode(space.sample(random)) for _ in range(1000)]
    small = [arch for arch in archs if count_params(arch, num_classes=10) <= params_m * 1e6]
    slow = [arch for arch in small if speed(arch) < images_per_s]
    return {"params_m": 1 - len(small) / len(archs), "images_per_s": len(slow) / len(small)}


def test_events_tell_a_trial_from_its_choice_to_its_end(folder):
    events = []
    run(folder, trials=1, events=events)
    started, finished, front = events[0], *events[-2:]
    assert isinstance(started, TrialStarted)
    assert isinstance(finished, TrialFinished)
    assert (started.number, started.key) == (finished.number, finished.key) == (0, TINY.key())
    assert (finished.measured, finished.total) == (1, 1)
    assert front == FrontChanged(points=((finished.images_per_s, finished.value),))


def test_the_front_is_told_where_it_changed_and_before_the_first_trial_of_a_resume(folder):
    events, again = [], []
    run(folder, trials=8, events=events)
    told = [event.points for event in events if isinstance(event, FrontChanged)]
    assert 1 <= len(told) <= 8
    assert all(old != new for old, new in itertools.pairwise(told))
    members = StoredStudy(folder.path).front().members
    assert told[-1] == tuple((record.measurement.images_per_s, record.score.value) for record in members)
    run(folder, trials=9, events=again)
    assert again[0] == FrontChanged(points=told[-1])


def test_records_are_readable_json_with_their_schema(folder):
    run(folder, trials=1)
    content = json.loads((folder.trials_path / "0000.json").read_text())
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["subject"]["arch"]["embed_dims"] == [16, 32, 64, 128]
    assert content["measurements"][0]["protocol"] == PROTOCOL
    stored = TrialRecord.from_dict(content)
    (read,) = StoredStudy(folder.path).records
    assert dataclasses.replace(read, scores=stored.scores) == stored  # reading adds the chance to a score
