"""File system of a folder, from the kernel's list of mounts."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["find_file_system", "is_network_file_system", "read_mounts"]

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "wekafs", "orangefs"),
    *(
        "fuse.sshfs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.davfs",
        "fuse.juicefs",
    ),
}
"""Types of file systems whose locks may not exclude the processes of another host."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def read_mounts(root: Path = Path("/")) -> str:
    """Returns the mounts that this process sees, as in `/proc/self/mountinfo`. Empty if the system has no such file.

    Args:
        root: Folder that contains proc.
    """
    try:
        return (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def find_file_system(folder: Path, mounts: str) -> str | None:
    """Returns the type of the file system of a folder, such as `ext4` or `nfs4`. None if it is unknown.

    Args:
        folder: The folder, or one to be created. Links are resolved.
        mounts: Text of `read_mounts`.
    """
    place = Path(os.path.realpath(folder))
    best, kind = -1, None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        words = before.split(" ")
        if not separator or len(words) < 5 or not after:
            continue
        point = Path(_unescaped(words[4]))
        if len(point.parts) >= best and (place == point or point in place.parents):  # a later mount hides earlier ones
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def is_network_file_system(kind: str | None) -> bool:
    """Returns True if locks on this type of file system may not exclude processes of other hosts."""
    return kind in _NETWORK


def _unescaped(text: str) -> str:
    r"""Returns a path of a mount, in which the kernel writes a space as `\040`."""
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 255]), os.fsencode(text)))
