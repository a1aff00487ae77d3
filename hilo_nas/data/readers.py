"""Readers that open each kind of source.

This package reads folders, archives and shards itself, and other data sets through their libraries. Only training
images are returned. If a source has splits, only the training split is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hilo_nas.data.arrow import find_parts, open_named, open_parts
from hilo_nas.data.doubts import check_parts, differ_in_words
from hilo_nas.data.formats import describe_kinds, ending_of, image_endings, is_litter
from hilo_nas.data.functions import open_function
from hilo_nas.data.labels import count_unread, find_views, has_label_files, pair_labels, read_labels
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import Layout, Sample, Source, SourceSpec
from hilo_nas.data.splits import Choice, choose_labelled, choose_training, role_of
from hilo_nas.data.trees import Entry, Tree, list_tree, read_entries
from hilo_nas.data.walk import walk_files
from hilo_nas.errors import DataError
from hilo_nas.text.one_line import one_line
from hilo_nas.text.plurals import agree, count_of

__all__ = ["open_source"]


def open_source(spec: SourceSpec, options: ReadOptions = DEFAULTS) -> Source:
    """Returns an opened source. Names of classes are in Unicode's composed form (NFC).

    Raises:
        DataError: The source cannot be read, has no training images, or needs a package that is not installed.
        UsageError: A function does not exist, is not callable, or cannot be imported.
    """
    image_endings()  # Registers the HEIC reader, which images in rows and from functions need too.
    source = _OPENERS[spec.kind](spec, options)
    counts: Counter[str] | None = None
    if source.class_counts is not None:
        counts = Counter()
        for name, count in source.class_counts.items():
            counts[_composed(name)] += count

    def samples() -> Iterator[Sample]:
        for sample in source.samples():
            yield sample._replace(class_name=_composed(sample.class_name))

    return dataclasses.replace(
        source,
        samples=samples,
        class_counts=None if counts is None else dict(counts),
        left_out=tuple(map(one_line, source.left_out)),
        split=one_line(source.split),
        class_level=one_line(source.class_level),
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _open_digits(spec: SourceSpec, options: ReadOptions) -> Source:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Pixel values range from 0 to 16.
    greys = (digits.images * 255 / 16).round().astype("uint8")

    def samples() -> Iterator[Sample]:
        for index, (grey, label) in enumerate(zip(greys, digits.target, strict=True)):
            yield Sample(str(label), f"digit {index}", Image.fromarray(grey))

    return Source(samples=samples, total=len(greys), class_counts=dict(Counter(map(str, digits.target))))


def _open_torch(spec: SourceSpec, options: ReadOptions) -> Source:
    from timm.data.dataset_factory import create_dataset

    try:
        with _reading(spec):
            dataset: Any = create_dataset(f"torch/{spec.dataset}", root=str(spec.path), split="train")
    except DataError as error:
        raise DataError(
            f"{error}\nThe files of {spec.dataset} must be in {spec.path}, in torchvision's format. "
            f"For another folder, use torch/{spec.dataset}:DIR."
        ) from error
    classes = [name if isinstance(name, str) else name[0] for name in dataset.classes]

    def samples() -> Iterator[Sample]:
        for index in range(len(dataset)):
            with _reading(spec, f"image {index}"):
                image, label = dataset[index]
            yield Sample(classes[int(label)], f"image {index}", image)

    return Source(samples=samples, total=len(dataset), class_counts=None)


def _open_hfds(spec: SourceSpec, options: ReadOptions) -> Source:
    with _reading(spec):
        parts = find_parts(spec.path) if spec.path else []
        return open_parts(spec, parts) if parts else open_named(spec)


def _open_table(spec: SourceSpec, options: ReadOptions) -> Source:
    with _reading(spec):
        return open_parts(spec, find_parts(_path(spec)))


def _open_files(spec: SourceSpec, options: ReadOptions) -> Source:
    """Opens a folder or an archive.

    Classes come from folders, or else from rows of Parquet or Arrow, or from label files.
    """
    path = _path(spec)
    with _reading(spec):
        tree = list_tree(path)
        if path.is_dir() and not tree.holds_classes() and (parts := find_parts(path)):
            source = open_parts(spec, parts)
            return dataclasses.replace(source, left_out=(*source.left_out, *tree.notes))
        labels = pair_labels(tree)
        if has_label_files(tree, labels):
            return _open_labelled(spec, tree, labels)
        _check_images(spec, tree)
        are_classes = _are_classes(tree)
        folders = [entry.folders for entry in tree.images]
        n_outer = [0 if are_classes else entry.n_outer for entry in tree.images]
        with _pointing_at_tables(tree):
            choice = choose_training(spec.text, folders, n_outer, options.class_from)
            _check_classes(spec, tree, choice, options, are_classes)
        choice = dataclasses.replace(choice, left_out=(*choice.left_out, *_warn_of_empty(spec, tree, choice)))
        return _from_tree(spec, tree, choice, "folders")


def _open_wds(spec: SourceSpec, options: ReadOptions) -> Source:
    with _reading(spec):
        tree = list_tree(_path(spec))
        labels = pair_labels(tree)
        if not tree.images:
            raise DataError(f"no training shards (.tar) in {spec.text}")
        if not labels:
            raise DataError(
                "shards must hold a label file for each image (000.jpg and 000.cls, 000.txt or 000.json), but "
                f"{spec.text} holds {describe_kinds(tree.count_skipped()) or 'only images'}. "
                "If folders name the classes, remove the prefix wds/."
            )
        return _open_labelled(spec, tree, labels, _described(_path(spec)))


def _are_classes(tree: Tree) -> bool:
    """Returns True if archives are classes: all of them hold images directly, or their names distinguish classes."""
    packed = [entry for entry in tree.images if entry.n_outer]
    if all(len(entry.folders) == entry.n_outer for entry in packed):
        return True
    names: dict[tuple[str, ...], set[str]] = {}
    for entry in packed:
        names.setdefault(entry.folders[: entry.n_outer - 1], set()).add(entry.folders[entry.n_outer - 1])
    return all(map(differ_in_words, names.values()))


def _check_classes(spec: SourceSpec, tree: Tree, choice: Choice, options: ReadOptions, are_archives: bool) -> None:
    """Checks the classes that folders and archives name.

    Raises:
        DataError: There is only one class, or the classes look like parts of a data set.
    """
    names = sorted({*choice.classes.values()})
    if options.class_from is None:
        packed = are_archives and all(entry.n_outer for entry in tree.images)
        check_parts(spec.text, names, count_unread(tree), packed)
    if len(names) == 1 and _tables(tree):
        raise DataError(f"a classification needs two classes or more, but {spec.text} has one: {names[0]!r}.")


@contextlib.contextmanager
def _pointing_at_tables(tree: Tree) -> Iterator[None]:
    """Adds the names of table files to an error about classes, because these files may hold the classes."""
    try:
        yield
    except DataError as error:
        if not (tables := _tables(tree)):
            raise
        raise DataError(
            f"{str(error).rstrip('.')}. {tables[0]} is not read. To read classes from a table, use hfds/DIR with a "
            "metadata.csv (columns file_name and label) next to the images, or write a function (--data "
            "FILE.py:FUNCTION)."
        ) from error


def _tables(tree: Tree) -> list[str]:
    return [entry.path for entry in tree.others if entry.path.lower().endswith(_TABLE_EXTENSIONS)]


_TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".xlsx", ".parquet")


def _warn_of_empty(spec: SourceSpec, tree: Tree, choice: Choice) -> list[str]:
    """Returns a warning about folders without images next to the class folders, which may be meant as classes."""
    level = choice.depth + 1
    around = {tree.images[place].folders[: choice.depth] for place in choice.classes}
    filled = {entry.folders[:level] for entry in tree.images}
    held: dict[tuple[str, ...], Counter[str]] = {folder[:level]: Counter() for folder in tree.empty}
    for entry in tree.others:
        held.setdefault(entry.folders[:level], Counter())[ending_of(entry.path) or "no ending"] += 1
    found = [
        f"{'/'.join(folder)} ({describe_kinds(held[folder]) or 'empty'})"
        for folder in sorted({*held} - filled)
        if len(folder) == level and folder[:-1] in around and role_of(folder[-1]) not in ("held", "aside")
    ]
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    sentence = f"folders of {spec.text} next to the classes have no images: {', '.join(found[:5])}{more}"
    return [sentence] if found else []


def _described(folder: Path) -> Mapping[str, Any]:
    """Returns the training split in the `_info.json` that timm writes for shards. Empty if there is none."""
    for name in ("_info.json", "info.json"):
        if (folder / name).is_file():
            info = json.loads((folder / name).read_text(encoding="utf-8"))
            splits = info.get("splits", {}) if isinstance(info, dict) else {}
            return next((part for split, part in splits.items() if role_of(split) == "train"), {})
    return {}


def _open_labelled(
    spec: SourceSpec, tree: Tree, labels: Mapping[str, Entry], described: Mapping[str, Any] | None = None
) -> Source:
    """Opens images with label files."""
    described = described or {}
    if names := described.get("filenames"):
        tree.images = [entry for entry in tree.images if Path(entry.file).name in names]
        if not tree.images:
            raise DataError(f"no images in the training shards that _info.json names: {spec.text}")
    views = find_views(tree.images)
    tree.images = [entry for entry in tree.images if entry.path not in views]
    bare = [entry for entry in tree.images if entry.path not in labels]
    verbs = agree(len(bare), "has no label file and is", "have no label file and are")
    tree.images = [entry for entry in tree.images if entry.path in labels]
    used = {labels[entry.path].path for entry in tree.images}
    choice = choose_labelled(spec.text, [entry.folders for entry in tree.images], [""] * len(tree.images))
    chosen = [tree.images[place] for place in choice.classes]
    classes = read_labels(spec.text, (labels[entry.path] for entry in chosen), described.get("alt_label") or None)
    choice = dataclasses.replace(
        choice,
        classes={place: classes[labels[tree.images[place].path].path] for place in choice.classes},
        class_level=f"classes are named by label files, such as {labels[chosen[0].path].path}" if chosen else "",
        left_out=(*choice.left_out, *([f"{count_of(len(bare), 'image')} {verbs} left out"] if bare else [])),
    )
    choice = _leave_unlabeled(spec, choice, views)
    tree.others = [entry for entry in tree.others if entry.path not in used]
    return _from_tree(spec, tree, choice, "label files")


def _leave_unlabeled(spec: SourceSpec, choice: Choice, views: Mapping[str, Entry]) -> Choice:
    """Returns the choice without images whose label is negative, and with warnings about all images left out.

    Raises:
        DataError: No other images are left.
    """
    classes = {place: name for place, name in choice.classes.items() if not re.fullmatch(r"-\d+", name)}
    if not classes and choice.classes:
        raise DataError(
            f"label files must name classes, but all labels of {spec.text} are negative, which means no class"
        )
    warnings = []
    if unlabeled := len(choice.classes) - len(classes):
        warnings.append(
            f"left out because their label is negative, which means no class: {count_of(unlabeled, 'image')}"
        )
    if views:
        view, whole = next(iter(views.items()))
        name = whole.path.rpartition("/")[2]
        warnings.append(f"left out as views or masks of another image: {len(views):,}, such as {view} next to {name}")
    return dataclasses.replace(choice, classes=classes, left_out=(*choice.left_out, *warnings))


def _from_tree(spec: SourceSpec, tree: Tree, choice: Choice, layout: Layout) -> Source:
    by_entry = {tree.images[place]: name for place, name in choice.classes.items()}

    def samples() -> Iterator[Sample]:
        with _reading(spec):
            for entry, content in read_entries(by_entry):
                yield Sample(by_entry[entry], entry.path, content)

    skipped = tree.count_skipped()
    heic = sum(skipped.get(ending, 0) for ending in (".heic", ".heif"))
    read = f"{count_of(heic, '.heic file')} {agree(heic, 'is', 'are')} not read"
    hints = [f"{read}. Use `pip install pillow-heif` to read {agree(heic, 'it', 'them')}"] if heic else []
    return Source(
        samples=samples,
        total=len(by_entry),
        class_counts=dict(Counter(by_entry.values())),
        left_out=(*tree.notes, *choice.left_out, *hints),
        skipped=skipped,
        split=choice.split,
        class_level=choice.class_level,
        layout=layout,
    )


_OPENERS: dict[str, Callable[[SourceSpec, ReadOptions], Source]] = {
    "digits": _open_digits,
    "folder": _open_files,
    "archive": _open_files,
    "table": _open_table,
    "torch": _open_torch,
    "hfds": _open_hfds,
    "wds": _open_wds,
    "function": lambda spec, options: open_function(spec),
}


def _path(spec: SourceSpec) -> Path:
    assert spec.path is not None
    return spec.path


def _check_images(spec: SourceSpec, tree: Tree) -> None:
    """Checks that there are images, and that a `train` folder has images. Otherwise other folders would become classes.

    Raises:
        DataError: There are none. The message describes the files that exist.
    """
    if not tree.images:
        skipped = tree.count_skipped()
        found = f" It holds {describe_kinds(skipped)}." if skipped else ""
        if "no ending" in skipped:
            found += " Images need a file name extension. Rename the files, or read them with FILE.py:FUNCTION."
        if ".heic" in skipped or ".heif" in skipped:
            found += " `pip install pillow-heif` makes .heic readable."
        found += "".join(f" {note}." for note in tree.notes)
        raise DataError(f"no images in {spec.text}. It must hold one subfolder of images per class.{found}")
    path = _path(spec)
    if not path.is_dir():
        return
    filled = {entry.folders[0] for entry in tree.images if entry.folders}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and role_of(folder.name) == "train" and not any(role_of(name) == "train" for name in filled):
            is_empty = all(is_litter(name) for name, _ in walk_files(folder))
            state = "is empty" if is_empty else "has no images"
            raise DataError(f"the training folder {spec.text.rstrip('/')}/{folder.name} {state}")


@contextlib.contextmanager
def _reading(spec: SourceSpec, member: str | None = None) -> Iterator[None]:
    """Turns an error of a library into a DataError that names the source."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{f'{member} in ' if member else ''}{spec.text} cannot be read: {error}") from error
