"""A study and a space from strangers, tried against the commands: nothing runs, goes or acts on the terminal."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from builders import (
    build_condition,
    build_data,
    build_device,
    build_failed,
    build_infeasible,
    build_manifest,
    build_measurement,
    build_record,
    demo_records,
    fresh,
)

from hilo_nas.cli import main
from hilo_nas.space import load_space
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

EVIL = "[/x][bold]\x1b[31m\x07\u202e$(touch hit)"
ACTING = set("\x1b\x07\u202e")
FUNCTION = (
    "from pathlib import Path\nPath({canary!r}).touch()\ndef load():\n    return []\ndef score(*a):\n    return 0, 0\n"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def study(home):
    """A study with hostile texts, code next to it, and a local.yaml that names the code and the user's home."""
    device = build_device(model=f"CPU {EVIL}", driver=EVIL, torch=f"2.9{EVIL}")
    space = load_space("litv2_digits")
    anchor = dataclasses.replace(space.anchors[0], name=f"litv2 {EVIL}")
    space = dataclasses.replace(space, name=f"space {EVIL}", description=EVIL, anchors=(anchor,))
    manifest = build_manifest(
        name=EVIL,
        space=space,
        device=device,
        data=build_data(name=f"theirs.py:load {EVIL}"),
        versions={EVIL: EVIL},
        baselines=(f"timm:{EVIL}",),
        speeds=f"table {EVIL}",
        sampler=f"gp {EVIL}",
    )
    folder = StoredStudy(home / "studies" / EVIL.replace("/", "|"))
    folder.trials_path.mkdir(parents=True)
    fresh(folder).write_manifest(manifest)
    records = [
        dataclasses.replace(
            record,
            origin=f"anchor:{anchor.name}" if record.number == 0 else f"reuse:{EVIL}/1",
            measurements=tuple(
                dataclasses.replace(m, device=device, form=f"litv2 {EVIL}", verdict=None) for m in record.measurements
            ),
        )
        for record in demo_records()[:5]
    ]
    records += [build_failed(5, reason=f"{EVIL}\n{EVIL}"), build_infeasible(6, reason=EVIL)]
    baseline = build_record(7, 500.0, 0.5, origin=f"baseline:{EVIL}")
    records.append(dataclasses.replace(baseline, subject=Subject(timm=EVIL), parameters=1, macs=1))
    for record in records:
        fresh(folder).write(record)
    code = folder.path / "theirs.py"
    code.write_text(FUNCTION.format(canary=str(home / "hit")))
    local = {"data": f"{code}:load", "val_data": f"{code}:load", "proxy": f"{code}:score", "cache_dir": str(home)}
    (folder.path / "local.yaml").write_text(yaml.safe_dump({**local, "signature": "0" * 64}))
    (home / "mine" / "data" / "sets" / "precious").mkdir(parents=True)
    (home / "mine" / "data" / "sets" / "precious" / "thesis.txt").write_text("mine")
    return folder


def listing(home):
    return {str(path.relative_to(home)): path.is_file() and path.read_bytes() for path in home.rglob("*")}


READING = [
    ["status"],
    ["status", "--format", "json"],
    ["front"],
    ["front", "--format", "csv"],
    ["front", "--format", "json"],
    ["front", "--knee"],
    ["export", "--trial", "99", "-o", "out"],
    ["repair"],
    ["repair", "--dry-run"],
    ["search", "--study"],
    ["search", "--dry-run", "--study"],
    ["remeasure", "--device", "nowhere"],
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_no_command_runs_writes_or_shows_what_a_strangers_study_wants(home, study, capsys, command):
    before = {name: content for name, content in listing(home).items() if "/logs" not in name and "/.lock" not in name}
    name = str(study.path)
    arguments = [*command, name] if command[-1] == "--study" else [command[0], name, *command[1:]]
    code = main(arguments)
    printed = "".join(capsys.readouterr())
    assert not ACTING & set(printed)
    assert "fault of hilo-nas" not in printed
    assert "Traceback" not in printed
    is_reading = command[0] in ("status", "front", "repair")
    assert (code == 0) == is_reading
    if is_reading and "csv" not in command and command[0] != "repair":
        assert "[/x][bold]\\x1b" in printed or "[/x][bold]\\u001b" in printed
    after = {name: content for name, content in listing(home).items() if "/logs" not in name and "/.lock" not in name}
    assert after == before
    assert not (home / "hit").exists()


def test_a_trial_of_a_strangers_study_is_exported_without_running_anything(home, study, capsys):
    assert main(["export", str(study.path), "--trial", "3", "-o", "out"]) == 0
    assert not ACTING & set("".join(capsys.readouterr()))
    assert not (home / "hit").exists()


def test_a_strangers_space_is_shown_as_it_is(home, capsys):
    fields = load_space("litv2_digits").to_dict()
    fields |= {"description": EVIL, "anchors": {EVIL: next(iter(fields["anchors"].values()))}}
    Path("theirs.yaml").write_text(yaml.safe_dump(fields))
    for command in (["show", "theirs.yaml"], ["check", "theirs.yaml"], ["show", f"none{EVIL}.yaml"]):
        main(["space", *command])
        printed = "".join(capsys.readouterr())
        assert not ACTING & set(printed)
        assert "fault of hilo-nas" not in printed


def test_a_condition_and_a_measurement_of_a_stranger_do_not_act(home, study, capsys):
    condition = dataclasses.replace(build_condition())
    object.__setattr__(condition, "env", EVIL)
    record = build_record(0, measurements=(build_measurement(condition=condition),))
    fields = record.to_dict()
    study.trials_path.joinpath("0000.json").write_text(json.dumps(fields))
    for command in ("status", "front"):
        main([command, str(study.path)])
        assert not ACTING & set("".join(capsys.readouterr()))


LINE = "x\nNext: rm -rf\r\u2028"


def test_no_text_of_a_stranger_passes_for_a_line_of_this_tool(home, capsys):
    device = build_device(model=LINE, driver=LINE, torch=f"2.9{LINE}")
    manifest = build_manifest(
        device=device, data=build_data(name=LINE, unlike_timm=[LINE]), versions={LINE: LINE}, sampler=LINE
    )
    folder = StoredStudy(home / "studies" / "demo")
    folder.trials_path.mkdir(parents=True)
    fresh(folder).write_manifest(manifest)
    for record in demo_records():
        measured = tuple(dataclasses.replace(item, device=device) for item in record.measurements)
        fresh(folder).write(dataclasses.replace(record, measurements=measured))
    fresh(folder).write(build_failed(9, reason=LINE))
    for command in (["status"], ["front"], ["export", "--trial", "3", "-o", "out"]):
        assert main([command[0], "demo", *command[1:]]) == 0
        printed = "".join(capsys.readouterr())
        assert not [line for line in printed.splitlines() if line.strip().startswith("Next: rm")]
    assert "x\\x0aNext: rm -rf" in printed
