"""Faults of a readable data set: copies, images with two labels, nearly empty classes, and overlaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hilo_nas.data.cache import load_members
from hilo_nas.data.copies import find_overlap, number_images, spans_of
from hilo_nas.text.one_line import one_line
from hilo_nas.text.plurals import agree, count_of

__all__ = ["NEARLY_EMPTY", "Fault", "LabeledSet", "find_faults", "find_overlaps"]

NEARLY_EMPTY = 10
"""Number of images below which a class is nearly empty."""
_SHOWN = 5


FaultKind = Literal[
    "broken",
    "copies",
    "labels",
    "left out",
    "nearly empty",
    "overlap",
    "scarce",
    "skipped",
    "unknown class",
    "unreadable",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of a data set that the user should know, such as copies of an image in training and validation data."""

    kind: FaultKind
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabeledSet:
    """A cached image set, with its labels as indices into a list of classes. Two image sets can share the list."""

    name: str
    path: Path
    labels: np.ndarray
    """Class of each image as an index into `class_names`, (N; int64). It is -1 for classes that are left out."""
    digests: np.ndarray
    """Hashes of the images, (N, 2)."""
    class_names: Sequence[str]

    def members_of(self, places: Iterable[int]) -> list[str]:
        """Returns the names of the images at these indices."""
        members = load_members(self.path)
        return [one_line(members[place]) for place in places]


def find_faults(images: LabeledSet) -> list[Fault]:
    """Returns the faults within one image set. Classes that are left out are ignored."""
    kept = np.flatnonzero(images.labels >= 0)
    labels, digests = images.labels[kept], images.digests[kept]
    numbers = number_images(digests)
    found = []
    _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if copies := int((counts - 1).sum()):
        repeated = np.flatnonzero(counts > 1)
        pairs = [(place, _other_index(numbers, place)) for place in first[repeated[:_SHOWN]].tolist()]
        shown = _shown([_joined(images.members_of(kept[list(pair)])) for pair in pairs], len(repeated))
        share = f"{copies:,} of {count_of(len(kept), 'image')} of {images.name} ({copies / len(kept):.1%})"
        are = agree(copies, "is a copy", "are copies")
        text = f"{share} {are} of another image: {shown}. The split keeps copies together."
        found.append(Fault(kind="copies", text=text))
    if spans := spans_of(labels, digests):
        shown = _shown([_joined(images.members_of(kept[places[:3]])) for places in spans[:_SHOWN]], len(spans))
        text = f"{count_of(len(spans), 'image')} of {images.name} {agree(len(spans), 'has', 'have')} several labels"
        found.append(Fault(kind="labels", text=f"{text}: {shown}. Remove the wrong files."))
    if fault := _find_nearly_empty(images, labels):
        found.append(fault)
    return found


def find_overlaps(images: LabeledSet, validation: LabeledSet) -> list[Fault]:
    """Returns the validation images that are also training images, and the classes without validation images.

    Both image sets must use the same list of classes.
    """
    kept, kept_here = np.flatnonzero(validation.labels >= 0), np.flatnonzero(images.labels >= 0)
    overlap = find_overlap(
        validation.labels[kept], validation.digests[kept], images.labels[kept_here], images.digests[kept_here]
    )
    total, found = len(kept), []
    for places, of_what, way_out in (
        (
            overlap.same_class,
            "",
            "Scores on training images do not predict scores on new images. Remove them from one source.",
        ),
        (overlap.other_class, " of another class", "Correct the label of one of the two."),
    ):
        if number := len(places):
            shown = _shown(validation.members_of(kept[places[:_SHOWN]]), number)
            are = agree(number, "is a training image", "are training images")
            text = f"{number:,} of {count_of(total, 'validation image')} ({number / total:.1%}) {are}{of_what}"
            found.append(Fault(kind="overlap", text=f"{text}: {shown}. {way_out}"))
    present = {*validation.labels.tolist()}
    if missing := [one_line(name) for label, name in enumerate(images.class_names) if label not in present]:
        text = f"{validation.name} has no image of {count_of(len(missing), 'class', 'classes')}"
        found.append(Fault(kind="nearly empty", text=f"{text}: {_shown(missing[:_SHOWN], len(missing), repr)}."))
    return found


def _find_nearly_empty(images: LabeledSet, labels: np.ndarray) -> Fault | None:
    counts = np.bincount(labels, minlength=len(images.class_names))
    nearly = [label for label in np.argsort(counts, kind="stable").tolist() if 0 < counts[label] < NEARLY_EMPTY]
    if not nearly:
        return None
    shown = _shown([f"{images.class_names[label]!r} ({counts[label]})" for label in nearly[:_SHOWN]], len(nearly))
    text = (
        f"{count_of(len(nearly), 'class', 'classes')} of {images.name} {agree(len(nearly), 'has', 'have')} fewer than "
        f"{NEARLY_EMPTY} images: {shown}. Their scores are unreliable."
    )
    return Fault(kind="nearly empty", text=text)


def _other_index(numbers: np.ndarray, place: int) -> int:
    """Returns the index of another copy of the same image."""
    return int(np.flatnonzero(numbers == numbers[place])[1])


def _joined(members: Sequence[str]) -> str:
    return " = ".join(members)


def _shown(items: Sequence[str], total: int, form: Callable[[str], str] = str) -> str:
    rest = f" and {total - len(items):,} more" if total > len(items) else ""
    return ", ".join(form(item) for item in items) + rest
