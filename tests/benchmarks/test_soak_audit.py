"""Audit of a search: what the records explain passes, and each kind of decision that they do not explain is named."""

import collections
import dataclasses
import json

import pytest
from builders import build_manifest, build_plan, build_record, build_score, demo_records, fresh, write_study
from fakes import RESOURCES, FakeMachine

from benchmarks.soak.audit import Audit, replay_proposal
from benchmarks.soak.facts import collect_facts, compare_networks, count_duplicates
from hilo_nas.evaluation import Score
from hilo_nas.events import SearchStarted, TrainingStarted, ignore_event
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.opening.event_log import EventLog
from hilo_nas.study.records import Subject, write_record

PLAN = build_plan(images=9 * 64, rungs=(64, 3 * 64))
LOW, MIDDLE, FULL = PLAN.budgets


class Machine(FakeMachine):
    """A fake machine that reports the start of each training, as workers do."""

    def __init__(self, emit, happen=lambda verb, count: None):
        super().__init__(happen)
        self.trained = collections.Counter()
        self.emit = emit
        self.before = self.report

    def report(self, task):
        if isinstance(task, Score):
            seen = self.trained[Subject.from_dict(task.subject).key]
            event = TrainingStarted(subject=task.subject, seed=task.seed, images_seen=seen, images_total=task.until)
            self.emit(event)

    def score(self, subject, plan, seed, until, task):
        found = super().score(subject, plan, seed, until, task)
        self.trained[subject.key] = until
        return found


def run(folder, trials, *, trained=None, happen=lambda verb, count: None):
    """Runs a search of the study as another process would, with its event log. Returns what its machine has trained."""
    manifest = dataclasses.replace(fresh(folder).manifest, trials=trials)
    folder.logs_path.mkdir(exist_ok=True)
    with EventLog(folder.logs_path / "events.jsonl", ignore_event) as log:
        machine = Machine(log, happen)
        machine.trained.update(trained or {})
        loop = SearchLoop(fresh(folder), manifest, machine, RESOURCES, log)
        log(SearchStarted(study="demo", done=loop.measured, total=trials, device="cpu"))
        loop.run()
    return machine.trained


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path, manifest=build_manifest(plan=PLAN, sampler="random"))


def audited(folder):
    audit = Audit()
    audit.read(fresh(folder), is_stopped=True)
    return audit


def rewrite_log(folder, change):
    """Changes the events of the log: `change` returns an event's fields, or None to leave it out."""
    path = folder.logs_path / "events.jsonl"
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def test_all_decisions_of_a_search_are_explained(folder):
    run(folder, 20)
    audit = audited(folder)
    assert audit.faults == []
    stopped = sum(record.state == "stopped" for record in fresh(folder).records)
    assert stopped > 2
    report = audit.report()
    assert report["proposals replayed"] == 19  # and an anchor
    assert report["rung decisions replayed"] >= 20
    images = sum(record.scores[-1].images_seen for record in fresh(folder).records)
    assert report["images trained for scores"] == images
    assert "interrupted trainings" not in report


def test_a_search_in_several_runs_is_explained_run_by_run(folder):
    audit, trained = Audit(), {}
    for trials in (3, 9, 20):
        trained = run(folder, trials, trained=trained)
        audit.read(fresh(folder), is_stopped=True)
    assert audit.faults == []
    assert audit.report() == audited(folder).report()


def killed_at(folder, verb, number):
    """Runs a search that ends as by a kill at a call of its machine. Returns what it had trained by then."""

    class KilledError(BaseException):
        pass

    def happen(found, count):
        if (found, count) == (verb, number):
            raise KilledError

    with pytest.raises(KilledError):
        run(folder, 20, happen=happen)
    return {record.key: record.scores[-1].images_seen for record in fresh(folder).records if record.scores}


def test_a_training_that_was_cut_off_and_found_its_checkpoint_is_counted(folder):
    audit = Audit()
    trained = killed_at(folder, "score", 1)  # the second part of the first network
    audit.read(fresh(folder), is_stopped=True)
    assert trained == {fresh(folder).records[0].key: LOW}
    run(folder, 4, trained=trained)
    audit.read(fresh(folder), is_stopped=True)
    assert audit.faults == []
    assert audit.report()["trainings resumed from a checkpoint"] == 1
    assert audit.report()["interrupted trainings"] == 1


def test_a_training_that_did_not_find_its_checkpoint_is_named(folder):
    killed_at(folder, "score", 1)
    excused = Audit()
    excused.read(fresh(folder), is_stopped=True)
    excused.excuse([fresh(folder).records[0].key])
    run(folder, 4, trained={})
    (fault,) = audited(folder).faults
    assert "it did not find its checkpoint" in fault
    excused.read(fresh(folder), is_stopped=True)
    assert excused.faults == []


def events_of(folder, kind):
    lines = (folder.logs_path / "events.jsonl").read_text().splitlines()
    return [event for line in lines if (event := json.loads(line))["event"] == kind]


def append_events(folder, *events):
    with open(folder.logs_path / "events.jsonl", "a") as log:
        log.writelines(json.dumps(event) + "\n" for event in events)


def test_an_excuse_holds_for_one_training(folder):
    audit = Audit()
    run(folder, 4)
    audit.read(fresh(folder), is_stopped=True)
    first = events_of(folder, "TrainingStarted")[0]
    audit.excuse([fresh(folder).records[0].key])
    rung = next(event for event in events_of(folder, "RungReached") if event["images_total"] == event["images_seen"])
    append_events(folder, {**first, "images_total": FULL}, rung)
    audit.read(fresh(folder), is_stopped=True)
    assert audit.faults == []
    append_events(folder, events_of(folder, "SearchStarted")[0], {**first, "images_total": 2 * FULL})
    audit.read(fresh(folder), is_stopped=True)
    (fault,) = audit.faults
    assert "it did not find its checkpoint" in fault


def test_an_excuse_ends_at_a_new_score(folder):
    audit = Audit()
    run(folder, 1)
    audit.excuse([fresh(folder).records[0].key])
    audit.read(fresh(folder), is_stopped=True)
    append_events(folder, {**events_of(folder, "TrainingStarted")[0], "images_total": 2 * FULL})
    audit.read(fresh(folder), is_stopped=True)
    (fault,) = audit.faults
    assert "it did not find its checkpoint" in fault


def test_the_decisions_of_a_network_are_checked_once_its_excuse_is_used(folder):
    audit = Audit()
    killed_at(folder, "score", 1)
    audit.read(fresh(folder), is_stopped=True)
    key = fresh(folder).records[0].key
    audit.excuse([key])
    run(folder, 1, trained={})
    rewrite_log(folder, lambda e: {**e, "goes_on": False} if e.get("images_seen") == MIDDLE else e)
    audit.read(fresh(folder), is_stopped=True)
    assert f"trial 0 continued after {MIDDLE} images, but the event log has no such decision" in audit.faults


def started_again(folder, *, hits=0, search=False):
    """Faults after the last training of a killed search has started twice more."""
    audit = Audit()
    killed_at(folder, "score", 1)
    audit.read(fresh(folder), is_stopped=False)
    last, begin = events_of(folder, "TrainingStarted")[-1], events_of(folder, "SearchStarted")
    for number in range(2):
        if number < hits:
            audit.hit()
            audit.read(fresh(folder), is_stopped=False)
        append_events(folder, *(begin if search else ()), last)
        audit.read(fresh(folder), is_stopped=False)
    return audit.faults


def test_a_training_that_starts_again_without_a_cause_is_named(folder):
    key_faults = started_again(folder)
    assert len(key_faults) == 2
    assert all("started again although nothing disturbed it" in fault for fault in key_faults)


@pytest.mark.parametrize(("hits", "faults"), [(1, 1), (2, 0)])
def test_a_hit_on_a_worker_explains_one_more_start_of_a_training(folder, hits, faults):
    assert len(started_again(folder, hits=hits)) == faults


def test_a_new_search_explains_another_start_of_a_training(folder):
    assert started_again(folder, search=True) == []


def test_a_training_that_is_disturbed_before_its_start_was_read_may_start_again(folder):
    audit = Audit()
    killed_at(folder, "score", 1)
    audit.hit()  # between the start and its reading
    audit.read(fresh(folder), is_stopped=False)
    append_events(folder, events_of(folder, "TrainingStarted")[-1])
    audit.read(fresh(folder), is_stopped=False)
    assert audit.faults == []


def test_a_training_for_a_score_that_is_stored_is_named(folder):
    audit = Audit()
    run(folder, 1)
    audit.read(fresh(folder), is_stopped=True)
    append_events(folder, {**events_of(folder, "TrainingStarted")[-1], "images_seen": FULL, "images_total": FULL})
    audit.read(fresh(folder), is_stopped=True)
    assert audit.faults == [f"{fresh(folder).records[0].key} was trained again to {FULL} images, whose score is stored"]


def test_a_record_that_a_repair_removed_is_named(folder):
    audit = Audit()
    run(folder, 3)
    audit.read(fresh(folder), is_stopped=True)
    (folder.trials_path / "0001.json").unlink()
    audit.forget(fresh(folder), 1)
    assert audit.faults == ["the record of trial 1 is gone after its repair"]


def test_a_proposal_of_another_network_is_named(folder):
    run(folder, 3)
    record = fresh(folder).records[2]
    name, count = next((name, count) for name, count in folder.manifest.space.dimensions.items() if count > 1)
    params = {**record.params, name: (record.params[name] + 1) % count}
    write_record(folder.trials_path, dataclasses.replace(record, params=params))
    (fault,) = audited(folder).faults
    assert fault.startswith("trial 2 has {")


def test_a_proposal_depends_on_the_earlier_records_alone(folder):
    run(folder, 6)
    records = fresh(folder).records
    for record in records[1:]:
        assert replay_proposal(folder.manifest, records[: record.number]) == record.params


def test_a_rung_that_was_decided_otherwise_is_named(folder):
    run(folder, 20)
    stopped = next(record for record in fresh(folder).records if record.state == "stopped")
    images = stopped.scores[-1].images_seen

    def change(event):
        is_it = event["event"] == "RungReached" and (event["number"], event["images_seen"]) == (stopped.number, images)
        return {**event, "goes_on": True} if is_it else event

    rewrite_log(folder, change)
    faults = audited(folder).faults
    assert f"trial {stopped.number} continued after {images} images, which the scores of trials" in faults[0]
    assert faults[1] == f"trial {stopped.number} stopped after {images} images, but the event log has no such decision"


def test_a_decision_that_knew_other_scores_is_named(folder):
    run(folder, 20)

    def change(event):
        is_late = event["event"] == "RungReached" and event["number"] == 9 and event["images_seen"] == LOW
        return {**event, "compared": event["compared"] - 1} if is_late else event

    rewrite_log(folder, change)
    assert audited(folder).faults == [f"trial 9 was compared with 9 networks after {LOW} images, but 10 were known"]


def test_a_decision_without_an_event_is_named(folder):
    run(folder, 3)
    rewrite_log(
        folder, lambda e: None if (e["event"], e.get("number"), e.get("images_seen")) == ("RungReached", 0, LOW) else e
    )
    faults = audited(folder).faults
    assert f"trial 0 continued after {LOW} images, but the event log has no such decision" in faults


def test_a_new_trial_before_one_that_is_due_is_named(folder):
    audit = Audit()
    killed_at(folder, "measure", 2)
    audit.read(fresh(folder), is_stopped=True)
    run(folder, 5)
    rewrite_log(folder, lambda e: {**e, "number": 30} if (e["event"], e.get("number")) == ("TrialStarted", 2) else e)
    audit.read(fresh(folder), is_stopped=True)
    assert audit.faults[0] == "trial 30 began while trials [2] were due"


def test_a_network_that_finishes_twice_is_named(folder):
    run(folder, 3)
    path = folder.logs_path / "events.jsonl"
    (line,) = [
        line
        for line in path.read_text().splitlines()
        if (event := json.loads(line))["event"] == "TrialFinished" and event["number"] == 1
    ]
    path.write_text(path.read_text() + line + "\n")
    assert audited(folder).faults == [f"trial 1 finished twice ({fresh(folder).records[1].key})"]


def test_damage_that_comes_later_does_not_matter_and_what_was_lost_may_be_done_again(folder):
    audit = Audit()
    trained = run(folder, 8)
    audit.read(fresh(folder), is_stopped=True)
    victim = next(record for record in fresh(folder).records[1:] if record.state == "complete")
    torn = dataclasses.replace(victim, scores=victim.scores[:1], state="failed", is_interrupted=True)
    write_record(folder.trials_path, torn)
    path = folder.logs_path / "events.jsonl"
    path.write_text("torn\n")
    audit.forget(fresh(folder), victim.number)
    audit.skip_log(path)
    del trained[victim.key]
    run(folder, 9, trained=trained)
    audit.read(fresh(folder), is_stopped=True)
    assert audit.faults == []


def test_a_torn_line_is_counted_and_costs_no_other_line(folder):
    trained = run(folder, 3)
    path = folder.logs_path / "events.jsonl"
    path.write_text(path.read_text() + '{"at": "2026')
    run(folder, 5, trained=trained)
    audit = audited(folder)
    assert audit.faults == []
    assert audit.report()["torn lines of the event log"] == 1


def test_facts_are_timings_scores_and_endings():
    facts = collect_facts([build_record(0), build_record(1, state="running", value=None)])
    assert sorted(kind for _, kind, *_ in facts) == ["finished", "score", "timing", "timing"]


def test_duplicates_are_counted():
    twice = [build_record(0), build_record(1, arch=build_record(0).arch, scores=(build_score(0.5), build_score(0.6)))]
    assert count_duplicates(collect_facts(twice), twice) == {
        "networks finished twice": 1,
        "scores taken twice": 1,
        "timings taken twice": 1,
    }
    assert count_duplicates((), twice, has_limits=True)["timings taken twice"] == 0
    assert count_duplicates((), demo_records())["timings taken twice"] == 0


def test_studies_are_compared_by_networks_and_scores_but_not_by_speeds():
    records = demo_records()
    faster = [
        dataclasses.replace(record, measurements=(), seconds=1.0) if record.number == 2 else record
        for record in records
    ]
    assert compare_networks(records, faster) == []
    assert compare_networks(records[:-1], records) == ["trial 6 is missing in one of the two studies"]
    other = dataclasses.replace(build_record(2, 500.0, 0.7), number=2)
    assert compare_networks(records, [*records[:2], other, *records[3:]]) == [
        "trial 2 scored 0.8 after 3008 images, undisturbed 0.7"
    ]
    (fault,) = compare_networks(records, [*records[:2], build_record(2, arch=build_record(9).arch), *records[3:]])
    assert fault.startswith("trial 2 has network ")
