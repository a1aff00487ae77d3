"""Warnings about network file systems, whose locks may not exclude the processes of other hosts."""

from __future__ import annotations

from pathlib import Path

from hilo_nas.events import Emit, Notice
from hilo_nas.files.file_systems import find_file_system, is_network_file_system, read_mounts
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.timing import LOCAL_LOCKS, locks_folder

__all__ = ["warn_of_network_disks"]


def warn_of_network_disks(
    study: StoredStudy, emit: Emit, *, locks: Path | None = None, mounts: str | None = None
) -> None:
    """Emits a warning if the folder of a study, or that of the device locks, is on a network file system.

    Args:
        study: The study.
        emit: Receives the warnings.
        locks: Folder of the device locks. Defaults to that of this process.
        mounts: Text of `read_mounts`. Defaults to the mounts of this process.
    """
    mounts = read_mounts() if mounts is None else mounts
    kind = find_file_system(study.path, mounts)
    if is_network_file_system(kind):
        text = (
            f"study {study.name} is on a network file system ({kind}), whose lock may not exclude other hosts. Run "
            "searches in it from one host at a time, or move it to a local disk and use --study PATH"
        )
        emit(Notice(level="warning", text=text))
    locks = locks_folder() if locks is None else locks
    kind = find_file_system(locks, mounts)
    if is_network_file_system(kind):
        text = (
            f"the device locks in {locks} are on a network file system ({kind}), so they may fail, or hosts may wait "
            f"for each other. Use a folder of this host: {LOCAL_LOCKS}"
        )
        emit(Notice(level="warning", text=text))
