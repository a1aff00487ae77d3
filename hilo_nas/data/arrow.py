"""Reader of images in rows of Parquet and Arrow files and of data sets of the library `datasets`, one image per row."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hilo_nas.data.formats import describe_impostor, ending_of, is_litter
from hilo_nas.data.sources import Sample, Source, SourceSpec
from hilo_nas.data.splits import choose_labelled, role_of
from hilo_nas.data.walk import is_special, walk_files
from hilo_nas.errors import DataError
from hilo_nas.text.plurals import agree, count_of

__all__ = ["find_parts", "open_named", "open_parts"]

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "pixel_values", "bytes")
_LABEL_NAMES = ("label", "labels", "class", "cls", "class_name", "label_name", "category", "target", "fine_label", "y")
_SPLIT_NAMES = ("split", "partition", "subset", "set")
_FUNCTION = "read the rows with a function, FILE.py:FUNCTION"
_BATCH = 64


class Part(NamedTuple):
    """Parquet or Arrow file, or folder that `save_to_disk` wrote."""

    file: Path
    path: str
    """Path inside the source, without the extension."""

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.file.name if self.path == "." else self.path


class _Columns(NamedTuple):
    image: str
    label: str
    names: list[str] | None
    """Names of the classes if the labels are numbers of a ClassLabel, else None."""
    split: str | None
    """Column with the split of each row."""
    others: list[str]
    """Other columns that could be the labels."""
    are_numbers: bool
    """True if labels are numbers without names."""


def find_parts(path: Path) -> list[Part]:
    """Returns the files with rows in a folder, in order. The list is empty if there are none.

    These are the folders with a `state.json` that `save_to_disk` wrote. If there are none, they are the Parquet files,
    or else the Arrow files of a cache.
    """
    if path.is_file():
        return [Part(path, ".")]
    files = [PurePosixPath(name) for name, entry in walk_files(path) if not is_litter(name) and not is_special(entry)]
    saved = [name.parent for name in files if name.name == "state.json"]
    if saved := [folder for folder in saved if (path / folder / "dataset_info.json").is_file()]:
        return [Part(path / folder, str(folder)) for folder in saved]
    for ending in (".parquet", ".arrow"):
        # `datasets` stores computed values in cache-*.arrow.
        rows = [name for name in files if ending_of(name.name) == ending and not name.name.startswith("cache-")]
        if rows:
            return [Part(path / name, str(name.with_suffix(""))) for name in rows]
    return []


def open_parts(spec: SourceSpec, parts: list[Part]) -> Source:
    """Opens the training parts, which the names of folders and files determine.

    Raises:
        DataError: `datasets` is not installed, a file cannot be read, or a file has no images or no labels.
    """
    _check_installed(spec)
    loaded = [_load(spec, part) for part in parts]
    choice = choose_labelled(spec.text, [_levels(part.path) for part in parts], [""] * len(parts))
    held = {place: len(table) for place, table in enumerate(loaded) if place not in choice.classes}
    split = _describe_split(parts, choice.classes, held) if held or choice.split else ""
    path = loaded[0].part.file if spec.path is None else spec.path
    return _open(spec, [loaded[place] for place in choice.classes], split, [path if path.is_dir() else path.parent])


def open_named(spec: SourceSpec) -> Source:
    """Opens the training split of a data set that `datasets` loads by its name or folder.

    Raises:
        DataError: `datasets` is not installed, the data set does not exist, or it has no training split.
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
    split = _describe_split(parts, choice.classes, held) if held or choice.split else ""
    # `datasets` unpacks archives and files of the hub into its own folders.
    own = (datasets.config.HF_DATASETS_CACHE, datasets.config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    roots = [*([spec.path] if spec.path else []), *map(Path, own)]
    return _open(spec, [_Table(parts[place], loaded[names[place]]) for place in choice.classes], split, roots)


def _check_data_files(spec: SourceSpec, folder: Path) -> None:
    """Checks that the README.md of a folder names no data files outside the folder.

    Raises:
        DataError: The README.md names a file outside the folder.
    """
    import datasets

    files = datasets.load_dataset_builder(str(folder)).config.data_files or {}
    for file in (str(name).rpartition("::")[2] for names in files.values() for name in names):
        if not Path(os.path.abspath(folder / file)).is_relative_to(folder):
            raise DataError(
                f"the data files of {spec.text} must be in its folder, but its README.md names {file}. "
                "Move the file there, or use the folder that holds it"
            )


def _levels(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path).parts if part != ".")


def _describe_split(parts: list[Part], chosen: Mapping[int, str], held: Mapping[int, int]) -> str:
    def name(place: int) -> str:
        levels = _levels(parts[place].path)
        return next((level for level in levels if role_of(level) in ("train", "held", "aside")), "/".join(levels))

    trains = sorted({name(place) for place in chosen})
    counts: Counter[str] = Counter()
    for place, number in held.items():
        counts[name(place)] += number
    excluded = [f"{part} ({count_of(number, 'image')})" for part, number in counts.items()]
    shown = ", ".join(trains[:3]) + (f" and {len(trains) - 3:,} more" if len(trains) > 3 else "")
    sentence = f"{shown} {agree(len(trains), 'is', 'are')} used for training"
    return sentence + (f"; {', '.join(excluded)} {agree(len(excluded), 'is', 'are')} left out" if excluded else "")


class _Table:
    """Rows of one part, from `datasets` or directly from a file. Files are not copied into the cache of `datasets`.

    `datasets` reads the stream format of Arrow, but not its file format (`ARROW1`).
    """

    def __init__(self, part: Part, dataset: Any = None) -> None:
        import datasets
        import pyarrow
        import pyarrow.parquet as parquet

        self.part = part
        self._dataset, self._parquet, self._arrow = dataset, False, False
        if dataset is None and part.file.is_file():
            with open(part.file, "rb") as file:
                head = file.read(512)
            if found := describe_impostor(head, "table"):
                raise DataError(found)
            self._parquet, self._arrow = ending_of(part.file.name) == ".parquet", head.startswith(b"ARROW1")
        if self._parquet:
            with parquet.ParquetFile(part.file) as file:
                self.features = datasets.Features.from_arrow_schema(file.schema_arrow)
                self._length = int(file.metadata.num_rows)
        elif self._arrow:
            with pyarrow.memory_map(str(part.file)) as file:
                reader = pyarrow.ipc.open_file(file)
                self.features = datasets.Features.from_arrow_schema(reader.schema)
                self._length = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        else:
            if dataset is None:
                is_saved = part.file.is_dir()
                dataset = datasets.load_from_disk(part.file) if is_saved else datasets.Dataset.from_file(str(part.file))
            self.features, self._length, self._dataset = dataset.features, len(dataset), dataset

    def __len__(self) -> int:
        return self._length

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        import pyarrow
        import pyarrow.parquet as parquet

        if self._parquet:
            with parquet.ParquetFile(self.part.file) as file:
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    yield from batch.to_pylist()
        elif self._arrow:
            with pyarrow.memory_map(str(self.part.file)) as file:
                reader = pyarrow.ipc.open_file(file)
                for batch in map(reader.get_batch, range(reader.num_record_batches)):
                    for start in range(0, batch.num_rows, _BATCH):
                        yield from batch.slice(start, _BATCH).select(columns).to_pylist()
        else:
            for table in self._dataset.select_columns(columns).with_format("arrow").iter(batch_size=_BATCH):
                yield from table.to_pylist()


def _load(spec: SourceSpec, part: Part) -> _Table:
    try:
        return _Table(part)
    except Exception as error:
        raise DataError(f"{part.name} in {spec.text} cannot be read: {error}") from error


def _open(spec: SourceSpec, tables: list[_Table], split: str, roots: Sequence[Path]) -> Source:
    """Opens the rows of all tables, each with its own schema. Classes of the same name are joined.

    A row may name an image by its path. Only paths below `roots` are read.
    """
    inside = [os.path.realpath(root) for root in roots]
    columns = _find_all_columns(spec, tables)
    names: list[str | None] = []
    splits: list[str] = []
    for table, own in zip(tables, columns, strict=True):
        for row in _read_rows(spec, table, [own.label, *([own.split] if own.split else [])]):
            names.append(_class_name(spec, table, row[own.label], own))
            splits.append(_split_name(row[own.split], table.features[own.split]) if own.split else "")
    places: Collection[int] = range(len(names))
    left_out = []
    if any(role_of(name) in ("train", "held", "aside") for name in {*splits}):
        choice = choose_labelled(spec.text, [(name or "(no split)",) for name in splits], [""] * len(splits))
        places, left_out = choice.classes.keys(), list(choice.left_out)
        split = "; ".join(filter(None, (split, choice.split)))
    kept = {place: name for place in places if (name := names[place]) is not None}
    if unlabelled := len(places) - len(kept):
        if not kept:
            raise DataError(
                f"rows must have labels, but all {unlabelled:,} rows of {spec.text} have none: the column "
                f"{columns[0].label!r} is empty or negative. Use rows with labels, or {_FUNCTION}."
            )
        verbs = agree(unlabelled, "has no label and is", "have no label and are")
        left_out.append(f"{count_of(unlabelled, 'row')} of {spec.text} {verbs} left out")

    def samples() -> Iterator[Sample]:
        numbers = itertools.count()
        for table, own in zip(tables, columns, strict=True):
            for row in _read_rows(spec, table, [own.image, own.label]):
                if (name := kept.get(number := next(numbers))) is not None:
                    yield Sample(name, f"row {number}", _content(row[own.image], table.part.file, inside))

    level = f"classes come from the column {columns[0].label!r}"
    if others := columns[0].others:
        named = ", ".join(map(repr, others))
        level += (
            f"; {named} could be the classes too (to use {'it' if len(others) == 1 else 'one of them'}, {_FUNCTION})"
        )
    return Source(
        samples=samples,
        total=len(kept),
        class_counts=dict(Counter(kept.values())),
        left_out=tuple(left_out),
        split=split,
        class_level=level,
        layout="rows",
    )


def _read_rows(spec: SourceSpec, table: _Table, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from table.rows(columns)
    except Exception as error:
        raise DataError(f"{table.part.name} in {spec.text} cannot be read: {error}") from error


def _find_all_columns(spec: SourceSpec, tables: list[_Table]) -> list[_Columns]:
    """Returns the columns of each table. All tables use the columns of the first, but each has its own class names.

    Raises:
        DataError: A table lacks a column of the first, or only some tables have names for their labels.
    """
    places = [spec.text if len(tables) == 1 else f"{table.part.name} in {spec.text}" for table in tables]
    first = _find_columns(places[0], tables[0].features)
    found = [first]
    for table, place in zip(tables[1:], places[1:], strict=True):
        wanted = [first.image, first.label]
        if missing := [name for name in wanted if name not in table.features]:
            raise DataError(
                f"every file must have the columns {first.image!r} and {first.label!r} of {tables[0].part.name}, but "
                f"{place} lacks {', '.join(map(repr, missing))}: its columns are "
                f"{_listed(table.features)}. Rename its columns, or {_FUNCTION}."
            )
        own = _find_columns(place, {name: table.features[name] for name in wanted})
        if own.are_numbers != first.are_numbers:
            with_names, without = (tables[0], table) if own.are_numbers else (table, tables[0])
            raise DataError(
                f"labels must have names in all files or in none, but in {spec.text} those of {with_names.part.name} "
                f"have names and those of {without.part.name} are numbers "
                f"({_type_of(without.features[first.label])}). Write both as ClassLabel or as text, or {_FUNCTION}."
            )
        found.append(own._replace(split=_find_split(table.features)))
    return found


def _find_columns(place: str, features: Mapping[str, Any]) -> _Columns:
    """Returns the columns of images and labels, chosen by type (Image, ClassLabel), or else by name.

    Args:
        place: The file or source with these columns, for messages.
        features: The columns and their types.

    Raises:
        DataError: There is no such column. The message lists the columns.
    """
    images = [name for name, feature in features.items() if _type_of(feature) == "Image"]
    if not images:
        binary = [name for name, feature in features.items() if _is_binary(feature)]
        images = [name for name in _IMAGE_NAMES if name in binary] or binary
    if not images:
        raise DataError(f"{place} must have a column of images, but its columns are {_listed(features)}")
    split = _find_split(features)
    classes = [name for name, f in features.items() if _type_of(f) == "ClassLabel" and name != split]
    lower = {name.lower(): name for name in features}
    named = [lower[name] for name in _LABEL_NAMES if name in lower]
    plain = [name for name in named if _type_of(features[name]).startswith(_PLAIN)]
    floats = [name for name in named if _type_of(features[name]).startswith("float")]
    candidates = [*sorted(classes, key=lambda name: name != "label"), *plain] or floats
    if not candidates and named:
        raise DataError(
            f"labels must be a ClassLabel, integers or text, but the column {named[0]!r} of {place} has the "
            f"type {_type_of(features[named[0]])}. Write one label per row, or {_FUNCTION}."
        )
    if not candidates:
        raise DataError(
            f"{place} must have a column of labels (a ClassLabel, or one of {', '.join(_LABEL_NAMES)}), but its "
            f"columns are {_listed(features)}"
        )
    label = candidates[0]
    return _Columns(
        image=images[0],
        label=label,
        names=list(features[label].names) if label in classes else None,
        split=split,
        others=candidates[1:],
        are_numbers=label not in classes and not _type_of(features[label]).endswith("string"),
    )


_PLAIN = ("int", "uint", "string", "large_string", "bool")
"""Types of labels that need no ClassLabel."""


def _find_split(features: Mapping[str, Any]) -> str | None:
    """Returns the column with the split of each row, found by its name."""
    texts = [name for name, f in features.items() if _type_of(f) in ("string", "large_string", "ClassLabel")]
    lower = {name.lower(): name for name in texts}
    return next((lower[name] for name in _SPLIT_NAMES if name in lower), None)


def _listed(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({_type_of(feature)})" for name, feature in features.items()) or "none"


def _type_of(feature: Any) -> str:
    """Returns the name of a feature's type: `Image`, `ClassLabel`, or the type of a plain value such as `int64`."""
    return str(getattr(feature, "dtype", "")) if type(feature).__name__ == "Value" else type(feature).__name__


def _is_binary(feature: Any) -> bool:
    return _type_of(feature) in ("binary", "large_binary") or (isinstance(feature, dict) and "bytes" in feature)


def _class_name(spec: SourceSpec, table: _Table, label: Any, columns: _Columns) -> str | None:
    """Returns the class of a row, or None if it has none.

    Raises:
        DataError: The label is a fraction.
    """
    if isinstance(label, float):
        if math.isnan(label):
            return None
        if not label.is_integer():
            raise DataError(
                f"labels must be classes, but the column {columns.label!r} of {table.part.name} in {spec.text} holds "
                f"{label:g} ({_type_of(table.features[columns.label])}). Use integers or names, or {_FUNCTION}."
            )
        label = int(label)
    if label is None or (isinstance(label, int) and label < 0):
        return None
    is_named = columns.names is not None and label < len(columns.names)
    return str(columns.names[label] if columns.names and is_named else label).strip() or None


def _split_name(value: Any, feature: Any) -> str:
    if value is None or (isinstance(value, int) and value < 0):
        return ""
    return str(feature.names[value]) if isinstance(value, int) else str(value)


def _content(image: Any, file: Path, roots: Sequence[str]) -> bytes | Exception:
    """Returns the bytes of an image, or of the file below one of the roots that the row names."""
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
            return DataError(f"the row names {fields['path']}, which is outside the folder of the data set")
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
