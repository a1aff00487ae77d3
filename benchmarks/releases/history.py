"""CSV file with the speeds of past releases: one row per release, device, network, form and condition."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.errors import FileFaultsError
from hilo_nas.study.records import write_atomically

__all__ = ["FILE_NAME", "Speed", "find_earlier", "read_history", "write_history"]

FILE_NAME = "releases.csv"
_FIGURES = ("ratio", "ratio_low", "ratio_high")
_MIN_REGRESSION = 0.03
"""Smallest relative loss of speed that counts as a regression. Intervals do not include the variation between timings,
which is 1.1 % on a quiet machine and 2.4 % on a busy one according to `bench ruler`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed of one network in one release, relative to a network that is the same in all releases."""

    version: str
    """Version of hilo-nas."""
    device: str
    """Model of the device; for a CPU with its number of cores."""
    network: str
    form: str
    """`plain`, `prepared` or `training`."""
    condition: str
    """`Condition.label`: device kind, batch size, image size, precision and, if set, number of threads."""
    ratio: float
    """Speed divided by the reference's speed in inference, in the same rounds."""
    ratio_low: float
    """Lower end of the 95 % interval."""
    ratio_high: float
    implementation: str
    """`Measurement.form`."""
    torch: str
    date: str
    """UTC, ISO 8601."""

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """Fields that must be equal for a comparison of two releases."""
        return self.device, self.condition, self.network, self.form

    def is_slower_than(self, earlier: Speed) -> bool:
        """Returns True if the intervals do not overlap and the loss of speed exceeds the variation between timings."""
        return self.ratio_high < earlier.ratio_low and self.ratio < earlier.ratio * (1 - _MIN_REGRESSION)

    def text(self) -> str:
        """Returns the ratio with its interval."""
        return f"{self.ratio:.3g} [{self.ratio_low:.3g}, {self.ratio_high:.3g}]"


_COLUMNS = tuple(field.name for field in dataclasses.fields(Speed))


def find_earlier(speed: Speed, history: Iterable[Speed]) -> Speed | None:
    """Returns the speed of the same subject in the newest earlier release.

    Without one, returns the previous timing of the same release. Without that, returns None.
    """
    same = [item for item in history if item.subject == speed.subject]
    before = [item for item in same if _order_of(item.version) < _order_of(speed.version)]
    return max(before, key=lambda item: _order_of(item.version), default=None) or next(
        (item for item in same if item.version == speed.version), None
    )


def read_history(path: Path) -> list[Speed]:
    """Returns the rows of a file; an empty list if the file does not exist.

    Raises:
        FileFaultsError: One or more rows are invalid. The error lists all of them.
    """
    if not path.exists():
        return []
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise FileFaultsError(path, [f"line 1: the columns must be {','.join(_COLUMNS)}"])
    found, faults = [], []
    for row in reader:
        values: dict[str, Any] = {name: row[name] or "" for name in _COLUMNS}
        try:
            values |= {name: float(values[name]) for name in _FIGURES}
            _order_of(values["version"])
        except ValueError as error:
            faults.append(f"line {reader.line_num}: {error}")
        else:
            found.append(Speed(**values))
    if faults:
        raise FileFaultsError(path, faults)
    return found


def write_history(path: Path, speeds: Sequence[Speed]) -> None:
    """Adds rows to a file, sorted by release. Rows of the same release and subject are replaced.

    Raises:
        FileFaultsError: The existing file is invalid.
        StorageError: The file cannot be written.
    """
    kept = {(item.version, item.subject): item for item in (*read_history(path), *speeds)}
    rows = sorted(kept.values(), key=lambda item: (_order_of(item.version), item.subject))
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    write_atomically(path, text.getvalue())


def _order_of(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Returns the sort key of a version. Pre-releases (`1.0rc1`) come before their release.

    Raises:
        ValueError: The version does not start with a number.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)*)(.*)", version)
    if not found:
        raise ValueError(f"a version must start with a number, but got {version!r}")
    return tuple(map(int, found[1].split("."))), not found[2], found[2]
