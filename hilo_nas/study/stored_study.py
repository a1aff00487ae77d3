"""Stored studies: the study folder with its manifest, records and front.

Reading a study requires no lock, no write access, no torch and no Optuna.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hilo_nas.errors import NewerVersionError, NotFoundError, RecordError, StorageError, TrialStateError, UsageError
from hilo_nas.files.plain_files import read_bytes, read_text
from hilo_nas.files.safe_yaml import MOST_BYTES
from hilo_nas.measurement import Condition
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.csv_files import CsvFiles
from hilo_nas.study.front import Front
from hilo_nas.study.further_conditions import find_condition, manifest_under, record_under
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import Posteriors, load_posteriors
from hilo_nas.study.records import TrialRecord, load_records, write_atomically, write_record
from hilo_nas.study.states import TrialState
from hilo_nas.text.commands import command

__all__ = [
    "STUDIES_VARIABLE",
    "StoredStudy",
    "back_up_manifest",
    "find_study_folder",
    "list_studies",
    "new_study",
    "open_study",
    "open_view",
    "slug",
    "studies_folder",
    "study_under",
]

STUDIES_VARIABLE = "HILO_NAS_STUDIES_DIR"
_NAME = re.compile(r"[\w .+=@,][\w .+=@,-]*")
"""Study names without special characters of shells and terminals."""
_FORBIDDEN = re.compile(r"[^\w .+=@,-]+")
_MAX_NAME_BYTES = 160
"""Maximum number of bytes of a study name within a file name. File systems allow 255 bytes per file name."""


class StoredStudy:
    """A study folder with its manifest and records, which are loaded once on first access.

    To read a study, use `manifest`, `records`, `front` and `record`. To change it, hold the study lock and call `write`
    and `write_manifest`, which update all of these. Changes by other processes are not detected.

    Args:
        path: Path of the study folder. It does not have to exist.
        condition: Label of one of its conditions, or the start of the label. Everything that depends on a speed then
            is under this condition, such as the front, and the study cannot be changed. Defaults to the objective.
    """

    def __init__(self, path: Path, *, condition: str | None = None) -> None:
        self.path, self._condition = path, condition
        self._manifest: Manifest | None = None
        self._stored: dict[int, TrialRecord] | None = None
        self._records: dict[int, TrialRecord] = {}
        self._cohorts: dict[str, set[int]] = {}
        self._fronts: dict[str | None, Front] = {}
        self._posteriors: Posteriors | None = None
        self._has_read_posteriors = False
        self._csv_files = CsvFiles(path)
        self._keeps_csv_files = False

    def __repr__(self) -> str:
        condition = f", condition={self._condition!r}" if self.is_view else ""
        return f"{type(self).__name__}({str(self.path)!r}{condition})"

    @property
    def is_view(self) -> bool:
        """True for a study under a further condition, which cannot be changed."""
        return self._condition is not None

    @property
    def address(self) -> str:
        """Name or path of the study for a command in the current folder."""
        found = studies_folder() / self.path.name
        return self.path.name if found.absolute() == self.path.absolute() else str(self.path)

    @property
    def view_address(self) -> str:
        """Name or path for a command that only reads: `address`, or `ADDRESS@LABEL` under a further condition."""
        return f"{self.address}@{self.manifest.objective.label()}" if self.is_view else self.address

    @property
    def name(self) -> str:
        """Name of the study folder."""
        return self.path.resolve().name

    @property
    def title(self) -> str:
        """Name of the study, with the label of the condition if it is not the objective: `NAME@LABEL`."""
        return f"{self.name}@{self.manifest.objective.label()}" if self.is_view else self.name

    @property
    def manifest_path(self) -> Path:
        """Path of the manifest, `manifest.yaml`."""
        return self.path / "manifest.yaml"

    @property
    def backup_path(self) -> Path:
        """Path of `manifest.backup.yaml`, a copy of the manifest. Only `hilo-nas repair` reads it."""
        return self.path / "manifest.backup.yaml"

    @property
    def sheet_path(self) -> Path:
        """Path of the contact sheet with training images, `data.png`."""
        return self.path / "data.png"

    @property
    def trials_path(self) -> Path:
        """Path of the folder with the trial records, `trials`."""
        return self.path / "trials"

    @property
    def lock_path(self) -> Path:
        """Path of the study lock. Only the process that holds the lock may write."""
        return self.path / ".lock"

    @property
    def checkpoints_path(self) -> Path:
        """Path of the folder with the checkpoints of unfinished trainings. It may be deleted at any time."""
        return self.path / "checkpoints"

    @property
    def logs_path(self) -> Path:
        """Path of the folder with the event log and the output of the workers."""
        return self.path / "logs"

    @property
    def exists(self) -> bool:
        """True if the folder has a manifest. Without a manifest, it remains from a search that did not start."""
        return os.path.isfile(self.manifest_path)  # unlike Path.is_file, returns False if the name is too long

    @property
    def holds_trials(self) -> bool:
        """True if the folder holds trial records, with or without a manifest."""
        return os.path.isdir(self.trials_path) and any(self.trials_path.glob("[0-9]*.json"))

    @property
    def local_path(self) -> Path:
        """Path of `local.yaml`, which holds settings of this machine such as the path of the data."""
        return self.path / "local.yaml"

    @property
    def posteriors_path(self) -> Path:
        """Path of `posteriors.json`."""
        return self.path / "posteriors.json"

    @property
    def stages_path(self) -> Path:
        """Path of `stages.json`."""
        return self.path / "stages.json"

    @property
    def is_orphaned(self) -> bool:
        """True if the folder has no manifest, but trial records or a copy of the manifest."""
        return not self.exists and (self.holds_trials or os.path.isfile(self.backup_path))

    def orphaned(self) -> RecordError:
        """Returns the error for trial records without a manifest."""
        fault = "is not a regular file" if os.path.lexists(self.manifest_path) else "is missing"
        return RecordError(f"{self.path} holds a study, but its manifest.yaml {fault}. {self._way_out}")

    @property
    def manifest(self) -> Manifest:
        """Manifest of the study.

        Raises:
            RecordError: The file is not a valid manifest or comes from a newer version.
            StorageError: The file cannot be read.
        """
        if self._manifest is None:
            self._manifest = self._load_manifest()
        return self._manifest

    @property
    def records(self) -> Sequence[TrialRecord]:
        """All trial records, sorted by number.

        `read_timings` computes and sorts the timings, and `Manifest.interpret_scores` updates the scores. If re-timing
        was interrupted before the manifest changed, the new timings have a lower priority than the old ones.

        Raises:
            RecordError: A file is truncated, is not a record, or comes from a newer version. The message names it.
            StorageError: A file cannot be read.
        """
        self._load()
        return tuple(self._records.values())

    @property
    def posteriors(self) -> Posteriors | None:
        """Stored posteriors of the values. None if there are none, or if the records have changed since."""
        if not self._has_read_posteriors and self.is_view:
            found = StoredStudy(self.path).posteriors
            # Values do not depend on the condition, unlike predicted speeds.
            self._posteriors = None if found is None else dataclasses.replace(found, predicted=(), outlook=())
            self._has_read_posteriors = True
        if not self._has_read_posteriors:
            found = load_posteriors(self.posteriors_path)
            self._posteriors = found if found is not None and found.is_current(self.records, self.manifest) else None
            self._has_read_posteriors = True
        return self._posteriors

    def write_posteriors(self, posteriors: Posteriors) -> None:
        """Writes the posteriors atomically. The fronts use them from then on.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._check_writable()
        posteriors.write(self.posteriors_path)
        self._has_read_posteriors = False
        self._fronts.clear()

    def front(self, condition: str | None = None) -> Front:
        """Returns the front under a condition. It is cached until the records change.

        It uses the stored posteriors, if they follow from the current records.

        Args:
            condition: Label of a condition of the study, or the start of a single label. Defaults to the objective
                condition.

        Raises:
            UsageError: The study has no such condition.
        """
        if condition is not None:
            found = find_condition(self.manifest, condition)
            condition = found.label() if found != self.manifest.objective else None
        if condition not in self._fronts:
            believed = self.posteriors.believed if self.posteriors is not None else None
            self._fronts[condition] = Front.from_records(self.records, condition, believed=believed)
        return self._fronts[condition]

    def record(self, number: int) -> TrialRecord:
        """Returns the record of a complete trial.

        Raises:
            NotFoundError: The study has no such trial.
            TrialStateError: The trial failed, is infeasible, was stopped at a rung or is still running.
        """
        self._load()
        if number not in self._records:
            known = f"its trials are 0 to {next(reversed(self._records))}" if self._records else "it has none yet"
            raise NotFoundError(f"study {self.name} has no trial {number}: {known}")
        record = self._records[number]
        if record.state != TrialState.COMPLETE:
            reason = f" ({record.reason})" if record.reason else ""
            on_front = [other.number for other in self.front().members]
            hint = f" Trials on the front: {', '.join(map(str, on_front))}." if on_front else ""
            state = f"is {record.state}"
            if record.state == TrialState.STOPPED:
                state = f"was stopped after {record.score.images_seen if record.score else 0:,} images"
                hint += (
                    " To train all stopped trials with the full budget, create a new study with the same space and "
                    f"data and with --set study.reuse={self.name} --set proxy.reduction_factor=0."
                )
            raise TrialStateError(f"trial {number} of study {self.name} {state}{reason}.{hint}")
        return record

    def write(self, record: TrialRecord) -> None:
        """Writes a record atomically, then updates `records` and `front`.

        Within `keeping_csv_files`, it also refreshes the CSV files.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._check_writable()
        self._load()
        self._store(record)
        assert self._stored is not None
        self._stored[record.number] = record
        self._index(record)
        self._posteriors, self._has_read_posteriors = None, True  # they follow from other records
        self._read_again(self._sharing_rounds([record.number]))
        if self._keeps_csv_files:
            self._csv_files.refresh(self.front)

    def write_csv_files(self) -> None:
        """Writes `trials.csv` and `front.csv`, including P(front).

        Raises:
            StorageError: The folder cannot be written.
        """
        self._check_writable()
        self._csv_files.write(self.front())

    @contextlib.contextmanager
    def keeping_csv_files(self) -> Iterator[None]:
        """Returns a context in which the CSV files are kept up to date.

        The files are written at the start, every few seconds while records are written, and at the end, also after an
        error. P(front) is filled in at the end. A killed process may leave outdated files. The next call replaces them.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._check_writable()
        self._csv_files.write(self.front(), with_probabilities=False)
        self._keeps_csv_files = True
        try:
            yield
        finally:
            self._keeps_csv_files = False
            self.write_csv_files()

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes the manifest and its copy, then updates `records` and `front`, which depend on its calibrations.

        Both files are written atomically.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._check_writable()
        text = manifest.to_yaml()
        write_atomically(self.manifest_path, text)
        write_atomically(self.backup_path, text)
        self._manifest = manifest
        if self._stored is not None:
            self._read_all()

    def _check_writable(self) -> None:
        """Raises a UsageError for a view."""
        if self.is_view:
            raise UsageError(
                f"a study under a further condition must not be written, but got {self.title}. Use study {self.name}."
            )

    @property
    def _way_out(self) -> str:
        """Sentence with the command that repairs a damaged study."""
        return f"Repair the study: {command('repair', self.address)}"

    def _damaged(self, error: RecordError | StorageError) -> RecordError | StorageError:
        """Returns the error with the command that repairs the study. A file of a newer version is not damaged."""
        if isinstance(error, NewerVersionError):
            return error
        text = str(error)
        separator = "\n" if "\n" in text else " " if text.endswith(".") else ". "
        return type(error)(f"{text}{separator}{self._way_out}")

    def _load_manifest(self) -> Manifest:
        if self.is_orphaned:
            raise self.orphaned()
        try:
            manifest = Manifest.from_yaml(read_text(self.manifest_path, MOST_BYTES))
        except OSError as error:
            raise StorageError(f"cannot read {self.manifest_path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise self._damaged(RecordError(f"{self.manifest_path}: it is not UTF-8 ({error})")) from error
        except RecordError as error:
            raise self._damaged(type(error)(f"{self.manifest_path}: {error}")) from error
        if self._condition is None:
            return manifest
        return manifest_under(manifest, find_condition(manifest, self._condition))

    def _store(self, record: TrialRecord) -> None:
        write_record(self.trials_path, record)

    def _interpret(self, records: list[TrialRecord]) -> list[TrialRecord]:
        """Returns stored records with calibrated timings, and with scores as this version interprets them.

        If no record has a measurement or a score yet, returns all unchanged, because the folder may have no manifest.
        """
        if not any(record.measurements or record.scores for record in records):
            return records
        found = [self.manifest.interpret_scores(record) for record in read_timings(records, self.manifest)]
        return [record_under(record, self.manifest) for record in found] if self.is_view else found

    def _load(self) -> None:
        if self._stored is None:
            try:
                self._stored = {record.number: record for record in load_records(self.trials_path)}
            except (RecordError, StorageError) as error:
                raise self._damaged(error) from error
            self._read_all()

    def _read_all(self) -> None:
        assert self._stored is not None
        self._cohorts.clear()
        for record in self._stored.values():
            self._index(record)
        stored = [self._stored[number] for number in sorted(self._stored)]
        self._records = {record.number: record for record in self._interpret(stored)}
        self._fronts.clear()
        self._has_read_posteriors = False

    def _index(self, record: TrialRecord) -> None:
        for measurement in record.measurements:
            if measurement.cohort:
                self._cohorts.setdefault(measurement.cohort, set()).add(record.number)

    def _sharing_rounds(self, numbers: Collection[int]) -> set[int]:
        """Returns the numbers of the given trials and of all trials that shared rounds with them."""
        assert self._stored is not None
        found = set(numbers)
        for number in numbers:
            for measurement in self._stored[number].measurements:
                found |= self._cohorts.get(measurement.cohort, set())
        return found

    def _read_again(self, numbers: Collection[int]) -> None:
        """Interprets some records again, together with the trials that shared their rounds.

        The quality of a timing depends on all networks in its rounds.
        """
        assert self._stored is not None
        related = [self._stored[number] for number in sorted(self._sharing_rounds(numbers))]
        for record in self._interpret(related):
            if record.number not in numbers or self._records.get(record.number) == record:
                continue
            is_last = not self._records or record.number >= next(reversed(self._records))
            self._records[record.number] = record
            if not is_last:
                self._records = dict(sorted(self._records.items()))
            self._fronts = {label: front.updated(record) for label, front in self._fronts.items()}


def open_study(name_or_path: str | Path) -> StoredStudy:
    """Returns the study with a name or folder path. Its content is loaded later, on first access.

    Raises:
        NotFoundError: There is no such study. The message lists similar names.
        RecordError: The folder holds trials or a copy of the manifest, but no manifest.
    """
    study = find_study_folder(name_or_path)
    if not study.exists:
        raise study.orphaned()
    return study


def open_view(name_or_path: str | Path) -> StoredStudy:
    """Returns a study for reading, given as `STUDY`, or as `STUDY@CONDITION` for one of its further conditions.

    Args:
        name_or_path: Name or folder of the study. The condition is a label, or the start of a single label.

    Raises:
        NotFoundError: There is no such study. The message lists similar names.
        UsageError: The study has no such condition.
        RecordError: The folder holds trials or a copy of the manifest, but no manifest, or the manifest is damaged.
    """
    try:
        return open_study(name_or_path)
    except NotFoundError:
        name, at, condition = str(name_or_path).rpartition("@")
        if not at:
            raise
    study = open_study(name)
    return study_under(study, find_condition(study.manifest, condition))


def study_under(study: StoredStudy, condition: Condition) -> StoredStudy:
    """Returns a study under one of its conditions, for reading. The study itself under its objective."""
    if condition == study.manifest.objective:
        return study
    return StoredStudy(study.path, condition=condition.label())


def find_study_folder(name_or_path: str | Path) -> StoredStudy:
    """Returns the study with a name or folder path, also if its manifest is missing.

    Raises:
        NotFoundError: There is no such study. The message lists similar names.
    """
    name = str(name_or_path)
    folder = studies_folder()
    for path in (folder / name, Path(name)):
        study = StoredStudy(path)
        if study.exists or study.is_orphaned:
            return study
    base, at, condition = name.rpartition("@")
    if at and any(StoredStudy(path).exists for path in (folder / base, Path(base))):
        raise NotFoundError(
            f"no study {name!r} in {folder}. Only commands that show results under one condition take "
            f"STUDY@CONDITION; use {base} without @{condition}."
        )
    known = [study.path.name for study in list_studies()]
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:10]
    hint = "This folder holds no studies yet. Create one with `hilo-nas search`."
    if similar:
        hint = f"Did you mean {' or '.join(similar)}?"
    raise NotFoundError(f"no study {name!r} in {folder}. {hint}")


def list_studies() -> list[StoredStudy]:
    """Returns the studies in `studies_folder`, sorted by name. Their content is loaded later, on first access.

    They include studies without a manifest, whose content cannot be read.

    Raises:
        StorageError: The folder cannot be read.
    """
    folder = studies_folder()
    try:
        found = [StoredStudy(path) for path in sorted(folder.glob("*/"))]
        return [study for study in found if os.path.lexists(study.manifest_path) or study.is_orphaned]
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror or error}") from error


def studies_folder() -> Path:
    """Returns the folder of all studies: $HILO_NAS_STUDIES_DIR, or `studies` in the current folder."""
    return Path(os.environ.get(STUDIES_VARIABLE) or "studies").expanduser()


def back_up_manifest(study: StoredStudy) -> None:
    """Writes the copy of a study's manifest if it is missing or differs, as in studies of earlier versions.

    Raises:
        StorageError: The manifest cannot be read, or the folder cannot be written.
    """
    try:
        text = read_bytes(study.manifest_path, MOST_BYTES)
    except OSError as error:
        raise StorageError(f"cannot read {study.manifest_path}: {error.strerror or error}") from error
    with contextlib.suppress(OSError):
        if read_bytes(study.backup_path, MOST_BYTES) == text:
            return
    write_atomically(study.backup_path, text)


def slug(name: str) -> str:
    """Returns a study name as a safe part of a file name: `a/b` gives `a_b`.

    A name that `new_study` accepts is not changed.
    """
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", name)).strip().lstrip(".-")
    return text.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip() or "_"


def new_study(name_or_path: str) -> StoredStudy:
    """Returns the study with a name or folder path, which may exist already. Creates no files.

    Raises:
        UsageError: The last part of the path is not a valid study name, or it is that of an existing study followed by
            `@`, which would hide a further condition of that study.
    """
    head, separator, name = name_or_path.rpartition("/")
    if not _NAME.fullmatch(unicodedata.normalize("NFC", name)) or name in (".", "..") or name != name.strip():
        raise UsageError(
            "a new study's name must consist of letters, digits, spaces and _ . + = @ , - (not the first), optionally "
            f"after the path of its parent folder, but got {name_or_path!r}"
        )
    folder = Path(head or "/") if separator else studies_folder()
    study = StoredStudy(folder / name)
    base, _, condition = name.rpartition("@")
    if base and StoredStudy(folder / base).exists and not (study.exists or study.is_orphaned):
        raise UsageError(
            f"a new study's name must not be that of an existing study followed by @, because {name} means study "
            f"{base} under its condition {condition!r}, but got {name_or_path!r}. Use another name, such as "
            f"{base}-{condition}."
        )
    return study
