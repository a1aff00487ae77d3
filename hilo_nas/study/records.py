"""Trial records, stored as one JSON file per trial.

The records are the source of truth of a study. A record is written before any other component receives the result.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import HiloNasError, NewerVersionError, RecordError, StorageError
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.measurement import Measurement, ProxyScore, mean_score
from hilo_nas.measurement.fields import Count, Finite, NonNegative, Size, read_value, to_plain
from hilo_nas.study.schema_1 import upgraded
from hilo_nas.study.states import TrialState
from hilo_nas.text.one_line import decode_json

__all__ = [
    "COPIED_SPEEDS",
    "FITS",
    "MAX_RECORD_BYTES",
    "SAMPLED",
    "SCHEMA_VERSION",
    "TIMED_WITH",
    "Subject",
    "TrialRecord",
    "forms_under",
    "load_record",
    "load_records",
    "parse_record",
    "render_record",
    "write_atomically",
    "write_record",
]

SCHEMA_VERSION = 2
MAX_RECORD_BYTES = 2**25
"""Maximum size of a record file. A record with a hundred timings has about three megabytes."""
_NUMBER_LIST = re.compile(r"\[[^][{}\"]*\]")
SAMPLED = "sampler"
"""Origin of a trial that the sampler proposed."""
FITS = "fits_memory"
"""Name of the constraint that networks violate if they do not fit into memory."""
COPIED_SPEEDS = "speeds:"
TIMED_WITH = "timed_with"
"""Name in `TrialRecord.sampler_memory` for the networks that were timed together: parameter values by key."""
"""Prefix of the origin of a network with copied timings. The sampler may propose such a network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """Network of a trial record: either an architecture or the name of a timm network."""

    arch: ArchConfig | None = None
    timm: str | None = None
    img_size: Size | None = None
    """Image size in pixels, if it differs from the size at which all networks are timed."""

    def __post_init__(self) -> None:
        if (self.arch is None) == (self.timm is None):
            raise RecordError("a subject must be either an architecture or a timm name")

    @cached_property
    def key(self) -> str:
        """Key of the architecture, or `timm:NAME`. The suffix `@SIZE` is added if `img_size` is set."""
        name = self.arch.key() if self.arch is not None else f"timm:{self.timm}"
        return name if self.img_size is None else f"{name}@{self.img_size}"

    @property
    def is_litv2(self) -> bool:
        """True if the network is a LITv2, also if given by the name of a preset."""
        return self.arch is not None or self.timm in ("litv2", *PRESETS)

    def to_dict(self) -> dict[str, Any]:
        """Returns `{"arch": {...}}` or `{"timm": NAME}` for a worker, with `img_size` if it is set."""
        size = {} if self.img_size is None else {"img_size": self.img_size}
        return {**({"arch": self.arch.to_dict()} if self.arch is not None else {"timm": self.timm}), **size}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Subject:
        """Returns the subject from the data of `to_dict`.

        Raises:
            RecordError: The data is neither an architecture nor a timm name.
            ArchError: The architecture is invalid.
        """
        return read_value(cls, fields)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TrialRecord:
    """Record of one trial of a study. Later runs may add measurements and scores."""

    number: Count
    subject: Subject
    state: TrialState
    """State of the trial. Only `hilo_nas.study.transitions` changes it."""
    params: dict[str, Count] | None = None
    """Flat integer parameters for Optuna. None for a network outside the space."""
    origin: str = SAMPLED
    """`SAMPLED`, `anchor:NAME`, `baseline:NAME`, `listed` or `random`. A trial copied from another study has
    `reuse:STUDY/NUMBER` (with scores) or `speeds:STUDY/NUMBER` (timings only)."""
    reason: str | None = None
    """Reason why the trial failed, was stopped or is infeasible. The text is for people and is never parsed."""
    is_interrupted: bool = False
    """True if the trial was interrupted for a reason unrelated to its network. The next search runs it again."""
    failures: Count = 0
    """Number of runs of the trial that ended with a failure of the network. Interruptions do not count."""
    is_raised: bool = False
    """True if the trial must run again under the same number because the budget of the study was raised."""
    parameters: Count | None = None
    """Number of trainable parameters, by formula. For a baseline, they are counted in the built model."""
    macs: Count | None = None
    """Number of multiply-adds at the timing image size, by formula. For a baseline, they are counted in the built
    model."""
    violations: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """Violation of each limit of the study, by the name of the limit: the logarithm of the factor by which the value
    violates it. 0.1 means a violation by about 10 %. At most 0 means within the limit."""
    imputed: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """Values that the sampler receives instead of results that were not measured, such as `{"value": 0.1}`. They are
    never results of the study."""
    sampler_memory: dict[str, Any] = dataclasses.field(default_factory=dict)
    """State that the sampler stored with its proposal, such as the generation of NSGA-II. It restores the sampler."""
    measurements: tuple[Measurement, ...] = ()
    scores: tuple[ProxyScore, ...] = ()
    """Scores of the study's proxy: one per completed rung, one at the full budget, and one per confirmation seed."""
    other_scores: tuple[ProxyScore, ...] = ()
    """Scores of other proxies, for comparison. A search ignores them."""
    started_at: str | None = None
    finished_at: str | None = None
    seconds: NonNegative = 0.0
    """Total duration of the trial in seconds, over all runs of the search."""
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        parts = [str(self.number), self.key, str(self.state)]
        if self.measurement is not None:
            brief = " (brief timing)" * self.measurement.is_preliminary
            parts.append(f"{self.measurement.images_per_s:.4g} images/s{brief}")
        if self.score is not None:
            parts.append(f"{self.score.metric} {self.score.value:.4g}")
        return f"TrialRecord({', '.join(parts)})"

    @property
    def key(self) -> str:
        """Key of the network. Equal keys mean the same network."""
        return self.subject.key

    @property
    def arch(self) -> ArchConfig | None:
        """The architecture, or None for a timm network."""
        return self.subject.arch

    @property
    def is_measured(self) -> bool:
        """True if the network was scored or is infeasible. Always False for baselines."""
        return self.state.is_measured and not self.is_baseline

    @property
    def is_open(self) -> bool:
        """True if the trial must still run, under the same number."""
        return self.is_interrupted or self.state in (TrialState.WAITING, TrialState.TIMED)

    @property
    def is_proposal(self) -> bool:
        """True if the sampler proposed the network."""
        return self.origin == SAMPLED or (self.origin.startswith(COPIED_SPEEDS) and not self.is_open)

    @property
    def is_baseline(self) -> bool:
        """True if the network is a baseline. Baselines are shown for comparison and are never on the front."""
        return self.subject.arch is None

    @property
    def measurement(self) -> Measurement | None:
        """The first measurement, or None. In `StoredStudy.records`, it is the measurement to use for the objective."""
        return self.measurements[0] if self.measurements else None

    @property
    def full_measurements(self) -> tuple[Measurement, ...]:
        """The measurements without the brief ones (`Measurement.is_preliminary`), in their order."""
        return tuple(measurement for measurement in self.measurements if not measurement.is_preliminary)

    @property
    def is_timed_briefly(self) -> bool:
        """True if the network was timed, but only briefly (`Measurement.is_preliminary`)."""
        return bool(self.measurements) and not self.full_measurements

    def measurements_by_condition(self) -> dict[str, Measurement]:
        """Returns the measurement to use under each condition, which is the first one, by the condition's label."""
        found: dict[str, Measurement] = {}
        for measurement in self.measurements:
            found.setdefault(measurement.condition.label(), measurement)
        return found

    @cached_property
    def score(self) -> ProxyScore | None:
        """The score that counts: the mean over the seeds with the largest number of images seen, or None."""
        return self.score_at(max((score.images_seen for score in self.scores), default=0))

    @property
    def has_trained(self) -> bool:
        """True if there is a score and it is better than guessing, as `ProxyScore.is_at_chance` decides."""
        return self.score is not None and not self.score.is_at_chance

    def score_at(self, images_seen: int) -> ProxyScore | None:
        """Returns the mean score over seeds after `images_seen` training images, or None if there is no such score."""
        found = [score for score in self.scores if score.images_seen == images_seen]
        return mean_score(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data that can be stored as JSON."""
        fields = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        for measurement in fields["measurements"]:
            del measurement["calibration_error"]  # follows from the current calibration in the manifest
        if not self.failures:
            del fields["failures"]  # earlier versions do not know this field
        return {
            "schema_version": fields.pop("schema_version"),
            "number": fields.pop("number"),
            "key": self.key,
            **fields,
            "state": str(self.state),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrialRecord:
        """Returns the record from the data of `to_dict`, also from earlier versions.

        Raises:
            RecordError: The data is not a record. The message lists all invalid fields.
            NewerVersionError: A newer version wrote the data.
        """
        values = dict(fields) if isinstance(fields, Mapping) else {}  # a file may hold any JSON
        values.pop("retry_of", None)  # earlier versions stored the retry of a network as a separate record
        version = values.get("schema_version")
        if not isinstance(version, int):
            raise RecordError("schema_version is missing: this is not a trial record")
        if version > SCHEMA_VERSION:
            raise NewerVersionError(
                f"schema_version must be at most {SCHEMA_VERSION}, but got {version}: a newer hilo-nas wrote it. "
                "Upgrade hilo-nas to read this study."
            )
        if isinstance(origin := values.get("origin"), str) and origin.startswith("peer:"):  # as earlier versions wrote
            values["origin"] = f"baseline:{origin.removeprefix('peer:')}"
        key = values.pop("key", None)
        record = read_value(cls, upgraded(values) if version < SCHEMA_VERSION else values)
        if key != record.key:
            raise RecordError(f"the key must be {record.key} for this subject, but got {key!r}")
        return record


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: writes a temporary file in the same folder, flushes it to disk, then renames it.

    Raises:
        StorageError: The folder cannot be written or the disk is full. An existing file remains unchanged.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. Free some space, or choose a writable folder."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Flushes a rename in a folder to the disk. Windows cannot open folders, and does this itself."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_record(folder: Path, record: TrialRecord) -> Path:
    """Writes `folder/NNNN.json` atomically and returns its path.

    Raises:
        StorageError: The folder cannot be written.
    """
    path = folder / f"{record.number:04d}.json"
    write_atomically(path, render_record(record))
    return path


def render_record(record: TrialRecord) -> str:
    """Returns the text of a record file."""
    text = json.dumps(record.to_dict(), indent=1, allow_nan=False)
    return _NUMBER_LIST.sub(lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def parse_record(content: bytes) -> TrialRecord:
    """Returns the record from the content of a record file.

    Raises:
        RecordError: The content is not complete JSON, or is not a record.
        NewerVersionError: A newer version wrote the content.
    """
    try:
        return TrialRecord.from_dict(decode_json(content))
    except RecordError:
        raise
    except HiloNasError as error:
        raise RecordError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"it is not complete JSON ({error})") from error


def load_records(folder: Path) -> list[TrialRecord]:
    """Returns the records of a `trials` folder, sorted by number. The list is empty if the folder does not exist.

    Raises:
        RecordError: A file is truncated, or is not a record. The message names the file.
        NewerVersionError: A newer version wrote a file.
        StorageError: A file cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} must be the folder of the trials, but is a file. Restore it from a copy.")
    records = [_load_record(path) for path in _record_paths(folder)]
    return sorted(records, key=lambda record: record.number)


def load_record(folder: Path, number: int) -> TrialRecord:
    """Returns the record of one trial of a `trials` folder as it is stored.

    Raises:
        RecordError: The file is truncated, or is not a record.
        NewerVersionError: A newer version wrote the file.
        StorageError: The file cannot be read.
    """
    return _load_record(folder / f"{number:04d}.json")


def forms_under(label: str, records: Iterable[TrialRecord]) -> set[str]:
    """Returns the forms (implementations) in which LITv2 networks were timed in full under a condition."""
    measured = [record.measurements_by_condition().get(label) for record in records if record.subject.arch]
    return {own.form for own in measured if own is not None and not own.is_preliminary}


def _record_paths(folder: Path) -> Iterator[Path]:
    return folder.glob("[0-9]*.json")


def _load_record(path: Path) -> TrialRecord:
    try:
        record = parse_record(read_bytes(path, MAX_RECORD_BYTES))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except RecordError as error:
        raise type(error)(f"{path}: {error}") from error
    if path.stem != f"{record.number:04d}":
        raise RecordError(f"{path}: the file name must be the trial number, but the record says {record.number}")
    return record
