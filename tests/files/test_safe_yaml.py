"""YAML of strangers costs bounded time and ends in one kind of error."""

import os

import pytest
import yaml

from hilo_nas.arch.config import ArchConfig, load_arch
from hilo_nas.errors import ArchError, HiloNasError, RecordError, StorageError, UsageError
from hilo_nas.files.safe_yaml import MOST_BYTES, compose_yaml, load_yaml, parse_yaml
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import StoredStudy

REST = "depths: [1, 1, 2, 1]\nnum_heads: [1, 2, 4, 8]\n"
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(BOMB, "at most 50,000 values", id="aliases of aliases"),
        pytest.param("a: &a [*a, *a]", "inside the value", id="a list in itself"),
        pytest.param("a: &a {k: 1}\nb: &b\n  <<: *b\n", "inside the value", id="a merge of itself"),
        pytest.param("[" * 100_000, "at most 40 deep", id="nesting"),
        pytest.param("- " * 100_000, "at most 40 deep", id="nesting in blocks"),
        pytest.param("a: 0x" + "f" * 200_000, "at most 1000", id="hexadecimal"),
        pytest.param("a: " + ":".join(["59"] * 20_000), "at most 1000", id="base 60"),
        pytest.param("a: " + ":".join(["59"] * 20_000) + ".5", "at most 1000", id="base 60 with a fraction"),
        pytest.param("a: " + ":".join(["59"] * 300) + ".5", "too large to convert", id="beyond floats"),
        pytest.param("a: 2001-99-99", "month must be in 1..12", id="date"),
        pytest.param("a: !!int x", "invalid literal", id="no number"),
        pytest.param("a: " + "x" * MOST_BYTES, "at most 1,048,576 characters", id="size"),
        pytest.param("a: !!python/object/apply:os.system [true]", "could not determine a constructor", id="code"),
    ],
)
def test_what_would_hold_a_reader_up_is_refused_as_yaml(text, fault):
    with pytest.raises(yaml.YAMLError, match=fault):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text", ["", "a: 1", "- &a [1, 2]\n- *a\n- *a", "a: &a {k: 1}\nb: {<<: *a, l: 2}", "a: 0x1f\nb: 1e-3\nc: 1:30\n"]
)
def test_all_else_is_read_as_the_safe_loader_reads_it(text):
    assert parse_yaml(text) == yaml.safe_load(text)
    assert (compose_yaml(text) is None) == (text == "")


@pytest.fixture(params=["pipe", "device", "large", "folder"])
def trap(request, tmp_path):
    path = tmp_path / "arch.yaml"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    else:
        path.write_text("a: " + "x" * MOST_BYTES)
    return path


def test_what_is_no_file_of_a_usual_size_is_not_read(trap):
    with pytest.raises(OSError, match=r"it must (be a regular file|have at most 1 MiB)"):
        load_yaml(trap)
    with pytest.raises(StorageError, match=r"cannot read .*arch\.yaml: it must"):
        load_arch(trap)


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    assert load_yaml(tmp_path / "b.yaml") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "error", "fault"),
    [
        (BOMB, UsageError, "is not YAML"),
        ("[" * 500, UsageError, "is not YAML"),
        ("embed_dims: 2001-99-99", UsageError, "is not YAML"),
        ("[" + "x, " * 9999 + "x]", UsageError, r"must hold an architecture .* but got \['x'.{20,100}\.\.\.$"),
        (f"embed_dims: [16, 32, 64, {'9' * 900}]\n{REST}", ArchError, "embed_dims must be at most 10,000,000"),
        (
            "embed_dims: [8, 8, 8, 8]\ndepths: [1, 1, 1000000000, 1]\nnum_heads: [1, 1, 1, 1]",
            ArchError,
            "at most 1,000",
        ),
        (f"embed_dims: [8, 16, 32, 64]\npatch_size: 100000000\n{REST}", ArchError, "patch_size must be at most"),
    ],
)
def test_an_architecture_without_bounds_is_refused(tmp_path, text, error, fault):
    path = tmp_path / "arch.yaml"
    path.write_text(text)
    with pytest.raises(error, match=fault):
        load_arch(path)


def test_numbers_that_python_does_not_write_are_refused_as_well():
    with pytest.raises(ArchError, match="a number of thousands of digits"):
        ArchConfig(embed_dims=(10**5000, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))


def test_manifests_have_the_same_bounds(tmp_path):
    with pytest.raises(RecordError, match="50,000 values"):
        Manifest.from_yaml(BOMB)
    (tmp_path / "manifest.yaml").write_bytes(b"a" * (MOST_BYTES + 1))
    with pytest.raises(HiloNasError, match="it must have at most 1 MiB"):
        _ = StoredStudy(tmp_path).manifest
