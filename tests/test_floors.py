"""The floors of the house: who may import whom. docs/architecture.md shows them as a table.

A room is a top-level module or folder of the package, or a folder of values inside one; each has a floor. An import
goes down, or stays inside its room. On floors 0 and 1, rooms are single pages that may know each other, as long as no
circle closes.
"""

import ast
import functools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from builders import demo_records, write_study
from command_tree import walk_commands

import hilo_nas

PACKAGE = Path(hilo_nas.__file__).parent
FLOORS = {
    "errors": 0,
    "events": 0,
    "clock": 0,
    "hashes": 0,
    "processes": 0,
    "lazy": 0,
    "versions": 0,
    "text": 0,
    "files": 0,
    "plugins": 1,
    "arch": 1,
    "space": 1,
    "measurement": 1,
    "proxy.kinds": 1,
    "study": 1,
    "surrogate": 2,
    "models": 2,
    "data": 2,
    "timing": 3,
    "proxy": 3,
    "evaluation": 4,
    "searching": 5,
    "report": 5,
    "export": 5,
    "tracking": 5,
    "testing": 6,
    "bench": 6,
    "api": 7,
    "cli": 8,
    "__main__": 9,
}
PLAIN = {"msgspec", "numpy", "yaml"}
"""What floors 0 and 1 may import beside the standard library."""
RESERVED = {
    "ray": {"evaluation"},
    "optuna": {"searching", "export", "report"},
    "pandas": {"report"},
    "matplotlib": {"report"},
    "plotly": {"report"},
    "rich": {"cli"},
    "typer": {"cli"},
    "click": {"cli"},
}
"""Libraries, and the rooms that alone import them."""

FACE = ""
"""The room of `hilo_nas/__init__.py`, which resolves names of all others lazily."""
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of `hilo_nas.space.space_file` is `space`; the package's own face has none."""
    first, second = (".".join(module.split(".")[1:end]) for end in (2, 3))
    return second if second in FLOORS else first


@functools.cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, wherever in it; `from a import b` counts as both a and a.b."""
    return tuple(imports_in(parsed(path), path))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_in(tree: ast.AST, path: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The rooms of the package that a file imports, its own left out."""
    rooms = {room_of(name) for name in imports_of(path) if name.startswith("hilo_nas.")}
    return (rooms & FLOORS.keys()) - {room_of(module_of(path))}


@functools.cache
def outside_imports(path: Path) -> set[str]:
    """Libraries that a file imports when it runs, not those that only a type checker sees."""
    body = parsed(path).body
    seen = [node for node in body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    tree = ast.Module(body=seen, type_ignores=[])
    return {name.split(".")[0] for name in imports_in(tree, path)} - {"hilo_nas"} - sys.stdlib_module_names


def test_every_room_has_a_floor():
    rooms = {room_of(module_of(path)) for path in FILES} - {FACE}
    assert rooms <= FLOORS.keys()
    assert {"errors", "arch", "models", "timing", "searching", "cli"} <= rooms


def test_imports_go_down():
    for path in FILES:
        room = room_of(module_of(path))
        floor = FLOORS.get(room, max(FLOORS.values()))  # the package's own face names what is public anywhere
        for other in own_imports(path):
            is_below = FLOORS[other] < floor or (floor <= 1 and FLOORS[other] == floor)
            assert is_below, f"{path}: {room} (floor {floor}) imports {other} (floor {FLOORS[other]})"


def test_the_lower_floors_import_few_light_libraries_only():
    for path in FILES:
        if FLOORS.get(room_of(module_of(path)), 0) <= 1:
            assert outside_imports(path) <= PLAIN, path


def test_the_lower_floors_hold_no_circle():
    knows: dict[str, set[str]] = {room: set() for room, floor in FLOORS.items() if floor <= 1}
    for path in FILES:
        room = room_of(module_of(path))
        if room in knows:
            knows[room] |= own_imports(path)
    assert knows["study"] >= {"arch"}
    while knows:
        free = [room for room, others in knows.items() if not others & knows.keys()]
        assert free, f"a circle among {sorted(knows)}"
        for room in free:
            del knows[room]


def test_inside_a_room_no_circle_closes_at_import():
    """Imports at the head of files, followed file by file; a face that resolves its names lazily closes no circle."""
    names = {module_of(path): path for path in FILES}
    knows = {}
    for name, path in names.items():
        tree = parsed(path)
        found = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                submodules = {f"{node.module}.{alias.name}" for alias in node.names} & names.keys()
                found |= submodules or {node.module}
        knows[name] = (found & names.keys()) - {name}
    while knows:
        free = [name for name, others in knows.items() if not others & knows.keys()]
        assert free, f"a circle among {sorted(knows)}"
        for name in free:
            del knows[name]


def test_a_library_that_is_reserved_stays_in_its_room():
    for path in FILES:
        room = room_of(module_of(path))
        for library in outside_imports(path) & RESERVED.keys():
            assert room in RESERVED[library], f"{path} imports {library}, which is reserved for {RESERVED[library]}"


def test_reserved_libraries_are_used_at_all():
    for library in ("optuna", "pandas", "matplotlib", "rich", "typer"):
        homes = {room_of(module_of(path)) for path in FILES if library in outside_imports(path)}
        assert homes == RESERVED[library]


def test_only_the_command_line_prints():
    for path in FILES:
        calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        prints = any(isinstance(func, ast.Name) and func.id == "print" for func in calls)
        assert not prints or room_of(module_of(path)) == "cli", path


def test_no_two_modules_outside_the_command_line_share_a_name():
    names = Counter(path.stem for path in FILES if path.stem != "__init__" and room_of(module_of(path)) != "cli")
    assert len(names) > 100
    assert not [name for name, count in names.items() if count > 1]


def test_the_parts_of_the_search_hold_no_circle():
    """The folders below `searching`; the loop and the session at its root import any of them."""
    knows: dict[str, set[str]] = {}
    for path in (PACKAGE / "searching").rglob("*/*.py"):
        own = module_of(path).split(".")[2]
        others = {name.split(".")[2] for name in imports_of(path) if name.startswith("hilo_nas.searching.")}
        knows.setdefault(own, set()).update(others - {own})
    assert len(knows) >= 8
    while knows:
        free = [part for part, others in knows.items() if not others & knows.keys()]
        assert free, f"a circle among {sorted(knows)}"
        for part in free:
            del knows[part]


def test_no_module_is_a_drawer_for_everything():
    for path in FILES:
        assert not {"utils", "util", "common", "core", "helpers", "misc"} & set(module_of(path).split(".")), path


MOST_METHODS = 8


def public_methods_of(node: ast.ClassDef) -> list[str]:
    """Public methods that a class defines; properties are none, nor are tests, which pytest finds by their names."""
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    is_value = {"property", "cached_property", "setter"}
    return [
        item.name
        for item in methods
        if not item.name.startswith(("_", "test_"))
        and not is_value & {getattr(by, "attr", getattr(by, "id", None)) for by in item.decorator_list}
    ]


def test_no_class_outside_the_evaluation_has_many_public_methods():
    large = {}
    for path in FILES:
        if room_of(module_of(path)) != "evaluation":
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.ClassDef) and len(found := public_methods_of(node)) > MOST_METHODS:
                    large[node.name] = found
    assert not large


MOST_PARAMETERS = 8
MANY_PARAMETERS = {
    "cli": "a command's parameters are its options",
    "api.py": "settings of a search are keyword arguments of the public functions",
    "models/inference/kernels": "Triton passes a kernel each tensor, stride and size by itself",
    "models/convert/capture.py": "torchvision fixes the arguments of its operator",
}
"""Files and folders whose functions may have more, with the reason."""


def many_parameters_in(text: str) -> Iterator[str]:
    """Functions with too many parameters, as `name (count)`; `self`, `cls`, `*args` and `**fields` do not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = [item.arg for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MOST_PARAMETERS:
                yield f"{getattr(node, 'name', 'lambda')} ({count})"


@pytest.mark.parametrize(
    "head", ["def run({}):", "async def run({}):", "def run(*, {}):", "def run({}, /):", "def run(self, {}):"]
)
def test_a_function_with_many_parameters_would_be_seen(head):
    names = [f"p{i}" for i in range(MOST_PARAMETERS + 1)]
    assert list(many_parameters_in(f"{head.format(', '.join(names))} pass")) == ["run (9)"]
    assert not list(many_parameters_in(f"{head.format(', '.join(names[1:]))} pass"))


def test_no_function_has_many_parameters():
    found, used = {}, set()
    for path in FILES:
        if many := list(many_parameters_in(path.read_text("utf-8"))):
            homes = {home for home in MANY_PARAMETERS if {PACKAGE / home} & {path, *path.parents}}
            used |= homes
            if not homes:
                found[str(path.relative_to(PACKAGE))] = many
    assert not found
    assert used == MANY_PARAMETERS.keys(), "an exemption that nobody needs"


WALK = {
    *("__init__", "api"),
    *("searching.__init__", "searching.session", "searching.forecast.dry_run", "searching.forecast.search_plan"),
    *(f"searching.configuration.{name}" for name in ("search_config", "config_checks", "config_files", "resolve")),
    *("searching.opening.study_setup", "searching.opening.resume"),
    *(
        "searching.sweeps.listing",
        "searching.sweeps.sweep",
        "bench.proxy_check.proxy_check",
        "bench.proxy_check.stored_checks",
    ),
}
"""Modules below the command line that know a whole `SearchConfig`; all others take the values that they read."""


def knows_config(text: str) -> bool:
    """Whether a module imports `SearchConfig`, be it for a type checker alone, or defines it."""
    return any(
        (isinstance(node, ast.ImportFrom) and "SearchConfig" in {alias.name for alias in node.names})
        or (isinstance(node, ast.ClassDef) and node.name == "SearchConfig")
        or (isinstance(node, ast.Attribute) and node.attr == "SearchConfig")
        for node in ast.walk(ast.parse(text))
    )


@pytest.mark.parametrize(
    "text",
    [
        "from hilo_nas.searching import SearchConfig",
        "from hilo_nas.searching.configuration.search_config import SearchConfig as Config",
        "if TYPE_CHECKING:\n    from hilo_nas.searching.configuration.search_config import SearchConfig",
        "def run(config: hilo_nas.SearchConfig): pass",
    ],
)
def test_a_module_that_knows_the_configuration_would_be_seen(text):
    assert knows_config(text)


def test_the_configuration_walks_through_few_modules():
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in FILES
        if room_of(module_of(path)) != "cli" and knows_config(path.read_text("utf-8"))
    }
    assert found == WALK


def parsings_of_reasons_in(text: str) -> Iterator[str]:
    """Comparisons of an attribute `reason` with anything but None, matches on it, and searches in it."""
    searches = {"startswith", "endswith", "find", "index", "count", "partition", "rpartition", "removeprefix"}
    searches |= {"match", "fullmatch", "search", "findall", "finditer"}

    def is_reason(node: ast.AST) -> bool:
        return any(isinstance(part, ast.Attribute) and part.attr == "reason" for part in ast.walk(node))

    for node in ast.walk(ast.parse(text)):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            asked = [node.subject]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in searches:
            asked = [node.func.value, *node.args]
        if any(map(is_reason, asked)):
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "record.reason == 'interrupted'",
        "'memory' in record.reason",
        "(record.reason or '').startswith('the worker')",
        "PATTERN.match(record.reason)",
        "re.search('memory', failed.reason)",
        "match record.reason:\n    case 'x': pass",
    ],
)
def test_a_parsing_of_a_reason_would_be_seen(line):
    assert list(parsings_of_reasons_in(line))


def test_no_reason_is_parsed():
    """Reasons are text for people; what decides something is a field."""
    assert not list(parsings_of_reasons_in("why = record.reason or 'none' if record.reason is not None else '-'"))
    for path in FILES:
        assert not list(parsings_of_reasons_in(path.read_text("utf-8"))), path


CHILD = """
import json, sys
from hilo_nas.cli import main
names, *commands = sys.argv[1:]
codes, found = set(), {}
for command in commands:
    try:
        codes.add(main(command.split()))
    except SystemExit as end:
        codes.add(end.code)
    for name in names.split(","):
        if name in sys.modules:
            found.setdefault(name, command)
print("codes", *codes, "loaded", json.dumps(found))
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder, "demo", demo_records())
    return folder


SLOW = ("torch", "torchvision", "timm", "optuna", "numpy")
"""Libraries that take a tenth of a second or more to import."""
NOT_FOR_HELP = (*SLOW, "pandas", "pydantic", "rich", "yaml", "hilo_nas.arch", "hilo_nas.space", "hilo_nas.study")
"""Modules that no help needs. Together they take longer to import than all that it needs."""


@pytest.mark.parametrize(
    "command",
    [
        "--version",
        "space list",
        "space show litv2_digits",
        "space check litv2_digits",
        "status demo",
        "front demo",
        "front demo --format json",
        "repair demo --dry-run",
        "repair demo",
        "cache list",
    ],
)
def test_looking_does_not_load_torch(studies, command):
    """People run these all day, and torch takes seconds to import."""
    assert loaded_by([command], studies).keys() <= {"numpy"}


@pytest.mark.parametrize("command", ["space list", "status demo"])
def test_what_computes_no_probabilities_does_not_load_numpy(studies, command):
    """It takes as long to import as the rest of such a command."""
    assert loaded_by([command], studies) == {}


def test_help_loads_what_it_shows_alone(studies):
    commands = [f"{words} --help" for words, _ in walk_commands()]
    assert len(commands) > 25
    assert loaded_by(commands, studies, NOT_FOR_HELP) == {}


def loaded_by(commands: list[str], studies: Path, names: Iterable[str] = SLOW) -> dict[str, str]:
    """Those of the named modules that commands import in one process, each with the first command that does."""
    environment = {
        **os.environ,
        "HILO_NAS_STUDIES_DIR": str(studies),
        "HILO_NAS_CACHE_DIR": str(studies / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, ",".join(names), *commands],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said, _, loaded = done.stdout.rpartition("codes 0 loaded")
    assert said, done.stdout[-300:] + done.stderr[-2000:]
    found: dict[str, str] = json.loads(loaded)
    return found


@pytest.mark.parametrize("name", ["optuna", "hilo_nas.space"])
def test_the_check_of_imports_would_see_one(name):
    child = CHILD.replace("main(command.split())", "__import__(command) and 0")
    done = subprocess.run([sys.executable, "-c", child, name, name], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.removeprefix("codes 0 loaded")) == {name: name}
