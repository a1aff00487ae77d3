"""`hilo-nas status` and `hilo-nas front` without a study: the list of all studies, and tables at every width."""

import csv
import io
import json

import pytest
from builders import build_device, build_manifest, build_record, demo_records, write_study
from rich.console import Console

from hilo_nas.cli import main
from hilo_nas.cli.front_output import print_front
from hilo_nas.cli.options import Format
from hilo_nas.cli.studies import print_studies
from hilo_nas.cli.tables import Column, print_columns, print_fitting
from hilo_nas.study.stored_study import StoredStudy


@pytest.fixture
def studies(tmp_path, monkeypatch):
    folder = tmp_path / "studies"
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(folder))
    return folder


@pytest.fixture
def several(studies):
    """A study with a front, one without trials, and one that is damaged."""
    write_study(studies, "demo", demo_records())
    write_study(studies, "begun", manifest=build_manifest("begun", trials=40))
    (write_study(studies, "damaged").manifest_path).write_text("space: 7\n")


def show(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "front"])
def test_all_studies_are_listed_without_a_study(capsys, several, command):
    lines = show(capsys, command).splitlines()
    cells = {
        line.split()[0]: line.split() for line in lines if line.startswith(" ") and "─" not in line and line.strip()
    }
    assert cells["demo"][:4] == ["demo", "6/12", "3", "litv2_digits"]
    assert cells["begun"][:4] == ["begun", "0/40", "0", "litv2_digits"]
    assert cells["damaged"][:6] == ["damaged", "-", "-", "cannot", "be", "read"]
    assert [line for line in lines if line.startswith("damaged cannot be read: ")]


def test_the_list_is_printed_as_json_and_csv(capsys, several):
    rows = {row["study"]: row for row in json.loads(show(capsys, "status", "--format", "json"))}
    assert rows["demo"] == {
        "study": "demo",
        "space": "litv2_digits",
        "device": "Test CPU (2 cores)",
        "condition": "cpu-b32-32px-fp32",
        "measured": 6,
        "total": 12,
        "front": 3,
        "created": "2026-07-01T12:00:00+00:00",
        "fault": None,
    }
    assert "manifest.yaml" in rows["damaged"]["fault"]
    assert rows["damaged"]["space"] is None
    told = list(csv.DictReader(io.StringIO(show(capsys, "front", "--format", "csv"))))
    assert [(row["study"], row["measured"], row["front"]) for row in told] == [
        ("begun", "0", "0"),
        ("damaged", "", ""),
        ("demo", "6", "3"),
    ]


def test_without_studies_the_command_that_starts_one_is_printed(capsys, studies):
    text = show(capsys, "status")
    assert text.splitlines()[0].startswith(f"no studies in {studies} ")
    assert text.splitlines()[1] == "Start one with: hilo-nas search"
    assert json.loads(show(capsys, "status", "--format", "json")) == []
    header = "study,space,device,condition,measured,total,front,created,fault\n"
    assert show(capsys, "front", "--format", "csv") == header


def test_the_status_of_a_study_is_printed_as_json_and_csv(capsys, studies):
    write_study(studies, "demo", demo_records())
    content = json.loads(show(capsys, "status", "demo", "--format", "json"))
    told = dict(csv.reader(io.StringIO(show(capsys, "status", "demo", "--format", "csv"))))
    assert told.pop("name") == "value"
    assert told["states.complete"] == str(content["states"]["complete"]) == "5"
    assert told["front"] == "; ".join(map(str, content["front"])) == "4; 3; 2"


@pytest.mark.parametrize("arguments", [("list",), ("show", "litv2_digits"), ("check", "litv2_digits")], ids=" ".join)
def test_spaces_are_printed_as_json_and_csv(capsys, arguments):
    content = json.loads(show(capsys, "space", *arguments, "--format", "json"))
    rows = list(csv.reader(io.StringIO(show(capsys, "space", *arguments, "--format", "csv"))))
    if arguments == ("list",):
        assert [row["space"] for row in content] == [row[0] for row in rows[1:]]
        assert rows[0] == ["space", "description"]
    else:
        told = dict(rows)
        assert told["configurations"] == str(content["configurations"]) == "7680"
        assert told["img_size"] == "32"
        assert content["notes"] == [told["notes"]]
        assert ("knobs" in content) == (arguments[0] == "show")


LONG = "A Device with Some Name"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_list_of_studies_fits_a_screen_and_cuts_nothing(studies, columns):
    manifest = build_manifest("a-study-of-some-length", device=build_device(model=LONG), trials=3000)
    write_study(studies, "a-study-of-some-length", demo_records(), manifest)
    console = Console(file=io.StringIO(), width=columns, highlight=False)
    print_studies(Format.table, console)
    text = console.file.getvalue()
    (row,) = [line for line in text.splitlines() if "a-study-of-some-length" in line]
    assert row.split()[1:4] == ["6/3000", "3", "litv2_digits"]
    assert len(row) <= columns
    assert "…" not in text
    assert (LONG in row) == (columns == 120)
    assert ("2026-07-01" in row) == (columns >= 80)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_front_fits_a_screen_and_cuts_nothing(studies, columns):
    study = write_study(studies, "demo", [*demo_records(), build_record(123456, 1_234_567.0, 0.4)])
    console = Console(file=io.StringIO(), width=columns, highlight=False)
    print_front(StoredStudy(study.path), console)
    text = console.file.getvalue()
    numbers = ("123456", "4", "3", "2")
    rows = [line for line in text.splitlines() if "±" in line and line.split()[0] in numbers]
    assert [row.split()[:3] for row in rows] == [
        ["123456", "1,234,567", "±"],
        ["4", "1,000", "±"],
        ["3", "900", "±"],
        ["2", "500", "±"],
    ]
    assert max(map(len, rows)) <= columns
    assert "…" not in text


@pytest.mark.parametrize("width", range(5, 60, 3))
def test_columns_give_way_by_rank_and_those_of_rank_0_stay(width):
    columns = [
        Column("trial", ["0", "1234"]),
        Column("speed", ["1,234,567", "1"], rank=1),
        Column("words", ["漢字 and more", "x"], rank=3, justify="left"),
        Column("two\nlines", ["1", "2"], rank=2),
    ]
    console = Console(file=io.StringIO(), width=width, highlight=False)
    hidden = print_columns(columns, console)
    text = console.file.getvalue()
    assert hidden == [name for name in ("speed", "words", "two\nlines") if name.split("\n")[0] not in text]
    assert "1234" in text
    assert sorted(hidden, key=["words", "two\nlines", "speed"].index) == ["words", "two\nlines", "speed"][: len(hidden)]
    for column in columns:
        if column.name not in hidden:
            assert all(cell in text for cell in column.cells)


def test_a_pipe_gets_every_column_and_a_screen_the_names_of_the_others():
    columns = [Column("trial", ["0"]), Column("a column of some width", ["x" * 50], rank=1)]

    def at(width):
        console = Console(file=io.StringIO(), width=width, highlight=False)
        print_fitting(columns, console)
        return console.file.getvalue()

    assert "x" * 50 in at(400)
    assert "Not shown" not in at(400)
    assert "Not shown at 40 columns: a column of some width." in at(40)
