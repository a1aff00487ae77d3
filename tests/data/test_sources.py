"""The words that name a source: made absolute, they mean the same from any working directory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hilo_nas.data.sources import absolute_source, parse_source, read_fingerprint
from hilo_nas.errors import DataError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with a source of every kind that lies somewhere."""
    tmp_path = tmp_path.resolve()
    for folder in ("pets/cats", "shards", "data", "mnist files", "digits/0", "hub/set"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pets.tar").touch()
    (tmp_path / "linked").symlink_to("pets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pets", "{}/pets"),
        ("./pets/", "{}/pets"),
        ("linked", "{}/pets"),
        ("pets/../pets.tar", "{}/pets.tar"),
        ("digits", "digits"),
        ("./digits", "{}/digits"),
        ("wds/shards", "wds/{}/shards"),
        ("WDS/shards", "wds/{}/shards"),
        ("torch/mnist", "torch/mnist:{}/data"),
        ("torch/MNIST:mnist files", "torch/mnist:{}/mnist files"),
        ("hfds/uoft-cs/cifar10", "hfds/uoft-cs/cifar10"),
        ("hfds/hub/set", "hfds/{}/hub/set"),
        ("hfds/{}/hub/set", "hfds/{}/hub/set"),
    ],
)
def test_an_absolute_source_is_the_same_from_everywhere(home, monkeypatch, text, expected):
    text, expected = text.format(home), expected.format(home)
    before = parse_source(text)
    assert absolute_source(text) == expected
    assert absolute_source(expected) == expected
    monkeypatch.chdir("/")
    after = parse_source(expected)
    assert (after.kind, after.name, after.path, after.hflip) == (before.kind, before.name, before.path, before.hflip)
    if before.kind != "hfds":  # whose reader takes the words themselves
        assert read_fingerprint(after) == read_fingerprint(before)


def test_a_home_folder_is_spelled_out(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert absolute_source("~/pets") == f"{home}/pets"
    assert absolute_source("wds/~/shards") == f"wds/{home}/shards"


@pytest.mark.parametrize("text", ["", "gone", "wds/gone", "torch/mnist:gone", "torch/svhn", "hfds/"])
def test_what_is_not_there_has_no_absolute_name(home, text):
    with pytest.raises(DataError):
        absolute_source(text)


def test_a_name_longer_than_the_file_system_takes_is_refused_in_words():
    with pytest.raises(DataError, match=r"no data at 'x+\.\.\.'"):
        parse_source("x" * 5000)


def test_a_folder_that_may_not_be_listed_is_refused_in_words(home, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(home), "iterdir", refuse)
    with pytest.raises(DataError, match=r"pets cannot be read: .*Permission denied"):
        parse_source("pets")


def test_making_a_source_absolute_does_without_torch(home):
    script = (
        "import sys; from hilo_nas.data.sources import absolute_source; absolute_source('pets');"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
