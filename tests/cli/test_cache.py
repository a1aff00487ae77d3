"""`hilo-nas cache`: what it lists, and what it deletes."""

import csv
import io
import json

import pytest

from hilo_nas.cli import main


@pytest.fixture
def cached(images, tmp_path):
    """Two sets in a separate cache, and the arguments that name it."""
    setting = ("--set", f"data.cache_dir={tmp_path / 'theirs'}")
    for name, size in (("pets", 8), ("trees, old", 16)):
        folder = images.folder(name, {"a": 10, "b": 10}, seed=size)
        assert main(["data", "check", str(folder), "--img-size", str(size), *setting]) == 0
    return setting


def test_sets_are_listed_in_every_format(cached, capsys, tmp_path):
    capsys.readouterr()
    assert main(["cache", "list", *cached]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"2 sets in {tmp_path / 'theirs'}"
    assert [line.split("  ")[0].strip() for line in lines if " 20 " in line] == ["pets", "trees, old"]
    assert main(["cache", "list", "--format", "json", *cached]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(entry["name"], entry["img_size"], entry["num_classes"]) for entry in entries] == [
        ("pets", 8, 2),
        ("trees, old", 16, 2),
    ]
    assert all(len(entry["content_hash"]) == 64 for entry in entries)
    assert main(["cache", "list", "--format", "csv", *cached]) == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert rows == [{name: str(value) for name, value in entry.items()} for entry in entries]


def test_an_empty_cache_gives_empty_lists(capsys, own_cache):
    for words, said in (((), f"0 sets in {own_cache}\n"), (("--format", "json"), "[]\n")):
        assert main(["cache", "list", *words]) == 0
        assert capsys.readouterr().out == said
    assert main(["cache", "list", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "name,n_images,img_size,num_classes,size_mib,content_hash,path\n"


def test_sets_are_deleted_by_name_or_by_hash_as_the_list_shows_it(cached, capsys):
    capsys.readouterr()
    main(["cache", "list", *cached])
    last = capsys.readouterr().out.splitlines()[-3].split()
    assert last[0] == "trees,"
    assert main(["cache", "clear", "pets", last[-1], *cached]) == 0
    out = capsys.readouterr().out
    assert "removed pets at 8 px (" in out
    assert "removed trees, old at 16 px (" in out
    assert main(["cache", "list", "--format", "json", *cached]) == 0
    assert capsys.readouterr().out == "[]\n"
