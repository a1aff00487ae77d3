"""Results in the formats of `--format`: JSON as it is, CSV as rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hilo_nas.cli.console import echo
from hilo_nas.cli.options import Format

__all__ = ["echo_content"]


def echo_content(
    content: Mapping[str, Any] | Sequence[Mapping[str, Any]], output: Format, *, names: Sequence[str] = ()
) -> None:
    """Prints plain data as JSON or CSV.

    As CSV, a list is a row per item, and a mapping a row per field with the columns name and value; the name of a
    nested field is `states.complete`.

    Args:
        content: The data.
        output: csv or json.
        names: Columns of a list that may be empty; those of its first item if left out.
    """
    if output is Format.json:
        echo(json.dumps(content, indent=1))
        return
    if isinstance(content, Mapping):
        names = ("name", "value")
        rows: list[Mapping[str, Any]] = [{"name": name, "value": value} for name, value in _flattened(content)]
    else:
        rows = [dict(_flattened(item)) for item in content]
        names = names or (list(rows[0]) if rows else ())
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    echo(text.getvalue(), nl=False)


def _flattened(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            is_list = isinstance(value, (list, tuple))
            yield f"{prefix}{name}", "; ".join(map(str, value)) if is_list else value
