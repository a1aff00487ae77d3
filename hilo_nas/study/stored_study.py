"""A study: its folder, and what lies there, read once.

Reading needs neither lock nor write access, and neither torch nor Optuna.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hilo_nas.errors import NotFoundError, RecordError, StorageError, TrialStateError, UsageError
from hilo_nas.files.plain_files import read_text
from hilo_nas.files.safe_yaml import MOST_BYTES
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.csv_files import CsvFiles
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord, load_records, write_atomically, write_record
from hilo_nas.study.states import TrialState

__all__ = [
    "STUDIES_VARIABLE",
    "StoredStudy",
    "list_studies",
    "new_study",
    "open_study",
    "slug",
    "studies_folder",
]

STUDIES_VARIABLE = "HILO_NAS_STUDIES_DIR"
_NAME = re.compile(r"[\w .+=@,][\w .+=@,-]*")
"""Names that mean nothing else to a shell or a terminal."""
_OTHER = re.compile(r"[^\w .+=@,-]+")
_MOST_BYTES = 160
"""Bytes of a name in a file's name; file systems take 255 in all."""


class StoredStudy:
    """A study: its folder, and its manifest and records, loaded once, when they are first asked for.

    Readers take `manifest`, `records`, `front` and `record`. Whoever holds the study's lock writes by `write` and
    `write_manifest`, which keep all of these up to date; what another process writes is not seen.

    Args:
        path: The folder, whether it is there or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest: Manifest | None = None
        self._stored: dict[int, TrialRecord] | None = None
        self._records: dict[int, TrialRecord] = {}
        self._cohorts: dict[str, set[int]] = {}
        self._fronts: dict[str | None, Front] = {}
        self._csv_files = CsvFiles(path)
        self._keeps_csv_files = False

    def __repr__(self) -> str:
        return f"StoredStudy({str(self.path)!r})"

    @property
    def address(self) -> str:
        """Name or path by which a command typed here finds the study."""
        found = studies_folder() / self.path.name
        return self.path.name if found.absolute() == self.path.absolute() else str(self.path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def manifest_path(self) -> Path:
        """What the study is: `manifest.yaml`."""
        return self.path / "manifest.yaml"

    @property
    def sheet_path(self) -> Path:
        """Contact sheet of the images that networks are trained on."""
        return self.path / "data.png"

    @property
    def trials_path(self) -> Path:
        """The folder of the records: the truth."""
        return self.path / "trials"

    @property
    def lock_path(self) -> Path:
        """Held by the one process that may write."""
        return self.path / ".lock"

    @property
    def checkpoints_path(self) -> Path:
        """Trainings that may be gone on with; may be deleted at any time."""
        return self.path / "checkpoints"

    @property
    def logs_path(self) -> Path:
        """What happened, and what the workers printed."""
        return self.path / "logs"

    @property
    def exists(self) -> bool:
        """Whether there is a study here; a folder without a manifest is the rest of a search that never began."""
        return os.path.isfile(self.manifest_path)  # unlike Path.is_file, False for a name that no disk can hold

    @property
    def holds_trials(self) -> bool:
        """Whether there are records, of a study or of what is left of one."""
        return os.path.isdir(self.trials_path) and any(self.trials_path.glob("[0-9]*.json"))

    @property
    def local_path(self) -> Path:
        """What is true on this machine alone, such as where the data lies; see `hilo_nas.study.local_settings`."""
        return self.path / "local.yaml"

    def orphaned(self) -> RecordError:
        """Returns the error for trials without a manifest."""
        has = "its manifest.yaml is no file" if os.path.lexists(self.manifest_path) else "no manifest.yaml"
        return RecordError(
            f"{self.path} holds trials, but {has} to say what they are. Restore it from a copy, or use another --study."
        )

    @property
    def manifest(self) -> Manifest:
        """What the study is.

        Raises:
            RecordError: It cannot be understood, or was made by a newer version.
            StorageError: It cannot be read.
        """
        if self._manifest is None:
            self._manifest = self._load_manifest()
        return self._manifest

    @property
    def records(self) -> Sequence[TrialRecord]:
        """All trials in the order of their numbers, as this version reads them.

        Timings are read and ordered by `read_timings`, scores by `Manifest.interpret_scores`. A re-timing that was cut
        off before the manifest changed does not count.

        Raises:
            RecordError: A file is torn, is no record, or was written by a newer version; names the file.
            StorageError: A file cannot be read.
        """
        self._load()
        return tuple(self._records.values())

    def front(self, condition: str | None = None) -> Front:
        """Returns the front under a condition, computed once per change of the records.

        Args:
            condition: Label of one of the study's conditions; the objective's if left out.

        Raises:
            UsageError: The study has no such condition.
        """
        if condition is not None:
            labels = [own.label() for own in self.manifest.conditions]
            if condition not in labels:
                raise UsageError(f"condition must be one of {', '.join(labels)}, but got {condition!r}")
            condition = condition if condition != labels[0] else None
        if condition not in self._fronts:
            self._fronts[condition] = Front.from_records(self.records, condition)
        return self._fronts[condition]

    def record(self, number: int) -> TrialRecord:
        """Returns the record of a finished, feasible trial.

        Raises:
            NotFoundError: The study has no such trial.
            TrialStateError: The trial failed, is infeasible, was stopped at a rung or is still running.
        """
        self._load()
        if number not in self._records:
            has = f"its trials are 0 to {next(reversed(self._records))}" if self._records else "it has none yet"
            raise NotFoundError(f"study {self.name} has no trial {number}: {has}")
        record = self._records[number]
        if record.state != TrialState.COMPLETE:
            why = f" ({record.reason})" if record.reason else ""
            good = [other.number for other in self.front().members]
            way = f" Trials on the front: {', '.join(map(str, good))}." if good else ""
            state = f"is {record.state}"
            if record.state == TrialState.STOPPED:
                state = f"was stopped after {record.score.images_seen if record.score else 0:,} images"
                way += (
                    " To train it to the end, and all the others that were stopped, make a new study of the same space "
                    f"and data with --set study.reuse={self.name} --set proxy.reduction_factor=0."
                )
            raise TrialStateError(f"trial {number} of study {self.name} {state}{why}.{way}")
        return record

    def write(self, record: TrialRecord) -> None:
        """Stores a record atomically, then takes it up; see `keeping_csv_files` for the CSV files.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._load()
        self._store(record)
        assert self._stored is not None
        self._stored[record.number] = record
        self._index(record)
        self._read_again(self._sharing_rounds([record.number]))
        if self._keeps_csv_files:
            self._csv_files.refresh(self.front)

    def write_csv_files(self) -> None:
        """Writes `trials.csv` and `front.csv`, with P(front).

        Raises:
            StorageError: The folder cannot be written.
        """
        self._csv_files.write(self.front())

    @contextlib.contextmanager
    def keeping_csv_files(self) -> Iterator[None]:
        """Writes the CSV files now, every few seconds while records are written, and at the end, also after an error.

        P(front) is filled in at the end. A kill may leave older files, which the next call replaces.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._csv_files.write(self.front(), with_probabilities=False)
        self._keeps_csv_files = True
        try:
            yield
        finally:
            self._keeps_csv_files = False
            self.write_csv_files()

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes the manifest atomically; its calibrations change what the records say."""
        write_atomically(self.manifest_path, manifest.to_yaml())
        self._manifest = manifest
        if self._stored is not None:
            self._read_all()

    def _load_manifest(self) -> Manifest:
        try:
            return Manifest.from_yaml(read_text(self.manifest_path, MOST_BYTES))
        except OSError as error:
            raise StorageError(f"cannot read {self.manifest_path}: {error.strerror or error}") from error
        except (RecordError, UnicodeDecodeError) as error:
            raise RecordError(
                f"{self.manifest_path}: {error}. Restore it from a copy, or use another --study."
                if isinstance(error, UnicodeDecodeError)
                else f"{self.manifest_path}: {error}"
            ) from error

    def _store(self, record: TrialRecord) -> None:
        write_record(self.trials_path, record)

    def _interpret(self, records: list[TrialRecord]) -> list[TrialRecord]:
        """Returns records as this version reads what is stored; a folder without a manifest holds no results yet."""
        if not any(record.measurements or record.scores for record in records):
            return records
        return [self.manifest.interpret_scores(record) for record in read_timings(records, self.manifest)]

    def _load(self) -> None:
        if self._stored is None:
            self._stored = {record.number: record for record in load_records(self.trials_path)}
            self._read_all()

    def _read_all(self) -> None:
        assert self._stored is not None
        self._cohorts.clear()
        for record in self._stored.values():
            self._index(record)
        stored = [self._stored[number] for number in sorted(self._stored)]
        self._records = {record.number: record for record in self._interpret(stored)}
        self._fronts.clear()

    def _index(self, record: TrialRecord) -> None:
        for measurement in record.measurements:
            if measurement.cohort:
                self._cohorts.setdefault(measurement.cohort, set()).add(record.number)

    def _sharing_rounds(self, numbers: Collection[int]) -> set[int]:
        """These trials and all that shared rounds with one of them."""
        assert self._stored is not None
        found = set(numbers)
        for number in numbers:
            for measurement in self._stored[number].measurements:
                found |= self._cohorts.get(measurement.cohort, set())
        return found

    def _read_again(self, numbers: Collection[int]) -> None:
        """Reads some records again: a timing's verdict is that of all who shared its rounds."""
        assert self._stored is not None
        among = [self._stored[number] for number in sorted(self._sharing_rounds(numbers))]
        for record in self._interpret(among):
            if record.number not in numbers or self._records.get(record.number) == record:
                continue
            is_last = not self._records or record.number >= next(reversed(self._records))
            self._records[record.number] = record
            if not is_last:
                self._records = dict(sorted(self._records.items()))
            self._fronts = {label: front.updated(record) for label, front in self._fronts.items()}


def open_study(name_or_path: str | Path) -> StoredStudy:
    """Returns the study of a name, or of a folder's path; nothing is loaded yet.

    Raises:
        NotFoundError: There is no such study; lists near names.
        RecordError: There are trials, but no manifest.
    """
    name = str(name_or_path)
    folder = studies_folder()
    for path in (folder / name, Path(name)):
        study = StoredStudy(path)
        if study.exists:
            return study
        if study.holds_trials:
            raise study.orphaned()
    known = [study.path.name for study in list_studies()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:10]
    hint = f"Did you mean {' or '.join(near)}?" if near else "There are no studies there yet: see `hilo-nas search`."
    raise NotFoundError(f"no study {name!r} in {folder}. {hint}")


def list_studies() -> list[StoredStudy]:
    """Returns the studies in the folder of all studies, by name; nothing is loaded yet.

    Raises:
        StorageError: The folder cannot be read.
    """
    folder = studies_folder()
    try:
        return [StoredStudy(path.parent) for path in sorted(folder.glob("*/manifest.yaml"))]
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {error.strerror or error}") from error


def studies_folder() -> Path:
    """Returns the folder of all studies: the environment's, else `studies` here."""
    return Path(os.environ.get(STUDIES_VARIABLE) or "studies").expanduser()


def slug(name: str) -> str:
    """Returns a name as a part of a file's name, safe whoever chose it; a name of a new study stays as it is."""
    text = _OTHER.sub("_", unicodedata.normalize("NFC", name)).strip().lstrip(".-")
    return text.encode()[:_MOST_BYTES].decode(errors="ignore").strip() or "_"


def new_study(name_or_path: str) -> StoredStudy:
    """Returns where a study of that name, or in that folder, is or would be made.

    Raises:
        UsageError: The last part cannot be a study's name.
    """
    head, separator, name = name_or_path.rpartition("/")
    if not _NAME.fullmatch(unicodedata.normalize("NFC", name)) or name in (".", "..") or name != name.strip():
        raise UsageError(
            "a new study's name must be of letters, digits, spaces and _ . + = @ , - (not the first), after the path "
            f"of its folder, if any, but got {name_or_path!r}"
        )
    return StoredStudy(Path(head or "/") / name if separator else studies_folder() / name)
