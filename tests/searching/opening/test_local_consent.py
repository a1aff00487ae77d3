"""A study from a stranger: what its `local.yaml` names is used only once this user has named it here."""

import shutil
from pathlib import Path

import pytest
from builders import build_data, build_manifest, write_study

from hilo_nas.errors import DataError, HiloNasError, UsageError
from hilo_nas.events import Notice
from hilo_nas.searching import SearchConfig, run_search

SOURCE = "def load():\n    return []\n\ndef score(arch, build_model, budget, seed, callback):\n    return budget, 0\n"


@pytest.fixture
def asked(machine):
    """The images asked for, as (source, cache folder, validation source)."""
    found, prepare = [], machine.prepare_data

    def listen(source, img_size, **options):
        cache_dir = options["cache_dir"]
        found.append((source, cache_dir and Path(cache_dir), options["val_data"]))
        return prepare(source, img_size, **options)

    machine.prepare_data = listen
    return found


@pytest.fixture
def folder(tmp_path, machine):
    (tmp_path / "evil.py").write_text(SOURCE)
    manifest = build_manifest(data=build_data(name="evil.py:load"))
    folder = write_study(tmp_path / "studies", manifest=manifest)
    machine.data["content_hash"] = manifest.data.hash
    return folder


def search(folder, events=None, **options):
    request = SearchConfig.of(study=str(folder.path), remeasure=False, until_trials=1, sampler=None, **options)
    return run_search(request, (events if events is not None else []).append)


def test_a_function_in_a_strangers_local_file_is_not_run_and_what_to_type_is_told(folder, asked, tmp_path):
    (folder.path / "local.yaml").write_text(f"data: '{tmp_path}/evil.py:load'\n")
    with pytest.raises(DataError) as caught:
        search(folder)
    said = str(caught.value)
    assert f"local.yaml contains {tmp_path}/evil.py:load, but was not written by this user for this folder" in said
    assert said.endswith(f"name it: --data {tmp_path}/evil.py:load")
    assert asked == []


def test_what_was_named_once_is_remembered_until_the_folder_moves_or_the_file_is_edited(folder, asked, tmp_path):
    function = f"{tmp_path}/evil.py:load"
    search(folder, data=function)
    search(folder)
    assert asked == [(function, None, None)] * 2
    moved = type(folder)(folder.path.parent / "moved")
    shutil.copytree(folder.path, moved.path)
    with pytest.raises(DataError, match="name it: --data"):
        search(moved)
    (tmp_path / "evil.py").write_text(SOURCE + "# worse\n")
    with pytest.raises(UsageError, match=f"edited.* name it again: --data {function}"):
        search(folder)
    assert len(asked) == 2
    search(folder, data=function)
    search(folder)
    assert len(asked) == 4


def test_no_folder_of_a_strangers_local_file_is_used_and_each_is_told_with_its_option(folder, asked, tmp_path):
    (folder.path / "local.yaml").write_text("cache_dir: /home/me\nval_data: x y\nreuse: /theirs\nspeeds: /fast\n")
    events = []
    search(folder, events, data=f"{tmp_path}/evil.py:load")
    assert asked == [(f"{tmp_path}/evil.py:load", None, None)]
    (text,) = [event.text for event in events if isinstance(event, Notice) and "local.yaml" in event.text]
    assert text.startswith("local.yaml of study demo is not used: ")
    assert " --set 'data.val_source=x y' --set data.cache_dir=/home/me." in text
    events.clear()
    search(folder, events)  # the file is this user's now
    assert not [event for event in events if isinstance(event, Notice) and "local.yaml" in event.text]


@pytest.mark.parametrize("text", ["data: [", "[1]", "data: {a: 1}", "\0"])
def test_a_garbled_local_file_is_told_and_asked_for_anew(folder, asked, tmp_path, text):
    (folder.path / "local.yaml").write_text(text)
    with pytest.raises(HiloNasError, match=r"path on this machine is unknown\. Name it: --data"):
        search(folder)
    events = []
    search(folder, events, data=f"{tmp_path}/evil.py:load")
    assert any(isinstance(event, Notice) and "local.yaml of study demo is not used" in event.text for event in events)
    search(folder)
    assert len(asked) == 2


def test_a_strangers_proxy_is_not_loaded_before_it_is_named(machine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(SOURCE)
    request = SearchConfig.of(
        space="litv2_digits", study=tmp_path / "studies" / "demo", proxy="evil.py:score", trials=1
    )
    folder, _ = run_search(request, lambda event: None)
    moved = type(folder)(tmp_path / "moved")
    shutil.copytree(folder.path, moved.path)
    machine.loaded.clear()
    with pytest.raises(UsageError, match=f"name it: --proxy {tmp_path}/evil.py:score"):
        search(moved)
    assert machine.loaded == []
    search(moved, proxy="evil.py:score")
    assert machine.loaded == [f"{tmp_path}/evil.py:score"]
