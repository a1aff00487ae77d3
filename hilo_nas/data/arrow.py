"""Images in Parquet and Arrow files, and in what `datasets` saves to disk or loads by name: one row an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hilo_nas.data.formats import ending_of, is_litter
from hilo_nas.data.sources import Sample, Source, SourceSpec
from hilo_nas.data.splits import choose_labelled, role_of
from hilo_nas.data.walk import is_special, walk_files
from hilo_nas.errors import DataError

__all__ = ["find_parts", "open_named", "open_parts"]

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "pixel_values", "bytes")
_LABEL_NAMES = ("label", "labels", "class", "cls", "class_name", "label_name", "category", "target", "fine_label", "y")
_BATCH = 64


class Part(NamedTuple):
    """A Parquet or Arrow file, or a folder that `save_to_disk` wrote."""

    file: Path
    path: str
    """Path inside the source, without its ending."""


class _Columns(NamedTuple):
    image: str
    label: str
    names: list[str] | None
    """Names of the classes where labels are numbers of a ClassLabel."""
    unused: list[str]
    """Further columns that could be labels."""


def find_parts(path: Path) -> list[Part]:
    """Returns the files of rows in a folder, in order; empty where there are none.

    Of what `save_to_disk` wrote, the folders with a `state.json`; elsewhere Parquet files, or Arrow files of a cache.
    """
    if path.is_file():
        return [Part(path, ".")]
    files = [PurePosixPath(name) for name, entry in walk_files(path) if not is_litter(name) and not is_special(entry)]
    saved = [name.parent for name in files if name.name == "state.json"]
    if saved := [folder for folder in saved if (path / folder / "dataset_info.json").is_file()]:
        return [Part(path / folder, str(folder)) for folder in saved]
    for ending in (".parquet", ".arrow"):
        # `datasets` leaves cache-*.arrow of what was computed from the rows.
        rows = [name for name in files if ending_of(name.name) == ending and not name.name.startswith("cache-")]
        if rows:
            return [Part(path / name, str(name.with_suffix(""))) for name in rows]
    return []


def open_parts(spec: SourceSpec, parts: list[Part]) -> Source:
    """Opens the training parts, told by their folders' and files' names.

    Raises:
        DataError: `datasets` is not installed, a file cannot be read, or has no image or no label.
    """
    _check_installed(spec)
    loaded = [_Table(part) for part in parts]
    choice = choose_labelled(spec.text, [_levels(part.path) for part in parts], [""] * len(parts))
    held = {place: len(table) for place, table in enumerate(loaded) if place not in choice.classes}
    split = _tell(parts, choice.classes, held) if held or choice.split else ""
    path = loaded[0].part.file if spec.path is None else spec.path
    return _open(spec, [loaded[place] for place in choice.classes], split, [path if path.is_dir() else path.parent])


def open_named(spec: SourceSpec) -> Source:
    """Opens the training split of a data set that `datasets` loads by its name or folder.

    Raises:
        DataError: `datasets` is not installed, the data set is not there, or has no training split.
    """
    _check_installed(spec)
    import datasets
    from huggingface_hub import constants

    if spec.path is not None:
        _check_data_files(spec, spec.path)
    loaded: Mapping[str, Any] = datasets.load_dataset(str(spec.path or spec.dataset))
    choice = choose_labelled(spec.text, [(str(name),) for name in loaded], [""] * len(loaded))
    names = list(loaded)
    parts = [Part(Path(name), str(name)) for name in names]
    held = {place: len(loaded[name]) for place, name in enumerate(names) if place not in choice.classes}
    split = _tell(parts, choice.classes, held) if held or choice.split else ""
    # `datasets` unpacks archives and files of the hub below its own folders.
    own = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    roots = [*([spec.path] if spec.path else []), *map(Path, own)]
    return _open(spec, [_Table(parts[place], loaded[names[place]]) for place in choice.classes], split, roots)


def _check_data_files(spec: SourceSpec, folder: Path) -> None:
    """Checks that a folder's own description, its README.md, names no data files that lie elsewhere.

    Raises:
        DataError: It does.
    """
    import datasets

    files = datasets.load_dataset_builder(str(folder)).config.data_files or {}
    for file in (str(name).rpartition("::")[2] for names in files.values() for name in names):
        if not Path(os.path.abspath(folder / file)).is_relative_to(folder):
            raise DataError(
                f"the data files of {spec.text} must lie in its folder, but its description names {file}. "
                "Put it there, or give the folder that holds it"
            )


def _levels(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path).parts if part != ".")


def _tell(parts: list[Part], chosen: Mapping[int, str], held: Mapping[int, int]) -> str:
    def name(place: int) -> str:
        levels = _levels(parts[place].path)
        return next((level for level in levels if role_of(level) in ("train", "held", "aside")), "/".join(levels))

    trains = sorted({name(place) for place in chosen})
    counts: Counter[str] = Counter()
    for place, number in held.items():
        counts[name(place)] += number
    out = [f"{part} ({number:,} image{'' if number == 1 else 's'})" for part, number in counts.items()]
    shown = ", ".join(trains[:3]) + (f" and {len(trains) - 3:,} more" if len(trains) > 3 else "")
    sentence = f"{shown} {'trains' if len(trains) == 1 else 'train'}"
    return sentence + (f"; {', '.join(out)} {'is' if len(out) == 1 else 'are'} left out" if out else "")


class _Table:
    """Rows of one part: from `datasets`, or straight from a Parquet file, which is not copied into its cache."""

    def __init__(self, part: Part, dataset: Any = None) -> None:
        import datasets
        import pyarrow.parquet as parquet

        self.part = part
        self._parquet = dataset is None and ending_of(part.file.name) == ".parquet"
        if self._parquet:
            with parquet.ParquetFile(part.file) as file:
                self.features = datasets.Features.from_arrow_schema(file.schema_arrow)
                self._length = int(file.metadata.num_rows)
            return
        if dataset is None:
            is_saved = part.file.is_dir()
            dataset = datasets.load_from_disk(part.file) if is_saved else datasets.Dataset.from_file(str(part.file))
        self.features, self._length, self._dataset = dataset.features, len(dataset), dataset

    def __len__(self) -> int:
        return self._length

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as parquet

        if self._parquet:
            with parquet.ParquetFile(self.part.file) as file:
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    yield from batch.to_pylist()
        else:
            for table in self._dataset.select_columns(columns).with_format("arrow").iter(batch_size=_BATCH):
                yield from table.to_pylist()


def _open(spec: SourceSpec, tables: list[_Table], split: str, roots: Sequence[Path]) -> Source:
    """Returns the rows as a source; images that rows name by their paths are read below `roots` alone."""
    inside = [os.path.realpath(root) for root in roots]
    columns = _find_columns(spec, tables[0].features)
    unlabelled = 0
    labels: Counter[str] = Counter()
    for table in tables:
        for row in _reading_rows(spec, table, [columns.label]):
            name = _class_name(row[columns.label], columns)
            if name is None:
                unlabelled += 1
            else:
                labels[name] += 1

    def samples() -> Iterator[Sample]:
        place = 0
        for table in tables:
            for row in _reading_rows(spec, table, [columns.image, columns.label]):
                name = _class_name(row[columns.label], columns)
                if name is not None:
                    yield Sample(name, f"row {place}", _content(row[columns.image], table.part.file, inside))
                place += 1

    left_out = [f"{unlabelled:,} rows of {spec.text} have no label and are left out"] if unlabelled else []
    level = f"classes are the column {columns.label!r}"
    if columns.unused:
        level += f" (of {', '.join(map(repr, [columns.label, *columns.unused]))})"
    return Source(
        samples=samples,
        total=labels.total(),
        class_counts=dict(labels),
        left_out=tuple(left_out),
        split=split,
        class_level=level,
    )


def _reading_rows(spec: SourceSpec, table: _Table, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from table.rows(columns)
    except Exception as error:
        raise DataError(f"{table.part.path} in {spec.text} cannot be read: {error}") from error


def _find_columns(spec: SourceSpec, features: Mapping[str, Any]) -> _Columns:
    """Returns the columns of images and labels, chosen by type (Image, ClassLabel), else by name.

    Raises:
        DataError: There is none; with the columns that are there.
    """
    there = ", ".join(f"{name} ({_type_of(feature)})" for name, feature in features.items()) or "none"
    images = [name for name, feature in features.items() if _type_of(feature) == "Image"]
    if not images:
        binary = [name for name, feature in features.items() if _is_binary(feature)]
        images = [name for name in _IMAGE_NAMES if name in binary] or binary
    if not images:
        raise DataError(f"{spec.text} must have a column of images, but its columns are {there}")
    classes = [name for name, feature in features.items() if _type_of(feature) == "ClassLabel"]
    lower = {
        name.lower(): name for name, f in features.items() if _type_of(f).startswith(("int", "uint", "string", "bool"))
    }
    lower |= {name.lower(): name for name, f in features.items() if _type_of(f) == "large_string"}
    named = [lower[name] for name in _LABEL_NAMES if name in lower]
    candidates = sorted(classes, key=lambda name: name != "label") or named
    if not candidates:
        raise DataError(
            f"{spec.text} must have a column of labels (a ClassLabel, or one of {', '.join(_LABEL_NAMES)}), but its "
            f"columns are {there}"
        )
    label = candidates[0]
    names = list(features[label].names) if label in classes else None
    return _Columns(images[0], label, names, candidates[1:])


def _type_of(feature: Any) -> str:
    """Returns the name of a feature's type: `Image`, `ClassLabel`, or that of a plain value such as `int64`."""
    return str(getattr(feature, "dtype", "")) if type(feature).__name__ == "Value" else type(feature).__name__


def _is_binary(feature: Any) -> bool:
    return _type_of(feature) in ("binary", "large_binary") or (isinstance(feature, dict) and "bytes" in feature)


def _class_name(label: Any, columns: _Columns) -> str | None:
    if label is None or label == "" or (isinstance(label, int) and label < 0):
        return None
    if columns.names is None:
        return str(label)
    return columns.names[label] if label < len(columns.names) else str(label)


def _content(image: Any, file: Path, roots: Sequence[str]) -> bytes | Exception:
    """Returns an image's bytes; a row may name a file below one of the roots instead."""
    if isinstance(image, bytes):
        return image
    fields = image if isinstance(image, dict) else {}
    if fields.get("bytes"):
        return bytes(fields["bytes"])
    if not fields.get("path"):
        return DataError("the row holds no image")
    path = os.path.join(file.parent, fields["path"])
    try:
        if not os.path.isfile(path):
            return DataError(f"there is no file {fields['path']}")
        if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots):
            return DataError(f"the row names {fields['path']}, which lies outside the data set's folder")
        return Path(path).read_bytes()
    except OSError as error:
        return error


def _check_installed(spec: SourceSpec) -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise DataError(
            f"{spec.text} needs the package datasets, which is not installed: pip install 'hilo-nas[hfds]'"
        ) from None
