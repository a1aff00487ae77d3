"""The ruler: what it does with groups, failures and locks, with a worker that never was and with a real one."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
from builders import build_condition, build_device, build_manifest, build_measurement

from hilo_nas.errors import (
    ConversionError,
    DeviceError,
    MeasurementError,
    OutOfMemoryError,
    UsageError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerHungError,
)
from hilo_nas.events import DeviceAwaited, NetworkPrepared, Notice, RoundTimed
from hilo_nas.measurement import PROTOCOL, Measurement
from hilo_nas.timing import ruler as ruler_module
from hilo_nas.timing.exclusive import hold
from hilo_nas.timing.ruler import Entrant, Ruler
from hilo_nas.timing.worker import TUNED_ENVIRONMENT

CALIBRATION = next(iter(build_manifest().calibrations.values()))


def ignore(event):
    pass


# A worker that never was.


class FakeWorker:
    """Answers like `timing.throughput` in a worker process; `happen` may raise instead.

    Args:
        happen: Called with the function's name, the names of the networks and the number of the call.
        refused: By name, why a network cannot run under its condition.
    """

    refused = types.MappingProxyType({})

    @staticmethod
    def happen(function, names, count):
        pass

    def __init__(self, name, log, *, idle_timeout_s, environment):
        self.name, self.environment, self.calls, self.closed = name, dict(environment), [], False

    def call(self, function, arguments, emit):
        name = function.rpartition(":")[2]
        names = list(arguments.get("entrants", ())) or [str(arguments.get("entrant", arguments.get("device")))]
        self.calls.append((name, names))
        self.happen(name, names, len(self.calls))
        if name == "read_device":
            return {"device": arguments["device"], "identity": dataclasses.asdict(build_device()), "threads": 2}
        if name == "calibrate":
            return dataclasses.asdict(CALIBRATION)
        if name == "measure":
            return dataclasses.asdict(build_measurement())
        found = {name: dataclasses.asdict(build_measurement(cohort=names[0])) for name in names}
        errors = {name: self.refused[name] for name in names if name in self.refused}
        return found | {
            name: {"error": {"kind": type(error).__name__, "message": str(error)}} for name, error in errors.items()
        }

    def close(self):
        self.closed = True


@pytest.fixture
def ruler(tmp_path):
    """A ruler whose worker is a `FakeWorker`."""
    with Ruler(tmp_path / "timing.log", purpose="study demo", make_worker=FakeWorker) as ruler:
        yield ruler


def entrants(*names, **condition):
    return {name: Entrant(subject={"timm": name}, condition=build_condition(**condition)) for name in names}


def fail(ruler, happen):
    ruler._worker.happen = happen


def groups_of(ruler):
    return [names for function, names in ruler._worker.calls if function == "measure_cohort"]


def test_what_the_worker_found_comes_back_as_values(ruler):
    assert ruler.calibrate(build_condition(), ignore) == CALIBRATION
    entrant = entrants("resnet18")["resnet18"]
    assert ruler.measure(entrant, CALIBRATION, ignore) == build_measurement()
    assert ruler.read_device("cpu", ignore) == ("cpu", build_device(), 2)


def test_a_device_is_asked_once_who_it_is(ruler):
    for _ in range(3):
        ruler.measure_cohort(entrants("a", "b"), ignore)
    assert [function for function, _ in ruler._worker.calls].count("read_device") == 1


def test_nothing_to_time_takes_no_worker(ruler):
    assert ruler.measure_cohort({}, ignore) == ruler_module.Cohort(measurements={}, failures={})
    assert ruler._worker.calls == []


def test_the_device_is_held_while_the_worker_times_and_not_after(ruler):
    held = []

    def is_free():
        def give_up(seconds):
            raise TimeoutError

        claims = ruler_module.claims_of(build_device(), timing=True)
        try:
            with hold(claims, "another", ignore, sleep=give_up):
                return True
        except TimeoutError:
            return False

    fail(ruler, lambda function, names, count: held.append((function, not is_free())))
    ruler.measure_cohort(entrants("a"), ignore)
    ruler.calibrate(build_condition(), ignore)
    ruler.measure(entrants("a")["a"], CALIBRATION, ignore)
    timings = [is_held for function, is_held in held if function != "read_device"]
    assert timings == [True, True, True]
    assert is_free()


def test_a_large_cohort_is_timed_in_groups_of_nearly_equal_size(ruler):
    names = [f"network {i}" for i in range(50)]
    found = ruler.measure_cohort(entrants(*names), ignore)
    assert list(found.measurements) == names
    assert [len(group) for group in groups_of(ruler)] == [16, 17, 17]
    assert len({measurement.cohort for measurement in found.measurements.values()}) == 3


def test_networks_that_do_not_fit_together_are_timed_in_smaller_groups_and_none_fails(ruler):
    def happen(function, names, count):
        if function == "measure_cohort" and len(names) > 3:
            raise OutOfMemoryError("CUDA out of memory")

    fail(ruler, happen)
    events = []
    found = ruler.measure_cohort(entrants(*"abcdefgh"), events.append)
    assert list(found.measurements) == list("abcdefgh")
    assert found.failures == {}
    assert [len(group) for group in groups_of(ruler)] == [8, 4, 2, 2, 4, 2, 2]
    notices = [event for event in events if isinstance(event, Notice)]
    assert notices[0].text == "8 networks could not be timed together (CUDA out of memory): the group is split"
    assert {notice.level for notice in notices} == {"info"}


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory"),
        WorkerFailedError("timing failed: KeyError: 'x'"),
        WorkerHungError("timing sent no message for 600 s and was stopped"),
        WorkerDiedError("timing was killed by signal 11"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_network_that_cannot_be_timed_is_found_and_fails_alone(ruler, error):
    def happen(function, names, count):
        if "culprit" in names:
            raise error

    fail(ruler, happen)
    events = []
    found = ruler.measure_cohort(entrants("a", "b", "culprit", "c", "d"), events.append)
    assert set(found.measurements) == {"a", "b", "c", "d"}
    assert found.failures == {"culprit": error}
    warning = Notice(level="warning", text=f"culprit could not be timed: {error}")
    assert [event for event in events if "could not be timed:" in event.text] == [warning]


@pytest.mark.parametrize(
    "error",
    [
        UsageError("timm 1.0 has no model 'culprit'"),
        DeviceError("runtime openvino does not run on cuda"),
        ConversionError("a fused network must give the same output"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_network_that_cannot_run_so_fails_alone_and_splits_nobody(ruler, error):
    ruler._worker.refused = {"culprit": error}
    events = []
    found = ruler.measure_cohort(entrants("a", "culprit", "b"), events.append)
    assert set(found.measurements) == {"a", "b"}
    ((name, failure),) = found.failures.items()
    assert (name, type(failure), str(failure)) == ("culprit", type(error), str(error))
    assert events == [Notice(level="warning", text=f"culprit could not be timed: {error}")]
    assert len(groups_of(ruler)) == 1


def test_a_reference_that_nobody_knows_is_no_networks_fault(ruler):
    def happen(function, names, count):
        if function == "measure_cohort":
            raise UsageError("timm 1.0 has no model 'reference'")

    fail(ruler, happen)
    with pytest.raises(UsageError, match="no model 'reference'"):
        ruler.measure_cohort(entrants("a", "b"), ignore, reference={"timm": "reference"})
    assert len(groups_of(ruler)) == 1


def test_a_worker_that_dies_once_has_a_second_try_and_the_user_is_told(ruler):
    def happen(function, names, count):
        if function == "measure_cohort" and count == 2:
            raise WorkerDiedError("timing was killed by signal 9")

    fail(ruler, happen)
    events = []
    found = ruler.measure_cohort(entrants("a", "b"), events.append)
    assert set(found.measurements) == {"a", "b"}
    assert groups_of(ruler) == [["a", "b"], ["a", "b"]]
    (notice,) = events
    assert notice.level == "warning"
    assert "timing was killed by signal 9" in notice.text


def test_a_worker_that_dies_twice_or_hangs_ends_a_single_measurement(ruler):
    errors = [WorkerDiedError("once"), WorkerDiedError("twice"), WorkerHungError("hung")]

    def happen(function, names, count):
        if function == "measure":
            raise errors.pop(0)

    fail(ruler, happen)
    for law in ("twice", "hung"):
        with pytest.raises((WorkerDiedError, WorkerHungError), match=law):
            ruler.measure(entrants("a")["a"], CALIBRATION, ignore)


def test_a_reference_that_does_not_fit_ends_the_timing_of_all(ruler):
    def happen(function, names, count):
        if function == "measure_cohort":
            raise MeasurementError("the reference network must fit into memory")

    fail(ruler, happen)
    with pytest.raises(MeasurementError, match="the reference network"):
        ruler.measure_cohort(entrants("a", "b", "c"), ignore)
    assert len(groups_of(ruler)) == 1


def test_a_calibration_that_the_kernel_kills_for_memory_is_told_with_the_way_out(ruler):
    def happen(function, names, count):
        if function == "calibrate":
            raise OutOfMemoryError("timing was killed by the kernel, out of memory")

    fail(ruler, happen)
    law = r"must fit into memory, but timing was killed .* at batch_size 32 and 32 px\. Use a smaller --batch-size"
    with pytest.raises(MeasurementError, match=law):
        ruler.calibrate(build_condition(), ignore)


def test_a_device_that_is_not_there_is_no_networks_fault(ruler):
    def happen(function, names, count):
        raise DeviceError("this machine has no device cuda. Use one of cpu.")

    fail(ruler, happen)
    events = []
    with pytest.raises(DeviceError, match="no device cuda"):
        ruler.measure_cohort(entrants("a", "b", device="cuda"), events.append)
    assert ruler._worker.calls == [("read_device", ["cuda"])]
    assert events == []


@pytest.mark.parametrize("field", [{"batch_size": 64}, {"img_size": 64}, {"threads": 1}, {"device": "cuda"}])
def test_networks_of_unlike_conditions_are_not_timed_side_by_side(ruler, field):
    ((name, value),) = field.items()
    mixed = entrants("a") | entrants("b", **field)
    with pytest.raises(UsageError, match=rf"{name}, but got .*{value}"):
        ruler.measure_cohort(mixed, ignore)
    assert ruler._worker.calls == []


def test_forms_and_precisions_are_timed_side_by_side(ruler):
    mixed = entrants("a") | entrants("b", channels_last=True, fused=True) | entrants("c", precision="bf16")
    assert set(ruler.measure_cohort(mixed, ignore).measurements) == {"a", "b", "c"}


@pytest.mark.parametrize(("env", "environment"), [("tuned", TUNED_ENVIRONMENT), ("default", {})])
def test_the_worker_is_started_in_the_environment_asked_for(tmp_path, env, environment):
    ruler = Ruler(tmp_path / "timing.log", purpose="a test", env=env, make_worker=FakeWorker)
    assert ruler._worker.environment == environment


def test_closing_ends_the_worker(ruler):
    ruler.close()
    assert ruler._worker.closed


# A real worker, timing layers as small as can be.

LAYER = {"layer": "timing.layers:Sleeping", "arguments": {"dim": 8}}
EXPLODING = {"layer": "timing.layers:Exploding", "arguments": {"dim": 8}}


def tiny(env="tuned", **subjects):
    condition = build_condition(batch_size=2, img_size=4, env=env)
    return {name: Entrant(subject=subject, condition=condition, num_classes=10) for name, subject in subjects.items()}


def stamped(log, run):
    return {"layer": "timing.layers:Stamped", "arguments": {"dim": 8, "log": str(log), "run": run}}


def read_stamps(log):
    """The calls that were written down, as (run, process, began, ended)."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(run, int(pid), float(began), float(ended)) for run, pid, began, ended in lines]


def quick(ruler, entrants, emit=ignore):
    """A cohort of as few rounds as there may be."""
    return ruler.measure_cohort(entrants, emit, reference=LAYER, seconds_each=0.01)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A ruler with its worker; starting one takes seconds."""
    with Ruler(tmp_path_factory.mktemp("real") / "timing.log", purpose="study one") as ruler:
        yield ruler


class Other:
    """Another process with a ruler of its own, in the default environment: ready to time a network when told so."""

    def __init__(self, folder):
        self.log = folder / "stamps"
        script = textwrap.dedent(f"""
            import dataclasses, json, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
            from pathlib import Path
            from hilo_nas.events import DeviceAwaited
            from hilo_nas.timing.ruler import Entrant, Ruler
            from hilo_nas.measurement import Condition

            told = []
            condition = Condition(batch_size=2, img_size=4, env="default")
            entrants = {{"theirs": Entrant(subject={stamped(self.log, "theirs")!r}, condition=condition)}}
            with Ruler(Path({str(folder / "timing.log")!r}), purpose="study other", env="default") as ruler:
                ruler.read_device("cpu", lambda event: None)
                print("ready", flush=True)
                sys.stdin.readline()
                found = ruler.measure_cohort(entrants, told.append, reference={LAYER!r}, seconds_each=0.01)
            print(json.dumps([
                dataclasses.asdict(found.measurements["theirs"]),
                [holder for event in told if isinstance(event, DeviceAwaited) for holder in event.holders],
            ]))
        """)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={name: value for name, value in os.environ.items() if name not in TUNED_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.measurement = None

    def begin(self):
        """Lets it time; it is ready by then, so that the two meet."""
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Waits for the end, and returns for whom the process waited."""
        fields, told = json.loads(self.process.stdout.read())
        assert self.process.wait() == 0
        self.measurement = Measurement.from_dict(fields)
        return told


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    other = Other(tmp_path_factory.mktemp("other"))
    yield other
    other.process.kill()
    other.process.communicate()


@pytest.fixture(scope="module")
def interrupted(real, tmp_path_factory):
    """What came of a cohort whose worker was killed in its third round: the cohort, the events, who ran it."""
    log, events, killed = tmp_path_factory.mktemp("interrupted") / "stamps", [], []

    def kill_once(event):
        events.append(event)
        if isinstance(event, RoundTimed) and event.round == 3 and not killed:
            killed.append(read_stamps(log)[-1][1])
            os.kill(killed[0], signal.SIGKILL)

    found = quick(real, tiny(one=stamped(log, "one"), two=LAYER), kill_once)
    processes = list(dict.fromkeys(pid for _, pid, *_ in read_stamps(log)))
    assert processes[:1] == killed
    return found, events, processes


@pytest.mark.slow
def test_a_worker_killed_while_timing_is_started_again_and_the_timing_repeated(interrupted):
    found, events, processes = interrupted
    assert set(found.measurements) == {"one", "two"}
    assert found.failures == {}
    assert len(processes) == 2
    (notice,) = (event for event in events if isinstance(event, Notice))
    assert notice.level == "warning"
    assert "timing was killed by signal 9" in notice.text


@pytest.mark.slow
def test_a_cohort_shares_its_rounds_and_tells_how_far_it_is(interrupted):
    found, events, _ = interrupted
    one, two = found.measurements.values()
    assert isinstance(one, Measurement)
    assert (one.cohort, len(one.call_seconds)) == (two.cohort, len(two.call_seconds))
    assert one.cohort
    assert one.protocol == PROTOCOL
    assert one.device.kind == "cpu"
    told = events[1 + events.index(next(event for event in events if isinstance(event, Notice))) :]
    prepared = [event for event in told if isinstance(event, NetworkPrepared)]
    assert prepared == [NetworkPrepared(name=name, done=i, total=2) for i, name in ((1, "one"), (2, "two"))]
    rounds = [event.round for event in told if isinstance(event, RoundTimed)]
    assert rounds == list(range(1, len(one.call_seconds) + 1))


def test_a_network_that_nobody_knows_fails_alone(real):
    events = []
    found = quick(real, tiny(nobody={"timm": "resnet_of_nobody"}, one=LAYER), events.append)
    assert set(found.measurements) == {"one"}
    assert isinstance(found.failures["nobody"], UsageError)
    assert "has no model 'resnet_of_nobody'" in str(found.failures["nobody"])
    (told,) = [event.text for event in events if isinstance(event, Notice)]
    assert told.startswith("nobody could not be timed: timm")


@pytest.mark.slow
def test_two_rulers_in_two_processes_never_time_at_the_same_time(real, other, tmp_path):
    events, log = [], other.log
    other.begin()
    for run in ("ours-1", "ours-2"):
        quick(real, tiny(**{run: stamped(log, run)}), events.append)
    told = other.end()
    runs = {}
    for run, pid, began, ended in read_stamps(log):
        first = runs.setdefault(run, (pid, began, ended))
        runs[run] = (pid, min(first[1], began), max(first[2], ended))
    assert set(runs) == {"ours-1", "ours-2", "theirs"}
    assert len({pid for pid, *_ in runs.values()}) == 2
    ordered = sorted(runs.values(), key=lambda run: run[1])
    assert all(ended < began for (_, _, ended), (_, began, _) in itertools.pairwise(ordered))
    told += [holder for event in events if isinstance(event, DeviceAwaited) for holder in event.holders]
    named = (f"timing for study one (process {os.getpid()}, ", f"timing for study other (process {other.pid}, ")
    assert told
    assert all(holder.startswith(named) for holder in told)


@pytest.mark.slow
def test_the_environment_that_was_timed_in_is_recorded(interrupted, other):
    tuned = interrupted[0].measurements["one"]
    default = other.measurement
    assert TUNED_ENVIRONMENT.items() <= tuned.environment.items()
    assert not TUNED_ENVIRONMENT.keys() & default.environment.keys()
    assert (tuned.condition.env, default.condition.env) == ("tuned", "default")


def test_a_network_that_does_not_fit_is_found_and_the_others_are_measured(real):
    events = []
    found = quick(real, tiny(fits=LAYER, huge=EXPLODING), events.append)
    assert set(found.measurements) == {"fits"}
    assert isinstance(found.failures["huge"], OutOfMemoryError)
    told = [event.text for event in events if isinstance(event, Notice)]
    assert len(told) == 2
    assert told[0].startswith("2 networks could not be timed together (")
    assert told[1].startswith("huge could not be timed: ")
