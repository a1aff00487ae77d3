"""Speeds of past releases, one row per release, device, network, form and condition, in one CSV file.

Standard library only: reading it takes no time.
"""

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
_LEAST_FALL = 0.03
"""Smallest share of a speed that counts as a fall: intervals do not know what changes from one timing to the next,
which `bench ruler` found to be 1.1 % on a quiet machine and 2.4 % on a busy one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast one release runs one network, beside a network that no release changes."""

    version: str
    """Of hilo-nas."""
    device: str
    """The maker's name for the device, and for a CPU its number of cores."""
    network: str
    form: str
    """`plain`, `prepared` or `training`."""
    condition: str
    """Device kind, batch, image size, precision and, if some were asked for, threads: `Condition.label`."""
    ratio: float
    """How many times as fast as the reference in inference the network is, in the same rounds."""
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
        """What must be the same for two releases to be compared."""
        return self.device, self.condition, self.network, self.form

    def has_fallen_from(self, earlier: Speed) -> bool:
        """Returns whether it is slower than before by more than both intervals, and by more than timings vary by."""
        return self.ratio_high < earlier.ratio_low and self.ratio < earlier.ratio * (1 - _LEAST_FALL)

    def text(self) -> str:
        """Returns the ratio with its interval."""
        return f"{self.ratio:.3g} [{self.ratio_low:.3g}, {self.ratio_high:.3g}]"


_COLUMNS = tuple(field.name for field in dataclasses.fields(Speed))


def find_earlier(speed: Speed, history: Iterable[Speed]) -> Speed | None:
    """Returns the same of the newest release before this one, or else of this one as it was timed before.

    None where neither was timed on such a device.
    """
    same = [item for item in history if item.subject == speed.subject]
    before = [item for item in same if _order_of(item.version) < _order_of(speed.version)]
    return max(before, key=lambda item: _order_of(item.version), default=None) or next(
        (item for item in same if item.version == speed.version), None
    )


def read_history(path: Path) -> list[Speed]:
    """Returns the rows of a file; none where there is no such file.

    Raises:
        FileFaultsError: With every row that is none.
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
    """Adds rows to a file, in the order of releases; those of the same release and subject are replaced.

    Raises:
        FileFaultsError: The file there is no such history.
        StorageError: The folder cannot be written.
    """
    kept = {(item.version, item.subject): item for item in (*read_history(path), *speeds)}
    rows = sorted(kept.values(), key=lambda item: (_order_of(item.version), item.subject))
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    write_atomically(path, text.getvalue())


def _order_of(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Sorts versions: by their numbers, and what leads to a release (`1.0rc1`) before it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)*)(.*)", version)
    if not found:
        raise ValueError(f"a version must begin with a number, but got {version!r}")
    return tuple(map(int, found[1].split("."))), not found[2], found[2]
