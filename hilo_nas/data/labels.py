"""Labels in files with the same name as their image, in webdataset's format: 000.jpg and 000.cls."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.data.splits import own_words
from hilo_nas.data.trees import Entry, Tree, read_entries
from hilo_nas.errors import DataError

__all__ = ["count_unread", "find_views", "has_label_files", "pair_labels", "read_labels"]

_SURE = ("cls", "class", "label", "cls.txt", "class.txt", "label.txt", "cls.json", "label.json", "class.json")
_LIKELY = ("json", "txt")
"""Extensions of files that may hold other data than a label. They have the lowest priority."""

_LABEL_WORDS = frozenset(["cls", "class", "label", "labels", "target", "index", "category", "y"])
"""Parts of extensions that suggest a label, also of files that cannot be read as labels: `.target`, `.label.npy`."""

_KEYS = (
    *("class_name", "classname", "label_name", "labelname", "category_name", "class", "label", "category", "cls"),
    *("target", "y", "class_id", "label_id", "category_id", "class_index", "label_index", "class_idx", "label_idx"),
    *("classes", "labels"),
)
"""Keys in JSON files that name a class, names before numbers."""
_MAX_NAME = 200


def _key(path: str) -> tuple[str, str]:
    """Returns the path up to the first dot of its name, by which webdataset pairs files, and the rest."""
    folder, slash, name = path.rpartition("/")
    stem, _, ending = name.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def pair_labels(tree: Tree) -> dict[str, Entry]:
    """Returns the label file of each image, by the path of the image. The most specific extension wins."""
    order = {ending: rank for rank, ending in enumerate((*_SURE, *_LIKELY))}
    found: dict[str, tuple[int, Entry]] = {}
    for entry in tree.others:
        key, ending = _key(entry.path)
        if ending in order and (key not in found or order[ending] < found[key][0]):
            found[key] = (order[ending], entry)
    keys = {entry.path: _key(entry.path)[0] for entry in tree.images}
    return {path: found[key][1] for path, key in keys.items() if key in found}


def count_unread(tree: Tree) -> Counter[str]:
    """Returns the number of files, by extension, with the name of an image and an extension that suggests a label."""
    keys = {_key(entry.path)[0] for entry in tree.images}
    named = (_key(entry.path) for entry in tree.others)
    return Counter(f".{ending}" for key, ending in named if key in keys and {*ending.split(".")} & _LABEL_WORDS)


def find_views(images: Iterable[Entry]) -> dict[str, Entry]:
    """Returns the images that are views or masks of another image, by path: 000.seg.png if there is a 000.jpg."""
    whole: dict[str, Entry] = {}
    views = []
    for entry in images:
        key, ending = _key(entry.path)
        if "." in ending:
            views.append((key, entry))
        else:
            whole.setdefault(key, entry)
    return {entry.path: whole[key] for key, entry in views if key in whole}


def has_label_files(tree: Tree, labels: Mapping[str, Entry]) -> bool:
    """Returns True if label files name the classes, and folders do not.

    At least half of the images must have a label file. In addition, its extension must be specific (`.cls`), or the
    names of folders and archives must differ only in numbers and words for splits, as the names of shards do.
    """
    if not labels or 2 * len(labels) < len(tree.images):
        return False
    if any(_key(entry.path)[1] in _SURE for entry in labels.values()):
        return True
    folders = {entry.folders for entry in tree.images}
    return len({frozenset[str]().union(*map(own_words, parts)) for parts in folders}) == 1


def read_labels(text: str, entries: Iterable[Entry], key: str | None = None) -> dict[str, str]:
    """Returns the class in each label file, by the path of the file.

    A file holds an integer or a name as text, or JSON with one of the usual keys.

    Args:
        text: The source in the user's words.
        entries: The label files.
        key: Key of the label in JSON. None searches the usual keys.

    Raises:
        DataError: Files hold no label. The message lists the first ones with their content.
    """
    labels: dict[str, str] = {}
    faults: list[str] = []
    for entry, content in read_entries(entries):
        try:
            if isinstance(content, Exception):
                raise content
            labels[entry.path] = _label(_key(entry.path)[1], content, key)
        except Exception as error:
            faults.append(f"{entry.path} ({error})")
    if faults:
        more = [f"and {len(faults) - 5:,} more"] if len(faults) > 5 else []
        raise DataError(f"label files of {text} hold no class:\n" + "\n".join(f"  {f}" for f in [*faults[:5], *more]))
    _check_repeated(text, list(labels.values()))
    return labels


def _label(ending: str, content: bytes, key: str | None) -> str:
    text = content.decode("utf-8-sig").strip()
    value = _find(json.loads(text), key) if ending.endswith("json") else text
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"the file must hold one class, but got {_shown(value)}")
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"a class must be an integer or a name, but got {value}")
        value = int(value)
    name = str(value).strip()
    if not name or "\0" in name or "\n" in name or len(name) > _MAX_NAME:
        raise DataError(f"a class must be an integer or one line of text, but got {_shown(name)}")
    # int() also accepts some names, such as 1_000.
    return str(int(name)) if re.fullmatch(r"[+-]?\d+", name) else name


def _find(value: Any, key: str | None) -> Any:
    if not isinstance(value, dict):
        return value
    if key is not None:
        if key not in value:
            raise DataError(f"no key {key!r}, only {', '.join(map(str, value)) or 'none'}")
        return value[key]
    lower = {str(name).lower(): inner for name, inner in value.items()}
    found = next((lower[name] for name in _KEYS if name in lower), None)
    if found is None:
        raise DataError(f"none of the keys {', '.join(_KEYS[:8])}..., only {', '.join(lower) or 'none'}")
    return _find(found, None) if isinstance(found, dict) else found


def _check_repeated(text: str, names: Sequence[str]) -> None:
    counts = Counter(names)
    if len(names) >= 20 and 2 * len(counts) > len(names):
        examples = ", ".join(map(repr, list(counts)[:3]))
        raise DataError(
            f"label files of {text} must name classes, but there are {len(counts):,} different texts in {len(names):,} "
            f"files, such as {examples}. If these are captions, write one class into each .cls file instead"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
