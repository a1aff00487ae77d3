"""Ownership of files in a cache folder. Only files that hilo-nas wrote are removed.

A marker file and the form of each entry identify them. Links are never followed: neither the folders of the cache nor
an entry may be a link.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hilo_nas.errors import StorageError
from hilo_nas.files.open_flags import HAS_DIR_FD, NO_FOLLOW
from hilo_nas.files.open_folders import opened_folder
from hilo_nas.processes import is_running

__all__ = [
    "FOLDERS",
    "SET_NAME",
    "check_links",
    "find_foreign",
    "has_marker",
    "is_own_job",
    "is_own_set",
    "mark_cache",
    "remove_folder",
    "remove_reports",
    "remove_torn_index",
]

FOLDERS = ("sets", "index", "building", "locks", "uses", "reports")
"""Names of the folders in `data`."""

_TAG = "CACHEDIR.TAG"
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
_TAG_TEXT = f"""{_SIGNATURE}
# This folder is a cache of hilo-nas. It holds decoded images, which hilo-nas decodes again if they are missing.
# Backups may skip it. For information about cache directory tags see https://bford.info/cachedir/
"""
SET_NAME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})?-\d+px")
"""Name of the folder of an image set."""
_JOB = re.compile(r"[0-9a-f]{16}-\d+px")
_SET_FILE = re.compile(r"(images|labels|digests|members)\.npy|(meta|stamp)\.json|stamp\.\d+\.tmp|deep\.tmp")
_FORMS = {
    "index": re.compile(r"[0-9a-f]{64}(\.json|\.\d+\.tmp)"),
    "locks": re.compile(r"[0-9a-f]{16}-\d+px\.lock"),
    "uses": re.compile(rf"{SET_NAME.pattern}\.use"),
    "reports": re.compile(r".+-broken\.txt"),
}


def has_marker(cache_dir: Path) -> bool:
    """Returns True if the folder has hilo-nas's marker."""
    file = cache_dir / _TAG
    try:
        text = file.read_text(encoding="utf-8") if _is_file(file) else ""
    except (OSError, ValueError):
        return False
    return text.startswith(_SIGNATURE) and "hilo-nas" in text


def mark_cache(cache_dir: Path) -> None:
    """Writes the marker, unless the folder holds files of other programs, which backups must not skip.

    Raises:
        OSError: The folder cannot be written.
    """
    if has_marker(cache_dir) or find_foreign(cache_dir):
        return
    with contextlib.suppress(FileExistsError):
        handle = os.open(cache_dir / _TAG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_TAG_TEXT)


def check_links(cache_dir: Path) -> None:
    """Checks that the folders of the cache are real folders, not links.

    Raises:
        StorageError: One of them is a link or a file.
        OSError: The folder cannot be read.
    """
    for path in (cache_dir / "data", *(cache_dir / "data" / name for name in FOLDERS)):
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            return  # The cache folder is a file. The error is raised when the cache is written.
        if not stat.S_ISDIR(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a file"
            raise StorageError(
                f"{path} must be a folder of the image cache, but is {kind}. Nothing was read or removed there. "
                "Remove it, or set HILO_NAS_CACHE_DIR to another folder."
            )


def find_foreign(cache_dir: Path) -> list[Path]:
    """Returns the entries of a cache folder whose names and types are not those of files that hilo-nas writes.

    Raises:
        OSError: The folder cannot be read.
    """
    marked, data = has_marker(cache_dir), cache_dir / "data"
    foreign = [path for path in _entries(cache_dir) if path != data and not (marked and path.name == _TAG)]
    for path in _entries(data):
        if path.name not in FOLDERS or not _is_folder(path):
            foreign.append(path)
        elif path.name == "sets":
            foreign += [entry for entry in _entries(path) if not is_own_set(entry, marked)]
        elif path.name == "building":
            foreign += [entry for entry in _entries(path) if not is_own_job(entry)]
        else:
            form = _FORMS[path.name]
            foreign += [e for e in _entries(path) if not (form.fullmatch(e.name) and _is_file(e))]
    return foreign


def is_own_set(path: Path, marked: bool) -> bool:
    """Returns True if a folder has the file names of an image set, complete or damaged.

    Args:
        path: The folder.
        marked: True if the cache has a marker. Otherwise the meta.json in the folder must identify it as an image set.

    Raises:
        OSError: The folder cannot be read.
    """
    if not SET_NAME.fullmatch(path.name) or not _holds_own_files(path):
        return False
    if marked:
        return True
    try:
        meta = json.loads((path / "meta.json").read_bytes()) if _is_file(path / "meta.json") else {}
        return "format" in meta and str(meta["content_hash"]).startswith(path.name[:16])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_own_job(path: Path) -> bool:
    """Returns True if a folder has the file names of an unfinished image set.

    Raises:
        OSError: The folder cannot be read.
    """
    return bool(_JOB.fullmatch(path.name)) and _holds_own_files(path)


def _holds_own_files(path: Path) -> bool:
    return _is_folder(path) and all(_SET_FILE.fullmatch(e.name) and not _is_folder(e) for e in _entries(path))


def remove_folder(path: Path, *, by_handle: bool = HAS_DIR_FD) -> None:
    """Removes the files of an image set, and then their folder. If the folder holds other files, those are kept.

    Args:
        path: The folder. Nothing happens if it does not exist.
        by_handle: False to remove files by their paths, as on Windows.

    Raises:
        OSError: The folder cannot be removed, is a link, or holds other files.
    """
    with contextlib.suppress(FileNotFoundError), opened_folder(path, by_handle=by_handle) as folder:
        for name in folder.names():
            if _SET_FILE.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    folder.remove(name)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def remove_reports(cache_dir: Path) -> None:
    """Removes the lists of broken images."""
    for file in _entries(cache_dir / "data" / "reports"):
        if _FORMS["reports"].fullmatch(file.name) and _is_file(file):
            file.unlink(missing_ok=True)


def remove_torn_index(cache_dir: Path) -> None:
    """Removes temporary index files whose writers have ended."""
    for file in _entries(cache_dir / "data" / "index"):
        is_draft = file.suffix == ".tmp" and _FORMS["index"].fullmatch(file.name) and _is_file(file)
        if is_draft and not is_running(int(file.name.split(".")[1])):
            file.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[Path]:
    """Yields the sorted entries of a folder, or nothing if there is no folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(folder.iterdir())


def _is_folder(path: Path) -> bool:
    return _has_mode(path, stat.S_ISDIR)


def _is_file(path: Path) -> bool:
    return _has_mode(path, stat.S_ISREG)


def _has_mode(path: Path, test: object) -> bool:
    try:
        return bool(test(os.lstat(path).st_mode))  # type: ignore[operator]
    except FileNotFoundError:
        return False
