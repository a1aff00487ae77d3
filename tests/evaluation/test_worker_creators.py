"""Who creates worker processes: the evaluation, and nobody else."""

import ast
from pathlib import Path

import hilo_nas

ROOT = Path(hilo_nas.__file__).parents[1]
CREATED = {"Ruler", "Worker"}
HOMES = ("hilo_nas/evaluation", "hilo_nas/timing")


def names_in(path):
    """Every name that a file uses or imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name


def users_of(created, *folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in paths if created & set(names_in(path))]


def test_only_the_evaluation_knows_what_starts_workers():
    users = users_of(CREATED, "hilo_nas", "benchmarks")
    assert [str(path) for path in users if not str(path).startswith(HOMES)] == []
    # They have their names still, or nothing was looked for.
    assert {created for created in CREATED if users_of({created}, HOMES[0])} == CREATED
