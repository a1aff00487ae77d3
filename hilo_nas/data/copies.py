"""Copies of images, found by equal digests: their positions, their labels, and their copies in another image set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Overlap", "find_overlap", "find_scarce", "join_groups", "number_images", "spans_of"]


def number_images(digests: np.ndarray) -> np.ndarray:
    """Returns a number for each image, (N; int64). Copies share a number. Numbers ascend with the digests, (N, 2)."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (digests[order][1:] != digests[order][:-1]).any(axis=1)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(is_new) - 1
    return numbers


def find_scarce(labels: np.ndarray, digests: np.ndarray) -> dict[int, int]:
    """Returns the classes with fewer than two distinct images, each with its number of images."""
    n_labels = int(labels.max(initial=0)) + 1
    distinct = np.bincount(np.unique(number_images(digests) * n_labels + labels) % n_labels)
    images = np.bincount(labels)
    return {int(label): int(images[label]) for label in np.flatnonzero(distinct == 1)}


def spans_of(labels: np.ndarray, digests: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of each image that has two labels or more. Each array contains all copies of one image."""
    numbers = number_images(digests)
    n_labels = int(labels.max(initial=0)) + 1
    ambiguous = np.flatnonzero(np.bincount(np.unique(numbers * n_labels + labels) // n_labels) > 1)
    if not len(ambiguous):
        return []
    indices = np.flatnonzero(np.isin(numbers, ambiguous))
    order = indices[np.argsort(numbers[indices], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def join_groups(groups: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Returns the groups, (N), joined if they share an image. Returns the same array if none do."""
    distinct, inverse = np.unique(groups, return_inverse=True)
    pairs = np.unique(number_images(digests) * len(distinct) + inverse)
    images, members = pairs // len(distinct), pairs % len(distinct)
    root: dict[int, int] = {}

    def find(group: int) -> int:
        while (above := root.get(group, group)) != group:
            group = above
        return group

    for place in np.flatnonzero(images[1:] == images[:-1]).tolist():
        first, second = sorted((find(int(members[place])), find(int(members[place + 1]))))
        if first != second:
            root[second] = first
    if not root:
        return groups
    return np.array([find(group) for group in range(len(distinct))], dtype=np.int64)[inverse]


class Overlap(NamedTuple):
    """Images of one image set that are also in another image set."""

    same_class: np.ndarray
    """Indices in the first image set of images that the other one has under the same class."""
    other_class: np.ndarray
    """Indices in the first image set of images that the other one has only under other classes."""


def find_overlap(
    labels: np.ndarray, digests: np.ndarray, other_labels: np.ndarray, other_digests: np.ndarray
) -> Overlap:
    """Returns the images of an image set that are also in another one. Both sets use the same list of classes."""
    numbers = number_images(np.concatenate((digests, other_digests)))
    here, there = numbers[: len(digests)], numbers[len(digests) :]
    n_labels = int(max(labels.max(initial=0), other_labels.max(initial=0))) + 1
    is_in = np.isin(here, there)
    is_same = np.isin(here * n_labels + labels, there * n_labels + other_labels)
    return Overlap(np.flatnonzero(is_same), np.flatnonzero(is_in & ~is_same))
