"""List of the files of a folder or archive: loose, in archives, or in archives inside archives."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hilo_nas.data.archives import Archive, Contents, Place, open_archive
from hilo_nas.data.decoding_memory import DecodingMemory
from hilo_nas.data.formats import archive_stem, ending_of, is_image, is_litter
from hilo_nas.data.walk import is_special, list_empty, walk_files
from hilo_nas.errors import DataError
from hilo_nas.text.plurals import agree, count_of

__all__ = ["Entry", "Tree", "list_tree", "read_entries"]

_MAX_INNER_BYTES = 4 * 2**30
"""Maximum size in bytes of an archive inside an archive, because it is held in memory."""


class Entry(NamedTuple):
    """File of a source."""

    file: str
    """Path on disk of the file, or of the archive that holds it."""
    within: tuple[Place, ...]
    """Position inside that archive, and in the archive inside it. Empty for a loose file."""
    path: str
    """Path inside the source. The name of an archive without its extension is one of the folders."""
    n_outer: int
    """Number of leading folders of `path` up to the name of the innermost archive. 0 for a loose file."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of `path`."""
        return tuple(self.path.split("/")[:-1])


@dataclasses.dataclass(kw_only=True)
class Tree:
    """Files of a source, divided into images and others."""

    images: list[Entry] = dataclasses.field(default_factory=list)
    others: list[Entry] = dataclasses.field(default_factory=list)
    """Files that are not images, without those that operating systems create."""
    empty: set[tuple[str, ...]] = dataclasses.field(default_factory=set)
    """Folders on disk that are empty or hold files that operating systems create. Some may hold other files too."""
    special: int = 0
    """Number of pipes, sockets and devices."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Warnings about archives."""

    def count_skipped(self) -> dict[str, int]:
        """Returns the number of files that are not images, by extension."""
        counts = Counter(ending_of(entry.path) or "no ending" for entry in self.others)
        return dict(counts.most_common()) | ({"special": self.special} if self.special else {})

    def holds_classes(self) -> bool:
        """Returns True if any image is in a folder."""
        return any("/" in entry.path for entry in self.images)


def list_tree(path: Path) -> Tree:
    """Returns the files of a folder or archive. Archives in a folder are read only if no image is in a class folder.

    Raises:
        DataError: An archive is damaged, encrypted or needs a package that is not installed.
        OSError: A folder or file cannot be read.
    """
    tree = Tree()
    if path.is_file():
        _add_archive(tree, str(path), "")
        return tree
    outside = _Outside(path)
    for relative, entry in walk_files(path):
        if is_litter(relative):
            _add_empty(tree, relative.rpartition("/")[0])
            continue
        if is_special(entry):
            tree.special += 1
        else:
            _add_file(tree, Entry(entry.path, (), relative, 0))
    for folder in list_empty(path):
        _add_empty(tree, folder)
    archives = [entry for entry in tree.others if archive_stem(entry.path)]
    if tree.holds_classes() and archives:
        names = ", ".join(entry.path for entry in archives[:3]) + (" and others" if len(archives) > 3 else "")
        tree.notes.append(
            f"archives next to folders of images are not read: {names}. Unpack them, or use one of them as the source"
        )
    elif archives:
        tree.others = [entry for entry in tree.others if not archive_stem(entry.path)]
        for archive in archives:
            _add_archive(tree, archive.file, archive.path)
    tree.notes += outside.describe(tree.images)
    return tree


class _Outside:
    """Detection of files that are outside a folder because of links."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, bool] = {}
        """True if a folder is outside of the source, by path."""

    def describe(self, images: Iterable[Entry]) -> list[str]:
        """Returns a list of one sentence about images outside of the source, or an empty list if there are none."""
        found = [entry for entry in images if self._is_outside(entry.file)]
        if not found:
            return []
        what = "1 image is" if len(found) == 1 else f"{len(found):,} images are"
        return [f"{what} outside {os.path.basename(self._root)}, because of links, for example {found[0].path}"]

    def _is_outside(self, file: str) -> bool:
        if os.path.islink(file):
            return self._leads_out(file)
        folder = os.path.dirname(file)
        if folder not in self._folders:
            self._folders[folder] = self._leads_out(folder)
        return self._folders[folder]

    def _leads_out(self, path: str) -> bool:
        return not Path(os.path.realpath(path)).is_relative_to(self._root)


def read_entries(entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes | Exception]]:
    """Yields each file with its content, or with the error if it cannot be read.

    Files are sorted by name. Files of a compressed tar are in archive order.

    Raises:
        DataError: An archive is damaged.
    """
    memory = DecodingMemory()
    for file, group in itertools.groupby(sorted(entries, key=_order), key=lambda entry: entry.file):
        members = list(group)
        if not members[0].within:
            for entry in members:
                yield entry, _attempt(lambda file=file: _read_file(Path(file), memory))  # type: ignore[misc]
        else:
            with open(file, "rb") as opened, _named(file):
                yield from _read_within(opened, members, 0, memory)


def _read_file(path: Path, memory: DecodingMemory) -> bytes:
    memory.check_file(path.stat().st_size)
    return path.read_bytes()


def _read_member(archive: Archive, place: Place, memory: DecodingMemory) -> bytes:
    """Reads a file of an archive. Checks its declared size first, because a small archive may hold a huge file."""
    memory.check_file(place[1])
    return archive.read(place)


def _order(entry: Entry) -> tuple[list[str | int], str, list[str | int]]:
    """Returns a sort key that groups by archive and orders numbers in names by value."""
    outer = "/".join(entry.folders[: entry.n_outer])
    return _numbered(outer), entry.file if entry.within else "", _numbered(entry.path)


def _numbered(name: str) -> list[str | int]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name.lower()))]


def _read_within(
    file: BinaryIO, entries: Sequence[Entry], level: int, memory: DecodingMemory
) -> Iterator[tuple[Entry, bytes | Exception]]:
    with open_archive(file) as archive:
        if archive.is_sequential:
            entries = sorted(entries)
        for place, group in itertools.groupby(entries, key=lambda entry: entry.within[level]):
            members = list(group)
            content = _attempt(lambda place=place: _read_member(archive, place, memory))  # type: ignore[misc]
            if len(members[0].within) == level + 1:
                yield from ((entry, content) for entry in members)
            elif isinstance(content, Exception):
                raise content
            else:
                yield from _read_within(io.BytesIO(content), members, level + 1, memory)


def _attempt(read: Callable[[], bytes]) -> bytes | Exception:
    try:
        return read()
    except Exception as error:
        return error


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """Adds the name of an archive to its errors."""
    try:
        yield
    except Exception as error:
        raise DataError(f"the archive {Path(file).name} cannot be read: {error}") from error


def _add_empty(tree: Tree, folder: str) -> None:
    if folder and not is_litter(folder):
        tree.empty.add(tuple(folder.split("/")))


def _add_file(tree: Tree, entry: Entry) -> None:
    (tree.images if is_image(entry.path) else tree.others).append(entry)


def _add_archive(tree: Tree, file: str, path: str) -> None:
    """Adds the files of an archive. `path` is its path inside the source, or empty if it is the source."""
    with open(file, "rb") as opened, _named(file):
        _add_contents(tree, opened, file, path, (), archive_name=Path(file).name)


def _add_contents(
    tree: Tree, opened: BinaryIO, file: str, path: str, within: tuple[Place, ...], archive_name: str
) -> None:
    prefix = f"{archive_stem(path)}/" if path else ""
    with open_archive(opened) as archive:
        contents = archive.list()
        found = Tree()
        for member, place in contents.files.items():
            if not is_litter(member):
                _add_file(found, Entry(file, (*within, place), prefix + member, prefix.count("/")))
        tree.special += len(contents.special)
        tree.notes += _notes(contents, archive_name)
        inner = [e for e in found.others if archive_stem(e.path)] if not found.images and not within else []
        tree.images += found.images
        tree.others += [entry for entry in found.others if entry not in inner] if inner else found.others
        for entry in sorted(inner):
            place = entry.within[-1]
            if place[1] > _MAX_INNER_BYTES:
                raise DataError(
                    f"{entry.path} in it has {place[1] / 2**30:,.0f} GiB. Unpack it and use the folder instead"
                )
            inside = io.BytesIO(_read_member(archive, place, DecodingMemory()))
            _add_contents(tree, inside, file, entry.path, entry.within, f"{archive_name}/{entry.path}")


def _notes(contents: Contents, name: str) -> Iterator[str]:
    if contents.lost:
        number = count_of(len(contents.lost), "link or name", "links and names")
        lead, are = agree(len(contents.lost), "leads", "lead"), agree(len(contents.lost), "is", "are")
        where = "outside, to nothing or to a folder that is already read"
        yield f"{number} of {name} {lead} {where}, and {are} left out, for example {contents.lost[0]}"
    if contents.is_cut:
        yield f"{name} has no end marker and may be truncated; the files in it are read"
