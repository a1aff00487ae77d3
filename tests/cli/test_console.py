"""What reaches the terminal: no markup, no acting character, no traceback on a terminal that lacks a sign."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import build_data, build_manifest, demo_records, write_study
from rich.table import Table
from rich.text import Text

import hilo_nas.cli
from hilo_nas.cli.console import build_console, echo, plain
from hilo_nas.cli.screen import Screen

ACTING = "\x1b[31m\x00\x07\x08\r\x7f\x85\x9b\u202e\u2066\u200f\u2028\ufeff\ud800\U000e0041"


def test_control_characters_are_escaped_and_all_others_stay():
    assert plain("\x1b[31m") == "\\x1b[31m"
    assert plain(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert plain("a\u202eb\U000e0041") == "a\\u202eb\\U000e0041"
    assert plain("größer ± 3 × 漢字 👩\u200d🔬\tand\nmore [/x]") == "größer ± 3 × 漢字 👩\u200d🔬\tand\nmore [/x]"
    assert not set(plain(ACTING)) & (set(ACTING) - set("[31m"))


def screen():
    return Screen(file=io.StringIO(), width=200, markup=False, highlight=False, emoji=False)


@pytest.mark.parametrize("kind", ["text", "styled", "cell", "rich text"])
def test_nothing_that_is_printed_acts(kind):
    console, text = screen(), f"[/x] [bold]:smile: {ACTING}"
    if kind == "text":
        console.print(text, soft_wrap=True)
    elif kind == "styled":
        console.print(text, style="dim")
    elif kind == "rich text":
        console.print(Text(text))
    else:
        table = Table()
        table.add_column("[/x]")
        table.add_row(text)
        console.print(table)
    printed = console.file.getvalue()
    assert "[/x] [bold]:smile: \\x1b[31m" in printed
    assert not set(printed) & (set(ACTING) - set("[31m"))


def test_lines_that_are_not_laid_out_do_not_act_either(capsys):
    echo(f"{ACTING},[/x]")
    printed = capsys.readouterr().out
    assert printed.endswith(",[/x]\n")
    assert not set(printed) & (set(ACTING) - set("[31m"))


def test_a_pipe_gets_room_for_a_table():
    assert build_console(pipe_width=260).width == 260


def test_no_command_prints_past_the_console():
    folder = Path(hilo_nas.cli.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        if path.name != "console.py"
        for line in path.read_text().splitlines()
        for way in ("typer.echo(", " Console(", "file.write(", "sys.stdout", " print(")
        if way in line
    ]
    assert found == [], "use hilo_nas.cli.console: build_console() and echo()"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_signs_gets_others_and_no_traceback(tmp_path, encoding):
    write_study(tmp_path, "demo", demo_records(), build_manifest(data=build_data(name="größe")))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    environment |= {"HILO_NAS_STUDIES_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "hilo_nas", "front", "demo"]
    done = subprocess.run(command, env=environment, capture_output=True)
    printed = done.stdout.decode(encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("+-" if encoding == "ascii" else "±") in printed
    assert ("gr\\xf6\\xdfe" if encoding == "ascii" else "größe") in printed
