"""Conformance test of exporters: what `hilo_nas.export.Exporter` promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.export import Exporter, ExportOptions, NetworkSource, StudySource, export

__all__ = ["check_exporter"]


def check_exporter(
    exporter: Exporter[Any],
    source: NetworkSource | StudySource,
    folder: Path,
    options: ExportOptions | None = None,
) -> None:
    """Exports a source several times and checks every promise of the interface.

    Args:
        exporter: The exporter to test.
        source: A source that it can export.
        folder: An empty folder to write to.
        options: Choices; the defaults if left out.

    Raises:
        AssertionError: A promise is broken.
    """
    options = options or ExportOptions()
    _check_declaration(exporter, source)
    exporter.check(source, options)
    files, notes = export(exporter, source, folder / "out", options)
    assert [path.name for path in files] == list(exporter.files), f"export must give {exporter.files}, but gave {files}"
    assert all(note.strip() for note in notes), f"notes and what verify returns must be sentences, but got {notes}"
    _check_step(exporter, source, files)
    _check_places(exporter, source, folder, files)
    _check_replacing(exporter, source, files, options)
    _check_writing(exporter, source, folder, options)


def _check_declaration(exporter: Exporter[Any], source: NetworkSource | StudySource) -> None:
    name = exporter.name
    assert name.isidentifier() and name.islower(), f"name must be a lower-case word, but is {name!r}"  # noqa: PT018
    known = {field.name for field in dataclasses.fields(ExportOptions)} | {"weights"}
    assert exporter.options <= known, f"options must be among {sorted(known)}, but are {sorted(exporter.options)}"
    assert exporter.files, "files must name at least one file"
    assert all(Path(file).name == file for file in exporter.files), f"files must be plain names, not {exporter.files}"
    kinds = (NetworkSource, StudySource)
    assert exporter.source_type in kinds, f"source_type must be one of {kinds}, but is {exporter.source_type}"
    assert isinstance(source, exporter.source_type), "the test needs a source of the exporter's source_type"


def _check_step(exporter: Exporter[Any], source: NetworkSource | StudySource, files: list[Path]) -> None:
    step = exporter.next_step(source, files)
    assert any(str(path) in step for path in files), f"next_step must name a file, but says {step!r}"


def _check_places(
    exporter: Exporter[Any], source: NetworkSource | StudySource, folder: Path, files: list[Path]
) -> None:
    for path in files:
        assert str(folder).encode() not in path.read_bytes(), f"{path.name} must hold no path of this machine"
    exporter.verify(source, files[0].parent)


def _check_replacing(
    exporter: Exporter[Any], source: NetworkSource | StudySource, files: list[Path], options: ExportOptions
) -> None:
    before = {path: path.read_bytes() for path in files}
    ways = (False,) if exporter.can_replace else (False, True)
    for force in ways:
        try:
            export(exporter, source, files[0].parent, options, force=force)
        except UsageError:
            pass
        else:
            raise AssertionError(f"an export must not replace files that are there, with force={force}")
    assert {path: path.read_bytes() for path in files} == before, "a refused export must leave the files alone"
    if exporter.can_replace:
        export(exporter, source, files[0].parent, options, force=True)


def _check_writing(
    exporter: Exporter[Any], source: NetworkSource | StudySource, folder: Path, options: ExportOptions
) -> None:
    damaged = folder / "damaged"
    damaged.mkdir()
    exporter.write(source, damaged, options)
    found = sorted(path.name for path in damaged.iterdir())
    assert found == sorted(exporter.files), f"write must make {exporter.files} and nothing else, but made {found}"
    for file in exporter.files:
        (damaged / file).write_bytes(b"")
    try:
        exporter.verify(source, damaged)
    except HiloNasError:
        return
    raise AssertionError("verify must raise an error for empty files")
