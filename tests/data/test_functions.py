"""Images from a function of the user's own: what it may give, how that is kept, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hilo_nas.data import clear_caches, list_caches
from hilo_nas.data.cache import load_arrays, load_members
from hilo_nas.data.functions import open_function
from hilo_nas.data.sources import absolute_source, parse_source, read_fingerprint
from hilo_nas.errors import DataError, NotFoundError
from hilo_nas.events import DataPrepared

TWO = {"cats": 3, "dogs": 4}
HEAD = "import io\nimport numpy as np\nfrom PIL import Image\n"
GREY = "np.full((6, 6), {}, dtype=np.uint8)"
PAIRS = f"({GREY.format('i')}, c) for i, c in enumerate('aabb')"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    tmp_path = tmp_path.resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def write(home):
    """Writes the body of `load` into scans.py."""

    def run(body: str, name: str = "scans.py") -> Path:
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD + "def load():\n" + "".join(f"    {line}\n" for line in body.splitlines()))
        return path

    return run


def walk(folder):
    return f"""
from pathlib import Path
for file in sorted(Path({str(folder)!r}).glob("*/*.png")):
    yield file.read_bytes(), file.parent.name, f"{{file.parent.name}}/{{file.name}}"
"""


def test_a_function_that_walks_a_folder_gives_what_the_folder_gives(prepare, images, write, events):
    folder = images.folder("pets", TWO)
    write(walk(folder))
    ours, theirs = prepare("scans.py:load"), prepare(folder)
    assert ours.content_hash == theirs.content_hash
    assert (ours.name, ours.class_names, ours.n_images, ours.hflip) == ("scans.py:load", ("cats", "dogs"), 7, True)
    assert load_members(Path(ours.path)) == [f"{name}/{i}.png" for name, n in TWO.items() for i in range(n)]
    assert events[0] == DataPrepared(done=7, total=None)


def test_every_kind_of_image_is_taken(prepare, write, events):
    write(
        f"""
colour = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
file = io.BytesIO()
Image.fromarray(colour).save(file, "png")
return [
    (colour, "array"), ({GREY.format(9)}, "array"), [Image.fromarray(colour), "pil"],
    (Image.new("L", (5, 4), 3), "pil", "a name"), (file.getvalue(), "file"), (file.getvalue() + b"0", "file"),
]"""
    )
    data = prepare("scans.py:load")
    assert data.class_names == ("array", "file", "pil")
    assert load_members(Path(data.path)) == ["item 0", "item 1", "item 2", "a name", "item 4", "item 5"]
    _, pixels, labels, digests = load_arrays(Path(data.path))
    assert labels.tolist() == [0, 0, 2, 2, 1, 1]
    assert (pixels[0] == pixels[2]).all()
    assert (pixels[3] == 3).all()
    assert (digests[0] == digests[2]).all()
    assert DataPrepared(done=6, total=6) in events  # a list knows its length


def test_arrays_of_more_than_eight_bits_and_of_one_channel_are_given_as_they_are(write):
    write(
        """
array = np.arange(36).reshape(6, 6)
yield (array * 1000).astype(np.uint16), "a"
yield (array * 1000).astype(np.uint16)[:, :, None], "a"
yield array / 36, "b"
yield np.stack([array] * 3, 2).astype(np.int16) - 18, "b"
yield Image.fromarray((array * 1000).astype(np.uint16)), "a"
yield array.astype(np.uint8)[:, :, None], "b"
"""
    )
    contents = [sample.content for sample in open_function(parse_source("scans.py:load")).samples()]
    kinds = [(content.dtype.name, content.shape) for content in contents if isinstance(content, np.ndarray)]
    assert kinds == [("uint16", (6, 6)), ("uint16", (6, 6)), ("float32", (6, 6)), ("float32", (6, 6, 3))]
    assert contents[0].max() == 35000
    assert contents[3].min() == -18
    assert (contents[4].mode, contents[5].mode) == ("I;16", "L")


def test_an_image_may_be_closed_and_an_array_filled_again_when_the_function_goes_on(prepare, write, images):
    folder = images.folder("pets", TWO)
    write(
        f"""
array = np.zeros((6, 6), dtype=np.uint8)
for i in range(4):
    array[:] = 10 * i
    yield array, "a"
    with Image.open({str(folder / "cats")!r} + f"/{{i % 2}}.png") as image:
        yield image, "b"
"""
    )
    _, pixels, labels, _ = load_arrays(Path(prepare("scans.py:load").path))
    assert pixels[labels == 0].max(axis=(1, 2, 3)).tolist() == [0, 10, 20, 30]


def test_what_was_read_is_read_again_only_where_the_file_has_changed(prepare, write, home, events):
    text = f"with open('calls', 'a') as calls:\n    calls.write('x')\nreturn [{PAIRS}]"
    path = write(text)
    first = prepare("scans.py:load")
    os.utime(path, (1, 1))
    events.clear()
    assert prepare("scans:load").path == first.path  # the same file
    assert prepare(f"{path}:load") == first
    assert (home / "calls").read_text() == "x"
    write(text.replace("'aabb'", "'aabbb'"))
    edited = prepare("scans.py:load")
    assert (home / "calls").read_text() == "xx"
    assert (edited.n_images, edited.source_hash != first.source_hash) == (5, True)


def test_what_the_function_reads_is_not_watched_but_can_be_forgotten(prepare, write, images):
    folder = images.folder("pets", TWO)
    write(walk(folder))
    prepare("scans.py:load")
    images.folder("pets", {"cats": 9}, seed=5)
    assert prepare("scans.py:load").n_images == 7
    assert [entry.name for entry in clear_caches(names=["scans.py:load"])] == ["scans.py:load"]
    assert prepare("scans.py:load").n_images == 13
    assert [entry.n_images for entry in list_caches()] == [13]


def test_an_edit_that_gives_the_same_images_leaves_their_hash(prepare, write):
    write(f"return [{PAIRS}]")
    first = prepare("scans.py:load")
    write(f"# a remark\nreturn [{PAIRS}]")
    second = prepare("scans.py:load")
    assert (first.content_hash, first.path) == (second.content_hash, second.path)
    assert first.source_hash != second.source_hash


def test_two_functions_of_a_file_are_two_sources(write, home):
    write("pass")
    one, other = (parse_source(f"scans.py:{name}") for name in ("load", "save"))
    assert read_fingerprint(one) != read_fingerprint(other)


def test_a_function_gives_validation_images_as_well(prepare, images, write):
    write(walk(images.folder("pets", TWO)))
    assert prepare(images.folder("more", TWO, seed=1), val_data="scans.py:load").n_val_images == 7


def test_a_function_is_named_in_full_from_everywhere_and_its_record_names_no_folder(write, home, monkeypatch, prepare):
    write(f"return [{PAIRS}]", "sub/scans.py")
    text = absolute_source("sub/scans.py:load")
    assert text == f"{home}/sub/scans.py:load"
    before = read_fingerprint(parse_source("sub/scans.py:load"))
    monkeypatch.chdir("/")
    assert read_fingerprint(parse_source(text)) == before
    fields = prepare(text).to_dict()
    assert str(home) not in json.dumps({name: value for name, value in fields.items() if name != "path"})


def test_a_folder_that_is_called_like_a_function_is_a_folder(images, home):
    images.folder("scans:load", TWO)
    assert parse_source("scans:load").kind == "folder"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", r"must return an iterable of \(image, class_name\) or .*member\), but returned None"),
        ("return 3", r"but returned 3 \(int\)"),
        ("return []", r"no images in scans\.py:load"),
        ("return [1]", r"item 0 of scans\.py:load must be \(image, class_name\) or .*, but is 1 \(int\)"),
        ("yield b'x',", r"item 0 of .*, but is a tuple of 1"),
        ("yield b'x', 'a', 'b', 'c'", r"item 0 of .*, but is a tuple of 4"),
        ("return {'a': 1}", r"item 0 of .*, but is 'a' \(str\)"),
        (
            f"yield {GREY.format(1)}, 'a'\nyield {GREY.format(1)}, 3",
            r"item 1 of scans\.py:load: class_name .* is 3 \(int\)",
        ),
        (f"yield {GREY.format(1)}, ''", r"class_name must be a non-empty string"),
        (f"yield {GREY.format(1)}, 'a', 7", r"member must be .* but is 7 \(int\)"),
        (f"yield {GREY.format(1)}, 'a', 'x\\0y'", r"member must be .* without NUL"),
        (
            "yield 'cat.png', 'a'",
            r"image must be a PIL image, .* or the bytes of an image file, but is 'cat\.png' \(str\)",
        ),
        ("yield None, 'a'", r"but is None"),
        ("yield np.zeros((4, 4, 3), bool), 'a'", r"of integers or floats, .*but is an array \(4, 4, 3\) of bool"),
        ("yield np.zeros((4, 4, 2)), 'a'", r"but is an array \(4, 4, 2\) of float64"),
        ("yield np.zeros((4, 4, 4), np.uint8), 'a'", r"but is an array \(4, 4, 4\) of uint8"),
        ("yield np.zeros((0, 4), np.uint8), 'a'", r"but is an array \(0, 4\) of uint8"),
        ("yield b'no image', 'a', 'x/1.png'", r"(?s)1 image cannot be read in scans\.py:load:.*x/1\.png"),
        (f"yield {GREY.format(1)}, 'a'\nyield {GREY.format(2)}, 'a'", r"two classes or more, but .* has one: 'a'\.$"),
        (
            f"yield {GREY.format(1)}, 'a'\nraise KeyError('b')",
            r"scans\.py:load raised KeyError: 'b' \(scans\.py, line 6\)",
        ),
        ("raise SystemExit(2)\nyield", r"scans\.py:load raised SystemExit: 2 \(scans\.py, line 5\)"),
        ("return open('gone.csv')", r"raised FileNotFoundError: .*gone\.csv.*\(scans\.py, line 5\)"),
    ],
)
def test_what_is_not_right_is_refused_with_what_was_expected(prepare, write, body, message):
    write(body)
    with pytest.raises(DataError, match=message):
        prepare("scans.py:load")
    assert list_caches() == []


def test_a_broken_image_that_pillow_opens_is_named(prepare, write, images):
    file = images.folder("pets", TWO) / "cats" / "0.png"
    file.write_bytes(file.read_bytes()[:60])
    write(f"with Image.open({str(file)!r}) as image:\n    yield image, 'a'")
    with pytest.raises(DataError, match=r"1 image cannot be read in scans\.py:load:\n.*item 0"):
        prepare("scans.py:load")


def test_a_function_that_is_not_there_is_refused(prepare, write):
    write("pass")
    with pytest.raises(NotFoundError, match="Did you mean load"):
        prepare("scans.py:laod")
    with pytest.raises(DataError, match=r"scans\.py:FUNCTION"):
        prepare("scans.py")
