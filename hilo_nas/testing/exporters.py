"""Conformance test for exporters."""

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
    """Exports a source and checks that the exporter conforms to `hilo_nas.export.Exporter`.

    Args:
        exporter: The exporter to test.
        source: A source that the exporter can export.
        folder: Folder for the exported files; created if it does not exist.
        options: Export options. Defaults to `ExportOptions()`.

    Raises:
        AssertionError: The exporter breaks a rule of the interface.
    """
    options = options or ExportOptions()
    _check_declaration(exporter, source)
    exporter.check(source, options)
    _check_replacing(exporter, source, folder / "occupied", options)
    written = folder / "written"
    written.mkdir(parents=True)
    notes = exporter.write(source, written, options)
    found = sorted(path.name for path in written.iterdir())
    assert found == sorted(exporter.files), f"write must create exactly the files {exporter.files}, but created {found}"
    notes = [*notes, exporter.verify(source, written)]
    assert all(note.strip() for note in notes), (
        f"write and verify must return notes that are not empty, but got {notes}"
    )
    files = [written / file for file in exporter.files]
    step = exporter.next_step(source, files)
    assert any(str(path) in step for path in files), f"next_step must name one of the files, but got {step!r}"
    for path in files:
        assert str(folder).encode() not in path.read_bytes(), f"{path.name} must not contain a path of this machine"
    _check_damage(exporter, source, files)


def _check_declaration(exporter: Exporter[Any], source: NetworkSource | StudySource) -> None:
    name = exporter.name
    is_word = name.replace("-", "_").isidentifier() and name.islower()
    assert is_word, f"name must be of lower-case words and hyphens, but got {name!r}"
    known = {field.name for field in dataclasses.fields(ExportOptions)} | {"weights"}
    assert exporter.options <= known, f"options must be among {sorted(known)}, but got {sorted(exporter.options)}"
    assert exporter.files, "files must name at least one file"
    assert all(Path(file).name == file for file in exporter.files), (
        f"files must be names without folders, but got {exporter.files}"
    )
    kinds = (NetworkSource, StudySource)
    assert exporter.source_type in kinds, f"source_type must be one of {kinds}, but got {exporter.source_type}"
    assert isinstance(source, exporter.source_type), f"the test needs a {exporter.source_type}"


def _check_replacing(
    exporter: Exporter[Any], source: NetworkSource | StudySource, folder: Path, options: ExportOptions
) -> None:
    folder.mkdir(parents=True)
    for file in exporter.files:
        (folder / file).write_text("existing content")
    for force in (False,) if exporter.can_replace else (False, True):
        try:
            export(exporter, source, folder, options, force=force)
        except UsageError:
            continue
        raise AssertionError(f"an export must not replace existing files with force={force}")
    texts = {(folder / file).read_text() for file in exporter.files}
    assert texts == {"existing content"}, "an export that is refused must not change existing files"


def _check_damage(exporter: Exporter[Any], source: NetworkSource | StudySource, files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")
    try:
        exporter.verify(source, files[0].parent)
    except HiloNasError:
        return
    raise AssertionError("verify must raise an error for empty files")
