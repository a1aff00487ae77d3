"""Flags of `os.open` that exist on all systems. A flag that a system does not have is 0.

Windows has no links that every user can create, and no pipes among files. The flags that protect against them are
therefore missing there. `BINARY` exists on Windows only: without it, `os.open` translates line ends.
"""

from __future__ import annotations

import os

__all__ = ["BINARY", "CLOSE_ON_EXEC", "FOLDER", "HAS_DIR_FD", "NO_FOLLOW", "NO_WAIT"]

BINARY: int = getattr(os, "O_BINARY", 0)
"""Bytes are read and written unchanged."""
CLOSE_ON_EXEC: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
"""Child processes do not inherit the file descriptor."""
FOLDER: int = getattr(os, "O_DIRECTORY", 0)
"""Only folders are opened."""
NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
"""Links are not opened."""
NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe does not wait for a writer."""

HAS_DIR_FD = {os.mkdir, os.open, os.unlink} <= os.supports_dir_fd
"""True if files can be opened and removed relative to the file descriptor of a folder. False on Windows."""
