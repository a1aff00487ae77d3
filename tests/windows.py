"""Modules of Windows, as far as the package calls them."""

import errno
import os


class FakeMsvcrt:
    """Locks of ranges of bytes, each for one file descriptor alone, from its position on."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def __init__(self):
        self.held = []
        """(File, first byte, number of bytes, file descriptor) of each lock."""

    def locking(self, handle, how, n_bytes):
        file, start = os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR)
        wanted = (file, start, n_bytes, handle)
        if how == self.LK_UNLCK:
            if wanted not in self.held:
                raise PermissionError(errno.EACCES, "Permission denied")
            self.held.remove(wanted)
            return
        for other, first, count, _ in self.held:
            if other == file and first < start + n_bytes and start < first + count:
                raise PermissionError(errno.EACCES, "Permission denied")
        self.held.append(wanted)


class FakeWinapi:
    """Processes of a host: running, ended, or of another user."""

    def __init__(self, running=(), ended=(), foreign=()):
        self.running, self.ended, self.foreign = set(running), set(ended), set(foreign)
        self.handles = []
        """Open processes."""

    def OpenProcess(self, access, inherits, pid):
        if pid in self.foreign:
            raise PermissionError(errno.EACCES, "Access is denied")
        if pid not in self.running | self.ended:
            raise OSError(errno.EINVAL, "The parameter is incorrect")
        self.handles.append(pid)
        return pid

    def WaitForSingleObject(self, handle, milliseconds):
        return 258 if handle in self.running else 0

    def CloseHandle(self, handle):
        self.handles.remove(handle)
