"""The README's commands run, on a machine that times and trains nothing, and its YAML is a space."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from bench.checkouts import write_checkout
from bench.tables import build_table
from builders import TINY, build_device
from fakes import FakeMachine

from hilo_nas.bench.table import TABLE_NAME, write_table
from hilo_nas.cli import main
from hilo_nas.models import build_model
from hilo_nas.searching import SearchConfig
from hilo_nas.searching.config import SHORT_NAMES
from hilo_nas.searching.config_files import render_config
from hilo_nas.space import load_space
from hilo_nas.study import StoredStudy
from hilo_nas.testing import FakeEvaluator, use_evaluator

README = (Path(__file__).parents[1] / "README.md").read_text()
CONSOLE = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
BENCH_NAMES = (
    *("ruler", "attention", "backbones", "stages", "official", "releases"),
    *("table", "samplers", "training"),
)
DATA = ("data show", "data check", "data write")
BENCHES = tuple(f"bench {name}" for name in BENCH_NAMES)
COMMANDS = [line for line in CONSOLE if line.startswith("hilo-nas ")]
LESS = {
    "search": "--trials 2",
    "proxy check": "--networks 4",
    "bench official": "--network litv2_small --batch-size 1 --no-training",
    "bench table": "--networks 2",
    "bench samplers": "--seeds 1 --sampler random",
    "bench training": "--device cpu --data digits --steps 1 --set proxy.batch_size=8",
}
"""Options that are added to a command, so that it ends soon, and needs no GPU where no evaluator does its work."""
UNTIL = ("--until-trials 100", "--until-trials 20")
WITHOUT_EVALUATOR = ("bench samplers", "bench training")


class Machine(FakeMachine):
    """A machine with a GPU, on which trainings may go on for long before their values reach 1."""

    def __init__(self):
        super().__init__(devices={"cpu": build_device(), "cuda": build_device(kind="cuda", model="Test GPU")})
        self.peers = dict.fromkeys(("efficientvit_b2", "convnext_tiny"), (500.0, 0.2))

    def law(self, subject):
        images_per_s, value = super().law(subject)
        return images_per_s, value / 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what the README's commands read, its studies made by searches."""
    home = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch, use_evaluator(Machine()):
        patch.chdir(home)
        patch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
        patch.setenv("HILO_NAS_CACHE_DIR", str(home / "cache"))
        patch.setenv("HILO_NAS_STATE_DIR", str(home / "state"))
        (home / "imagenet/train").mkdir(parents=True)
        (home / "cifar10").mkdir()
        (home / "cifar10/train.tar").touch()
        for options in (
            "--study my-gpu --device cuda --data cifar10/train.tar --trials 18 --set search.sampler=random "
            "--set proxy.reduction_factor=0",
            "--study edge-box --proxy none --set search.baselines=efficientvit_b2 --trials 3",
        ):
            assert main(["search", "litv2_cifar", *options.split()]) == 0
    write_checkout(home / "LITv2")
    table = StoredStudy(home / "studies/my-table")
    table.path.mkdir()
    table.write_manifest(build_table().manifest)
    write_table(build_table(), table.path / TABLE_NAME)
    (home / "out").mkdir()
    (home / "out/arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    train = {"model_kwargs": TINY.to_dict(), "num_classes": 10, "img_size": 32}
    (home / "out/train.yaml").write_text(yaml.safe_dump(train))
    torch.save(build_model(TINY, num_classes=10).state_dict(), home / "CHECKPOINT")
    (home / "search.yaml").write_text(render_config(SearchConfig.of(space="litv2_cifar")))
    (home / "deploy").mkdir()
    (home / "deploy/model.onnx").write_bytes(b"onnx")
    (home / "model.onnx").write_bytes(b"onnx")
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of that folder."""
    home = shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(home)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return home


def test_the_readme_shows_the_two_commands_that_a_newcomer_types():
    assert "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && hilo-nas search" in CONSOLE
    assert "pip install -e '.[dev]' && pytest" in CONSOLE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_runs(home, command):
    arguments = shlex.split(command.replace(*UNTIL).partition(" > ")[0])[1:]
    group = arguments[0] if arguments[0] not in ("bench", "proxy", "data") else " ".join(arguments[:2])
    if UNTIL[0] not in command:
        arguments += LESS.get(group, "").split()
    if arguments[0] == "export":
        shutil.rmtree(arguments[-1], ignore_errors=True)  # what the other commands read; an export replaces nothing
    if "--study" in arguments and not arguments[1].startswith("--"):  # the command makes the study
        shutil.rmtree(home / "studies" / arguments[arguments.index("--study") + 1], ignore_errors=True)
    has_studies = group in ("search", "remeasure", "proxy check", "bench table")
    evaluator = Machine() if has_studies else FakeEvaluator()
    with use_evaluator(evaluator if has_studies else lambda logs, **options: evaluator):
        assert main(arguments) == 0
    asks = has_studies or group == "measure" or group.startswith("bench ")
    assert bool(evaluator.submitted) == (asks and group not in WITHOUT_EVALUATOR)


def test_the_readme_shows_every_command():
    shown = {" ".join(command.split()[1:3]) for command in COMMANDS}
    for command in ("space list", "space show", "space check"):
        assert command in shown
    commands = {"search", "config", "measure", "remeasure", "status", "front", "export", "space"}
    assert {line.split()[1] for line in COMMANDS} >= commands
    assert shown >= {*BENCHES, *DATA, "proxy check"}


def test_the_readmes_python_runs(home, capsys):
    names = {}
    with use_evaluator(Machine()):
        for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
            exec(text, names)
    form = capsys.readouterr().out.strip().splitlines()[-1]
    (shown,) = re.findall(r"print\(fast.form\)  # (.*) \.\.\.", README)
    assert form.startswith(" ".join(shown.split()[:5]))


def test_the_readmes_space_is_one(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme.yaml").write_text(text)
    space = load_space(str(tmp_path / "readme.yaml"))
    assert space.limits == {"params_m": 30.0, "gmacs": 5.0, "images_per_s": 900.0}


def test_every_option_that_the_readme_names_exists(capsys):
    main(["search", "--help"])
    known = capsys.readouterr().out
    for command in ("export", "space check", "measure", "remeasure", "proxy check", *DATA, *BENCHES):
        main([*command.split(), "--help"])
        known += capsys.readouterr().out
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in known or option in ("--data-dir",), option


def test_every_setting_that_the_readme_names_exists():
    named = set(re.findall(r"(?:`|--set '?)((?:timing|limits|proxy|data|search|study)\.[a-z_]+)(?=[=`])", README))
    assert named - {"data.png"} <= set(SHORT_NAMES.values())
    assert len(named) > 15
