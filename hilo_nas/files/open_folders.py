"""Folders whose files are opened and removed without following links.

On Unix, a folder stays open by its file descriptor, so nobody can replace it with a link in the meantime. Windows opens
no files relative to a folder. There, names are joined to the folder's path, and links are refused before each call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hilo_nas.files.open_flags import BINARY, CLOSE_ON_EXEC, FOLDER, HAS_DIR_FD, NO_FOLLOW, NO_WAIT
from hilo_nas.files.plain_files import check_no_link

__all__ = ["OpenFolder", "opened_folder"]


@dataclasses.dataclass(frozen=True)
class OpenFolder:
    """Folder that is a real folder, not a link."""

    path: Path
    handle: int | None
    """File descriptor of the folder. None if files are opened by their paths."""

    @property
    def status(self) -> os.stat_result:
        """Owner and mode of the folder."""
        return os.lstat(self.path) if self.handle is None else os.fstat(self.handle)

    def set_mode(self, mode: int) -> None:
        """Sets the permissions of the folder. Windows ignores them.

        Raises:
            OSError: The folder belongs to another user.
        """
        if self.handle is None:
            os.chmod(self.path, mode)
        else:
            os.fchmod(self.handle, mode)

    def names(self) -> list[str]:
        """Returns the names of the folder's entries, in any order."""
        return os.listdir(self.path if self.handle is None else self.handle)

    def make(self, name: str) -> None:
        """Creates a folder in this one.

        Raises:
            FileExistsError: The name exists.
            OSError: It cannot be created.
        """
        os.mkdir(self.place_of(name), dir_fd=self.handle)

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        """Returns a file descriptor of a file in the folder. Never waits for a pipe and never follows a link.

        Args:
            name: Name of the file.
            flags: Flags of `os.open`, such as `os.O_RDONLY`.
            mode: Permissions of a new file.

        Raises:
            OSError: The file is a link, does not exist, or cannot be opened.
        """
        if self.handle is None:
            check_no_link(self.path / name)
        flags |= NO_FOLLOW | NO_WAIT | CLOSE_ON_EXEC | BINARY
        return os.open(self.place_of(name), flags, mode, dir_fd=self.handle)

    def remove(self, name: str) -> None:
        """Removes a file or a link from the folder.

        Raises:
            OSError: It does not exist or cannot be removed.
        """
        os.unlink(self.place_of(name), dir_fd=self.handle)

    def place_of(self, name: str) -> Path:
        """Returns the path that a call with `dir_fd=handle` takes for a name in the folder."""
        return self.path / name if self.handle is None else Path(name)


@contextlib.contextmanager
def opened_folder(path: Path, *, below: OpenFolder | None = None, by_handle: bool = HAS_DIR_FD) -> Iterator[OpenFolder]:
    """Yields a folder, open until the block ends.

    Args:
        path: The folder. A name if `below` is given.
        below: Folder that contains it.
        by_handle: False to open files by their paths, as on Windows.

    Raises:
        OSError: It does not exist, is a link, or is not a folder.
    """
    whole = path if below is None else below.path / path
    if not by_handle:
        if not stat.S_ISDIR(os.lstat(whole).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it must be a folder and no link", str(whole))
        yield OpenFolder(whole, None)
        return
    flags = os.O_RDONLY | FOLDER | CLOSE_ON_EXEC | NO_FOLLOW
    handle = os.open(path, flags, dir_fd=None if below is None else below.handle)
    try:
        yield OpenFolder(whole, handle)
    finally:
        os.close(handle)
