"""One process at a time writes to a study."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import filelock

from hilo_nas.errors import StorageError, StudyLockedError
from hilo_nas.searching.opening.folder_checks import check_layout, remove_leftovers
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["locked"]


@contextlib.contextmanager
def locked(folder: StoredStudy) -> Iterator[None]:
    """Holds the study's lock; what this call made is removed again if no study came of it.

    Raises:
        StudyLockedError: Another process holds it.
        StorageError: The folder cannot be written, or holds links or other things in its files' places.
        RecordError: It holds trials of nothing.
    """
    made = not folder.path.exists()
    check_layout(folder)
    try:
        folder.trials_path.mkdir(parents=True, exist_ok=True)
        folder.logs_path.mkdir(exist_ok=True)
        lock = filelock.FileLock(folder.lock_path)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StudyLockedError(
            f"study {folder.name} is locked: another search is running in it. Wait for it, or use another --study."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise StorageError(
            f"cannot write the study's folder {folder.path}: {getattr(error, 'strerror', None) or error}. "
            "Make it writable, or name a folder elsewhere: --study PATH."
        ) from error
    try:
        if not folder.exists and any(folder.trials_path.iterdir()):
            raise folder.orphaned()
        remove_leftovers(folder)
        yield
    finally:
        if made and not folder.exists:
            shutil.rmtree(folder.path, ignore_errors=True)
        lock.release()
