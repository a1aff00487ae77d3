"""The files of a folder or archive as one list, wherever they lie: loose, in archives, or in archives of archives."""

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
"""Size of an archive inside an archive that is still read, because it is held in memory."""


class Entry(NamedTuple):
    """One file."""

    file: str
    """Path on disk: of the file itself, or of the archive that holds it."""
    within: tuple[Place, ...]
    """Its place inside that archive, and inside the archive in there; empty for a loose file."""
    path: str
    """Path inside the source; an archive's name without its ending is a folder of it."""
    n_outer: int
    """Leading folders of `path` up to and including the innermost archive's name; 0 for a loose file."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of `path`."""
        return tuple(self.path.split("/")[:-1])


@dataclasses.dataclass(kw_only=True)
class Tree:
    """The files of a source."""

    images: list[Entry] = dataclasses.field(default_factory=list)
    others: list[Entry] = dataclasses.field(default_factory=list)
    """Files that are no images, and not what an operating system leaves behind."""
    empty: set[tuple[str, ...]] = dataclasses.field(default_factory=set)
    """Folders on disk that hold nothing, or what an operating system leaves behind; others may hold more as well."""
    special: int = 0
    """Number of pipes, sockets and devices."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Warnings about archives."""

    def count_skipped(self) -> dict[str, int]:
        """Returns the number of files that are no images, by ending."""
        counts = Counter(ending_of(entry.path) or "no ending" for entry in self.others)
        return dict(counts.most_common()) | ({"special": self.special} if self.special else {})

    def holds_classes(self) -> bool:
        """Whether any image lies in a folder."""
        return any("/" in entry.path for entry in self.images)


def list_tree(path: Path) -> Tree:
    """Lists a folder or archive. Archives in a folder count where no image lies in a class folder.

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
        tree.notes.append(f"archives beside folders of images are not read: {names}. Unpack them, or name one itself")
    elif archives:
        tree.others = [entry for entry in tree.others if not archive_stem(entry.path)]
        for archive in archives:
            _add_archive(tree, archive.file, archive.path)
    tree.notes += outside.describe(tree.images)
    return tree


class _Outside:
    """Tells which files of a folder lie elsewhere, because links lead to them."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, bool] = {}
        """Whether a folder lies outside."""

    def describe(self, images: Iterable[Entry]) -> list[str]:
        """Returns a sentence on the images that lie outside; none where all lie inside."""
        found = [entry for entry in images if self._is_outside(entry.file)]
        if not found:
            return []
        what = "1 image lies" if len(found) == 1 else f"{len(found):,} images lie"
        return [f"{what} outside {os.path.basename(self._root)}, through links, for instance {found[0].path}"]

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
    """Reads files in the order of their names, those of a compressed tar in its own; an unreadable one gives its error.

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
    """Reads a file of an archive, whose declared size bounds what is read: a small archive may hold a huge file."""
    memory.check_file(place[1])
    return archive.read(place)


def _order(entry: Entry) -> tuple[list[str | int], str, list[str | int]]:
    """Orders archive by archive, and numbers in names by their value."""
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
    """Puts an archive's name before what it raises."""
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
    """Adds what an archive holds; `path` is its own inside the source, empty where it is the source."""
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
                raise DataError(f"{entry.path} in it has {place[1] / 2**30:,.0f} GiB. Unpack it, and give the folder")
            inside = io.BytesIO(_read_member(archive, place, DecodingMemory()))
            _add_contents(tree, inside, file, entry.path, entry.within, f"{archive_name}/{entry.path}")


def _notes(contents: Contents, name: str) -> Iterator[str]:
    if contents.lost:
        number = count_of(len(contents.lost), "link or name", "links and names")
        lead, are = agree(len(contents.lost), "leads", "lead"), agree(len(contents.lost), "is", "are")
        where = "out of it, to nothing or to a folder that is read already"
        yield f"{number} of {name} {lead} {where} and {are} left out, for instance {contents.lost[0]}"
    if contents.is_cut:
        yield f"{name} has no end marker and may be cut off; what is there is read"
