"""What holds for the options of all commands.

Two lists change on purpose only. After such a change, renew them and read the difference:
`HILO_NAS_RENEW_LISTS=1 pytest tests/cli/test_options.py tests/test_public_names.py`.
"""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from builders import demo_records, write_study
from command_tree import walk_commands

from hilo_nas.cli.app import main
from hilo_nas.text.commands import FLAGS

GOLDEN = Path(__file__).parents[1] / "assets" / "options.txt"

OTHER_MEANINGS = {
    "--format": {"export"},  # a format of files, not of the screen
    "--dry-run": {"repair"},  # of a repair, not of a search
    "--study": {"remeasure"},  # the study to be made
    "--device": {"remeasure"},  # another one than the study's
    "--batch-size": {"export"},  # of a training
    "--data": {"export"},  # for a calibration
    "--img-size": {"show", "data show", "data check"},  # of the images shown
    "--output": {"export", "plan", "report", "data show"},  # which says what is written
    "-o": {"export", "plan", "report", "data show"},
    "--force": {"export", "report", "data show", "data write"},  # which says what is replaced
    "--min-images-per-s": {"export", "front"},  # what chooses the trial, or predicted networks
    "--max-latency-ms": {"export", "front"},
    "--max-memory-mib": {"front"},
    "--knee": {"front"},  # a recommendation
}
"""Commands in which an option's help says more than elsewhere; each of `bench` says what its own figures are of."""


def options_of(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


def type_of(param: Any) -> str:
    """The type that a parameter is read as, as its help shows it."""
    if getattr(param, "is_flag", False):
        return "flag"
    hint = param.type_descriptor.annotation
    if not isinstance(hint, type):
        return str(hint)
    return "|".join(item.value for item in hint) if issubclass(hint, enum.Enum) else hint.__name__


def describe(param: Any) -> str:
    if param.param_type_name == "argument":
        name = str(param.metavar or param.name)
        return name if param.required else f"[{name}]"
    names = "/".join([*param.opts, *param.secondary_opts])
    return f"{names} {type_of(param)}{', required' if param.required else ''}"


def list_options() -> str:
    lines = [
        f"{words}: {describe(param)}".removeprefix(": ")
        for words, command in walk_commands()
        for param in command.params
    ]
    return "\n".join(lines) + "\n"


def test_options_change_on_purpose_only():
    if os.environ.get("HILO_NAS_RENEW_LISTS"):
        GOLDEN.write_text(list_options(), encoding="utf-8")
    assert list_options().splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_no_command_has_more_options_than_a_screen_shows():
    counts = {words: len(options_of(command)) for words, command in walk_commands()}
    assert counts["search"] == len(FLAGS) + 4 == 20  # --config, --set, --hours and --dry-run
    assert {words: count for words, count in counts.items() if count > 12} == {"search": 20}


def test_an_option_has_one_meaning():
    meanings: dict[str, dict[tuple[str, str], list[str]]] = {}
    for words, command in walk_commands():
        for param in options_of(command) if not words.startswith("bench ") else ():
            for name in {*param.opts, *param.secondary_opts}:
                if words not in OTHER_MEANINGS.get(name, ()):
                    meanings.setdefault(name, {}).setdefault((type_of(param), param.help), []).append(words)
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


def test_every_other_meaning_is_in_use():
    commands = dict(walk_commands())
    for name, where in OTHER_MEANINGS.items():
        for words in where:
            assert any(name in param.opts for param in options_of(commands[words])), (name, words)


def test_help_fits_80_columns():
    wide = []
    for words, command in walk_commands():
        context = typer.Context(command, info_name="hilo-nas " + words, terminal_width=80, max_content_width=80)
        wide += [(words, line) for line in command.get_help(context).splitlines() if len(line) > 80]
    assert wide == []


def test_examples_can_be_copied():
    for words, command in walk_commands():
        if getattr(command, "commands", None) or not command.params:
            continue
        context = typer.Context(command, info_name="hilo-nas " + words, terminal_width=80, max_content_width=80)
        options, _, examples = command.get_help(context).partition("Example")
        lines = examples.removeprefix("s:").removeprefix(":").split("\n")
        found = [line.strip() for line in lines if line.strip()]
        assert found or words == "space list", f"{words}: no example"
        assert all(line.startswith("hilo-nas ") and line.count("hilo-nas ") == 1 for line in found), words
        assert "Options:" in options, f"{words}: the examples do not end the help"


@pytest.mark.parametrize("group", [(), ("bench",), ("cache",), ("data",), ("proxy",), ("space",)])
def test_no_summary_of_a_command_is_cut(group, capsys):
    assert main([*group, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_every_option_has_a_help_and_a_name_of_its_own():
    # Typer 0.27 takes `metavar="DATA"` of a parameter `data` for the option's name: `--DATA`.
    for words, command in walk_commands():
        for param in options_of(command):
            assert param.help, (words, param.opts)
            assert all(name == name.lower() for name in param.opts), (words, param.opts)


@pytest.fixture
def complete(tmp_path):
    """Completes a line as a shell asks for it, and returns the values and whether heavy libraries were imported."""
    write_study(tmp_path / "studies", "my-gpu", demo_records())
    write_study(tmp_path / "studies", "my-cpu", demo_records())
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'timm', 'optuna', 'numpy', 'pandas')\n"
        "atexit.register(lambda: print('loaded', *[name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from hilo_nas.cli import main\n"
        "sys.exit(main())\n"
    )

    def call(line: str) -> list[str]:
        environment = {
            **os.environ,
            "HILO_NAS_STUDIES_DIR": str(tmp_path / "studies"),
            "_HILO_NAS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stderr.split() == ["loaded"], done.stderr
        return done.stdout.split()

    return call


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("hilo-nas sta", ["status"]),
        ("hilo-nas status my-", ["my-cpu", "my-gpu"]),
        ("hilo-nas front my-g", ["my-gpu"]),
        ("hilo-nas export my-c", ["my-cpu"]),
        ("hilo-nas search --study my-g", ["my-gpu"]),
        ("hilo-nas search litv2_d", ["litv2_digits"]),
        ("hilo-nas space show litv2_c", ["litv2_cifar"]),
        ("hilo-nas search --set timing.comp", ["timing.compile="]),
        ("hilo-nas search --set proxy.conf", ["proxy.confirm="]),
        ("hilo-nas export --format o", ["onnx", "onnx-int8", "openvino", "openvino-int8", "optuna"]),
        ("hilo-nas status --format c", ["csv"]),
    ],
)
def test_a_shell_completes_names(complete, line, values):
    assert complete(line) == values


def test_completion_is_quiet_where_no_studies_are(complete, tmp_path):
    assert complete("hilo-nas status none") == []
