"""Output of results as JSON or CSV, for `--format`."""

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

    In CSV, a list gives one row per item. A mapping gives one row per field, with the columns name and value. Names of
    nested fields are joined with dots, as in `states.complete`.

    Args:
        content: Data to print.
        output: csv or json.
        names: Columns of a list. Defaults to the fields of the first item, so an empty list needs it.
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
