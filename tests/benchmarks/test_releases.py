import csv
import dataclasses
import json

import pytest
import typer

import hilo_nas
from benchmarks.releases.__main__ import update_releases
from benchmarks.releases.history import Speed, find_earlier, read_history, write_history
from benchmarks.releases.release_speeds import ReleasesPlan, run_releases
from benchmarks.small_networks import SMALL
from hilo_nas.cli.options import Format
from hilo_nas.errors import FileFaultsError, MeasurementError, OutOfMemoryError, UsageError


def build_speed(version="0.0.9", ratio=1.0, **fields):
    """Of LITv2-S as it comes, with an interval of 2 %."""
    values = {
        "version": version,
        "device": "Test CPU (2 cores)",
        "network": "litv2_small",
        "form": "plain",
        "condition": "cpu-b1-224px-fp32",
        "ratio": ratio,
        "ratio_low": 0.98 * ratio,
        "ratio_high": 1.02 * ratio,
        "implementation": "litv2/1",
        "torch": "2.9.0",
        "date": "2026-07-01T12:00:00+00:00",
    }
    return Speed(**{**values, **fields})


# The file.


def test_speeds_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "releases.csv"
    assert read_history(path) == []
    speeds = [build_speed(), build_speed(form="prepared", implementation='odd, "quoted"')]
    write_history(path, speeds)
    assert read_history(path) == speeds


def test_rows_of_the_same_release_device_and_condition_are_replaced(tmp_path):
    path = tmp_path / "releases.csv"
    others = [
        build_speed("0.0.8"),
        build_speed(device="Another CPU"),
        build_speed(condition="cpu-b8-224px-fp32"),
        build_speed(network="litv2_base"),
        build_speed(form="prepared"),
    ]
    write_history(path, [build_speed(), *others])
    write_history(path, [build_speed(ratio=2.0, torch="2.10.0")])
    found = read_history(path)
    assert len(found) == len(others) + 1
    assert build_speed(ratio=2.0, torch="2.10.0") in found


def test_rows_are_in_the_order_of_releases(tmp_path):
    path = tmp_path / "releases.csv"
    versions = ["0.9.0", "0.10.0rc1", "0.10.0", "1.0.0"]
    write_history(path, [build_speed(version) for version in reversed(versions)])
    assert [speed.version for speed in read_history(path)] == versions


def test_every_invalid_row_is_reported(tmp_path):
    path = tmp_path / "releases.csv"
    write_history(path, [build_speed(), build_speed("0.1.0"), build_speed("0.2.0")])
    text = path.read_text().replace("0.1.0,", "new,").replace("0.2.0,Test CPU (2 cores),", "0.2.0,")
    path.write_text(text)
    with pytest.raises(FileFaultsError) as error:
        read_history(path)
    assert [fault.split(":")[0] for fault in error.value.faults] == ["line 3", "line 4"]
    assert "a version must start with a number, but got 'new'" in error.value.faults[0]
    path.write_text("network,speed\n")
    with pytest.raises(FileFaultsError, match="line 1: the columns must be version,device,network"):
        read_history(path)


def test_a_release_is_compared_with_the_newest_before_it_on_such_a_device_or_with_itself():
    history = [
        build_speed("0.2.0", 3.0),
        build_speed("0.9.0", 5.0),
        build_speed("0.10.0", 7.0),
        build_speed("0.11.0", 9.0),
        build_speed("0.10.1", 11.0, device="Another CPU"),
        build_speed("0.10.2", 13.0, condition="cpu-b8-224px-fp32"),
    ]
    assert find_earlier(build_speed("0.11.0"), history).version == "0.10.0"
    assert find_earlier(build_speed("0.2.0"), history).ratio == 3.0  # itself, as it was timed before
    assert find_earlier(build_speed("0.1.0"), history) is None


def test_a_speed_has_fallen_where_the_intervals_lie_apart():
    earlier = build_speed(ratio=1.0)
    assert build_speed(ratio=0.95).is_slower_than(earlier)
    assert not build_speed(ratio=0.97).is_slower_than(earlier)
    sharp = build_speed(ratio=0.98, ratio_low=0.979, ratio_high=0.981)
    assert not sharp.is_slower_than(build_speed(ratio=1.0, ratio_low=0.999, ratio_high=1.001))  # as timings vary
    assert not build_speed(ratio=1.5).is_slower_than(earlier)


# The bench, with an evaluator that never times.


def seconds_of(name, entrant):
    """The reference takes 0.1 s."""
    return {"plain": 0.2, "prepared": 0.1, "training": 0.5}[name.split()[1]]


@pytest.fixture
def fake(evaluator, planted_machine):
    """Builds a fake evaluator: `fake(failing=...)`."""

    def build(failing=lambda name: None):
        quiet = planted_machine(noise=0.005)
        return evaluator(seconds_of, machine=lambda: quiet, failing=failing)

    return build


@pytest.fixture
def run(fake, tmp_path):
    def bench(*, failing=lambda name: None, history=(), **fields):
        built = fake(failing)
        plan = ReleasesPlan(**{"device": "cpu", **fields})
        found = run_releases(plan, lambda event: None, history=history, logs=tmp_path, evaluator=built)
        return found, built.answers

    return bench


def test_the_same_networks_are_timed_in_a_cohort_for_each_batch_and_size(run):
    findings, fake = run()
    assert [len(names) for names in fake.cohorts] == [6, 6, 7]
    found = {(speed.condition, speed.network, speed.form): speed for speed in findings.speeds}
    assert len(found) == 19
    assert {condition for condition, _, _ in found} == {
        "cpu-b1-224px-fp32",
        "cpu-b8-224px-fp32",
        "cpu-b32-32px-fp32",
    }
    small = found["cpu-b32-32px-fp32", "litv2_s_third", "training"]
    assert (small.version, small.torch) == (hilo_nas.__version__, "2.9.0")
    assert small.ratio == pytest.approx(0.2, rel=0.01)
    assert small.ratio_low < small.ratio < small.ratio_high
    assert found["cpu-b1-224px-fp32", "litv2_base", "prepared"].ratio == pytest.approx(1.0, rel=0.01)


def test_a_gpu_times_batch_64_and_its_index_says_nothing(run):
    findings, _ = run(device="cuda:1")
    conditions = {speed.condition for speed in findings.speeds}
    assert conditions == {"cuda-b64-224px-fp32", "cuda-b32-32px-fp32"}


def test_forms_are_those_of_the_condition_and_a_step_is_a_step():
    *_, small = ReleasesPlan().list_cohorts("cpu")
    assert [form for _, form in small] == ["plain", "prepared"] * len(SMALL) + ["training"]
    assert [entrant.condition.fused for entrant in small.values()] == [False, True] * len(SMALL) + [False]
    assert set(small["litv2_s_third", "training"].subject) == {"training"}


def test_a_regression_is_reported_with_both_ratios(run):
    before = "0.0.9"
    findings, _ = run()
    history = [
        dataclasses.replace(
            speed, version=before, ratio=k * speed.ratio, ratio_low=k * speed.ratio_low, ratio_high=k * speed.ratio_high
        )
        for speed, k in zip(findings.speeds, [1.2, 0.8, *[1.0] * 17], strict=True)
    ]
    again, _ = run(history=history)
    first, then = findings.speeds[0], history[0]
    assert again.list_regressions() == [
        f"{first.network} {first.form} ({first.condition}) fell from {then.text()} times the reference in {before} "
        f"(torch {then.torch}, {then.date[:10]}) to {first.text()}"
    ]
    rows = again.list_rows()
    assert rows[0]["change"] == pytest.approx(1 / 1.2, rel=0.02)
    assert (rows[0]["earlier_version"], findings.list_rows()[0]["earlier_version"]) == (before, None)


def test_a_network_that_cannot_be_timed_is_reported_and_no_timing_at_all_is_an_error(run):
    error = OutOfMemoryError("it does not fit")
    findings, _ = run(failing=lambda name: error if name == "litv2_base plain" else None)
    assert list(findings.failures) == [
        f"litv2_base plain {condition}" for condition in ("cpu-b1-224px-fp32", "cpu-b8-224px-fp32")
    ]
    assert len(findings.speeds) == 17
    with pytest.raises(MeasurementError, match="nothing could be timed: it does not fit"):
        run(failing=lambda name: error)


def test_wrong_values_are_refused_at_once():
    with pytest.raises(UsageError) as error:
        ReleasesPlan(device="tpu", seconds=0, threads=0)
    assert len(str(error.value).splitlines()) == 3


# The command.


@pytest.fixture
def command(fake, tmp_path, monkeypatch):
    """Runs the command with a fake evaluator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(*, evaluator=None, check=False, shown=Format.table):
        update_releases(
            ReleasesPlan(device="cpu"),
            check=check,
            shown=shown,
            folder=tmp_path / "benchmarks",
            evaluator=evaluator or fake(),
        )
        return tmp_path / "benchmarks" / "releases.csv"

    return run


def test_the_command_writes_the_file_and_then_replaces_its_rows(command, capsys):
    for _ in range(2):
        path = command(check=True)
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 19
        assert {row["version"] for row in rows} == {hilo_nas.__version__}
    assert list(path.parent.iterdir()) == [path]
    assert "ratio to resnet18" in capsys.readouterr().out


def test_a_fall_is_a_warning_and_with_check_a_failure(command, capsys):
    path = command()
    then = [
        dataclasses.replace(
            speed,
            version="0.0.9",
            ratio=speed.ratio * 10,
            ratio_low=speed.ratio_low * 10,
            ratio_high=speed.ratio_high * 10,
        )
        for speed in read_history(path)
    ]
    path.unlink()
    write_history(path, then)
    capsys.readouterr()
    command()
    assert "warning: litv2_small plain (cpu-b1-224px-fp32) fell from " in capsys.readouterr().out
    with pytest.raises(typer.Exit) as ended:
        command(check=True, shown=Format.json)
    assert ended.value.exit_code == 1
    (content,) = json.loads(capsys.readouterr().out)
    assert content["command"] == "python -m benchmarks.releases --device cpu --seconds 5.0 --check"
    assert sum("fell from" in line for line in content["advice"]) == 19
    assert len(read_history(path)) == 38


def test_a_check_that_could_not_be_made_fails(command, fake):
    def failing(name):
        return OutOfMemoryError("it does not fit") if name == "litv2_base plain" else None

    path = command(evaluator=fake(failing))
    with pytest.raises(typer.Exit):
        command(evaluator=fake(failing), check=True)
    assert "litv2_base,prepared" in path.read_text()
    assert "litv2_base,plain" not in path.read_text()


def test_a_file_that_is_no_history_is_refused_before_anything_is_timed(command, fake, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/releases.csv").write_text("network,speed\n")
    evaluator = fake()
    with pytest.raises(FileFaultsError, match="the columns must be version,device"):
        command(evaluator=evaluator)
    assert evaluator.submitted == []
