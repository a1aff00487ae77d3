"""Images of one object on one side of the split: groups told by the images' names, and held out whole."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np

from hilo_nas.errors import DataError

__all__ = ["group_images", "hash_groups", "hold_out_groups"]


def group_images(members: Sequence[str], pattern: str) -> tuple[np.ndarray, int]:
    """Returns each image's group, (N; int64), and how many images do not match and are each a group of their own.

    Args:
        members: The images' paths inside their source.
        pattern: A regular expression, searched in each path. Its first capturing group tells the group, or the whole
            match where it captures nothing.
    """
    expression = re.compile(pattern)
    which = 1 if expression.groups else 0
    numbers: dict[str, int] = {}
    groups, alone = np.empty(len(members), dtype=np.int64), 0
    for place, member in enumerate(members):
        found = expression.search(member)
        name = found[which] if found else None  # None too where the capturing group took no part
        if name is None:
            alone += 1
            groups[place] = -alone
        else:
            groups[place] = numbers.setdefault(name, len(numbers))
    return groups, alone


def hash_groups(digests: np.ndarray, groups: np.ndarray) -> str:
    """Returns a hash of which images are together, whatever the groups are called and in whichever order they come.

    Args:
        digests: The images' hashes, (N, 2).
        groups: Their groups, (N).
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
    """Returns which images are held out, (N; bool): whole groups, so that each class comes near to its share.

    Groups are looked at in the order of their lowest digest, and one is held out where that brings its classes nearer
    to their shares and leaves each of them images to train on. First, though, every class gets a group held out, those
    with the fewest groups before the others: the first that brings it nearer, or else the one that leads it least far
    beyond. Where no group spans classes and `fraction` is at most one half, a class is off its share by no more than
    half its largest group, unless its smallest is more than twice the share.

    Args:
        labels: Classes, (N).
        digests: The images' hashes, (N, 2).
        groups: Their groups, (N).
        fraction: Share of each class to hold out, in (0, 1).
        class_names: For messages.

    Raises:
        DataError: A class cannot have images on both sides.
    """
    numbers, counts = _count(labels, groups)
    total: list[int] = np.bincount(labels).tolist()
    wanted = [count * fraction for count in total]
    held = [0] * len(total)
    chosen = np.zeros(len(counts), dtype=bool)

    def change(group: int) -> float:
        """How much farther from the shares it would lead; infinite where nothing of a class would be left."""
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
    """Returns each image's group, numbered from 0, and of each group the classes with its images in them."""
    numbers = np.unique(groups, return_inverse=True)[1]
    n_classes = int(labels.max()) + 1
    pairs, pair_counts = np.unique(numbers * n_classes + labels, return_counts=True)
    counts: list[list[tuple[int, int]]] = [[] for _ in range(int(numbers.max()) + 1)]
    for pair, count in zip(pairs.tolist(), pair_counts.tolist(), strict=True):
        counts[pair // n_classes].append((pair % n_classes, count))
    return numbers, counts


def _order(labels: np.ndarray, digests: np.ndarray, numbers: np.ndarray) -> list[int]:
    """Returns the groups by their lowest digest; where two share that image, by their next, and so on."""
    order = np.lexsort((labels, digests[:, 1], digests[:, 0]))
    rows = np.column_stack((digests[order], labels[order].astype(np.uint64)))
    ranks = np.concatenate(([0], np.cumsum((rows[1:] != rows[:-1]).any(axis=1))))
    keys: list[list[int]] = [[] for _ in range(int(numbers.max()) + 1)]
    for group, rank in zip(numbers[order].tolist(), ranks.tolist(), strict=True):
        keys[group].append(rank)
    return sorted(range(len(keys)), key=keys.__getitem__)


def _cannot_split(class_name: str, n_images: int, n_groups: int) -> str:
    told = "are all of one group" if n_groups == 1 else f"are of {n_groups} groups that other classes need as well"
    return (
        f"every class needs images on both sides of the split, but the {n_images} of {class_name!r} {told}. Make the "
        "groups smaller with another data.group_by, remove images that lie under several labels, add images, or name "
        "validation images with data.val_source."
    )
