"""Lock of a study: only one process at a time writes to it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from hilo_nas.errors import NotFoundError, StorageError, StudyLockedError
from hilo_nas.searching.opening.folder_checks import check_layout, remove_leftovers
from hilo_nas.study.stored_study import StoredStudy, find_study_folder

__all__ = ["check_unlocked", "locked", "study_lock"]


@contextlib.contextmanager
def locked(folder: StoredStudy) -> Iterator[None]:
    """Holds the study's lock. A new folder is removed again if no study was created in it.

    Raises:
        StudyLockedError: Another process holds the lock.
        StorageError: The folder cannot be written, or its layout is invalid (`check_layout`).
        RecordError: The folder contains trials but no manifest.
    """
    is_new = not folder.path.exists()
    check_layout(folder)
    try:
        folder.trials_path.mkdir(parents=True, exist_ok=True)
        folder.logs_path.mkdir(exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    with study_lock(folder):
        try:
            if not folder.exists and (folder.is_orphaned or any(folder.trials_path.iterdir())):
                raise folder.orphaned()
            remove_leftovers(folder)
            yield
        finally:
            if is_new and not folder.exists:
                shutil.rmtree(folder.path, ignore_errors=True)


def check_unlocked(name: str | Path) -> None:
    """Raises an error if a search is running in a study. A study that does not exist is skipped.

    A second search is refused here, before it imports slow libraries. It still needs the lock itself.

    Args:
        name: Name or folder of the study.

    Raises:
        StudyLockedError: Another process holds the lock.
        StorageError: The folder cannot be written, or its layout is invalid (`check_layout`).
    """
    with contextlib.suppress(NotFoundError):
        folder = find_study_folder(name)
        check_layout(folder)
        with study_lock(folder):
            pass


@contextlib.contextmanager
def study_lock(folder: StoredStudy) -> Iterator[None]:
    """Holds the lock of an existing study's folder.

    Raises:
        StudyLockedError: Another process holds the lock.
        StorageError: The folder cannot be written.
    """
    lock = filelock.FileLock(folder.lock_path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StudyLockedError(
            f"study {folder.name} is locked, because another search is running in it. Wait until it ends, or use "
            "another --study."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise _not_writable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _not_writable(folder: StoredStudy, error: OSError | NotImplementedError) -> StorageError:
    other = "resume a copy of it" if folder.exists else "use another folder"
    return StorageError(
        f"cannot write the study's folder {folder.path}: {getattr(error, 'strerror', None) or error}. "
        f"Make it writable, or {other}: --study PATH."
    )
