"""Trial records: the truth of a study, one JSON file per trial, written before anything else is told of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import HiloNasError, RecordError, StorageError
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.measurement import Measurement, ProxyScore, mean_score
from hilo_nas.measurement.fields import Count, Finite, NonNegative, Size, read_value, to_plain
from hilo_nas.study.schema_1 import upgraded
from hilo_nas.study.states import TrialState
from hilo_nas.text.one_line import decode_json

__all__ = [
    "COPIED_SPEEDS",
    "SAMPLED",
    "SCHEMA_VERSION",
    "Subject",
    "TrialRecord",
    "forms_under",
    "load_records",
    "write_atomically",
    "write_record",
]

SCHEMA_VERSION = 2
_MOST_BYTES = 2**25
"""Largest record that is read; one with a hundred timings has some three megabytes."""
_NUMBERS = re.compile(r"\[[^][{}\"]*\]")
SAMPLED = "sampler"
"""Origin of a trial that the sampler proposed."""
COPIED_SPEEDS = "speeds:"
"""Begin of the origin of a network whose timings were copied; the sampler may propose it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What a record is about: an architecture of ours, or a network of timm's."""

    arch: ArchConfig | None = None
    timm: str | None = None
    img_size: Size | None = None
    """Side of its images in pixels, where it is not the one that all are timed at."""

    def __post_init__(self) -> None:
        if (self.arch is None) == (self.timm is None):
            raise RecordError("a subject must be either an architecture or a timm name")

    @cached_property
    def key(self) -> str:
        """The architecture's key, or `timm:NAME`, with `@SIZE` where it has its own image size."""
        name = self.arch.key() if self.arch is not None else f"timm:{self.timm}"
        return name if self.img_size is None else f"{name}@{self.img_size}"

    @property
    def is_litv2(self) -> bool:
        """Whether it is a LITv2, under whatever name."""
        return self.arch is not None or self.timm in ("litv2", *PRESETS)

    def to_dict(self) -> dict[str, Any]:
        """Returns `{"arch": {...}}` or `{"timm": NAME}`, and `img_size` where it has its own, as workers take it."""
        size = {} if self.img_size is None else {"img_size": self.img_size}
        return {**({"arch": self.arch.to_dict()} if self.arch is not None else {"timm": self.timm}), **size}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Subject:
        """Returns the subject that `to_dict` described.

        Raises:
            RecordError: It is neither an architecture nor a timm name.
            ArchError: The architecture breaks a law.
        """
        return read_value(cls, fields)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TrialRecord:
    """One trial of a study, from its choice to its scores. It may gain measurements and scores later."""

    number: Count
    subject: Subject
    state: TrialState
    """Changed by `hilo_nas.study.transitions` alone."""
    params: dict[str, Count] | None = None
    """Optuna's flat integers; None for a network outside the space."""
    origin: str = SAMPLED
    """`SAMPLED`, `anchor:NAME`, `peer:NAME`, `listed`, `random`, or the place that it was copied from:
    `reuse:STUDY/NUMBER` with its scores, `speeds:STUDY/NUMBER` with its timings alone."""
    reason: str | None = None
    """Why the trial failed, was stopped or is infeasible: for people, never parsed."""
    is_interrupted: bool = False
    """Whether the trial was cut off through no fault of its network, which is due again."""
    is_raised: bool = False
    """Whether the network is due again under this number, because the budget of its study was raised."""
    parameters: Count | None = None
    """Trainable parameters, by formula; a peer's are counted."""
    macs: Count | None = None
    """Multiply-adds at the timing size, by formula; a peer's are counted."""
    violations: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """Per limit of the study, the logarithm of how far the value lies beyond it; at most 0 is within."""
    imputed: dict[str, Finite] = dataclasses.field(default_factory=dict)
    """What the sampler was told in place of `images_per_s` or `value` that were not taken; never a result."""
    sampler_memory: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the sampler noted with its proposal (NSGA-II: the generation), so that it remembers after a rebuild."""
    measurements: tuple[Measurement, ...] = ()
    scores: tuple[ProxyScore, ...] = ()
    """Of the study's proxy: at each rung reached, at the full budget, and there of further seeds that confirm it."""
    other_scores: tuple[ProxyScore, ...] = ()
    """Of other proxies, for comparison; a search looks at none of them."""
    started_at: str | None = None
    finished_at: str | None = None
    seconds: NonNegative = 0.0
    """What the trial cost in all."""
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        parts = [str(self.number), self.key, str(self.state)]
        if self.measurement is not None:
            parts.append(f"{self.measurement.images_per_s:.4g} images/s")
        if self.score is not None:
            parts.append(f"{self.score.metric} {self.score.value:.4g}")
        return f"TrialRecord({', '.join(parts)})"

    @property
    def key(self) -> str:
        """The subject's key; equal keys are the same network."""
        return self.subject.key

    @property
    def arch(self) -> ArchConfig | None:
        """The architecture; None for a network of timm's."""
        return self.subject.arch

    @property
    def is_measured(self) -> bool:
        """Whether the network was scored or found infeasible; peers never count."""
        return self.state.is_measured and not self.is_peer

    @property
    def is_open(self) -> bool:
        """Whether its network is still to be tried, under this number."""
        return self.is_interrupted or self.state in (TrialState.WAITING, TrialState.TIMED)

    @property
    def is_proposal(self) -> bool:
        """Whether the sampler proposed it."""
        return self.origin == SAMPLED or (self.origin.startswith(COPIED_SPEEDS) and not self.is_open)

    @property
    def is_peer(self) -> bool:
        """Whether the network is one of others, a marked point beside the search: no candidate, never on its front."""
        return self.subject.arch is None

    @property
    def measurement(self) -> Measurement | None:
        """The first measurement: the study's objective condition, timed last (see `StoredStudy.records`)."""
        return self.measurements[0] if self.measurements else None

    def measurements_by_condition(self) -> dict[str, Measurement]:
        """Returns the measurement that counts under each condition, by the condition's label."""
        found: dict[str, Measurement] = {}
        for measurement in self.measurements:
            found.setdefault(measurement.condition.label(), measurement)
        return found

    @cached_property
    def score(self) -> ProxyScore | None:
        """The score that counts: after the most images, the mean of the seeds that saw so many."""
        return self.score_at(max((score.images_seen for score in self.scores), default=0))

    @property
    def has_trained(self) -> bool:
        """Whether the score that counts tells more than guessing would; see `ProxyScore.is_at_chance`."""
        return self.score is not None and not self.score.is_at_chance

    def score_at(self, images_seen: int) -> ProxyScore | None:
        """The score after so many images, the mean over seeds; None where there is none."""
        found = [score for score in self.scores if score.images_seen == images_seen]
        return mean_score(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, fit for JSON."""
        fields = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        for measurement in fields["measurements"]:
            del measurement["calibration_error"]  # of the calibration in force, which the manifest holds
        return {
            "schema_version": fields.pop("schema_version"),
            "number": fields.pop("number"),
            "key": self.key,
            **fields,
            "state": str(self.state),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrialRecord:
        """Returns the record that `to_dict` described, in this or an earlier version.

        Raises:
            RecordError: The data is not a record, or a newer version wrote it; names all wrong fields.
        """
        values = dict(fields) if isinstance(fields, Mapping) else {}  # a file may hold any JSON
        values.pop("retry_of", None)  # of earlier versions, where the retry of a network had a record of its own
        version = values.get("schema_version")
        if not isinstance(version, int):
            raise RecordError("schema_version is missing: this is not a trial record")
        if version > SCHEMA_VERSION:
            raise RecordError(
                f"schema_version must be at most {SCHEMA_VERSION}, but got {version}: a newer hilo-nas wrote it. "
                "Upgrade hilo-nas to read this study."
            )
        key = values.pop("key", None)
        record = read_value(cls, upgraded(values) if version < SCHEMA_VERSION else values)
        if key != record.key:
            raise RecordError(f"the key must be {record.key} for this subject, but got {key!r}")
        return record


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file or nothing: a temporary file beside it, flushed to the disk, then renamed over it.

    Raises:
        StorageError: The folder cannot be written or the disk is full; the old file, if any, is untouched.
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
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. Free some space, or choose a folder that can be written."
        ) from error


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
    text = json.dumps(record.to_dict(), indent=1, allow_nan=False)
    write_atomically(path, _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), text) + "\n")
    return path


def load_records(folder: Path) -> list[TrialRecord]:
    """Returns the records of a `trials` folder in the order of their numbers; an absent folder has none.

    Raises:
        RecordError: A file is torn, is no record, or was written by a newer version; names the file.
        StorageError: A file cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} must be the folder of the trials, but is a file. Restore it from a copy.")
    records = [_load_record(path) for path in _record_paths(folder)]
    return sorted(records, key=lambda record: record.number)


def forms_under(label: str, records: Iterable[TrialRecord]) -> set[str]:
    """Returns the implementations that the LITv2 networks of some records were timed in, under a condition's label."""
    measured = [record.measurements_by_condition().get(label) for record in records if record.subject.arch]
    return {measurement.form for measurement in measured if measurement is not None}


def _record_paths(folder: Path) -> Iterator[Path]:
    return folder.glob("[0-9]*.json")


def _load_record(path: Path) -> TrialRecord:
    try:
        record = TrialRecord.from_dict(decode_json(read_bytes(path, _MOST_BYTES)))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}. Move it away.") from error
    except HiloNasError as error:
        raise RecordError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not whole JSON ({error}). Move it away, or restore it from a copy.") from error
    if path.stem != f"{record.number:04d}":
        raise RecordError(f"{path}: the file's name must be its trial's number, but the record says {record.number}")
    return record
