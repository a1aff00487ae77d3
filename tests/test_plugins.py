"""Functions of the user's own: found and hashed without being run, loaded from wherever they are named."""

from __future__ import annotations

import hashlib
import sys
import types

import pytest

from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.plugins import (
    absolute,
    describe_exception,
    find_file,
    hash_source,
    is_plugin,
    load_function,
    name_of,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory of the test's own, of which Python's path forgets everything afterwards."""
    tmp_path = tmp_path.resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scans:load", True),
        ("lab.scans:load_all", True),
        ("scans.py:load", True),
        ("../my data/scans.py:load", True),
        ("~/scans.py:load", True),
        ("scans", False),
        ("scans.py", False),
        ("scans.py:", False),
        (":load", False),
        ("scans.py:load()", False),
        ("my data:load", False),
        ("torch/mnist:data", False),
        ("lab/scans:load", False),
        ("2scans:load", False),
    ],
)
def test_what_has_the_form_of_a_function_is_told_by_its_words(text, expected):
    assert is_plugin(text) is expected


def test_other_words_are_refused_with_the_form():
    with pytest.raises(UsageError, match=r"module:function or path/to/file\.py:function, but got 'scans'"):
        load_function("scans")


def test_a_file_lends_its_base_name_and_a_module_its_whole_one():
    assert name_of("/home/me/scans.py:load") == "scans.py:load"
    assert name_of("lab.scans:load") == "lab.scans:load"


def test_a_function_of_a_file_is_loaded_with_the_modules_beside_it(home):
    write(home / "sub" / "beside_scans.py", "VALUE = 7\n")
    write(home / "sub" / "scans.py", "import beside_scans\ndef load():\n    return beside_scans.VALUE\n")
    assert load_function("sub/scans.py:load")() == 7


def test_an_edited_file_is_run_anew(home):
    """Also where it changes within the second, at the same length."""
    for value in "123":
        write(home / "scans.py", f"def load(): return {value}\n")
        assert load_function("scans.py:load")() == int(value)
    assert not (home / "__pycache__").exists()


def test_a_file_may_hold_dataclasses(home):
    text = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Scan:\n    size: int\n"
    )
    assert load_function(str(write(home / "scans.py", text)) + ":Scan")(3).size == 3


def test_a_module_of_the_current_directory_is_found_though_it_is_not_on_pythons_path(home, monkeypatch):
    write(home / "plugin_here.py", "def load(): return 'here'\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(home))])
    assert find_file("plugin_here:load") == home / "plugin_here.py"
    assert load_function("plugin_here:load")() == "here"


def test_a_package_is_imported_only_to_be_loaded(home):
    write(home / "plugin_lab" / "__init__.py", "LOADED = True\n")
    write(home / "plugin_lab" / "scans.py", "from . import LOADED\ndef load(): return LOADED\n")
    digest = hashlib.sha256((home / "plugin_lab" / "scans.py").read_bytes()).hexdigest()
    assert hash_source("plugin_lab.scans:load") == digest
    assert absolute("plugin_lab.scans:load") == "plugin_lab.scans:load"
    assert "plugin_lab" not in sys.modules
    assert load_function("plugin_lab.scans:load")() is True


def test_hashing_runs_nothing_and_follows_every_edit(home):
    write(home / "scans.py", "raise SystemExit('was run')\n")
    first = hash_source("scans.py:load")
    assert first == hash_source("scans:load") == hashlib.sha256((home / "scans.py").read_bytes()).hexdigest()
    write(home / "scans.py", "raise SystemExit('was run!')\n")
    assert hash_source("scans.py:load") != first


@pytest.mark.parametrize("text", ["scans.py:load", "./sub/../scans.py:load", "scans:load", "~/scans.py:load"])
def test_a_file_is_named_in_full_to_be_found_from_elsewhere(home, monkeypatch, text):
    monkeypatch.setenv("HOME", str(home))
    (home / "sub").mkdir()
    write(home / "scans.py", "def load(): return 1\n")
    assert absolute(text) == f"{home}/scans.py:load"
    monkeypatch.chdir("/")
    assert absolute(f"{home}/scans.py:load") == f"{home}/scans.py:load"


def test_an_installed_module_is_found_from_everywhere_by_its_name(home):
    assert absolute("timm.models:create_model") == "timm.models:create_model"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("scan.py:load", NotFoundError, r"there is no file scan\.py\. Did you mean scans\.py\?"),
        ("gone/scans.py:load", NotFoundError, r"there is no file gone/scans\.py"),
        ("nowhere:load", NotFoundError, r"no module nowhere .*path/to/file\.py:function"),
        ("nowhere.scans:load", NotFoundError, r"no module nowhere\.scans"),
        ("json.nowhere:load", NotFoundError, r"no module json\.nowhere"),
        ("scans.deeper:load", NotFoundError, r"no module scans\.deeper"),
        ("made_by_hand:load", NotFoundError, r"no module made_by_hand"),
        ("sys:exit", UsageError, r"sys:exit .*sys has no"),
        ("scans.py:laod", NotFoundError, r"scans\.py has no function 'laod'\. Did you mean load\?"),
        ("scans:missing", NotFoundError, r"scans has no function 'missing'"),
        ("scans.py:FOLDER", UsageError, r"scans\.py:FOLDER must be a function, but is of type str"),
        (
            "faulty.py:load",
            UsageError,
            r"faulty\.py:load cannot be imported: ValueError: no disk \(faulty\.py, line 3\)",
        ),
        ("typo.py:load", UsageError, r"cannot be imported: SyntaxError: .*\(typo\.py, line 1\)"),
        ("ends.py:load", UsageError, r"cannot be imported: SystemExit: 3 \(ends\.py, line 2\)"),
        ("needs.py:load", UsageError, r"ModuleNotFoundError: No module named 'nowhere' \(needs\.py, line 1\)"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(home, monkeypatch, text, error, message):
    monkeypatch.setitem(sys.modules, "made_by_hand", types.ModuleType("made_by_hand"))  # of no file
    write(home / "scans.py", "FOLDER = 'here'\ndef load(): return 1\n")
    write(
        home / "faulty.py",
        "def connect():\n    # a disk that is not there\n    raise ValueError('no disk')\nconnect()\n",
    )
    write(home / "typo.py", "def load(: pass\n")
    write(home / "ends.py", "import sys\nsys.exit(3)\n")
    write(home / "needs.py", "import nowhere\n")
    with pytest.raises(error, match=message):
        load_function(text)


def test_what_a_function_raises_is_told_with_the_last_line_of_its_own(home):
    write(home / "scans.py", "import json\n\ndef load():\n    return json.loads('{')\n")
    with pytest.raises(ValueError, match="Expecting") as caught:
        load_function("scans.py:load")()
    said = describe_exception(caught.value, "scans.py:load")
    assert said.startswith("JSONDecodeError: Expecting property name")
    assert said.endswith("(scans.py, line 4)")
