"""File types by name: images that Pillow reads, archives, and files that operating systems create."""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Mapping

__all__ = [
    "ARCHIVE_ENDINGS",
    "archive_stem",
    "describe_impostor",
    "describe_kinds",
    "ending_of",
    "image_endings",
    "is_image",
    "is_litter",
]

ARCHIVE_ENDINGS = (
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
    ".zip",
)
"""Extensions of the archives that can be read."""

_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}


@functools.cache
def image_endings() -> frozenset[str]:
    """Returns the extensions of the files that Pillow can read on this machine, in lower case.

    HEIC is included if `pillow-heif` is installed. Formats that Pillow only identifies (HDF5, GRIB, MPEG and others)
    are not included.
    """
    from PIL import EpsImagePlugin, Image, ImageFile

    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    endings = Image.registered_extensions()  # Loads all plugins.
    unreadable = {name for name, (factory, _) in Image.OPEN.items() if _is_stub(factory, ImageFile.StubImageFile)}
    readable = {*Image.OPEN, "MPO"}  # The opener of JPEG also opens MPO.
    unreadable |= {"MPEG", *(() if EpsImagePlugin.has_ghostscript() else ("EPS",))}
    return frozenset(ending for ending, name in endings.items() if name in readable - unreadable)


def _is_stub(factory: object, stub: type) -> bool:
    return isinstance(factory, type) and issubclass(factory, stub)


def is_image(name: str) -> bool:
    """Returns True if Pillow reads files with this extension."""
    return ending_of(name) in image_endings()


def archive_stem(name: str) -> str | None:
    """Returns the name of an archive without its extension, or None if it is not an archive."""
    lower = name.lower()
    for ending in sorted(ARCHIVE_ENDINGS, key=len, reverse=True):
        if lower.endswith(ending) and len(lower) > len(ending):
            return name[: -len(ending)]
    return None


def ending_of(name: str) -> str:
    """Returns the last extension with its dot, in lower case. Empty if there is none."""
    return posixpath.splitext(name)[1].lower()


def is_litter(path: str) -> bool:
    """Returns True if any part of a path is hidden or was created by an operating system."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in path.split("/"))


def describe_impostor(content: bytes, kind: str) -> str:
    """Returns a description of a file that is not what its name says. Empty if the first 512 bytes show no problem.

    Args:
        content: The file, or its beginning.
        kind: Expected type: `image`, `archive` ...
    """
    head = content[:512].lstrip().lower()
    if not content:
        return "the file is empty"
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return f"the file is a web page or XML, not {'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    if head.startswith(b"version https://git-lfs"):
        return f"the file is a Git LFS pointer, not the {kind} itself: run git lfs pull"
    return ""


def describe_kinds(counts: Mapping[str, int]) -> str:
    """Returns numbers of files in words. Keys are extensions, `no ending` and `special` (pipes and devices)."""
    words = {"": "without extension", "no ending": "without extension", "special": "pipes or devices"}
    return ", ".join(f"{count:,} {words.get(ending, ending)}" for ending, count in counts.items())
