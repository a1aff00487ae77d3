"""Kinds of files by their names: images that Pillow opens, archives, and litter of operating systems."""

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
"""Endings of the archives that can be read."""

_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}


@functools.cache
def image_endings() -> frozenset[str]:
    """Returns the endings of the files that Pillow can read here, in lower case.

    HEIC counts where `pillow-heif` is installed. Formats that Pillow knows by name only (HDF5, GRIB, MPEG and others)
    do not count.
    """
    from PIL import EpsImagePlugin, Image, ImageFile

    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    endings = Image.registered_extensions()  # Loads every plugin.
    unreadable = {name for name, (factory, _) in Image.OPEN.items() if _is_stub(factory, ImageFile.StubImageFile)}
    readable = {*Image.OPEN, "MPO"}  # MPO has no opener of its own: that of JPEG opens it.
    unreadable |= {"MPEG", *(() if EpsImagePlugin.has_ghostscript() else ("EPS",))}
    return frozenset(ending for ending, name in endings.items() if name in readable - unreadable)


def _is_stub(factory: object, stub: type) -> bool:
    return isinstance(factory, type) and issubclass(factory, stub)


def is_image(name: str) -> bool:
    """Returns True where Pillow reads files of that ending."""
    return ending_of(name) in image_endings()


def archive_stem(name: str) -> str | None:
    """Returns the name without its ending where it is that of an archive, else None."""
    lower = name.lower()
    for ending in sorted(ARCHIVE_ENDINGS, key=len, reverse=True):
        if lower.endswith(ending) and len(lower) > len(ending):
            return name[: -len(ending)]
    return None


def ending_of(name: str) -> str:
    """Returns the last ending with its dot, in lower case; empty where there is none."""
    return posixpath.splitext(name)[1].lower()


def is_litter(path: str) -> bool:
    """Returns True where any part of a path is hidden, or was left behind by an operating system."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in path.split("/"))


def describe_impostor(content: bytes, kind: str) -> str:
    """Returns in words what lies in place of a file, by its first 512 bytes; empty where it may be that file.

    Args:
        content: The file, or its beginning.
        kind: What it should be: `image`, `archive` ...
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
    """Returns files by their endings in words; keys are endings, `no ending` and `special` (pipes and devices)."""
    words = {"": "without ending", "no ending": "without ending", "special": "pipes or devices"}
    return ", ".join(f"{count:,} {words.get(ending, ending)}" for ending, count in counts.items())
