"""Repair of a study's folder: damaged files are repaired or moved to the folder `damaged`. Nothing is deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from hilo_nas.clock import utc_now
from hilo_nas.errors import StorageError
from hilo_nas.searching.opening.damage import Damage, find_damage
from hilo_nas.searching.opening.study_lock import study_lock
from hilo_nas.study.records import write_atomically
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["Repaired", "repair_study"]

_FOLDER = "damaged"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repaired:
    """Result of a repair."""

    study: str
    """Name of the study."""
    damages: tuple[Damage, ...]
    """Files that were damaged, and the remedy of each."""
    folder: Path | None
    """New folder inside the study that holds the damaged files. None if no file was moved."""

    @property
    def is_complete(self) -> bool:
        """True if no file is left that the repair cannot repair."""
        return all(damage.is_repairable for damage in self.damages)


def repair_study(study: StoredStudy, *, dry_run: bool = False) -> Repaired:
    """Repairs the damaged files of a study.

    Moves each of them to `damaged/TIME` inside the study and writes what can be recovered. Whole records, and files
    outside the study, stay as they are.

    Args:
        study: The study. Its manifest may be missing.
        dry_run: True to change nothing and to take no lock.

    Raises:
        StudyLockedError: A search is running in the study.
        StorageError: The folder cannot be written, or its folder `damaged` is a link or a file.
    """
    if dry_run:
        return Repaired(study=study.name, damages=tuple(find_damage(study)), folder=None)
    damages: list[Damage] = []
    folder = None
    if _is_misplaced(study.lock_path):  # no search holds such a lock
        damages = [damage for damage in find_damage(study) if damage.file == study.lock_path.name]
        folder = _new_folder(study)
        _move(study, folder, [study.lock_path.name])
    with study_lock(study):
        found = find_damage(study)
        if repairable := [damage for damage in found if damage.is_repairable]:
            folder = folder or _new_folder(study)
            _apply(study, folder, repairable)
    return Repaired(study=study.name, damages=(*damages, *found), folder=folder)


def _apply(study: StoredStudy, folder: Path, damages: Sequence[Damage]) -> None:
    """Writes the recovered files and moves the damaged ones.

    A file that is replaced is copied first. A killed repair therefore leaves each record in the study or in `damaged`,
    and the next repair finishes the work.
    """
    new_files = {file: content for damage in damages for file, content in damage.new_files.items()}
    try:
        for file in new_files:
            if _is_misplaced(study.path / file):
                _move(study, folder, [file])
            elif os.path.lexists(study.path / file):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(study.path / file, folder / file, follow_symlinks=False)
    except OSError as error:
        raise _not_writable(folder, error) from error
    for file, content in new_files.items():
        write_atomically(study.path / file, content)
    _move(study, folder, [damage.file for damage in damages if damage.file not in new_files])


def _is_misplaced(path: Path) -> bool:
    """Returns True if a path exists and is not a regular file."""
    with contextlib.suppress(FileNotFoundError):
        return not stat.S_ISREG(os.lstat(path).st_mode)
    return False


def _new_folder(study: StoredStudy) -> Path:
    """Creates the folder for damaged files, which is named after the current time.

    Raises:
        StorageError: It cannot be created.
    """
    parent = study.path / _FOLDER
    if os.path.islink(parent) or (parent.exists() and not parent.is_dir()):
        raise StorageError(f"{parent} must be a folder, but is a link or a file. Move it away.")
    stamp = utc_now()[:19].replace(":", "").replace("-", "")
    try:
        parent.mkdir(exist_ok=True)
        for number in itertools.count(1):
            with contextlib.suppress(FileExistsError):
                folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
                folder.mkdir()
                break
    except OSError as error:
        raise _not_writable(parent, error) from error
    return folder


def _move(study: StoredStudy, folder: Path, files: Sequence[str]) -> None:
    """Moves files, folders or links of a study, with their paths relative to it."""
    try:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.rename(study.path / file, folder / file)
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {folder}: {error.strerror or error}. Make the study's folder writable.")
