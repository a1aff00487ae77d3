"""The interface of an exporter, and how its files reach a folder: nothing is replaced unasked, nothing is deleted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from hilo_nas.errors import StorageError, UsageError
from hilo_nas.export.source import ExportSource

__all__ = ["ExportOptions", "Exporter", "export"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Choices of exporters; each reads those that concern it."""

    batch_size: int = 1024
    """Images per training step over all devices, which learning rates are scaled to."""
    epochs: int = 300
    """Epochs of the full training."""


class Exporter(Protocol):
    """Writes an architecture for one trainer or runtime."""

    @property
    def name(self) -> str:
        """What `--format` takes."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that `write` makes."""

    def check(self, source: ExportSource, options: ExportOptions) -> None:
        """Raises an error where the source cannot be exported so; cheap."""

    def write(self, source: ExportSource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes all files into a folder that exists, each whole or not at all; returns notes for the user."""

    def verify(self, folder: Path) -> str:
        """Checks the files of a folder and returns what was found, a sentence; raises an error where they are wrong."""

    def next_step(self, folder: Path) -> str:
        """Returns what the user can do with the files, a line or several."""


def export(
    exporter: Exporter, source: ExportSource, folder: Path, options: ExportOptions, *, force: bool = False
) -> tuple[list[Path], list[str]]:
    """Writes and verifies an export.

    Args:
        exporter: Its format.
        source: What is exported.
        folder: Where to write; made if it is not there. Files that the format does not write are left alone.
        options: Choices of the format.
        force: Replace files of an earlier export.

    Returns:
        The files, and sentences for the user.

    Raises:
        UsageError: The source cannot be exported so, the folder cannot be made, or files are there without `force`.
        StorageError: The folder cannot be written.
        ConversionError: The files do not give what the network gives.
    """
    exporter.check(source, options)
    paths = [folder / name for name in exporter.files]
    occupied = [path for path in paths if path.is_dir() or ((path.exists() or path.is_symlink()) and not force)]
    if occupied:
        kinds = "folders" if all(path.is_dir() for path in occupied) else "files"
        way_out = "Choose another folder with -o." if kinds == "folders" else "Use --force, or another folder with -o."
        names = ", ".join(str(path) for path in occupied)
        raise UsageError(f"an export must not replace what is there, but found {kinds}: {names}. {way_out}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}: {error.strerror or error}. Choose another with -o."
        ) from error
    try:
        notes = exporter.write(source, folder, options)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    return paths, [*notes, exporter.verify(folder)]
