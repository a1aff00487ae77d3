"""What a study's `local.yaml` says of this machine is used only where this user wrote it, for this folder."""

import shutil
import stat
from pathlib import Path

import pytest
import yaml

from hilo_nas.study import local_settings as local_module
from hilo_nas.study.local_settings import Local, load_local, state_folder, write_local


@pytest.fixture
def path(tmp_path):
    (tmp_path / "study").mkdir()
    return tmp_path / "study" / "local.yaml"


def test_what_this_user_wrote_is_read_back(path):
    write_local(path, {"data.source": "/data", "data.cache_dir": "/cache", "proxy.name": None})
    assert load_local(path) == Local(values={"data.source": "/data", "data.cache_dir": "/cache"})


def test_a_strangers_file_is_shown_and_not_used(path):
    path.write_text("data: evil.py:load\ncache_dir: /home/me\n")
    found = load_local(path)
    assert found.values == {}
    assert found.ignored == {"data.source": "evil.py:load", "data.cache_dir": "/home/me"}
    assert found.fault is not None


@pytest.mark.parametrize("change", ["edited", "added", "moved", "unsigned", "another user", "no key"])
def test_a_file_that_was_changed_or_moved_or_is_another_users_is_not_used(path, tmp_path, monkeypatch, change):
    write_local(path, {"data.source": "/data"})
    content = yaml.safe_load(path.read_text())
    if change == "edited":
        path.write_text(yaml.safe_dump({**content, "data": "/elsewhere"}))
    elif change == "added":
        path.write_text(yaml.safe_dump({**content, "cache_dir": "/elsewhere"}))
    elif change == "moved":
        path = Path(shutil.move(path.parent, tmp_path / "other")) / "local.yaml"
    elif change == "unsigned":
        path.write_text("data: /data\n")
    elif change == "another user":
        monkeypatch.setenv("HILO_NAS_STATE_DIR", str(tmp_path / "theirs"))
        write_local(tmp_path / "local.yaml", {"data.source": "/data"})
    else:
        shutil.rmtree(state_folder())
    assert load_local(path).values == {}
    assert "data.source" in load_local(path).ignored


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("data: [", "it is not YAML"),
        ("when: 2026-99-99\ndata: x\n", "it is not YAML"),
        ("[1, 2]", "it must be a mapping of options, but is a list"),
        ("data: [1]\nproxy: {a: b}\n", "data, proxy must be text"),
        ("data: digits\nsignature: 7\n", "it was not written by this user"),
        ("data: digits\nfunctions: 7\nsignature: x\n", "it was not written by this user"),
        ("data: digits\nfunctions: {1: 2}\nsignature: \u00e9\n", "it was not written by this user"),
    ],
)
def test_a_malformed_file_is_reported_as_a_fault(path, text, fault):
    path.write_text(text, encoding="utf-8")
    write_local(path.parent / "other.yaml", {})  # a key is there
    found = load_local(path)
    assert found.values == {}
    assert found.fault.startswith(fault)


def test_a_path_that_is_not_a_text_file_is_reported_as_a_fault(path):
    path.mkdir()
    assert load_local(path) == Local(fault="it is not a regular file", is_damaged=True)
    path.rmdir()
    path.write_bytes(b"\xff\xfe\x00")
    assert load_local(path).fault.startswith("it is not YAML")
    assert load_local(path).is_damaged


def test_an_empty_or_absent_file_says_nothing(path):
    assert load_local(path) == Local()
    path.write_text("")
    assert load_local(path) == Local()
    write_local(path, {"data.source": None})
    assert load_local(path) == Local()


def test_a_function_is_known_by_its_content(path, tmp_path):
    function = tmp_path / "mine.py"
    function.write_text("def load(): ...\n")
    write_local(path, {"data.source": f"{function}:load"})
    assert load_local(path).is_unchanged("data.source")
    function.write_text("def load(): evil()\n")
    assert not load_local(path).is_unchanged("data.source")


def test_the_key_is_this_users_alone_and_made_once(path):
    write_local(path, {"data.source": "/data"})
    key = state_folder() / "key"
    content = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(state_folder().stat().st_mode) == 0o700
    write_local(path, {"data.source": "/other"})
    assert key.read_bytes() == content
    assert [entry.name for entry in state_folder().iterdir()] == ["key"]
    key.write_bytes(b"short")
    write_local(path, {"data.source": "/other"})
    assert load_local(path).values == {"data.source": "/other"}


def test_without_a_stored_key_the_file_is_written_but_not_trusted_later(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HILO_NAS_STATE_DIR", str(tmp_path / "file" / "state"))
    write_local(path, {"data.source": "/data"})
    assert load_local(path).ignored == {"data.source": "/data"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HILO_NAS_STATE_DIR": "~/mine"}, "HOME/mine"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/hilo-nas"),
        ({"XDG_STATE_HOME": "relative"}, "HOME/.local/state/hilo-nas"),
        ({}, "HOME/.local/state/hilo-nas"),
    ],
)
def test_the_key_is_in_the_state_folder_of_the_user(monkeypatch, tmp_path, variables, expected):
    monkeypatch.delenv(local_module.STATE_VARIABLE)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(state_folder()) == expected.replace("HOME", str(tmp_path))
