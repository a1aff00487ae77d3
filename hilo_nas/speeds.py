"""Speeds without a study: networks of a space that were timed on one machine, for a search that trains on another.

A folder with `speeds.yaml` (space, conditions, device, calibrations) and one trial record per network, whose state is
`timed`: it has measurements and no score.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hilo_nas.calibration import anchored
from hilo_nas.csv_files import render_trials
from hilo_nas.errors import HiloNasError, NotFoundError, RecordError, StorageError
from hilo_nas.front import Front
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, Measurement
from hilo_nas.one_line import one_lined
from hilo_nas.plain_files import read_text
from hilo_nas.records import TrialRecord, load_records, write_atomically, write_record
from hilo_nas.safe_yaml import MOST_BYTES, parse_yaml
from hilo_nas.space import SearchSpace, measured_violations
from hilo_nas.space.file import build_space
from hilo_nas.states import TrialState

__all__ = ["SpeedFolder", "SpeedSetting"]

_SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedSetting:
    """Under what the networks of a table were timed."""

    space: SearchSpace
    conditions: tuple[Condition, ...]
    """The first is the objective of a search that takes the table."""
    device: DeviceIdentity
    calibrations: dict[str, Calibration]
    """By the condition's label."""
    num_classes: int
    versions: dict[str, str]
    created_at: str
    schema_version: int = _SCHEMA_VERSION

    def to_yaml(self) -> str:
        """Returns the setting as it is stored."""
        fields = {
            "schema_version": self.schema_version,
            "space": {"name": self.space.name, "hash": self.space.hash(), **self.space.to_dict()},
            "conditions": [condition.to_dict() for condition in self.conditions],
            "device": dataclasses.asdict(self.device),
            "calibrations": {label: dataclasses.asdict(item) for label, item in self.calibrations.items()},
            "num_classes": self.num_classes,
            "versions": self.versions,
            "created_at": self.created_at,
        }
        return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=110)

    @classmethod
    def from_yaml(cls, text: str) -> SpeedSetting:
        """Builds the setting that `to_yaml` wrote.

        Raises:
            RecordError: It is no such setting, or a newer version wrote it.
        """
        try:
            fields = one_lined(parse_yaml(text))
        except yaml.YAMLError as error:
            raise RecordError(f"it is not YAML ({' '.join(str(error).split())})") from error
        try:
            if not isinstance(fields, dict) or not isinstance(fields.get("schema_version"), int):
                raise RecordError("schema_version is missing: this is no table of speeds")
            if fields["schema_version"] > _SCHEMA_VERSION:
                raise RecordError(
                    f"schema_version must be at most {_SCHEMA_VERSION}, but got {fields['schema_version']}: a newer "
                    "hilo-nas wrote it. Upgrade hilo-nas to use it."
                )
            return cls(**{**fields, **_values(fields)})
        except HiloNasError as error:
            raise RecordError(str(error)) from error
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise RecordError(f"the table is not complete: {error!r}") from error


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    space = dict(fields["space"])
    del space["hash"]
    return {
        "space": build_space(space.pop("name"), space),
        "conditions": tuple(Condition(**item) for item in fields["conditions"]),
        "device": DeviceIdentity(**fields["device"]),
        "calibrations": {label: Calibration.from_dict(item) for label, item in fields["calibrations"].items()},
    }


class SpeedFolder:
    """A table of speeds on disk.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[str, TrialRecord] | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a table here."""
        return (self.path / "speeds.yaml").is_file()

    def load_setting(self) -> SpeedSetting:
        """Returns under what the networks were timed.

        Raises:
            NotFoundError: There is no table here.
            RecordError: It cannot be understood.
            StorageError: It cannot be read.
        """
        file = self.path / "speeds.yaml"
        if not self.exists:
            raise NotFoundError(
                f"{self.path} holds no table of speeds (speeds.yaml). Make one with `hilo-nas measure SPACE --sample N "
                "--save DIR`."
            )
        try:
            return SpeedSetting.from_yaml(read_text(file, MOST_BYTES))
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror or error}") from error
        except (RecordError, UnicodeDecodeError) as error:
            raise RecordError(f"{file}: {error}") from error

    def write_setting(self, setting: SpeedSetting) -> None:
        """Writes the setting atomically; makes the folder.

        Raises:
            StorageError: The folder cannot be written.
        """
        try:
            (self.path / "networks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.path}: {error.strerror or error}. Choose another folder.") from error
        write_atomically(self.path / "speeds.yaml", setting.to_yaml())

    def load_records(self) -> dict[str, TrialRecord]:
        """Returns the networks that were timed, by key, in the order of their numbers; read once."""
        if self._records is None:
            timed = [record for record in self.load_all() if record.state == TrialState.TIMED]
            calibrations = self.load_setting().calibrations if timed else {}
            self._records = {record.key: _anchored(record, calibrations) for record in timed}
        return self._records

    def load_keeping(self, limits: Mapping[str, float]) -> dict[str, TrialRecord]:
        """Returns the networks that keep the limits by this table, and all baselines; see `load_records`."""
        return {
            key: record
            for key, record in self.load_records().items()
            if record.is_peer or not any(v > 0 for v in measured_violations(limits, record.measurements).values())
        }

    def load_all(self) -> list[TrialRecord]:
        """Returns every network that was tried, those that could not be timed included."""
        return load_records(self.path / "networks")

    def write_record(self, record: TrialRecord) -> None:
        """Writes one network's record atomically."""
        write_record(self.path / "networks", record)
        self._records = None

    def write_csv_file(self) -> None:
        """Writes `speeds.csv`, a row per network, without the columns that hold nothing.

        Raises:
            StorageError: The folder cannot be written.
        """
        text = render_trials(Front.from_records(self.load_all()), leave_out_empty=True)
        write_atomically(self.path / "speeds.csv", text)

    def measurements_of(self, key: str) -> tuple[Measurement, ...]:
        """Returns what was measured of a network.

        Raises:
            NotFoundError: The table does not hold it.
        """
        records = self.load_records()
        if key not in records:
            raise NotFoundError(f"the speeds in {self.path} do not hold network {key}")
        return records[key].measurements

    def identity(self) -> str:
        """Returns the table's name and a hash, which a study keeps.

        The hash is of the networks and of what was first timed of each under each condition: its rounds over the
        reference's, its single calls, its memory. A further timing or another calibration makes no other table, nor do
        baselines, because they change no network that a search proposes.
        """
        lines = []
        for key, record in sorted(self.load_records().items()):
            if record.is_peer:
                continue
            first: dict[str, Measurement] = {}
            for measurement in sorted(record.measurements, key=lambda item: item.measured_at, reverse=True):
                first[measurement.condition.label()] = measurement  # the oldest stays; in a file it lies last
            for label, timing in sorted(first.items()):
                rounds = zip(timing.call_seconds, timing.reference_seconds, strict=True)
                ratios = tuple(theirs / ours for ours, theirs in rounds)
                lines.append(f"{key} {label} {ratios} {timing.latency_seconds} {timing.memory_mib!r}")
        return f"{self.path.resolve().name} ({_hash(lines)})"

    def _identity_by_figures(self) -> str:
        """The hash that earlier versions gave: of all figures as they are stored."""
        return _hash(
            f"{record.key} {measurement.condition.label()} {measurement.images_per_s!r} "
            f"{measurement.latency_ms_p95!r} {measurement.memory_mib!r}"
            for record in sorted(self.load_all(), key=lambda record: record.key)
            if record.state == TrialState.TIMED and not record.is_peer
            for measurement in record.measurements
        )

    def is_named_by(self, identity: str) -> bool:
        """Returns whether an `identity` is this table's; its folder may have another name by now."""
        hashed = identity.rpartition(" ")[2]
        return hashed in (self.identity().rpartition(" ")[2], f"({self._identity_by_figures()})")


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _anchored(record: TrialRecord, calibrations: Mapping[str, Calibration]) -> TrialRecord:
    """The record with images/s by the table's calibrations."""
    return dataclasses.replace(
        record,
        measurements=tuple(
            anchored(measurement, calibrations[measurement.condition.label()])
            if measurement.condition.label() in calibrations
            else measurement
            for measurement in record.measurements
        ),
    )
