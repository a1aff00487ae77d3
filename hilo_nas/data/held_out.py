"""Rule that selects the held-out images for scoring. It depends only on the images, not on seed or machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hilo_nas.data.cache import load_members
from hilo_nas.data.copies import find_scarce, join_groups, number_images, spans_of
from hilo_nas.data.groups import group_images, hold_out_groups
from hilo_nas.errors import DataError
from hilo_nas.measurement import ProxyPlan

__all__ = [
    "COPIES_RULE",
    "is_changed_by_copies",
    "keep_together",
    "number_labels",
    "share_of",
    "split_held_out",
    "split_set",
]

COPIES_RULE = "copies/1"
"""Version of the rule that keeps copies on one side. Part of the hash of the data if it changes the split."""


def share_of(plan: ProxyPlan | type[ProxyPlan], n_images: int) -> float:
    """Returns the share of each class that a plan holds out of a data set of `n_images`."""
    return min(plan.val_fraction, plan.val_images / n_images)


def number_labels(labels: np.ndarray, names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Returns labels as indices into another list of classes, (N; int64), or -1 for classes that are not in it.

    Args:
        labels: Classes as indices into `names`, (N).
        names: The list of classes that `labels` refer to.
        class_names: The other list of classes.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    found: np.ndarray = np.array([numbers.get(name, -1) for name in names], dtype=np.int64)[labels]
    return found


def split_set(
    path: Path,
    labels: np.ndarray,
    digests: np.ndarray,
    fraction: float,
    *,
    group_by: str | None = None,
    class_names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and held-out images of a cached image set, as `split_held_out` does.

    Args:
        path: Folder of the image set, which holds the names of the images.
        labels: Classes, (N). Images of class -1 are on neither side.
        digests: Hashes of the images, (N, 2).
        fraction: Share of each class to hold out, in (0, 1).
        group_by: `ProxyPlan.group_by`.
        class_names: Names for messages.

    Raises:
        DataError: A class cannot be split.
        StorageError: The image set is missing or damaged.
    """
    kept = np.flatnonzero(labels >= 0)
    groups = None if group_by is None else group_images(load_members(path), group_by)[0][kept]
    training, held_out = split_held_out(labels[kept], digests[kept], fraction, groups=groups, class_names=class_names)
    return kept[training], kept[held_out]


def split_held_out(
    labels: np.ndarray,
    digests: np.ndarray,
    fraction: float,
    *,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and held-out images.

    In each class, the images with the lowest digests are held out. The rule depends only on the images. Every network
    is scored on the same images in the same order, with any seed and on any machine. Copies of an image stay on one
    side, even if they have different labels. Each class has at least one image on each side.

    Args:
        labels: Classes, (N).
        digests: Hashes of the images, (N, 2).
        fraction: Share of each class to hold out, in (0, 1).
        groups: Groups of images that stay on one side, (N). If given, whole groups are held out by `hold_out_groups`.
        class_names: Names for messages.

    Raises:
        DataError: A class has fewer than two distinct images, or cannot have whole groups on both sides.
    """
    if scarce := find_scarce(labels, digests):
        named = ", ".join(repr(class_names[label] if class_names else label) for label in scarce)
        raise DataError(f"every class needs at least 2 distinct images, but {named} has fewer")
    order = np.lexsort((digests[:, 1], digests[:, 0], labels))
    if groups is None:
        is_held_out = _hold_out_lowest(labels, digests, order, fraction, keep_copies=True)
        if any(len({*is_held_out[places]}) > 1 for places in spans_of(labels, digests)):
            groups = number_images(digests)
    else:
        groups = keep_together(labels, digests, groups, fraction, class_names)
    if groups is not None:
        is_held_out = hold_out_groups(labels, digests, groups, fraction, class_names)
    return order[~is_held_out[order]], order[is_held_out[order]]


def keep_together(
    labels: np.ndarray, digests: np.ndarray, groups: np.ndarray, fraction: float, class_names: Sequence[str] = ()
) -> np.ndarray:
    """Returns the groups, (N), joined if they share an image. Returns them unchanged if no split would be possible.

    For example, a black frame in every volume would join all volumes. Then the groups are not joined, and copies of the
    frame are on both sides.
    """
    joined = join_groups(groups, digests)
    if joined is not groups:
        try:
            hold_out_groups(labels, digests, joined, fraction, class_names)
        except DataError:
            return groups
    return joined


def is_changed_by_copies(labels: np.ndarray, digests: np.ndarray, fraction: float, held_out: np.ndarray) -> bool:
    """Returns True if the rule that keeps copies together changes the held-out images."""
    order = np.lexsort((digests[:, 1], digests[:, 0], labels))
    before = _hold_out_lowest(labels, digests, order, fraction, keep_copies=False)
    return len(held_out) != before.sum() or not before[held_out].all()


def _hold_out_lowest(
    labels: np.ndarray, digests: np.ndarray, order: np.ndarray, fraction: float, *, keep_copies: bool
) -> np.ndarray:
    """Returns a mask of the held-out images, (N; bool): those with the lowest digests of each class.

    Args:
        labels: Classes, (N).
        digests: Hashes of the images, (N, 2).
        order: Indices of the images, sorted by class and digest.
        fraction: Share of each class to hold out.
        keep_copies: If the share ends between copies of one image, move its end to the nearest different image.
    """
    is_held_out = np.zeros(len(labels), dtype=bool)
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        if keep_copies:
            ends = np.flatnonzero((digests[members[1:]] != digests[members[:-1]]).any(axis=1)) + 1
            count = int(ends[np.abs(ends - count).argmin()])
        is_held_out[members[:count]] = True
    return is_held_out
