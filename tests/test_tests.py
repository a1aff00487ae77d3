"""Tests replace no names of this package: what they fake, they pass in."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATCHES = re.compile(r"(\w+\.)*(setattr|delattr|setitem|delitem|patch(\.(object|dict|multiple))?)")


def own_names_of(tree: ast.AST) -> set[str]:
    """Names of what a file imports from this package, of parts of that, and of objects of its classes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            own = [alias for alias in node.names if is_own(alias.name)]
            found |= {alias.asname or alias.name.partition(".")[0] for alias in own}
        elif isinstance(node, ast.ImportFrom) and is_own(node.module or ""):
            found |= {alias.asname or alias.name for alias in node.names}
    bindings: list[tuple[list[ast.expr], ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            bindings.append((node.targets, node.value))
        elif isinstance(node, ast.For | ast.comprehension):
            bindings.append(([node.target], node.iter))
    count = -1
    while count < len(found):
        count = len(found)
        for targets, value in bindings:
            if roots_of(value) & found:
                found |= {name for target in targets for name in names_in(target)}
    return found


def roots_of(value: ast.expr) -> set[str]:
    """Names of what a value is part of, or an object of."""
    match value:
        case ast.Name():
            return {value.id}
        case ast.Attribute() | ast.Subscript():
            return roots_of(value.value)
        case ast.Tuple() | ast.List():
            return {name for item in value.elts for name in roots_of(item)}
        case ast.Call() if ast.unparse(value.func).rpartition(".")[2][:1].isupper():
            return roots_of(value.func)
        case _:
            return set()


def is_own(name: str) -> bool:
    return name.partition(".")[0] == "hilo_nas"


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def patches_in(text: str) -> Iterator[str]:
    """Calls that replace something in a module, class or object of this package, named by a text or by itself."""
    tree = ast.parse(text)
    own = own_names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and PATCHES.fullmatch(ast.unparse(node.func)):
            target = node.args[0]
            names = {target.value} if isinstance(target, ast.Constant) else names_in(target)
            if names & own or any(map(is_own, map(str, names))):
                yield ast.unparse(node)


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setattr('hilo_nas.study.stored_study.open_study', fake)",
        "import hilo_nas.searching\nmonkeypatch.setattr(hilo_nas.searching, 'run_search', fake)",
        "from hilo_nas import study as module\nwith MonkeyPatch.context() as p: p.setattr(module, '_NAME', fake)",
        "from hilo_nas.study.stored_study import Study\nmonkeypatch.delattr(Study, 'write')",
        "from hilo_nas.study.stored_study import Study\nstudy = Study(path)\nmonkeypatch.setattr(study, 'write', fake)",
        "from hilo_nas import a, b\nfor module in (a, b):\n    monkeypatch.setattr(module, 'run', fake)",
        "from hilo_nas.export import EXPORTERS\nmonkeypatch.setitem(EXPORTERS, 'timm', fake)",
        "from unittest import mock\nfrom hilo_nas import study\nwith mock.patch.object(study, 'slug'): pass",
        "from unittest.mock import patch\n@patch('hilo_nas.study.stored_study.slug')\ndef test(slug): pass",
    ],
)
def test_a_patch_would_be_seen(text):
    assert list(patches_in(text))


def test_patches_of_the_surroundings_are_none():
    text = "import os\nfrom hilo_nas.study.stored_study import Study\n{}".format
    assert not list(patches_in(text("monkeypatch.setattr(os, 'replace', Study)")))
    assert not list(patches_in(text("monkeypatch.setattr('os.cpu_count', lambda: 3)")))


def test_no_test_patches_this_package():
    found = {str(path.relative_to(HERE)): list(patches_in(path.read_text("utf-8"))) for path in HERE.rglob("*.py")}
    assert len(found) > 100
    assert not {path: patches for path, patches in found.items() if patches}
