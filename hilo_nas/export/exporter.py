"""Interface of exporters, and the function that verifies an export before it moves the files to the output folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hilo_nas.errors import StorageError, UsageError
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.source import NetworkSource, StudySource

__all__ = ["Exporter", "check_options", "export"]

Source = TypeVar("Source", NetworkSource, StudySource, contravariant=True)


class Exporter(Protocol[Source]):
    """Writer of a network or a study for one trainer, runtime or tool.

    A new exporter is one file in this package and one line in `hilo_nas.export.registry`. Its module must not import
    heavy libraries at the top, because the command line lists all exporters. `hilo_nas.testing.check_exporter` tests
    this interface.
    """

    @property
    def name(self) -> str:
        """Name of the format, as given to `--format`."""

    @property
    def source_type(self) -> type[Any]:
        """Type of source: `NetworkSource` or `StudySource`."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that `write` creates."""

    @property
    def options(self) -> frozenset[str]:
        """Names of the options it reads: fields of `ExportOptions`, and `weights`."""

    @property
    def can_replace(self) -> bool:
        """True if `force` may replace the files of an earlier export. False if other programs may have them open."""

    def check(self, source: Source, options: ExportOptions) -> None:
        """Raises a UsageError with all reasons why the source cannot be exported. Must be fast."""

    def write(self, source: Source, folder: Path, options: ExportOptions) -> list[str]:
        """Writes all files into an empty folder. Returns notes for the user."""

    def verify(self, source: Source, folder: Path) -> str:
        """Reads the written files and compares them with the source. Returns the result as one sentence.

        Raises:
            HiloNasError: The files do not match the source.
        """

    def next_step(self, source: Source, files: Sequence[Path]) -> str:
        """Returns the next commands for the user, one or more lines.

        Args:
            source: The network or study that was exported.
            files: Paths of the written files, in the order of `self.files`.
        """


def check_options(exporter: Exporter[Any], given: Sequence[str]) -> None:
    """Raises a UsageError if the exporter does not read one of the given options."""
    from hilo_nas.export.registry import EXPORTERS

    for name in given:
        if name not in exporter.options:
            readers = " or ".join(other.name for other in EXPORTERS.values() if name in other.options)
            raise UsageError(f"{name} is an option of format {readers}, but got {exporter.name}")


def export(
    exporter: Exporter[Any],
    source: NetworkSource | StudySource,
    output: Path,
    options: ExportOptions,
    *,
    force: bool = False,
) -> tuple[list[Path], list[str]]:
    """Writes an export into a temporary folder, verifies it, and then moves it to `output`.

    Args:
        exporter: The exporter of the format.
        source: The network or study to export.
        output: The output folder. It is created if missing. Other files in it are left alone. If the format has one
            file, `output` may also be the path of that file, with the same extension.
        options: Options of the format.
        force: Replace files of an earlier export.

    Returns:
        The files, and notes for the user.

    Raises:
        UsageError: The format cannot export this source, the folder cannot be created, or files exist and `force` is
            not set.
        StorageError: The folder cannot be written.
        ConversionError: The written files do not match the source.
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
        way_out = "Use --force, or choose another folder with -o." if is_forced else "Choose another folder with -o."
        names = ", ".join(str(path) for path in occupied)
        raise UsageError(f"an export must not replace existing files or folders, but found {kinds}: {names}. {way_out}")
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
    """Returns the paths of the exported files."""
    if len(exporter.files) == 1 and output.suffix == Path(exporter.files[0]).suffix and not output.is_dir():
        return [output]
    return [output / name for name in exporter.files]
