"""README and docs: commands and Python run on a machine that times and trains nothing, and what they name exists."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import TINY, build_device
from checkouts import write_checkout
from fakes import FakeMachine
from PIL import Image
from replay_tables import build_table
from test_floors import FLOORS

from benchmarks.tables.table import TABLE_NAME, write_table
from hilo_nas.cli import main
from hilo_nas.models import build_model
from hilo_nas.searching import SearchConfig
from hilo_nas.searching.configuration.config_files import render_config
from hilo_nas.searching.configuration.search_config import SHORT_NAMES
from hilo_nas.space import load_space
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import FakeEvaluator, use_evaluator

ROOT = Path(__file__).parents[1]
GUIDES = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
OTHERS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
OLD_NAMES = "upgrading.md"
"""The guide that names removed options; `test_upgrading.py` checks it."""
README, EXTENDING = GUIDES["README.md"], GUIDES["extending.md"]


def blocks(text, language):
    """The code blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def prose(text):
    """A text without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


PROGRAMS = r"hilo-nas |python -m benchmarks\.(?:official|releases|samplers|tables|training) "
CONSOLE = [line.strip() for text in GUIDES.values() for block in blocks(text, "console") for line in block.splitlines()]
COMMANDS = [line for line in dict.fromkeys(CONSOLE) if re.match(PROGRAMS, line)]
PYTHON = [
    (name, block)
    for name, text in GUIDES.items()
    for block in blocks(text, "python")
    if not block.startswith("# deploy_")  # `test_deployment.py` runs them with real files
]
INLINE = [
    " ".join(code.split())
    for name, text in GUIDES.items()
    if name != OLD_NAMES
    for code in re.findall(rf"`((?:{PROGRAMS})[^`]+)`", prose(text))
]
"""Commands inside sentences, which name the source of a figure."""
OPTIONS = (ROOT / "tests/assets/options.txt").read_text().splitlines()
BENCHMARKS = ("official", "releases", "samplers", "tables", "training")
GROUPS = ("bench", "proxy", "data", "space", "cache")
WORKING = ("search", "remeasure", "proxy check", "tables")
"""Commands that write a study."""

LESS = {
    "search": "--trials 2",
    "proxy check": "--networks 4",
    "official": "--network litv2_small --batch-size 1 --no-training",
    "tables": "--networks 2",
    "samplers": "--seeds 1 --sampler random",
    "training": "out/arch.yaml --device cpu --data digits --steps 1 --set proxy.batch_size=8",
}
"""Options that are added to a command, so that it ends soon, and needs no GPU where no evaluator does its work."""
UNTIL = ("--until-trials 100", "--until-trials 20")
REAL = ("official", "training")
"""Commands that build networks and take seconds."""
CONVERTS = re.compile(r"--format (onnx|openvino|torch-package)")
"""Exports that convert a network, which takes seconds."""
WITHOUT_EVALUATOR = ("samplers", "training")
TIMING = ("doctor", "measure", "official", "plan", "releases", "samplers", "training")
"""Commands that time and write no study, besides those of `bench`."""


class Machine(FakeMachine):
    """A machine with a GPU, on which trainings may go on for long before their values reach 1."""

    def __init__(self):
        names = {"cuda": "0", "cuda:0": "0", "cuda:1": "1"}
        cards = {name: build_device(kind="cuda", model="Test GPU", serial=f"GPU-{n}") for name, n in names.items()}
        super().__init__(devices={"cpu": build_device(), **cards})
        self.baselines = dict.fromkeys(("efficientvit_b2", "convnext_tiny", "litv2_small"), (500.0, 0.2))

    def law(self, subject):
        images_per_s, value = super().law(subject)
        return images_per_s, value / 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what the commands read, its studies made by searches."""
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
            "--study two-targets --device cuda --data cifar10/train.tar --trials 6 --set search.sampler=random "
            "--set proxy.reduction_factor=0 --set timing.also=device=cpu,batch_size=1,max_latency_ms=900",
            "--study edge-box --proxy none --batch-size 1 --set search.baselines=efficientvit_b2 --trials 3",
        ):
            assert main(["search", "litv2_cifar", *options.split()]) == 0
    for name, source in (("shop", "my-gpu"), ("edge-cifar", "my-gpu"), ("cifar10-gpu", ROOT / "studies/cifar10-gpu")):
        shutil.copytree(home / "studies" / source, home / "studies" / name)
    draw = np.random.default_rng(0)
    for number in range(20):
        (home / "products/train" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        image.save(home / "products/train" / "ab"[number % 2] / f"{number}.png")
    write_checkout(home / "LITv2")
    table = StoredStudy(home / "studies/my-table")
    table.path.mkdir()
    table.write_manifest(build_table().manifest)
    write_table(build_table(), table.path / TABLE_NAME)
    (home / "out").mkdir()
    (home / "out/arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    train = {"model_kwargs": TINY.to_dict(), "num_classes": 10, "img_size": 32}
    (home / "out/train.yaml").write_text(yaml.safe_dump(train))
    shutil.copytree(home / "out", home / "out-edge")
    torch.save(build_model(TINY, num_classes=10).state_dict(), home / "CHECKPOINT")
    (home / "search.yaml").write_text(render_config(SearchConfig.of(space="litv2_cifar")))
    (home / "deploy").mkdir()
    (home / "deploy/model.onnx").write_bytes(b"onnx")
    (home / "deploy/model.xml").write_bytes(b"openvino")
    (home / "model.onnx").write_bytes(b"onnx")
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of that folder."""
    home = shutil.copytree(made, tmp_path / "home")
    monkeypatch.chdir(home)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return home


def options_in(text):
    """The options that a text names; `--no-x` is the option `--x`."""
    return {found.replace("--no-", "--") for found in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}


def words_of(command):
    """The words of a command's name; that of a benchmark is its module."""
    words = command.split()
    if words[0] == "python":
        return words[2].removeprefix("benchmarks.")
    return " ".join(words[1:3] if words[1] in GROUPS and len(words) > 2 else words[1:2])


def test_the_readme_shows_the_two_commands_that_a_newcomer_types():
    shown = [line for block in blocks(README, "console") for line in block.splitlines()]
    assert "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && hilo-nas search" in shown
    assert "pip install -e '.[dev]' && pytest" in shown


def test_the_readme_is_short():
    assert len(README.split()) <= 1400


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=[pytest.mark.slow] if CONVERTS.search(line) or words_of(line) in REAL else [])
        for line in COMMANDS
    ],
)
def test_every_command_runs(home, command):
    name, is_benchmark = words_of(command), command.startswith("python")
    arguments = shlex.split(command.replace(*UNTIL).partition(" > ")[0])[3 if is_benchmark else 1 :]
    if UNTIL[0] not in command:
        arguments += LESS.get(name, "").split()
    if name == "export":
        shutil.rmtree(arguments[-1], ignore_errors=True)  # what the other commands read; an export replaces nothing
    own = arguments if is_benchmark else arguments[1:]
    is_new = bool(own) and not own[0].startswith("--")  # it names a space, and so makes the study
    if "--study" in arguments and is_new:
        shutil.rmtree(home / "studies" / arguments[arguments.index("--study") + 1], ignore_errors=True)
    has_studies = name in WORKING
    evaluator = Machine() if has_studies else FakeEvaluator()
    with use_evaluator(evaluator if has_studies else lambda logs, **options: evaluator):
        run = importlib.import_module(f"benchmarks.{name}.__main__").main if is_benchmark else main
        assert run(arguments) == 0
    asks = has_studies or name in TIMING or name.startswith("bench ")
    assert bool(evaluator.submitted) == (asks and name not in WITHOUT_EVALUATOR)


def test_every_command_can_be_pasted_into_zsh():
    """Zsh, the shell of macOS, refuses an unquoted pattern that matches no file, such as `search.baselines=[a,b]`."""
    unquoted = [re.sub(r"'[^']*'|\"[^\"]*\"", "", line).partition(" #")[0] for line in CONSOLE]
    assert len(unquoted) > 100
    assert [line for line in unquoted if re.search(r"[\[\]*?]", line)] == []


def test_every_command_of_the_tool_is_shown():
    known = {line.split(":")[0] for line in OPTIONS if not line.startswith("-")} | set(BENCHMARKS)
    assert {words_of(command) for command in COMMANDS} == known


@pytest.mark.parametrize("guide", sorted({name for name, _ in PYTHON}))
def test_the_python_of_a_guide_runs(home, guide, capsys):
    names = {"__name__": "guide"}
    with use_evaluator(Machine()):
        for name, text in PYTHON:
            if name == guide:
                exec(compile(text, guide, "exec"), names)
    if guide == "exporting.md":
        form = capsys.readouterr().out.strip().splitlines()[-1]
        (shown,) = re.findall(r"print\(fast.form\)  # (.*) \.\.\.", GUIDES[guide])
        assert form.startswith(" ".join(shown.split()[:5]))
    if guide == "proxies.md":
        value, error = names["score"](
            None, lambda num_classes: build_model(TINY, num_classes=10), 128, 0, lambda images: None
        )
        assert 0 <= value <= 1
        assert 0 < error < 0.1
    if guide == "data.md":
        (home / "scans/2026").mkdir(parents=True)
        for member in ("ann_cat_1.png", "bob_blurred_1.png"):
            (home / "scans/2026" / member).write_bytes(b"png")
        assert list(names["load"](home / "scans")) == [(b"png", "cat", "ann/ann_cat_1.png")]


@pytest.mark.parametrize("path", ["assets/toy/toy_attention.py", "toy_exporter.py"])
def test_the_extensions_that_are_shown_are_those_that_are_tested(path):
    tested = (ROOT / "tests" / path).read_text(encoding="utf-8").partition('"""\n\n')[2]
    assert f"# {Path(path).name}\n{tested}" in blocks(EXTENDING, "python")


def test_the_entry_points_that_are_shown_are_those_that_are_tested():
    tested = (ROOT / "tests/assets/toy/toy.dist-info/entry_points.txt").read_text()
    (shown,) = blocks(EXTENDING, "toml")
    for group, line in re.findall(r'\[project\.entry-points\."(.+)"\]\n(.+)', shown):
        assert f"[{group}]\n{line.replace(chr(34), '')}" in tested


def test_the_space_that_is_shown_is_one(tmp_path):
    (text,) = blocks(GUIDES["search-spaces.md"], "yaml")
    (tmp_path / "shown.yaml").write_text(text)
    space = load_space(str(tmp_path / "shown.yaml"))
    assert space.limits == {"params_m": 30.0, "gmacs": 5.0, "images_per_s": 900.0}


def test_the_front_that_is_shown_is_that_of_the_stored_study(home, capsys):
    (shown,) = blocks(GUIDES["studies.md"], "text")
    assert main(["front", "cifar10-gpu"]) == 0
    printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {" ".join(line.split()) for line in shown.splitlines()} - {"..."} <= printed


@pytest.mark.parametrize("command", sorted(set(INLINE)))
def test_a_command_inside_a_sentence_has_the_options_that_it_names(command, capsys):
    if command.startswith("python"):
        importlib.import_module(f"benchmarks.{words_of(command)}.__main__").main(["--help"])
        assert options_in(command) <= options_in(capsys.readouterr().out)
        return
    own = {
        line.split(": ")[1].split()[0].split("/--no-")[0]
        for line in OPTIONS
        if line.startswith(f"{words_of(command)}: ")
    }
    assert options_in(command) <= own | {"--help"}


def test_every_option_that_is_named_exists(capsys):
    known = {word for line in OPTIONS for word in re.findall(r"--[a-z-]+", line)} | {"--help"}
    for name in BENCHMARKS:
        importlib.import_module(f"benchmarks.{name}.__main__").main(["--help"])
    known |= options_in(capsys.readouterr().out)
    for name, text in GUIDES.items():
        if name != OLD_NAMES:
            codes = re.findall(r"`([^`]+)`", prose(text))
            own = [code for code in codes if not code.startswith(("pip ", "python ", "pytest "))]
            assert options_in(" ".join(own)) <= known, name


def test_every_setting_that_is_named_exists():
    """In sentences and in commands; Python has attributes that look alike."""
    pattern = r"(?<![\w./])(?:timing|limits|proxy|data|search|study|evaluator)\.[a-z_]+(?![\w./(])"
    named = set()
    for text in GUIDES.values():
        codes = re.findall(r"`([^`]+)`", prose(text)) + blocks(text, "console")
        named |= {name for code in codes for name in re.findall(pattern, code)}
    assert named - {"data.png", "search.yaml", "proxy.kinds"} <= set(SHORT_NAMES.values())
    assert len(named) > 25


@pytest.mark.parametrize("name", [*GUIDES, *OTHERS])
def test_every_link_inside_the_repository_leads_somewhere(name):
    text, folder = {**GUIDES, **OTHERS}[name], ROOT / ("docs" if name in GUIDES and name != "README.md" else "")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", prose(text)) if not link.startswith("https://")]
    for link in links:
        path, _, anchor = link.partition("#")
        assert (folder / path).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (folder / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


def test_the_readme_leads_to_every_guide():
    assert {f"docs/{name}" for name in GUIDES if name != "README.md"} <= set(re.findall(r"\(([^)#]+)\)", README))


def test_the_floors_of_the_packages_are_those_that_are_checked():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", GUIDES["architecture.md"], re.MULTILINE)
    shown = {name: int(floor) for floor, names in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert shown.items() <= FLOORS.items()
    assert {name for name, floor in FLOORS.items() if floor >= 2} - {"__main__"} <= shown.keys()
