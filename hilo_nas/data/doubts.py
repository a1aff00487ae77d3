"""Checks for folders that may not be classes. Ambiguous folders raise an error that lists the options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hilo_nas.data.words import listed, own_words, role_of, words_of
from hilo_nas.errors import DataError

__all__ = ["check_parts", "differ_in_words", "find_crossed", "find_masks"]

_WORDS = {
    "part": "shard shards part parts split splits batch chunk fold cv volume vol subset set archive tar",
    "class": "class classes cls label category cat level grade stage type kind",
    "image": "image images img imgs photo photos picture pictures rgb jpegimages",
    "mask": "mask masks label labels annotation annotations segmentation segmentations ground groundtruth gt truth",
}
_PARTS, _CLASSES, _IMAGES, _MASKS = (frozenset(words.split()) for words in _WORDS.values())
"""Words before numbers of parts of a data set, words before numbers of classes, names of images, and names of masks."""

_YEAR = re.compile(r"(19|20)\d\d(\D|$)")

Folders = tuple[str, ...]


def find_crossed(text: str, children: Mapping[str, Sequence[Folders]]) -> str | None:
    """Returns a warning if the folders of the class level hold folders of the same names: `cats/other`, `dogs/other`.

    Names alone do not distinguish such classes from `left/cat`, `right/cat`. The first level is used, as in other
    cases. Numbers below words are not classes (`cat/2021`, `dog/2021`). Nor are `images` or `masks` inside each class.

    Args:
        text: The source in the user's words.
        children: The folders of the class level, with the folders between each of them and its images.

    Raises:
        DataError: The level looks like parts of a data set (`fold1`, `fold2`; `A`, `B`), is next to a test split
            without classes, or contains a copy of itself.
    """
    inner = {name: _inner(paths) for name, paths in children.items()}
    nested = next((name for name, below in inner.items() if len(below) > 1 and below <= {*inner} - {name}), None)
    if nested is not None:
        raise DataError(
            f"{text}/{nested} holds folders with the same names as the folders next to it "
            f"({listed(sorted(inner[nested]))}). "
            "If it is a copy, remove it. Otherwise set data.class_from=last to merge folders of the same name, or "
            f"data.class_from=first if {nested} is a class."
        )
    tops = [name for name, below in inner.items() if below or role_of(name) not in ("held", "aside")]
    below = [name for top in tops for name in inner[top]]
    if len(tops) < 2 or not all(inner[top] for top in tops) or not _may_be_classes(tops, {*below}):
        return None
    if all(below.count(name) > 1 for name in {*below}):
        outer, deeper = listed(sorted(tops)), listed(sorted({*below}))
        has_held_out = len(tops) < len(inner)  # a test folder without classes would count as one more class
        if has_held_out or _is_series(tops) or all(len(name) == 1 for name in tops):
            raise DataError(
                f"one level of folders must be the classes, but {outer} of {text} hold the same folders: {deeper}. "
                f"Set data.class_from=last to train on {deeper}, data.class_from=first to train on {outer}, or "
                "data.class_from=path to train on each pair."
            )
        return (
            f"{outer} of {text} are the classes and hold the same folders: {deeper}. If those are the classes, set "
            "data.class_from=last. If each pair is a class, set data.class_from=path. To keep this choice, set "
            "data.class_from=first"
        )
    return None


def _inner(paths: Sequence[Folders]) -> frozenset[str]:
    """Returns the first folders below, after skipping levels with a single folder."""
    heads = {path[:1] for path in paths}
    while len(heads) == 1 and any(len(path) > 1 for path in paths):
        paths = [path[1:] for path in paths]
        heads = {path[:1] for path in paths}
    return frozenset(name for head in heads for name in head)


def _may_be_classes(tops: Sequence[str], names: set[str]) -> bool:
    """Returns True if folders that several others contain may be classes, judging by their names."""
    own = {name for name in names if role_of(name) is None and not {*words_of(name)} <= _MASKS | _IMAGES}
    own |= {name for name in names if not words_of(name)}
    if len(own) < 2 or all(map(_YEAR.match, own)):
        return False
    if not _is_series(own):
        return True
    # Numbers below numbered folders may be classes (fold1/0, 2021/0), but not below classes (cat/1, grade1/1, 0/1).
    are_named_parts = bool(words_of(tops[0])) or all(map(_YEAR.match, tops))
    return _is_series(tops) and are_named_parts and not {*words_of(tops[0])} & _CLASSES


def _is_series(names: Iterable[str]) -> bool:
    """Returns True if names differ only in their numbers."""
    return len({re.sub(r"\d+", "#", name) for name in names}) == 1


def check_parts(text: str, names: Sequence[str], beside: Mapping[str, int], are_archives: bool) -> None:
    """Checks that the classes are not parts of a data set, such as `shard-000000` or `images_part_1`.

    Args:
        text: The source in the user's words.
        names: The classes.
        beside: Number of files, by extension, that have the name of an image and are not read.
        are_archives: True if the classes are archives.

    Raises:
        DataError: The names look like parts, or the classes are archives and `beside` is not empty.
    """
    if not _are_parts(names, are_archives) and not (are_archives and beside):
        return
    unread = f" Files with the names of images are not read as labels: {_counted(beside)}." if beside else ""
    raise DataError(
        f"folders and archives must name classes, but those of {text} are {listed(sorted(names))}, which look like "
        f"parts of a data set.{unread} Add a label file for each image (000.jpg and 000.cls), or define the "
        "classes in a function, for instance from a .csv (--data FILE.py:FUNCTION). Set data.class_from=first if they "
        "are classes, or data.class_from=last if classes are the folders in them."
    )


def _are_parts(names: Sequence[str], are_archives: bool) -> bool:
    if not names or not _is_series(names):
        return False
    found = re.fullmatch(r"(.*?)[\W_]*(\d+)([\W_]*of[\W_]*\d+)?", names[0])
    if found is None:
        return False
    head, number = found[1], found[2]
    before = words_of(head)
    if not before:
        return are_archives and not head and len(number) > 3
    plain = role_of(head) == "plain" and len(names) > 1
    return before[-1] in _PARTS or plain


def differ_in_words(names: Iterable[str]) -> bool:
    """Returns True if the words in the names of two or more archives name classes and not splits, shards or volumes.

    Held-out splits are ignored, and so are single letters (`pets_a`, `pets_b`).
    """
    roles = {name: role_of(name) for name in names}
    kept = [name for name, role in roles.items() if role not in ("held", "aside")]
    own = [frozenset(word for word in own_words(name) - _PARTS if len(word) > 1 or not word.isascii()) for name in kept]
    return "train" not in roles.values() and len(kept) > 1 and all(own) and len({*own}) == len(own)


def _counted(endings: Mapping[str, int]) -> str:
    return listed([f"{count:,} {ending}" for ending, count in endings.items()])


def find_masks(siblings: Iterable[str]) -> list[str]:
    """Returns the folders with masks or labels of the images in another folder, such as `masks` next to `images`."""
    words = {name: frozenset(words_of(name)) for name in siblings}
    images = {own - _IMAGES for own in words.values() if own & _IMAGES and not own & _MASKS}
    return [name for name, own in words.items() if own & _MASKS and own - _MASKS - _IMAGES in images]
