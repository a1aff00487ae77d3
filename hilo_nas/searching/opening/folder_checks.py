"""Checks of a study's folder before a search writes to it: plain files and folders, no links."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from hilo_nas.errors import StorageError
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["check_layout", "find_leftovers", "find_misplaced", "remove_leftovers"]

_FILES = (
    "manifest.yaml",
    "manifest.backup.yaml",
    "local.yaml",
    "trials.csv",
    "front.csv",
    "data.png",
    "posteriors.json",
    "stages.json",
    ".lock",
)
_LEFTOVER = re.compile(
    r"\.(?:(?:manifest|manifest\.backup|local)\.yaml|\w+\.csv|(?:\d+|posteriors|stages)\.json|.+\.pt)\.[a-z0-9_]{8}\.tmp"
)


def check_layout(folder: StoredStudy) -> None:
    """Checks that a search writes only inside the study's folder, because its paths are plain files and folders.

    Raises:
        StorageError: A path of the study is a link, or a folder instead of a file, or a file instead of a folder. Lists
            each.
    """
    faults = find_misplaced(folder)
    if faults:
        lines = [f"{path.relative_to(path.parents[1])} {fault}" for path, fault in faults.items()]
        shown = lines[:10] + [f"and {len(lines) - 10} more"] * (len(lines) > 10)
        raise StorageError(
            f"a study must contain plain files and folders, but in {folder.path}\n"
            + "\n".join(f"  {line}" for line in shown)
            + "\nMove them away (a search creates what it needs, except trials and manifest.yaml), or use another "
            "--study."
        )


def find_misplaced(folder: StoredStudy) -> dict[Path, str]:
    """Returns the paths of a study that are links, folders instead of files, or files instead of folders.

    Files in such a folder are not inspected.

    Returns:
        What is wrong with each path, such as `must be a file, but is a link`.
    """
    faults = {path: fault for path in _folders(folder) if (fault := _fault(path, stat.S_ISDIR, "a folder"))}
    files = [path for path in _files(folder) if path.parent not in faults]
    return faults | {path: fault for path in files if (fault := _fault(path, stat.S_ISREG, "a file"))}


def find_leftovers(folder: StoredStudy) -> Iterator[Path]:
    """Yields the temporary files that a killed search left behind."""
    for place in (folder.path, folder.trials_path, folder.checkpoints_path):
        if place.is_dir() and (place == folder.path or not place.is_symlink()):
            for path in sorted(place.glob(".*.tmp")):
                if _LEFTOVER.fullmatch(path.name) and not path.is_symlink():
                    yield path


def remove_leftovers(folder: StoredStudy) -> None:
    """Removes temporary files that a killed search left behind. The caller must hold the study's lock."""
    for path in find_leftovers(folder):
        with contextlib.suppress(OSError):
            path.unlink()


def _folders(folder: StoredStudy) -> Iterator[Path]:
    yield from (folder.trials_path, folder.logs_path, folder.checkpoints_path)


def _files(folder: StoredStudy) -> Iterator[Path]:
    yield from (folder.path / name for name in _FILES)
    yield from sorted(folder.trials_path.glob("[0-9]*.json"))
    yield from sorted(folder.logs_path.glob("*.*"))
    yield from sorted(folder.checkpoints_path.glob("*.pt"))


def _fault(path: Path, is_expected: Callable[[int], bool], expected: str) -> str | None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be inspected ({error.strerror or error})"
    if is_expected(mode):
        return None
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"))
    kind = next((name for test, name in kinds if test(mode)), "a special file")
    return f"must be {expected}, but is {kind}"
