"""The README's commands are what the command line takes, and its YAML is a space."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from bench.checkouts import write_checkout
from bench.tables import build_table
from builders import TINY, build_calibration, build_device, build_measurement, build_record, demo_records, write_study
from fakes import write_speeds

import hilo_nas.bench.attention
import hilo_nas.bench.backbones
import hilo_nas.bench.making
import hilo_nas.bench.official
import hilo_nas.bench.proxy_check
import hilo_nas.bench.releases
import hilo_nas.bench.ruler
import hilo_nas.bench.samplers
import hilo_nas.bench.stages
import hilo_nas.bench.training
import hilo_nas.search
from hilo_nas.bench.table import TABLE_NAME, write_table
from hilo_nas.cli import main
from hilo_nas.events import SearchFinished
from hilo_nas.measure import Cohort, Ruler
from hilo_nas.models import build_model
from hilo_nas.search import Cost
from hilo_nas.space import load_space
from hilo_nas.study import open_study

README = (Path(__file__).parents[1] / "README.md").read_text()
CONSOLE = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
BENCH_NAMES = (
    *("ruler", "attention", "backbones", "stages", "official", "releases"),
    *("table", "samplers", "training"),
)
DATA = ("data show", "data check", "data write")
BENCHES = tuple(f"bench {name}" for name in BENCH_NAMES)
COMMANDS = [line for line in CONSOLE if line.startswith("hilo-nas ")]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the study that the README speaks of, and a search that only says what it was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "cache"))
    write_study(tmp_path / "studies", "my-gpu", [*demo_records(), *[build_record(i) for i in range(8, 18)]])
    asked = []

    def run_search(request, emit):
        asked.append(request)
        finished = SearchFinished(study="my-gpu", measured=7, total=7, stopped_by="total", seconds=1.0)
        return open_study("my-gpu"), finished

    def estimate_cost(request, emit):
        asked.append(request)
        seconds = {"set_up_s": 1.0, "timing_s": 1.0, "training_s": 1.0, "trial_s": (1.0, 2.0), "total_s": 60.0}
        return Cost(networks=3, trials=60, trials_by_timeout=None, disk_mib=1.0, peers=0, peers_s=0.0, **seconds)

    def run_remeasure(request, emit):
        asked.append(request)
        return open_study(request.study)

    def measure_cohort(ruler, entrants, emit, **options):
        asked.append(entrants)
        names = entrants if len(entrants) < 10 else list(entrants)[:2]
        found = build_measurement(images_per_s_low=990.0, images_per_s_high=1010.0, verdict="steady", cohort="one")
        return Cohort(measurements=dict.fromkeys(names, found), failures={})

    def bench(plan, *others, **options):
        asked.append(plan)
        raise KeyboardInterrupt  # what follows is tested beside the benches

    monkeypatch.setattr(hilo_nas.search, "run_search", run_search)
    monkeypatch.setattr(hilo_nas.search, "run_remeasure", run_remeasure)
    monkeypatch.setattr(hilo_nas.search, "estimate_cost", estimate_cost)
    monkeypatch.setattr(Ruler, "read_device", lambda self, device, emit: (device or "cpu", build_device(), 2))
    monkeypatch.setattr(Ruler, "calibrate", lambda self, condition, emit: build_calibration())
    monkeypatch.setattr(Ruler, "measure_cohort", measure_cohort)
    for module, name in (
        (hilo_nas.bench.ruler, "bench_ruler"),
        (hilo_nas.bench.attention, "bench_attention"),
        (hilo_nas.bench.backbones, "bench_backbones"),
        (hilo_nas.bench.stages, "bench_stages"),
        (hilo_nas.bench.official, "bench_official"),
        (hilo_nas.bench.releases, "bench_releases"),
        (hilo_nas.bench.making, "make_table"),
        (hilo_nas.bench.samplers, "bench_samplers"),
        (hilo_nas.bench.training, "bench_training"),
        (hilo_nas.bench.proxy_check, "check_proxy"),
    ):
        monkeypatch.setattr(module, name, bench)
    write_checkout(tmp_path / "LITv2")
    table = write_study(tmp_path / "studies", "my-table", manifest=build_table().manifest)
    write_table(build_table(), table.path / TABLE_NAME)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    train = {"model_kwargs": TINY.to_dict(), "num_classes": 10, "img_size": 32}
    (tmp_path / "out/train.yaml").write_text(yaml.safe_dump(train))
    torch.save(build_model(TINY, num_classes=10).state_dict(), tmp_path / "CHECKPOINT")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/model.onnx").write_bytes(b"onnx")
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    return asked


def test_the_readme_shows_the_two_commands_that_a_newcomer_types():
    assert "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && hilo-nas search" in CONSOLE
    assert "pip install -e '.[dev]' && pytest" in CONSOLE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_is_accepted(home, command):
    arguments = shlex.split(command)[1:]
    if "--speeds" in arguments:
        write_speeds(Path("studies"), [TINY], "edge-box")  # the study that the line before made
    if arguments[0] == "export":
        shutil.rmtree(arguments[-1], ignore_errors=True)  # what the other commands read; an export replaces nothing
    assert main(arguments) == (130 if arguments[0] in ("bench", "proxy") else 0)
    assert bool(home) == (arguments[0] in ("search", "measure", "remeasure", "bench", "proxy"))


def test_the_readme_shows_every_command():
    shown = {" ".join(command.split()[1:3]) for command in COMMANDS}
    for command in ("space list", "space show", "space check"):
        assert command in shown
    commands = {"search", "measure", "remeasure", "status", "front", "export", "space"}
    assert {line.split()[1] for line in COMMANDS} >= commands
    assert shown >= {*BENCHES, *DATA, "proxy check"}


def test_the_readmes_python_runs(capsys):
    names = {}
    for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(text, names)
    form = capsys.readouterr().out.strip()
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
