"""Every command that the product prints is one that the command line takes, and the cheap ones run."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
from builders import build_infeasible, build_manifest, build_record, demo_records, fresh, write_study

import hilo_nas
from hilo_nas.cli import main
from hilo_nas.cli.app import app
from hilo_nas.cli.hints import confirm_command, hints_after_search, remeasure_command, resume_hint
from hilo_nas.study.front import Front
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.text.commands import command

PACKAGE = Path(hilo_nas.__file__).parent
GUIDES = [*PACKAGE.parent.glob("*.md"), *(PACKAGE.parent / "docs").glob("*.md")]
GUIDES += [PACKAGE.parent / folder / "README.md" for folder in ("studies", "benchmarks")]
WRITTEN = "\n".join(path.read_text(encoding="utf-8") for path in GUIDES if path.name != "CHANGELOG.md")
ROOT = typer.main.get_command(app)
COMMANDS = ("search", "measure", "remeasure", "status", "front", "export", "space", "data", "cache", "bench", "proxy")
SHOWN = re.compile(rf"hilo-nas (?:{'|'.join(COMMANDS)})\b[^`\n]*")
UsageProblem = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
PLACEHOLDER = re.compile(r"\b(?:SPACE|STUDY|NAME|DIR|DATA|SOURCE|N)\b|\.\.\.")
"""Parts that a user fills in."""


def parse(text):
    """Parses a command line as `hilo-nas` would, without running it; raises what a wrong one raises."""
    words = shlex.split(text, comments=True)
    assert words[0] == "hilo-nas"
    words = words[1 : words.index(">")] if ">" in words else words[1:]
    group, context = ROOT, ROOT.make_context("hilo-nas", list(words), resilient_parsing=True)
    while hasattr(group, "commands"):
        name, *words = words
        group = group.commands[name]
    return group.make_context(group.name, words, parent=context)


def helps(group=ROOT, path=()):
    """The help and examples of every command."""
    texts = [(" ".join(path), f"{group.help or ''}\n{group.epilog or ''}")]
    for name, below in getattr(group, "commands", {}).items():
        texts += helps(below, (*path, name))
    return texts


def commands_in(text):
    return [
        found.group().partition("   ")[0].rstrip(" .,;)")
        for found in SHOWN.finditer(text)
        if not PLACEHOLDER.search(found.group())
    ]


IN_HELP = [(name, text) for name, help_text in helps() for text in commands_in(help_text)]


def is_whole(text):
    """True unless prose names the command alone."""
    return len(text.split()) > 3 or text == "hilo-nas search"


@pytest.mark.parametrize("text", sorted(filter(is_whole, set(commands_in(WRITTEN)))))
def test_every_command_of_the_guides_parses(text):
    assert parse(text).command.name in text.split()


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text in IN_HELP if is_whole(text)])
def test_every_command_of_a_help_parses(name, text):
    assert parse(text).command.name in text.split()


def test_helps_show_examples():
    assert {"search", "measure", "export", "front", "status"} <= {name.split()[0] for name, _ in IN_HELP if name}


def test_a_wrong_command_would_be_found():
    for wrong in ("hilo-nas search --nonsense 3", "hilo-nas exprot a", "hilo-nas export a --trial x"):
        with pytest.raises((KeyError, UsageProblem)):
            parse(wrong)


def test_commands_with_values_are_built_quoted_and_nowhere_else():
    """An f-string that spells a command with a value in it would not quote the value."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = ["{}" if not isinstance(part, ast.Constant) else str(part.value) for part in node.values]
                found += [f"{file.name}:{node.lineno}" for text in SHOWN.findall("".join(parts)) if "{}" in text]
    assert found == []


@pytest.mark.parametrize("name", ["my study", "it's", "a;b", "plain", "$(x)"])
def test_a_command_reaches_the_program_as_it_was_meant(name):
    assert shlex.split(command("status", name)) == ["hilo-nas", "status", name]
    assert parse(command("status", name)).params["study"] == name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return tmp_path / "all of them"


def hints(folder, records, *, is_exhausted=False, **manifest):
    study = write_study(folder, "my study", records, build_manifest("my study", **manifest))
    return hints_after_search(
        study.address, fresh(study).manifest, StoredStudy(study.path).front(), is_exhausted=is_exhausted
    )


@pytest.mark.slow
def test_hints_of_a_finished_search_parse_and_the_export_runs(folder):
    notes, found = hints(folder, demo_records())
    assert notes == []
    assert [parse(hint.line()).command.name for hint in found] == ["search", "export"]
    assert main(shlex.split(found[1].line(), comments=True)[1:]) == 0
    assert (folder.parent / "out" / "train.yaml").is_file()
    address, manifest = str(folder / "my study"), build_manifest("my study")
    again = hints_after_search(address, manifest, Front.from_records(demo_records()))[1][1]
    assert main(shlex.split(again.line(), comments=True)[1:]) == 0
    assert (folder.parent / "out-2" / "train.yaml").is_file()


def test_without_a_network_on_the_front_no_export_is_hinted_but_the_nearest_value(folder):
    far, near = (
        build_infeasible(i, speed, violations={"images_per_s": violation})
        for i, (speed, violation) in enumerate([(10.0, 4.5), (850.0, 0.06)])
    )
    notes, found = hints(folder, [far, near], limits={"images_per_s": 900.0})
    assert notes == [
        "2 networks break images_per_s >= 900; the closest has 850 (trial 1). Continue the search, or loosen the limit "
        "in a new study."
    ]
    assert [parse(hint.line()).command.name for hint in found] == ["search", "status"]
    assert main(shlex.split(found[1].line(), comments=True)[1:]) == 0


def test_where_the_space_holds_no_further_network_nobody_is_told_to_search_on(folder):
    near = build_infeasible(0, 850.0, violations={"images_per_s": 0.06})
    notes, found = hints(folder, [near], limits={"images_per_s": 900.0}, is_exhausted=True)
    assert notes == [
        "1 network breaks images_per_s >= 900; the closest has 850 (trial 0). Loosen the limit in a new study."
    ]
    assert [parse(hint.line()).command.name for hint in found] == ["status"]


def test_other_hints_parse(tmp_path):
    place = str(tmp_path / "a b" / "it's mine")
    cluster = {"evaluator.kind": "ray", "evaluator.address": "node1:6379"}
    on_cluster = resume_hint(place, settings=cluster).line()
    assert "--set evaluator.kind=ray --set evaluator.address=node1:6379" in on_cluster
    for text in (resume_hint(place).line(), on_cluster, confirm_command(place), remeasure_command(place)):
        assert parse(text)


def test_a_study_elsewhere_is_named_by_its_path(folder):
    study = write_study(folder, "demo", [build_record(0)])
    assert open_study(study.address).path == study.path
    here = write_study(Path("studies"), "here")
    assert here.address == "here"


def test_a_new_study_of_the_default_space_is_made_where_options_say_how(folder):
    from hilo_nas.errors import NotFoundError
    from hilo_nas.searching import SearchConfig
    from hilo_nas.searching.opening.study_setup import DEFAULT_SPACE, find_study

    space, made = find_study(SearchConfig.of(study="mine", proxy="mine.py:score", proxy_images=2000))
    assert (space.name, made.name, made.exists) == (DEFAULT_SPACE, "mine", False)
    with pytest.raises(NotFoundError):
        find_study(SearchConfig.of(study="mistyped", trials=40))
