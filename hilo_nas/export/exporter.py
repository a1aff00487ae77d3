"""The interface of an exporter, and how its files reach their place: verified, and without replacing others unasked."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hilo_nas.errors import StorageError, UsageError
from hilo_nas.export.source import NetworkSource, StudySource

__all__ = ["ExportOptions", "Exporter", "check_options", "export"]

Source = TypeVar("Source", NetworkSource, StudySource, contravariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Choices of exporters; each reads those that it declares."""

    batch_size: int = 1024
    """Images per training step over all devices, which learning rates are scaled to."""
    epochs: int = 300
    """Epochs of the full training."""


class Exporter(Protocol[Source]):
    """Writer of a network or a study for one trainer, runtime or tool.

    One is a file of this package and a name in `hilo_nas.export.registry`. Its module imports no heavy library at its
    head, so that the command line can list it. `hilo_nas.testing.check_exporter` tests what is promised here.
    """

    @property
    def name(self) -> str:
        """What `--format` takes."""

    @property
    def source_type(self) -> type[Any]:
        """`NetworkSource` or `StudySource`."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that `write` makes."""

    @property
    def options(self) -> frozenset[str]:
        """Names of the choices that it reads: fields of `ExportOptions`, and `weights`."""

    @property
    def can_replace(self) -> bool:
        """Permission to replace files of an earlier export; False where other programs may have them open."""

    def check(self, source: Source, options: ExportOptions) -> None:
        """Raises a UsageError that names every reason why the source cannot be exported so; cheap."""

    def write(self, source: Source, folder: Path, options: ExportOptions) -> list[str]:
        """Writes all files into an empty folder; returns notes for the user."""

    def verify(self, source: Source, folder: Path) -> str:
        """Reads the written files and proves them; returns what was found, a sentence.

        Raises:
            HiloNasError: They are not what the source is.
        """

    def next_step(self, source: Source, files: Sequence[Path]) -> str:
        """Returns what to type next, a line or several, for files in the order of `files`."""


def check_options(exporter: Exporter[Any], given: Sequence[str]) -> None:
    """Raises UsageError for a choice that an exporter does not read, with the formats that read it."""
    from hilo_nas.export.registry import EXPORTERS

    for name in given:
        if name not in exporter.options:
            readers = " or ".join(other.name for other in EXPORTERS.values() if name in other.options)
            raise UsageError(f"{name} goes with format {readers}, but got {exporter.name}")


def export(
    exporter: Exporter[Any],
    source: NetworkSource | StudySource,
    output: Path,
    options: ExportOptions,
    *,
    force: bool = False,
) -> tuple[list[Path], list[str]]:
    """Writes an export, verifies it, and only then moves it to its place.

    Args:
        exporter: Its format.
        source: What is exported.
        output: The folder to write to; made if it is not there. Files that the format does not write are left alone.
            For a format of one file also the path of that file, with the format's ending.
        options: Choices of the format.
        force: Replace files of an earlier export.

    Returns:
        The files, and sentences for the user.

    Raises:
        UsageError: The source cannot be exported so, the folder cannot be made, or files are there without `force`.
        StorageError: The folder cannot be written.
        ConversionError: The files do not give what the source is.
    """
    if not isinstance(source, exporter.source_type):
        wanted = "a whole study" if exporter.source_type is StudySource else "one network: a trial or an ARCH.yaml"
        raise UsageError(f"format {exporter.name} exports {wanted}, but got {source.name}. Use another --format.")
    exporter.check(source, options)
    paths = _places(exporter, output)
    can_replace = force and exporter.can_replace
    occupied = [path for path in paths if path.is_dir() or (os.path.lexists(path) and not can_replace)]
    if occupied:
        kinds = "folders" if all(path.is_dir() for path in occupied) else "files"
        is_forced = kinds == "files" and exporter.can_replace
        way_out = "Use --force, or another place with -o." if is_forced else "Choose another place with -o."
        names = ", ".join(str(path) for path in occupied)
        raise UsageError(f"an export must not replace what is there, but found {kinds}: {names}. {way_out}")
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}: {error.strerror or error}. Choose another with -o."
        ) from error
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-", suffix=".tmp") as draft:
            notes = exporter.write(source, Path(draft), options)
            notes = [*notes, exporter.verify(source, Path(draft))]
            for name, path in zip(exporter.files, paths, strict=True):
                os.replace(Path(draft) / name, path)
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    return paths, notes


def _places(exporter: Exporter[Any], output: Path) -> list[Path]:
    """Returns where the files go: into a folder, or to the path of a format's only file."""
    if len(exporter.files) == 1 and output.suffix == Path(exporter.files[0]).suffix and not output.is_dir():
        return [output]
    return [output / name for name in exporter.files]
