"""`hilo-nas remeasure`: with real workers once, and what it refuses."""

import os
import subprocess
import sys

import pytest
from builders import (
    TINY,
    build_arch,
    build_condition,
    build_device,
    build_manifest,
    build_record,
    demo_records,
    fresh,
    write_study,
)
from fakes import FakeMachine

from hilo_nas.cli import main
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import use_evaluator


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    return tmp_path / "studies"


def refused(capsys, *arguments, code):
    assert main(["remeasure", *arguments]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return " ".join(err.replace("│", " ").split())


@pytest.mark.slow
def test_a_study_of_another_machine_is_timed_on_this_one(studies, capsys):
    """With a worker process, the device's lock, and two networks of which the planted slow one must come out slower."""
    condition = build_condition(batch_size=2)
    slow = build_arch(31, embed_dims=(64, 128, 256, 512), num_heads=(4, 8, 16, 32))
    some = [build_record(0, 100.0, 0.5, arch=slow), build_record(1, 90.0, 0.6, arch=TINY)]
    source = write_study(studies, "far", some, build_manifest("far", conditions=(condition,)))
    assert main(["remeasure", "far", "--study", "here", "--set", "timing.seconds=0.3"]) == 0
    out = capsys.readouterr().out
    folder = StoredStudy(studies / "here")
    manifest, records = fresh(folder).manifest, fresh(folder).records
    assert manifest.device.model != build_device().model
    assert all(manifest.is_comparable(record.measurement) for record in records)
    assert len({record.measurement.cohort for record in records} - {""}) == 1
    assert records[0].measurement.images_per_s < records[1].measurement.images_per_s
    assert [record.scores for record in records] == [record.scores for record in some]
    assert list(fresh(source).records) == some
    assert "2 networks timed side by side at cpu-b2-32px-fp32" in out
    assert "here: 1 of 2 scored networks is on the front" in out
    assert f"Records: {folder.path}" in out
    assert (folder.path / "front.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ghost"], "no study 'ghost'"),
        (["demo", "--device", "toaster"], "device must be cpu, cuda, cuda:N or mps, but got 'toaster'"),
        (["demo", "--set", "study.idle_timeout_s=soon"], "a duration must be above 0"),
        (["remote"], "the networks of study remote were timed in study edge"),
        ([], "Missing argument 'STUDY'"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(studies, capsys, arguments, said):
    write_study(studies, "demo", [build_record(0)])
    write_study(studies, "remote", [build_record(0)], build_manifest("remote", speeds="edge"))
    assert said in refused(capsys, *arguments, code=2)


@pytest.fixture
def machine():
    machine = FakeMachine(devices={"cpu": build_device(), "cuda": build_device(kind="cuda", model="Test GPU")})
    with use_evaluator(machine):
        yield machine


@pytest.mark.parametrize(
    ("options", "networks", "name"),
    [
        ([], 4, "demo"),  # the front of three, and the anchor that it is compared with
        (["--all"], 6, "demo"),
        (["--device", "cuda"], 6, "demo-cuda"),
        (["--device", "cuda", "--study", "mine"], 6, "mine"),
    ],
)
def test_the_options_say_what_is_timed_and_the_front_is_shown(studies, machine, capsys, options, networks, name):
    write_study(studies, "demo", demo_records())
    assert main(["remeasure", "demo", *options]) == 0
    out = capsys.readouterr().out
    assert f"{networks} networks timed side by side" in out
    assert f"\n{name}: " in out
    assert f"Records: {studies / name}" in out
    for file in ("trials.csv", "front.csv"):
        assert (studies / name / file).is_file()


def test_a_user_may_say_for_how_long_each_network_is_timed(studies, machine, capsys):
    write_study(studies, "demo", demo_records())
    assert main(["remeasure", "demo", "--set", "timing.seconds=0.5"]) == 0
    assert set(machine.timings_s) == {0.5}
    assert "seconds must be a number above 0, but got 0" in refused(capsys, "demo", "--set", "timing.seconds=0", code=2)


def test_where_the_world_refuses_it_ends_with_1(studies, machine, capsys):
    folder = write_study(studies, "demo", demo_records())
    with locked(folder):
        assert "study demo is locked" in refused(capsys, "demo", code=1)
    (folder.trials_path / "0002.json").write_text("{")
    assert "0002.json: it is not complete JSON" in refused(capsys, "demo", code=1)


def test_a_name_that_is_taken_ends_with_2(studies, machine, capsys):
    write_study(studies, "demo", demo_records())
    write_study(studies, "demo-cuda", [])
    said = refused(capsys, "demo", "--device", "cuda", code=2)
    assert "must be new, but demo-cuda exists" in said
    assert "this machine has no mps" in refused(capsys, "demo", "--device", "mps", code=2)


def test_a_re_timing_that_is_stopped_ends_with_130_and_keeps_the_study(studies, machine, capsys):
    folder = write_study(studies, "demo", demo_records())

    def stop(verb, count):
        raise KeyboardInterrupt

    machine.happen = stop
    assert "stopped; everything finished is kept" in refused(capsys, "demo", code=130)
    assert list(fresh(folder).records) == demo_records()


@pytest.mark.parametrize("command", ["remeasure --help", "search --help"])
def test_its_help_loads_neither_torch_nor_optuna(command):
    child = """
import sys
from hilo_nas.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("code", code, *[name for name in ("torch", "timm", "optuna", "pandas") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", child, *command.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
        check=False,
    )
    assert done.stdout.rstrip().endswith("code 0"), done.stdout[-300:] + done.stderr[-2000:]
    assert command.split()[0] in done.stdout
