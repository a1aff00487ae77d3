"""Readers of .tar and .zip archives, compressed or not. Files are read in archive order and never unpacked to disk.

Links are followed inside the archive. Links and names that lead outside, for instance through `..`, are left out. If a
name occurs twice, the last file counts, as it does when the archive is unpacked.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from hilo_nas.data.formats import describe_impostor
from hilo_nas.errors import DataError

__all__ = ["Archive", "Contents", "Place", "open_archive"]

Place = tuple[int, int]
"""Position of a file in its archive: an offset, by which files are sorted, and the size in bytes."""

_MAX_LINKS = 40
_LONGEST_LINK = 4096
"""Maximum number of bytes read of a link's target. No operating system allows a longer target."""


class Contents(NamedTuple):
    """Contents of an archive."""

    files: dict[str, Place]
    """Position of each file by its path."""
    special: list[str]
    """Paths of pipes and devices."""
    lost: list[str]
    """Paths that are left out: links that lead outside, to nothing, or to a folder that is already read, and names that
    lead outside."""
    is_cut: bool
    """True if the end marker of the archive is missing, so that files may be missing too."""


class Archive(Protocol):
    """An open archive."""

    is_sequential: bool
    """True if reading backwards decompresses the archive again from its start."""

    def list(self) -> Contents:
        """Returns the contents of the archive."""

    def read(self, place: Place) -> bytes:
        """Returns the content of a file. In a compressed archive, ascending positions are fast."""


@contextlib.contextmanager
def open_archive(file: BinaryIO) -> Iterator[Archive]:
    """Opens an archive. Its first bytes determine its type.

    Raises:
        DataError: The file is no archive, is encrypted or damaged, or needs a package that is not installed.
    """
    head = file.read(512)
    file.seek(0)
    if found := describe_impostor(head, "archive"):
        raise DataError(found)
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\10") or _extracts_itself(file, head):
        with zipfile.ZipFile(file) as opened:
            yield _Zip(opened)
    else:
        with _decompressed(file, head) as stream:
            yield _Tar(stream, is_sequential=stream is not file)


def _extracts_itself(file: BinaryIO, head: bytes) -> bool:
    """Returns True for a self-extracting zip file."""
    is_program = head.startswith((b"MZ", b"\x7fELF", b"#!"))
    found = is_program and zipfile.is_zipfile(file)
    file.seek(0)
    return found


def _decompressed(file: BinaryIO, head: bytes) -> contextlib.AbstractContextManager[BinaryIO]:
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return cast("BinaryIO", bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ"):
        return cast("BinaryIO", lzma.LZMAFile(file))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstandard(file)
    return contextlib.nullcontext(file)


def _zstandard(file: BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    """Opens a .zst file with the module of Python 3.14, or else with the package `zstandard`."""
    with contextlib.suppress(ImportError):
        return cast("BinaryIO", importlib.import_module("compression.zstd").ZstdFile(file))
    try:
        return cast("BinaryIO", io.BufferedReader(_Zstandard(file, importlib.import_module("zstandard")), 1 << 16))
    except ImportError:
        raise DataError(
            "a .tar.zst needs the package zstandard, which is not installed. Use `pip install zstandard`, or pack the "
            "images as a plain .tar"
        ) from None


class _Zstandard(io.RawIOBase):
    """Stream that seeks backwards by decompressing again from the start, like the streams of the standard library."""

    def __init__(self, file: BinaryIO, module: Any) -> None:
        self._file, self._module = file, module
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._reader = self._module.ZstdDecompressor().stream_reader(self._file, read_across_frames=True, closefd=False)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._reader.read(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset if whence == io.SEEK_SET else self._at + offset
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the size of a compressed stream is unknown")
        if target < self._at:
            self._restart()
        while self._at < target and (content := self._reader.read(min(target - self._at, 1 << 20))):
            self._at += len(content)
        return self._at


class _Tar:
    def __init__(self, stream: BinaryIO, is_sequential: bool) -> None:
        self._stream, self.is_sequential = stream, is_sequential

    def list(self) -> Contents:
        index = _Index()
        is_cut = self._add_members(index)
        # `cat a.tar b.tar` leaves an end marker in the middle.
        while not is_cut and self._find_next():
            is_cut = self._add_members(index)
        return index.contents(is_cut)

    def _add_members(self, index: _Index) -> bool:
        """Adds the members up to the next end marker. Returns True if the marker is missing."""
        with tarfile.open(fileobj=self._stream, mode="r:") as tar:
            for info in tar:
                # tarfile keeps all members in memory, and a large archive has millions.
                tar.members = []  # type: ignore[attr-defined]
                if info.isreg():
                    if info.sparse is not None:
                        raise DataError(f"{info.name} is a sparse file. Pack it without tar's option --sparse")
                    index.add(info.name, place=(info.offset_data, info.size))
                elif info.islnk():
                    first = info.linkname.lstrip("/")
                    index.add(info.name, place=index.files.get(_inside(first) or ""), target=first)
                elif info.issym():
                    index.add(info.name, target=posixpath.join(posixpath.dirname(info.name), info.linkname))
                elif not info.isdir():
                    index.special.append(info.name)
            return self._check_end(tar.offset)

    def _find_next(self) -> bool:
        """Seeks to the next block that is not empty. Returns False at the end, or if the block is no member."""
        while block := self._stream.read(tarfile.BLOCKSIZE):
            if block.strip(b"\0"):
                try:
                    tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                except tarfile.HeaderError:
                    return False
                self._stream.seek(self._stream.tell() - len(block))
                return True
        return False

    def _check_end(self, offset: int) -> bool:
        """Returns True if the end marker is missing. `tarfile` takes a damaged header for the end.

        Raises:
            DataError: There is other content where the end marker should be.
        """
        self._stream.seek(offset)
        block = self._stream.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
            raise DataError(f"it is damaged or truncated at byte {offset:,}")
        return not block

    def read(self, place: Place) -> bytes:
        offset, size = place
        self._stream.seek(offset)
        content = self._stream.read(size)
        if len(content) < size:
            raise DataError(f"it is truncated at byte {offset + len(content):,}")
        return content


class _Zip:
    is_sequential = False

    def __init__(self, opened: zipfile.ZipFile) -> None:
        self._opened = opened
        self._members = {(info.header_offset, info.file_size): info for info in opened.infolist()}

    def list(self) -> Contents:
        index = _Index()
        for place, info in self._members.items():
            # Some Windows tools write backslashes.
            name = info.filename.replace("\\", "/") if "/" not in info.filename else info.filename
            mode = info.external_attr >> 16
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise DataError(f"it is encrypted ({name}). Unpack it and use the folder instead")
            if stat.S_ISLNK(mode):
                target = self._read(info, _LONGEST_LINK).decode(errors="surrogateescape")
                index.add(name, target=posixpath.join(posixpath.dirname(name), target))
            elif stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0:
                index.add(name, place=place)
            else:
                index.special.append(name)
        return index.contents(is_cut=False)

    def read(self, place: Place) -> bytes:
        return self._read(self._members[place], place[1])

    def _read(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        """Reads a member up to its declared size, because the packed data may expand to any size."""
        # Deflate expands to at most the requested size. Other methods expand all input that was read, at least 4 KiB.
        step = limit if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 4096
        parts: list[bytes] = []
        with self._opened.open(info) as member:
            while limit > 0 and (part := member.read(min(step, limit))):
                parts.append(part)
                limit -= len(part)
        return b"".join(parts)


class _Index:
    """Files and links of an archive, in archive order. A later one replaces an earlier one of the same name."""

    def __init__(self) -> None:
        self.files: dict[str, Place] = {}
        self.special: list[str] = []
        self._links: dict[str, str | None] = {}
        self._outside: list[str] = []

    def add(self, name: str, *, place: Place | None = None, target: str | None = None) -> None:
        path = _inside(name.lstrip("/"))
        if path is None:
            self._outside.append(name)
            return
        self.files.pop(path, None)
        self._links.pop(path, None)
        if place is not None:
            self.files[path] = place
        elif target is not None:
            self._links[path] = _inside(target)

    def contents(self, is_cut: bool) -> Contents:
        files, lost = dict(self.files), list(self._outside)
        folders = self._list_folders() if self._links else {}

        def follow(link: str, path: str, above: tuple[str, ...], entered: set[str]) -> None:
            """Adds the files that a link leads to.

            Args:
                link: Path of the link itself.
                path: Path by which the link is reached. It differs from `link` inside a folder that another link leads
                    to.
                above: Folders of the links on the way to this link.
                entered: Folders that were read through links inside linked folders. Each is read once, because the
                    number of paths could grow exponentially.
            """
            target = self._resolve(link)
            parents = (*above, posixpath.dirname(link))
            if target is not None and target in self.files:
                files[path] = self.files[target]
                return
            is_cycle = any(f"{folder}/".startswith(f"{target}/") for folder in parents)
            is_repeated = bool(above) and target in entered
            if target is None or target not in folders or is_cycle or is_repeated or len(parents) > _MAX_LINKS:
                lost.append(path)
                return
            if above:
                entered.add(target)
            for inner in folders[target]:
                place = path + inner[len(target) :]
                if inner in self._links:
                    follow(inner, place, parents, entered)
                else:
                    files[place] = self.files[inner]

        for link in self._links:
            follow(link, link, (), set())
        return Contents(files, self.special, lost, is_cut)

    def _list_folders(self) -> dict[str, list[str]]:
        """Returns the files and links below each folder."""
        folders: dict[str, list[str]] = {}
        for path in (*self.files, *self._links):
            for end in (i for i, sign in enumerate(path) if sign == "/"):
                folders.setdefault(path[:end], []).append(path)
        return folders

    def _resolve(self, path: str) -> str | None:
        """Returns the path after all links in it are followed. None if it leads outside or into a cycle."""
        for _ in range(_MAX_LINKS):
            parts = path.split("/")
            heads = ("/".join(parts[:n]) for n in range(1, len(parts) + 1))
            link = next((head for head in heads if head in self._links), None)
            if link is None:
                return path
            target = self._links[link]
            if target is None:
                return None
            path = posixpath.normpath(target + path[len(link) :])
        return None


def _inside(path: str) -> str | None:
    """Returns the normalized path. None if it leads out of the archive or contains a NUL."""
    plain = posixpath.normpath(path)
    leads_out = plain.startswith("/") or plain == ".." or plain.startswith("../")
    return None if leads_out or "\0" in plain else plain
