"""`hilo-nas data`: what it prints, writes and returns, and the hint of it that an export prints."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shlex

import pytest
from builders import build_data, build_manifest, build_plan
from PIL import Image

from hilo_nas.cli import main
from hilo_nas.export.writing import hints_of_writing
from hilo_nas.study.stored_study import StoredStudy


def test_a_check_without_faults_returns_0_and_with_faults_1(images, capsys):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    assert main(["data", "check", str(folder), "--img-size", "8"]) == 0
    assert capsys.readouterr().out.endswith("0 faults\n")
    (folder / "dogs" / "10.png").write_bytes((folder / "cats" / "0.png").read_bytes())
    assert main(["data", "check", str(folder), "--img-size", "8"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("pets: 21 images of 2 classes, per class 10 (cats) to 11 (dogs), median 10\n")
    assert out.count("\nfault: ") == 2
    assert out.endswith("2 faults\n")


def test_a_check_is_written_as_csv_and_as_json(images, capsys):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    check = ["data", "check", str(folder), "--img-size", "8", "--format"]
    assert main([*check, "csv"]) == 0
    assert capsys.readouterr().out == "kind,text\n"
    (folder / "dogs" / "10.png").write_bytes((folder / "cats" / "0.png").read_bytes())
    (folder / "dogs" / "torn.png").write_bytes(b"no image")
    assert main([*check, "csv"]) == 1
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert {row["kind"] for row in rows} >= {"broken", "labels"}
    assert main([*check, "json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["faults"] == rows
    assert content["sets"][0]["most"] == {"name": "dogs", "images": 11}


def test_levels_that_may_both_be_classes_are_a_fault_and_either_can_be_chosen(images, capsys, tmp_path):
    for names in (("left", "right"), ("fold1", "fold2")):
        for name in names:
            images.folder(f"{names[0]}s/{name}", {"open": 10, "shut": 10})
    hands, folds = tmp_path / "lefts", tmp_path / "fold1s"
    assert main(["data", "check", str(hands), "--img-size", "8"]) == 1
    assert "\nfault: left and right of" in capsys.readouterr().out
    assert main(["data", "check", str(folds), "--img-size", "8"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("fault: one level of folders must be the classes, but fold1 and fold2 of")
    assert out.endswith("\n1 fault\n")
    for level, classes in (("last", 2), ("first", 2), ("path", 4)):
        main(["data", "check", str(hands), "--img-size", "8", "--set", f"data.class_from={level}"])
        assert f"40 images of {classes} classes" in capsys.readouterr().out


def test_a_class_without_images_is_a_fault(images, capsys):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    (folder / "owls").mkdir()
    assert main(["data", "check", str(folder), "--img-size", "8"]) == 1
    assert ": owls (empty)\n1 fault" in capsys.readouterr().out
    (folder / "owls").rmdir()
    assert main(["data", "check", str(folder), "--img-size", "8"]) == 0


def test_a_source_that_is_not_there_is_refused(capsys, tmp_path):
    assert main(["data", "check", str(tmp_path / "none")]) in (1, 2)
    assert "no such file or folder" in capsys.readouterr().err


def test_a_sheet_is_written(images, capsys, tmp_path):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    assert main(["data", "show", str(folder), "-o", str(tmp_path / "sheet.png"), "--img-size", "8"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"wrote {tmp_path / 'sheet.png'}: 2 classes\n"
    assert "split: 16 for training, 4 held out for scoring, at 8 px" in captured.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_a_sheet_replaces_an_earlier_one_and_nothing_else_unless_forced(images, capsys, tmp_path):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    target, mine = tmp_path / "sheet.png", tmp_path / "mine.png"
    show = ["data", "show", str(folder), "--img-size", "8", "-o", str(target)]
    assert main(show) == 0
    assert main(show) == 0
    Image.new("RGB", (8, 8)).save(mine)
    before = mine.read_bytes()
    target.unlink()
    for place in (target.symlink_to, lambda path: target.write_bytes(path.read_bytes())):
        place(mine)
        assert main(show) == 2
        assert "must be a new file or an earlier sheet" in capsys.readouterr().err
        assert main([*show, "--force"]) == 0
        assert not target.is_symlink()
        target.unlink()
    target.mkdir()
    assert main([*show, "--force"]) == 2
    assert "is a folder. Choose another path with -o" in capsys.readouterr().err
    assert mine.read_bytes() == before


def test_images_are_read_by_the_settings_of_a_search(images, capsys, tmp_path):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    Image.new("RGBA", (12, 12), (9, 9, 9, 9)).save(folder / "cats" / "clear.png")
    config = {"data": {"background": "gray", "cache_dir": str(tmp_path / "theirs")}, "proxy": {"img_size": 16}}
    (tmp_path / "search.yaml").write_text(json.dumps(config))
    given = ["--config", str(tmp_path / "search.yaml"), "--set"]
    show = ["data", "show", str(folder), "-o", str(tmp_path / "sheet.png"), *given]
    assert main([*show, "data.background=#336699"]) == 0
    said = capsys.readouterr().err
    assert "composited on #336699" in said
    assert "held out for scoring, at 16 px" in said
    assert (tmp_path / "theirs" / "data").is_dir()
    for command in (show, ["data", "write", str(folder), str(tmp_path / "out"), *given]):
        assert main([*command, "data.group_by=[a-z]+/[0-4]"]) == 0
        assert "21 images in " in (said := capsys.readouterr().err)
        assert "by '[a-z]+/[0-4]'" in said
    others = images.folder("others", {"cats": 3, "dogs": 3}, seed=1)
    assert main([*show, f"data.val_source={others}"]) == 0
    assert "split: all 21 for training, 6 of data.val_source for scoring" in capsys.readouterr().err
    assert main(["data", "check", str(folder), *given, f"data.val_source={others}"]) == 1
    out = capsys.readouterr().out
    assert "others: 6 images of 2 classes" in out
    assert "composited on gray" in out


def test_an_option_that_cannot_be_is_refused(images, capsys):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    assert main(["data", "check", str(folder), "--set", "data.value_range=9,3"]) == 2
    assert "value_range" in capsys.readouterr().err


def test_an_export_tells_how_to_write_what_timm_would_read_otherwise(tmp_path):
    reading = {"class_from": "path", "value_range": [0.5, 1234567.0], "skip_broken": True}
    data = build_data(name="my scans", reading=reading, unlike_timm=["images of more than 8 bits are scaled"])
    manifest = build_manifest(data=data, plan=build_plan(group_by="^[^/]+"))
    folder = StoredStudy(tmp_path / "demo")
    why, command = hints_of_writing(folder, manifest)
    assert "images of more than 8 bits are scaled" in why
    assert shlex.split(command) == [
        "hilo-nas", "data", "write", "my scans", "DIR", "--set", "data.group_by=^[^/]+",
        "--set", "data.class_from=path", "--set", "data.value_range=0.5,1234567", "--set", "data.skip_broken=true",
    ]  # fmt: skip
    assert "runs a function" not in why
    theirs = dataclasses.replace(manifest, data=dataclasses.replace(data, name="evil.py:load"))
    assert "runs a function" in hints_of_writing(folder, theirs)[0]
    plain = dataclasses.replace(manifest, data=build_data())
    assert hints_of_writing(folder, plain) == []


def test_written_files_are_reported_with_the_command_that_trains_on_them(images, capsys, tmp_path):
    folder, out = images.folder("pets", {"big cats": 5, "dogs/9": 5, "dogs/10": 5}), tmp_path / "my out"
    assert main(["data", "write", str(folder), str(out), "--set", "data.class_from=path"]) == 0
    *renamed, wrote, hint = capsys.readouterr().out.splitlines()
    assert renamed == [
        "class 'dogs/9' is in folder 'dogs_9'",
        "class 'dogs/10' is in folder 'dogs_10'",
    ]
    assert wrote == f"wrote {out}: 12 training and 3 validation images"
    assert shlex.split(hint.partition(": ")[2])[4:] == ["--data-dir", str(out), "--class-map", f"{out}/class_map.txt"]
    assert (out / "class_map.txt").read_text().splitlines() == ["big cats", "dogs_9", "dogs_10"]
    assert main(["data", "write", str(folder), str(out)]) == 2
    assert "must be empty, but holds files" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "check", "write"])
def test_the_commands_have_help(command, capsys):
    assert main(["data", command, "--help"]) == 0
    assert "--set NAME=VALUE" in capsys.readouterr().out
