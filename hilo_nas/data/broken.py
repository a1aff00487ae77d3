"""Broken images, collected over a whole source and then reported together or left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hilo_nas.data.sources import Sample, SourceSpec
from hilo_nas.errors import DataError
from hilo_nas.events import Emit, Notice
from hilo_nas.text.one_line import one_line
from hilo_nas.text.plurals import count_of

__all__ = ["BrokenImages"]

_SHOWN = 20


class BrokenImages:
    """Images of a source that cannot be read.

    Args:
        spec: The source.
        reports: Folder for lists that are too long for a message.
    """

    def __init__(self, spec: SourceSpec, reports: Path) -> None:
        self._spec, self._reports = spec, reports
        self.found: list[tuple[str, str]] = []
        """Name of each image, and the reason why it cannot be read."""
        self._classes: Counter[str] = Counter()

    def add(self, sample: Sample, reason: str) -> None:
        """Adds a broken image."""
        self.found.append((sample.member, reason))
        self._classes[sample.class_name] += 1

    def check(self, counts: Mapping[str, int], skip: bool, emit: Emit) -> None:
        """Checks that no image is broken, or warns of the broken images that are left out.

        Args:
            counts: Number of readable images per class.
            skip: `ReadOptions.skip_broken`.
            emit: Receives the warning.

        Raises:
            DataError: Images are broken and `skip` is not set, or a class has no other images.
        """
        if not self.found:
            return
        total = len(self.found) + sum(counts.values())
        head = (
            f"{len(self.found):,} of {count_of(total, 'image')} cannot be read in {self._spec.text}:\n{self._list()}\n"
        )
        lost = sorted(name for name in self._classes if not counts.get(name))
        if not counts:
            raise DataError(f"{head}No image is left. Repair or convert them.")
        if not skip:
            raise DataError(f"{head}Repair, convert or remove them, or leave them out with data.skip_broken=true.")
        if lost:
            named = ", ".join(map(repr, lost[:5])) + (" and others" if len(lost) > 5 else "")
            raise DataError(f"{head}No image is left of {named}. Repair or convert them, or remove the class.")
        each = ", ".join(f"{one_line(name)}: {count:,}" for name, count in sorted(self._classes.items())[:_SHOWN])
        rest = len(self._classes) - _SHOWN
        more = f" and {count_of(rest, 'more class', 'more classes')}" if rest > 0 else ""
        found = f"{len(self.found):,} of {count_of(total, 'image')}"
        text = f"left out {found} that cannot be read ({each}{more}):\n{self._list()}"
        emit(Notice(level="warning", text=text))

    def _list(self) -> str:
        lines = [f"  {one_line(member)} ({one_line(reason)})" for member, reason in self.found]
        if len(lines) <= _SHOWN:
            return "\n".join(lines)
        name = re.sub(r"[^\w.-]+", "-", self._spec.name).strip("-.")[:80] or "data"
        file = self._reports / f"{name}-broken.txt"
        self._reports.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line.strip()}\n" for line in lines)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        return "\n".join([*lines[:_SHOWN], f"  and {len(lines) - _SHOWN:,} more, all listed in {file}"])
