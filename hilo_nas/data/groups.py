"""Groups of images that belong together, defined by their names. Each group is on one side of the split."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np

from hilo_nas.errors import DataError

__all__ = ["group_images", "hash_groups", "hold_out_groups"]


def group_images(members: Sequence[str], pattern: str) -> tuple[np.ndarray, int]:
    """Returns the group of each image, (N; int64), and the number of images that do not match the pattern.

    An image that does not match is its own group.

    Args:
        members: Paths of the images inside their source.
        pattern: Regular expression, searched in each path. Its first capturing group is the name of the image's group.
            Without a capturing group, the whole match is the name.
    """
    expression = re.compile(pattern)
    which = 1 if expression.groups else 0
    numbers: dict[str, int] = {}
    groups, unmatched = np.empty(len(members), dtype=np.int64), 0
    for place, member in enumerate(members):
        found = expression.search(member)
        name = found[which] if found else None  # also None if the capturing group did not take part in the match
        if name is None:
            unmatched += 1
            groups[place] = -unmatched
        else:
            groups[place] = numbers.setdefault(name, len(numbers))
    return groups, unmatched


def hash_groups(digests: np.ndarray, groups: np.ndarray) -> str:
    """Returns a hash of the groups, independent of their names and order.

    Args:
        digests: Hashes of the images, (N, 2).
        groups: Groups of the images, (N).
    """
    order = np.lexsort((digests[:, 1], digests[:, 0], groups))
    parts = np.split(digests[order].astype(">u8"), np.flatnonzero(np.diff(groups[order])) + 1)
    total = hashlib.sha256()
    for digest in sorted(hashlib.sha256(part.tobytes()).digest() for part in parts):
        total.update(digest)
    return total.hexdigest()


def hold_out_groups(
    labels: np.ndarray, digests: np.ndarray, groups: np.ndarray, fraction: float, class_names: Sequence[str]
) -> np.ndarray:
    """Returns a mask of the held-out images, (N; bool). Groups are held out as a whole.

    The held-out share of each class is close to `fraction`. The algorithm has two passes. Both visit the groups in the
    order of their lowest digest.

    1. Each class without a held-out group gets one. Classes with few groups come first. The group is the first one that
       reduces the total deviation from the shares, or else the one that increases it least.
    2. Each other group is held out if that reduces the total deviation and leaves training images of all its classes.

    If no group has several classes and `fraction` is at most 0.5, the deviation of a class is at most half its largest
    group. The exception is a class whose smallest group is more than twice the share.

    Args:
        labels: Classes, (N).
        digests: Hashes of the images, (N, 2).
        groups: Groups of the images, (N).
        fraction: Share of each class to hold out, in (0, 1).
        class_names: Names for messages.

    Raises:
        DataError: A class cannot have images on both sides.
    """
    numbers, counts = _count(labels, groups)
    total: list[int] = np.bincount(labels).tolist()
    wanted = [count * fraction for count in total]
    held = [0] * len(total)
    chosen = np.zeros(len(counts), dtype=bool)

    def change(group: int) -> float:
        """Returns the change of the total deviation from the shares if the group is held out.

        It is infinite if no training image of a class would be left.
        """
        if any(held[label] + count >= total[label] for label, count in counts[group]):
            return math.inf
        return sum(
            (abs(held[label] + count - wanted[label]) - abs(held[label] - wanted[label])) / total[label]
            for label, count in counts[group]
        )

    def hold(group: int) -> None:
        chosen[group] = True
        for label, count in counts[group]:
            held[label] += count

    order = _order(labels, digests, numbers)
    of_class: list[list[int]] = [[] for _ in total]
    for group in order:
        for label, _ in counts[group]:
            of_class[label].append(group)
    for label in sorted(range(len(total)), key=lambda label: len(of_class[label])):
        if total[label] and not held[label]:
            changes = {group: change(group) for group in of_class[label]}
            nearer = (group for group, by in changes.items() if by < 0)
            group = next(nearer, min(changes, key=changes.__getitem__))
            if changes[group] == math.inf:
                raise DataError(_cannot_split(class_names[label], total[label], len(of_class[label])))
            hold(group)
    for group in order:
        if not chosen[group] and change(group) < 0:
            hold(group)
    is_held_out: np.ndarray = chosen[numbers]
    return is_held_out


def _count(labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[list[tuple[int, int]]]]:
    """Returns the group of each image, numbered from 0, and the image counts of each group as (class, count) pairs."""
    numbers = np.unique(groups, return_inverse=True)[1]
    n_classes = int(labels.max()) + 1
    pairs, pair_counts = np.unique(numbers * n_classes + labels, return_counts=True)
    counts: list[list[tuple[int, int]]] = [[] for _ in range(int(numbers.max()) + 1)]
    for pair, count in zip(pairs.tolist(), pair_counts.tolist(), strict=True):
        counts[pair // n_classes].append((pair % n_classes, count))
    return numbers, counts


def _order(labels: np.ndarray, digests: np.ndarray, numbers: np.ndarray) -> list[int]:
    """Returns the groups in the order of their lowest digest. Ties are broken by the next digest, and so on."""
    order = np.lexsort((labels, digests[:, 1], digests[:, 0]))
    rows = np.column_stack((digests[order], labels[order].astype(np.uint64)))
    ranks = np.concatenate(([0], np.cumsum((rows[1:] != rows[:-1]).any(axis=1))))
    keys: list[list[int]] = [[] for _ in range(int(numbers.max()) + 1)]
    for group, rank in zip(numbers[order].tolist(), ranks.tolist(), strict=True):
        keys[group].append(rank)
    return sorted(range(len(keys)), key=keys.__getitem__)


def _cannot_split(class_name: str, n_images: int, n_groups: int) -> str:
    reason = "are all in one group" if n_groups == 1 else f"are in {n_groups} groups that other classes need too"
    return (
        f"every class needs images on both sides of the split, but the {n_images} of {class_name!r} {reason}. Make the "
        "groups smaller with another data.group_by, remove images with several labels, add images, or set "
        "data.val_source to validation images."
    )
