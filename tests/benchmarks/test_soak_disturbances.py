"""Disturbances and damage of the soak test: each wrong reaction of a search or a repair is named."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from random import Random

import pytest
from builders import demo_records, write_study

from benchmarks.soak.damage import DamageCache, DamageStudy, collect_facts_before, tear
from benchmarks.soak.disturbances import HangWorker, InterruptSearch, interrupt
from benchmarks.soak.facts import collect_facts
from benchmarks.soak.process_tree import find_busiest, read_processes
from benchmarks.soak.soak_run import Soak, all_disturbances
from benchmarks.soak.watched_search import SearchEndsError, WatchedSearch
from hilo_nas.study.record_rescue import rescue_record
from hilo_nas.study.stored_study import StoredStudy

EVENTS = [{"at": "2026-11-29", "event": "SearchStarted"}, {"at": "2026-11-29", "event": "DataRead"}]
UNKNOWN = ("no_such_space",)
"""Arguments of a search that ends at once."""


class TalkingRandom(Random):
    """Chooses the function of a given name, and otherwise at random. It damages the end of a file if told so."""

    def __init__(self, name, seed, at_end):
        super().__init__(seed)
        self.name, self.at_end = name, at_end

    def randrange(self, start, stop=None, step=1):
        return stop - 1 if self.at_end and stop is not None else super().randrange(start, stop, step)

    def choice(self, seq):
        named = [item for item in seq if getattr(item, "__name__", "") == self.name]
        return named[0] if named else super().choice(seq)


class ToldSearch(WatchedSearch):
    """A search that ends as told, and whose repairs are spoilt afterwards."""

    def __init__(self, soak, folder, *, code=-signal.SIGKILL, spoil=lambda: None):
        super().__init__(folder, "soak", UNKNOWN, soak.search._environment)
        self.code, self.spoil = code, spoil
        self.alive = None
        """Process that `running` returns."""

    def end(self, signum):
        return self.code, 0

    def running(self):
        return self.alive

    def command(self, *words):
        done = super().command(*words)
        self.spoil()
        return done


@pytest.fixture
def soak(tmp_path):
    """A soak test whose study is stored, with an event log."""
    with Soak(tmp_path / "soak", 0, arguments=UNKNOWN) as soak:
        study = write_study(soak.search.path.parent, "soak", demo_records())
        study.logs_path.mkdir()
        log = "".join(json.dumps(event) + "\n" for event in EVENTS)
        (study.logs_path / "events.jsonl").write_text(log)
        soak.look(is_stopped=False)
        soak.audit.faults.clear()  # the records of this study were not proposed by its sampler
        yield soak


def ended(code=0):
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    return process


def repair_faults(soak, damage, spoil, seed=0, at_end=False):
    soak.search = ToldSearch(soak, soak.search.path.parents[1], spoil=lambda: spoil(StoredStudy(soak.search.path)))
    soak.random = TalkingRandom(damage, seed, at_end)
    assert DamageStudy().strike(soak)
    soak.look(is_stopped=False)
    return [*soak.faults, *soak.audit.faults]


def test_a_repair_that_keeps_what_is_whole_passes(soak):
    for damage in ("_tear_record", "_tear_log", "_tear_manifest"):
        assert repair_faults(soak, damage, lambda study: None, seed=3) == []


def test_a_repair_of_a_record_that_loses_whole_results_is_named(soak):
    def strip(study):
        for torn in study.path.glob("damaged/*/trials/*.json"):
            path = study.trials_path / torn.name
            path.write_text(json.dumps({**json.loads(path.read_text()), "measurements": [], "scores": []}))

    faults = repair_faults(soak, "_tear_record", strip, at_end=True)
    assert [fault for fault in faults if fault.startswith("a timing of ")]


def test_a_repair_that_removes_a_record_is_named(soak):
    def remove(study):
        for torn in study.path.glob("damaged/*/trials/*.json"):
            (study.trials_path / torn.name).unlink()

    faults = repair_faults(soak, "_tear_record", remove, seed=1)
    assert [fault for fault in faults if "is gone after its repair" in fault]


@pytest.mark.parametrize("damage", ["_tear_log", "_tear_manifest"])
def test_a_repair_that_loses_other_events_is_named(soak, damage):
    faults = repair_faults(soak, damage, lambda study: (study.logs_path / "events.jsonl").write_text(""), seed=0)
    assert [fault for fault in faults if "lost or changed events" in fault]


def test_results_that_end_before_the_damage_must_be_kept(soak):
    study = StoredStudy(soak.search.path)
    record = next(record for record in study.records if record.scores)
    content = (study.trials_path / f"{record.number:04d}.json").read_bytes()

    def kinds(at):
        return sorted(fact[1] for fact in collect_facts_before(record, content, at))

    timings, scores = content.index(b'\n "measurements"'), content.index(b'\n "scores"')
    assert kinds(timings) == []
    assert kinds(scores - 8) == []
    assert kinds(scores) == ["timing"] * len(record.measurements)
    assert kinds(len(content)) == ["score"] * len(record.scores) + ["timing"] * len(record.measurements)
    for at in range(timings, len(content) - 1, 41):
        for end in (b"", bytes(min(20, len(content) - at)) + content[at + 20 :]):
            rescue = rescue_record(content[:at] + end, record.number)
            assert rescue is not None
            assert collect_facts_before(record, content, at) <= collect_facts([rescue.record])


@pytest.mark.parametrize("seed", range(20))
def test_a_tear_changes_a_file_that_has_zeros_in_most_places(tmp_path, seed):
    path = tmp_path / "file"
    path.write_bytes(content := bytes(500) + b"x")
    tear(path, Random(seed))
    assert path.read_bytes() != content


def damage_cache(soak, said, restore=False):
    """Damages an image cache. The next search says something, and restores the file if it is told to."""
    place = soak.cache / "data" / "sets" / "digits"
    place.mkdir(parents=True)
    (place / "images.npy").write_bytes(b"x" * 100)
    soak.search = ToldSearch(soak, soak.search.path.parents[1], code=130)
    soak.search.alive = subprocess.Popen(["sleep", "60"])
    (soak.search.path / "logs" / "events.jsonl").write_text(said)
    if restore:
        shutil.copytree(place, place.parent / "whole")
        soak.search.running = lambda: (place / "images.npy").write_bytes(b"x" * 100) and soak.search.alive
    try:
        assert DamageCache(wait_s=0.2).strike(soak)
    finally:
        soak.search.alive.kill()
        soak.search.alive.wait()
    return soak.faults


REBUILT = json.dumps({"event": "Notice", "text": "the image cache x was changed on disk: it is rebuilt"})
READ = json.dumps({"event": "DataRead"})


def test_a_search_that_does_not_notice_a_damaged_image_cache_is_named(soak):
    assert damage_cache(soak, READ) == ["the search did not notice that images.npy of the image cache is damaged"]


def test_a_search_that_does_not_restore_a_damaged_image_cache_is_named(soak):
    assert damage_cache(soak, f"{REBUILT}\n{READ}\n") == ["the search did not restore images.npy of the image cache"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_dies_of_a_signal_may_do_so_only_while_it_starts(soak, signum):
    path = soak.search.path.parents[1]
    soak.search = ToldSearch(soak, path, code=-signum)
    assert interrupt(soak, signum)
    assert soak.faults == [f"{signum.name} ended the search with exit code {-signum}"]
    soak.faults.clear()
    (soak.search.path / "logs" / "events.jsonl").write_text("")
    assert interrupt(soak, signum)
    assert soak.faults == []


@pytest.mark.parametrize("code", [130, -signal.SIGTERM])
def test_a_trial_that_an_interrupted_search_leaves_in_progress_is_named(soak, code):
    path = soak.search.path / "trials" / "0004.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running"}))
    soak.search = ToldSearch(soak, soak.search.path.parents[1], code=code)
    assert InterruptSearch().strike(soak)
    assert [fault for fault in soak.faults if fault.endswith("left the trials [4] in progress")]


def test_a_search_that_ended_before_a_signal_is_noted_and_not_taken_for_disturbed(soak):
    soak.search.log.write_text("Traceback")
    for signum in (signal.SIGKILL, signal.SIGINT):
        soak.search.process = ended(3)
        assert soak.search.end(signum) == (None, 0)
    assert soak.search.endings == [(3, "Traceback")] * 2
    soak.search.process = ended(3)
    assert not interrupt(soak, signal.SIGINT)


def test_a_search_that_crashed_before_the_last_one_is_a_fault(soak):
    soak.search.log.write_text("")
    soak.search.process = ended(3)
    soak.finish()
    assert [fault for fault in soak.report()["faults"] if "ended by itself with exit code 3" in fault]


def test_a_search_that_ends_again_and_again_ends_the_test(soak):
    soak.search.log.write_text("no such space")
    soak.search.process = ended(2)
    soak.search.endings_in_a_row = 4
    with pytest.raises(SearchEndsError, match="exit code 2"):
        soak.search.running()


def test_a_search_that_takes_too_long_is_killed(soak):
    assert soak.search.complete(seconds=0.0) == -signal.SIGKILL
    assert soak.search.process is None


def test_an_error_of_the_test_ends_its_search(soak):
    def fail():
        with soak.search as search:
            started.append(search.running())
            raise ValueError("on purpose")

    started = []
    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert started[0].returncode == -signal.SIGKILL


TRAINING = """
import sys, time
while True:
    with open(sys.argv[1], "a") as log:
        log.write('{"event": "TrainingStarted"}\\n')
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
"""


class Worked(ToldSearch):
    """A search with one worker, which starts training again and again."""

    def workers(self):
        processes = read_processes()
        return [self.alive.pid] if self.alive.pid in processes else [], processes


@pytest.fixture
def worked(soak):
    soak.search = Worked(soak, soak.search.path.parents[1])
    log = soak.search.path / "logs" / "events.jsonl"
    soak.search.alive = subprocess.Popen([sys.executable, "-c", TRAINING, str(log)])
    yield soak
    soak.search.alive.kill()
    soak.search.alive.wait()


def test_a_hung_worker_that_is_not_ended_is_named(worked):
    assert HangWorker(0.2, end_s=0.2).strike(worked)
    assert worked.faults == ["a worker that hung during a training was not ended within 0.4 s"]


def test_a_hung_worker_that_is_ended_is_counted(worked):
    def end_when_stopped():
        while read_state(worked.search.alive.pid) != "T":
            time.sleep(0.05)
        time.sleep(1.5)
        worked.search.alive.kill()

    killer = threading.Thread(target=end_when_stopped)
    killer.start()
    assert HangWorker(30.0).strike(worked)
    killer.join()
    assert worked.faults == []
    assert worked.report()["hung workers that were ended"] == 1


def test_a_hung_worker_without_a_task_is_released(worked):
    assert HangWorker(0.1, end_s=0.1, training_s=0.0).strike(worked)
    assert worked.faults == []
    assert worked.report()["hung workers that were released"] == 1
    assert read_state(worked.search.alive.pid) != "T"


def read_state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_the_busiest_process_is_the_one_that_uses_the_cpu(worked):
    with subprocess.Popen(["sleep", "60"]) as idle:
        assert find_busiest([idle.pid, worked.search.alive.pid], 1.0) == worked.search.alive.pid
        idle.kill()
    assert find_busiest([], 0.0) is None


@pytest.mark.parametrize("name", ["trials.csv", "damaged/2026/trials/0001.json"])
def test_a_path_of_this_machine_in_a_shared_file_is_named(soak, name, monkeypatch, tmp_path):
    for place in (tmp_path / "home", sys.prefix, tmp_path / "current", tmp_path / "soak"):
        path = soak.search.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"read {place}/data")
        (tmp_path / "current").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "current")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        other = Soak(tmp_path / f"other{len(soak.faults)}", 0)
        soak._places = [*other._places, str(tmp_path / "soak")]
        before = len(soak.faults)
        soak._check_texts()
        assert soak.faults[before:] == [f"{name} holds a path of this machine: {place}"]


def test_a_secret_in_a_damaged_file_is_named_and_local_files_may_hold_paths(soak):
    folder = soak.search.path / "damaged" / "2026"
    (folder / "logs").mkdir(parents=True)
    (folder / "local.yaml").write_text(f"data: {sys.prefix}")
    (folder / "logs" / "training.log").write_text(sys.prefix)
    soak._check_texts()
    assert soak.faults == []
    (folder / "local.yaml").write_text("hf_soak_test_secret")
    soak._check_texts()
    assert soak.faults == ["damaged/2026/local.yaml holds the value of an environment variable"]


def test_each_kind_of_disturbance_says_whether_it_hits_workers():
    hits = {kind.name for kind in all_disturbances() if kind.hits_workers}
    assert hits == {"kill of a worker", "hang of a worker", "no file beyond 4 KiB"}
