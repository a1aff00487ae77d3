"""Every command, tried with studies that mean harm: nothing runs, hangs, is deleted or acts on the terminal.

The commands come from the command line itself, so that a new one without a call here fails a test. Timings and
trainings are those of a fake machine, which imports and calls the functions that it is given, as workers do.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from builders import build_data, build_manifest, demo_records, write_study
from command_tree import walk_commands
from fakes import FakeMachine

from hilo_nas.cli import main
from hilo_nas.export import EXPORTERS
from hilo_nas.plugins import is_plugin, load_function
from hilo_nas.study.local_settings import write_local
from hilo_nas.testing import FakeEvaluator, use_evaluator

LONGEST_S = 60
CONTROL = "\x1b[31m\x07\u202e"
CODE = "from pathlib import Path\nPath({canary!r}).touch()\ndef load():\n    return []\n"

COMMANDS = {
    "search": [["--study", "{s}", "--trials", "1"], ["--study", "{s}", "--dry-run"], ["--config", "{m}"]],
    "plan": [["--hours", "0.1", "--config", "{m}"]],
    "config": [["--config", "{m}"], ["{m}"]],
    "measure": [["{s}:3", "{s}:4"], ["onnx:{s}/theirs.onnx"], ["openvino:{s}/theirs.xml"]],
    "remeasure": [["{s}"], ["{s}", "--device", "cuda", "--study", "elsewhere"]],
    "status": [["{s}"], ["{s}", "--format", "json"], []],
    "front": [
        ["{s}"],
        ["{s}", "--format", "csv"],
        ["{s}", "--format", "json"],
        ["{s}", "--knee"],
        ["{s}", "--predicted"],
        ["{s}", "--near", "2"],
        [],
    ],
    "show": [["{s}:3"], ["{s}:3", "--format", "json"], ["{s}/theirs.yaml"]],
    "compare": [["{s}:3", "{s}:4"], ["{s}", "{t}"], ["{t}", "{s}", "--format", "json"]],
    "repair": [["{s}", "--dry-run"], ["{s}"]],
    "report": [["{s}", "-o", "report.html"], ["{s}", "{t}", "-o", "both.html"]],
    "export": [
        ["{s}", "--trial", "3", "-o", "out"],
        ["{s}", "--format", "optuna", "-o", "out.db"],
        ["{s}/theirs.yaml", "-o", "own"],
    ],
    "space list": [[]],
    "space show": [["{m}"]],
    "space init": [["new.yaml", "--from", "{m}"], ["{m}"]],
    "space check": [["{m}"], ["{s}/theirs.yaml"]],
    "doctor": [["--no-timing"]],
    "bench ruler": [["--space", "{m}"]],
    "bench attention": [["-o", "{m}"]],
    "bench backbones": [["-o", "{m}"]],
    "bench stages": [["--network", "{s}:3"], ["--network", "{s}/theirs.yaml"]],
    "proxy check": [["--config", "{m}", "--networks", "4"]],
    "data show": [["{s}", "-o", "sheet.png"], ["{s}", "-o", "{s}/trials/0000.json"]],
    "data check": [["{s}"]],
    "data write": [["{s}", "{s}"]],
    "cache list": [["--set", "data.cache_dir={s}"]],
    "cache clear": [["--set", "data.cache_dir={s}"]],
}
"""Arguments of calls by command: `{s}` is the hostile study, `{m}` its manifest, and `{t}` a whole study."""
WRITES = ("search", "remeasure", "repair")
"""Commands that may write into the study that they are given."""
CONVERTING = [name for name in EXPORTERS if name not in ("timm", "optuna")]


class CallingMachine(FakeMachine):
    """A fake machine that calls the functions for data and scores that a search gives to it."""

    def prepare(self, task):
        images = task.images or {}
        for name in (task.source, images.get("source"), images.get("val_data")):
            if name is not None and is_plugin(name):
                load_function(name)()
        return super().prepare(task)


def test_every_command_is_tried():
    leaves = {words for words, command in walk_commands() if not hasattr(command, "commands")}
    assert leaves == COMMANDS.keys()


# What a study holds. Each function changes a whole one.


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_record(study, trial, **changes):
    path = study.trials_path / f"{trial:04d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def nothing(study, mine):
    pass


def tags(study, mine):
    edit(study.manifest_path, "sampler:", f'x: !!python/object/apply:os.system ["touch {mine.parent}/hit"]\nsampler:')


def local_code(study, mine):
    code = study.path / "theirs.py"
    (study.path / "local.yaml").write_text(
        f"data: {code}:load\nproxy: {code}:load\ncache_dir: {mine}\nsignature: '{'0' * 64}'\n"
    )


def data_of_code(study, mine):
    manifest = build_manifest(data=build_data(name=f"{study.path}/theirs.py:load"))
    study.write_manifest(manifest)


def bomb(study, mine):
    lines = ["x0: &x0 [1]", *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12))]
    edit(study.manifest_path, "sampler:", "\n".join(lines) + "\nsampler:")


def deep_manifest(study, mine):
    edit(study.manifest_path, "sampler:", f"x: {'[' * 50_000}\nsampler:")


def deep_record(study, mine):
    (study.trials_path / "0003.json").write_text('{"number": ' + "[" * 100_000)


def deep_derived(study, mine):
    for name in ("posteriors.json", "stages.json"):
        (study.path / name).write_text('{"a":' * 100_000)


def no_numbers(study, mine):
    path = study.trials_path / "0003.json"
    path.write_text(path.read_text().replace('"ratio":', '"ratio": NaN, "old":', 1))


def huge_numbers(study, mine):
    edit_record(study, 3, parameters=10**4000, macs=10**4000)
    path = study.trials_path / "0002.json"
    path.write_text(path.read_text().replace('"number": 2', f'"number": {"9" * 100_000}'))


def huge_network(study, mine):
    record = json.loads((study.trials_path / "0003.json").read_text())
    record["subject"]["arch"] |= {"depths": [2**62] * 4, "embed_dims": [2**40] * 4}
    (study.trials_path / "0003.json").write_text(json.dumps(record))


def control_signs(study, mine):
    edit_record(study, 3, reason=CONTROL, origin=f"anchor:{CONTROL}")
    edit_record(study, 6, reason=f"{CONTROL}\nNext: rm -rf /\r")
    study.write_manifest(build_manifest(name=CONTROL, data=build_data(name=CONTROL), versions={CONTROL: CONTROL}))


def texts_for_numbers(study, mine):
    edit_record(study, 3, seconds="soon", number="3", scores=[{"value": "high"}], measurements={"x": []})


def linked_record(study, mine):
    (study.trials_path / "0003.json").unlink()
    (study.trials_path / "0003.json").symlink_to(mine / "thesis.txt")


def linked_folders(study, mine):
    for path in (study.trials_path, study.logs_path, study.checkpoints_path):
        if path.exists():
            shutil.rmtree(path)
        path.symlink_to(mine)


def linked_files(study, mine):
    for name in ("manifest.backup.yaml", "local.yaml", "posteriors.json", "stages.json", "trials.csv", "front.csv"):
        (study.path / name).unlink(missing_ok=True)
        (study.path / name).symlink_to(mine / "thesis.txt")


def endless_files(study, mine):
    for name in ("posteriors.json", "stages.json", "local.yaml"):
        (study.path / name).symlink_to("/dev/zero")
    os.mkfifo(study.trials_path / "0009.json")


def damaged_outside(study, mine):
    (study.trials_path / "0003.json").write_text("{")
    (study.path / "damaged").symlink_to(mine)


def folders_for_files(study, mine):
    for name in ("posteriors.json", "local.yaml", "trials/0010.json", "data.png"):
        (study.path / name).mkdir()


def huge_files(study, mine):
    for name in ("trials/0011.json", "posteriors.json", "stages.json", "local.yaml"):
        with open(study.path / name, "wb") as file:
            file.truncate(2**33)


def binary_log(study, mine):
    study.logs_path.mkdir()
    (study.logs_path / "events.jsonl").write_bytes(os.urandom(5000) + CONTROL.encode())


def many_records(study, mine):
    for number in range(20, 400):
        (study.trials_path / f"{number:04d}.json").write_text("{}")


HOSTILE = [
    nothing, tags, local_code, data_of_code, bomb, deep_manifest, deep_record, deep_derived, no_numbers, huge_numbers,
    huge_network, control_signs, texts_for_numbers, linked_record, linked_folders, linked_files, endless_files,
    damaged_outside, folders_for_files, huge_files, binary_log, many_records,
]  # fmt: skip


def list_files(folder):
    """Kind and content of everything in a folder, without locks, logs and what links lead to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock":
            continue
        status = path.lstat()
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes() if status.st_size < 2**25 else status.st_size
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "thesis.txt").write_text("mine")
    (home / "mine" / ".0001.json.abcdefgh.tmp").write_text("mine")
    (home / "mine" / "0000.json").write_text("{}")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home / "studies"))
    return home


@pytest.fixture
def study(home):
    """A whole study with code, an architecture and files of networks next to its records."""
    study = write_study(home / "studies", "theirs", demo_records())
    write_study(home / "studies", "whole", demo_records())
    (study.path / "theirs.py").write_text(CODE.format(canary=str(home / "hit")))
    (study.path / "theirs.yaml").write_text(f'!!python/object/apply:os.system ["touch {home}/hit"]\n')
    for name in ("theirs.onnx", "theirs.xml", "theirs.bin"):
        (study.path / name).write_bytes(b"\x00" * 100)
    return study


@pytest.fixture
def run(capfd):
    """Runs a command with a fake machine. It must end soon, with a reason if it fails, and without a traceback."""

    def ring(signum, frame):
        raise AssertionError(f"no end within {LONGEST_S} s")

    def call(words, arguments):
        knows_studies = words in ("search", "remeasure", "plan", "proxy check")
        evaluator = CallingMachine() if knows_studies else FakeEvaluator()
        before = signal.signal(signal.SIGALRM, ring)
        signal.alarm(LONGEST_S)
        try:
            with use_evaluator(evaluator if knows_studies else lambda logs, **options: evaluator):
                code = main([*words.split(), *arguments])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        said = capfd.readouterr()
        printed = said.out + said.err
        assert code in (0, 1, 2), (code, arguments)
        assert "Traceback" not in printed, (arguments, said.err[-2000:])
        assert "This is a bug in hilo-nas" not in printed, (arguments, said.err[-2000:])
        assert code == 0 or printed.strip(), ("no reason was given", arguments)
        assert not set(CONTROL) & set(printed) - set("[31m"), (arguments, printed[-500:])
        return code

    return call


def calls_of(words, study, home):
    names = {"s": str(study.path), "m": str(study.manifest_path), "t": str(home / "studies" / "whole")}
    return [[argument.format(**names) for argument in arguments] for arguments in COMMANDS[words]]


WORKING = [*COMMANDS.keys() - {"space show", "space check", "bench ruler", "bench attention", "bench backbones"}]
WORKING = sorted({*WORKING} - {"plan", "proxy check", "data show", "data check", "data write"})
"""Commands whose first call works with a whole study. The others are given a study where they need something else."""


@pytest.mark.slow
@pytest.mark.parametrize("words", WORKING)
def test_the_calls_work_with_a_study_that_means_no_harm(run, home, study, words):
    assert run(words, calls_of(words, study, home)[0]) == 0


def test_code_that_the_user_named_runs_so_that_other_code_would_be_seen(run, home, study, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STATE_DIR", str(home / "state"))
    write_local(study.path / "local.yaml", {"data.source": f"{study.path}/theirs.py:load"})
    run("search", calls_of("search", study, home)[0])
    assert (home / "hit").exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_no_command_does_what_a_hostile_study_wants(run, home, study, words, change):
    change(study, home / "mine")
    for arguments in calls_of(words, study, home):
        before = list_files(home)
        run(words, arguments)
        after = list_files(home)
        assert not (home / "hit").exists(), arguments
        kept = (
            before if words not in WRITES else {n: c for n, c in before.items() if not n.startswith("studies/theirs")}
        )
        assert {name: after.get(name) for name in kept} == kept, arguments
        theirs = {name for name in after if name.startswith("studies/theirs")}
        if words not in WRITES:
            assert theirs == {name for name in before if name.startswith("studies/theirs")}, arguments
        if words == "repair":  # nothing is deleted: it moves
            contents = sorted(map(str, (after[name] for name in theirs)))
            for name, content in before.items():
                if name.startswith("studies/theirs/") and content not in ("folder",):
                    assert str(content) in contents, (arguments, name)


@pytest.mark.slow
@pytest.mark.parametrize("change", [local_code, control_signs])
@pytest.mark.parametrize("name", CONVERTING)
def test_no_export_for_a_runtime_does_what_a_hostile_study_wants(run, home, study, name, change):
    change(study, home / "mine")
    before = list_files(home / "studies")
    run("export", [str(study.path), "--trial", "3", "--format", name, "-o", "out"])
    assert list_files(home / "studies") == before
    assert not (home / "hit").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTING)
def test_weights_that_are_a_pickle_of_code_are_not_run(run, home, study, name):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {home}/hit",))

    import torch

    torch.save({"state_dict": Evil()}, home / "weights.pt")
    before = list_files(home / "studies")
    code = run("export", [str(study.path), "--trial", "3", "--format", name, "--weights", "weights.pt", "-o", "out"])
    assert code in (1, 2)
    assert list_files(home / "studies") == before
    assert not (home / "hit").exists()


@pytest.mark.slow
def test_files_of_exports_hold_no_path_of_this_machine(run, home, study):
    for arguments in (["--trial", "3", "-o", "out"], ["--format", "optuna", "-o", "out.db"]):
        assert run("export", [str(study.path), *arguments]) == 0
    assert run("report", [str(study.path), "-o", "report.html"]) == 0
    written = [path for path in [*Path("out").rglob("*"), Path("out.db"), Path("report.html")] if path.is_file()]
    assert len(written) > 3
    for path in written:
        assert str(home).encode() not in path.read_bytes(), path
