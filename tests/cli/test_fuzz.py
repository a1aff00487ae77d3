"""Damaged files and senseless arguments end in an error with its reason: no accident, no hang, no changed study."""

import hashlib
import json
import re
import shutil
import signal
from pathlib import Path
from random import Random

import pytest
import typer
import yaml
from fakes import FakeMachine

from hilo_nas.cli import main
from hilo_nas.cli.app import app
from hilo_nas.searching.configuration.config_files import render_config
from hilo_nas.searching.configuration.resolve import resolve
from hilo_nas.searching.configuration.search_config import SHORT_NAMES, SearchConfig
from hilo_nas.space import list_shipped, load_space
from hilo_nas.testing import FakeEvaluator, use_evaluator

pytestmark = pytest.mark.long

SEEDS = 6
CASES = {
    "record": 100, "manifest": 100, "derived": 60, "repair": 40, "space": 80, "arguments": 120, "configuration": 60,
}  # fmt: skip
"""Of each seed: 3,360 in all."""
LONGEST_S = 20
ASSETS = Path(__file__).parents[1] / "assets" / "schema_1"
STUDIES = Path(__file__).parents[2] / "studies"
NASTY = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.0, -0.5, 1e308, 1e-320, float("nan"),
    float("inf"),
    "", " ", "x", "\x00", "\x1b[31m", "é" * 300, "../../etc", "1e999", "a" * 100_000, "2001-02-30", "{}", "&a",
    "!!python/name:os.system", [], [[]], {}, {"x": {"y": []}}, [None] * 50, ["x", 1, {}], {"": 0}, list(range(2000)),
    "%s%n", "cuda:99", "cpu", "timm:resnet18",
]  # fmt: skip
TEXTS = [
    "", "-", "--", "-1", "0", "1e9", "nan", "inf", "9" * 6000, "x", "é", "a" * 5000, "../..", "/dev/null", "/dev/zero",
    "\t", "=", "a=b", "1,2", "true", "cpu", "cuda:99", "digits", "timm:resnet18", "[" * 500,
    "nowhere.yaml", "*", "%(x)s",
]  # fmt: skip


def places(value, path=()):
    """Every place in plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def mutated(value, random):
    """Plain data with one to three places changed, taken out, doubled or added to."""
    value = json.loads(json.dumps(value, default=str))
    for _ in range(random.randint(1, 3)):
        path = random.choice(list(places(value)))
        if not path:
            return random.choice(NASTY)
        parent = value
        for name in path[:-1]:
            parent = parent[name]
        match random.choice(["change", "take", "add", "double"]):
            case "change":
                parent[path[-1]] = random.choice(NASTY)
            case "take":
                del parent[path[-1]]
            case "add" if isinstance(parent, dict):
                parent[random.choice(["colour", "schema_version", "", "key", "0", "state"])] = random.choice(NASTY)
            case _ if isinstance(parent, list):
                parent[path[-1] : path[-1]] = [parent[path[-1]]] * random.choice([1, 40])
            case _:
                parent[f"{path[-1]}2"] = parent[path[-1]]
    return value


def torn(text, random):
    """A text that was cut off, overwritten or filled with what no parser likes."""
    at = random.randrange(len(text) + 1)
    inserts = [
        "[" * 5000, "{" * 3000, '{"a":' * 3000, "9" * 6000, "\x00", "\x85", "\t", "- " * 5000,
        "&a [*a, *a]", "? :", "NaN", "2001-02-30", "!!python/object/apply:os.system [x]", "\ufeff", "#" * 100, "'", '"',
        "%YAML 9.9\n---\n", "<<: *b", "\ud800",
    ]  # fmt: skip
    match random.choice(["cut", "insert", "bytes", "swap"]):
        case "cut":
            return text[:at].encode()
        case "insert":
            return (text[:at] + random.choice(inserts) + text[at:]).encode(errors="surrogatepass")
        case "bytes":
            content = bytearray(text.encode())
            for _ in range(random.randint(1, 8)):
                content[random.randrange(len(content))] = random.randrange(256)
            return bytes(content)
        case _:
            lines = text.split("\n")
            random.shuffle(lines)
            return "\n".join(lines).encode()


def digest(folder):
    """Names and contents of the files in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """Runs a command as `hilo-nas` does; nothing but an exit with a reason is let pass."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))

    def ring(signum, frame):
        raise AssertionError(f"no end within {LONGEST_S} s")

    def call(*arguments):
        before = signal.signal(signal.SIGALRM, ring)
        signal.alarm(LONGEST_S)
        evaluator = FakeMachine() if STUDIES_MACHINE.match(" ".join(arguments)) else FakeEvaluator()
        is_machine = isinstance(evaluator, FakeMachine)
        try:
            with use_evaluator(evaluator if is_machine else lambda logs, **options: evaluator):
                code = main(list(arguments))
        except SystemExit as error:
            code = error.code
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        said = capfd.readouterr()
        assert code in (0, 1, 2), (code, arguments)
        assert "Traceback" not in said.err + said.out, (arguments, said.err[-2000:])
        assert "This is a bug in hilo-nas" not in said.err, (arguments, said.err[-2000:])
        assert code == 0 or said.err.strip() or said.out.strip(), ("no reason was given", arguments)
        return code

    return call


def study_for(random, folder):
    """A copy of a stored study of either schema."""
    source = random.choice([ASSETS / "protocol_1", ASSETS / "search", STUDIES / "cifar10-cpu"])
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("local.yaml", ".lock", "logs", "checkpoints"))
    return folder


def read(run, random, folder):
    """Reads a study in one of the ways that need no worker and returns the exit code; the study stays as it is."""
    before = digest(folder)
    ways = [
        ["status", folder.name],
        ["front", folder.name],
        ["front", folder.name, "--format", "json"],
        ["front", folder.name, "--format", "csv"],
        ["front", folder.name, "--knee"],
        ["show", f"{folder.name}:0"],
        ["report", folder.name, "-o", f"report-{random.random()}.html"],
        ["export", folder.name, "--knee", "--format", "timm", "-o", f"out-{random.random()}"],
        ["export", folder.name, "--format", "optuna", "-o", f"out-{random.random()}.db"],
        ["front", folder.name, "--predicted"],
        ["show", f"{folder.name}:0", "--format", "json"],
        ["compare", f"{folder.name}:0", f"{folder.name}:1"],
        ["compare", folder.name, folder.name],
        ["measure", f"{folder.name}:0", "--device", "cpu"],
        ["config", "--config", str(folder / "manifest.yaml")],
        ["repair", folder.name, "--dry-run"],
    ]
    code = run(*random.choice(ways))
    assert digest(folder) == before
    return code


def test_a_study_that_is_whole_is_read_in_every_way(run, tmp_path):
    random = Random(0)
    for _ in range(90):  # of 17 ways and 3 studies; what the others find is then the damage
        assert read(run, random, study_for(random, tmp_path / "studies" / "s")) == 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_record(run, seed, tmp_path):
    random = Random(f"record {seed}")
    for _ in range(CASES["record"]):
        folder = study_for(random, tmp_path / "studies" / "s")
        path = random.choice(sorted((folder / "trials").iterdir()))
        if random.random() < 0.7:
            path.write_text(json.dumps(mutated(json.loads(path.read_text()), random)))
        else:
            path.write_bytes(torn(path.read_text(), random))
        read(run, random, folder)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_manifest(run, seed, tmp_path):
    random = Random(f"manifest {seed}")
    for _ in range(CASES["manifest"]):
        folder = study_for(random, tmp_path / "studies" / "s")
        path = folder / "manifest.yaml"
        if random.random() < 0.7:
            path.write_text(yaml.safe_dump(mutated(yaml.safe_load(path.read_text()), random)))
        else:
            path.write_bytes(torn(path.read_text(), random))
        read(run, random, folder)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_file_that_is_derived_or_local(run, seed, tmp_path):
    random = Random(f"derived {seed}")
    for _ in range(CASES["derived"]):
        folder = study_for(random, tmp_path / "studies" / "s")
        source = random.choice(sorted((folder / "trials").iterdir()))
        text = json.dumps(mutated(json.loads(source.read_text()), random))
        name = random.choice(["posteriors.json", "stages.json", "local.yaml", "manifest.backup.yaml", "trials.csv"])
        path = folder / name
        if path.exists() and random.random() < 0.7:
            text = path.read_text()
        path.write_bytes(torn(text, random))
        read(run, random, folder)


def contents(folder):
    """Contents of all files in a study, wherever they lie, without locks."""
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_repair_keeps_everything_and_what_it_leaves_can_be_read(run, seed, tmp_path):
    random = Random(f"repair {seed}")
    for _ in range(CASES["repair"]):
        folder = study_for(random, tmp_path / "studies" / "s")
        shutil.copy(folder / "manifest.yaml", folder / "manifest.backup.yaml")
        whole = digest(folder)
        damaged = set()
        for _ in range(random.randint(1, 4)):
            path = random.choice([*sorted((folder / "trials").iterdir()), folder / "manifest.yaml"])
            damaged.add(str(path.relative_to(folder)))
            load, dump = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
            try:
                is_mutated = random.random() < 0.6 and path.write_text(dump(mutated(load(path.read_text()), random)))
            except (ValueError, yaml.YAMLError, RecursionError):
                is_mutated = False
            if not is_mutated:
                path.write_bytes(torn(path.read_bytes().decode(errors="replace"), random))
        before = contents(folder)
        code = run("repair", "s")
        left = contents(folder)
        for content in before:
            assert content in left
            left.remove(content)
        assert all(digest(folder).get(name) == value for name, value in whole.items() if name not in damaged)
        if code == 0:
            assert run("status", "s") == run("front", "s") == 0
        assert run("repair", "s") == code


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_space(run, seed, tmp_path):
    random = Random(f"space {seed}")
    shipped = list(list_shipped().values())
    for _ in range(CASES["space"]):
        text = random.choice(shipped).read_text()
        path = tmp_path / "mine.yaml"
        if random.random() < 0.7:
            path.write_text(yaml.safe_dump(mutated(yaml.safe_load(text), random)))
        else:
            path.write_bytes(torn(text, random))
        run(*random.choice([["space", "show", "mine.yaml"], ["space", "check", "mine.yaml"]]))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_configuration(run, seed, tmp_path):
    random = Random(f"configuration {seed}")
    for _ in range(CASES["configuration"]):
        folder = study_for(random, tmp_path / "studies" / "s")
        name = random.choice(list(list_shipped()))
        text = render_config(resolve(SearchConfig.of(space=name), load_space(name)))
        if random.random() < 0.3:
            text = (folder / "manifest.yaml").read_text()
        path = tmp_path / "mine.yaml"
        if random.random() < 0.7:
            path.write_text(yaml.safe_dump(mutated(yaml.safe_load(text), random)))
        else:
            path.write_bytes(torn(text, random))
        setting = f"{random.choice(list(SHORT_NAMES.values()))}={random.choice(TEXTS)}"
        run("config", "--config", "mine.yaml", *random.choice([[], ["--set", setting]]))  # which asserts


def commands(group=None, words=()):
    """Every command, as its words and its parameters."""
    command = typer.main.get_command(app) if group is None else group
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from commands(below, (*words, name))
    else:
        yield words, command.params


def senseless(words, parameters, random):
    """A call that cannot succeed and begins no work: what it names is not there."""
    arguments = list(words)
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            arguments += [random.choice(["nowhere.yaml", "no-such-study", "x/y/z", *TEXTS])]
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    for option in random.sample(options, min(len(options), random.randint(0, 5))):
        arguments += [random.choice(option.opts)]
        if not option.is_flag:
            arguments += [random.choice(TEXTS)]
    if random.random() < 0.3:
        arguments += [random.choice(["--colour", "-Z", "extra", "--", "--=", "-"])]
    return arguments


STARTS_WORK = re.compile(r"search|bench|proxy|data|cache clear")
"""Commands that work without a fake machine, write or delete: their calls have an option that does not exist."""
STUDIES_MACHINE = re.compile(r"search|remeasure|plan|proxy")
"""Commands whose fake machine answers like a real one, because they write a study."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_senseless_arguments(run, seed, tmp_path):
    random = Random(f"arguments {seed}")
    known = sorted(commands(), key=lambda item: item[0])
    study_for(random, tmp_path / "studies" / "s")
    before = digest(tmp_path / "studies")
    for _ in range(CASES["arguments"]):
        words, parameters = random.choice(known)
        arguments = senseless(words, parameters, random)
        if STARTS_WORK.match(" ".join(words)):
            arguments += ["--no-such-option"]  # so that nothing begins
        run(*arguments)
        assert digest(tmp_path / "studies") == before
