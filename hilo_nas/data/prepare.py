"""The images of a proxy training: prepared once, described by plain data, split by a rule that no seed can move."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilo_nas import plugins
from hilo_nas.data.cache import CacheEntry, default_cache_dir, find_or_build, load_arrays, load_members
from hilo_nas.data.decode import build_set
from hilo_nas.data.groups import group_images, hash_groups, hold_out_groups
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import SourceSpec, parse_source, read_fingerprint
from hilo_nas.errors import DataError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import ProxyPlan

__all__ = ["CachedData", "prepare_data", "split_held_out"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedData:
    """Prepared images, as plain data that crosses a process border."""

    name: str
    """What the user named, without its folder."""
    content_hash: str
    """SHA-256 of what is trained on and scored on, and of which images are held together where groups are made;
    independent of machine, folder and image size."""
    class_names: tuple[str, ...]
    img_size: int
    """Side of the square images in pixels."""
    n_images: int
    """Images of the training source; a share of them is held out unless `val_path` is set."""
    path: str
    """Folder of the decoded training images; see `hilo_nas.data.cache`."""
    val_path: str | None = None
    """Folder of the decoded validation images; None where they are held out of the training images."""
    n_val_images: int | None = None
    hflip: bool = True
    """Whether mirrored images keep their class, as far as the source's name tells; a default for `ProxyPlan.hflip`."""
    source_hash: str | None = None
    """SHA-256 of the file whose function gives the training images; None where no function does."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return {**dataclasses.asdict(self), "class_names": list(self.class_names)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CachedData:
        """Builds the value that `to_dict` described."""
        return cls(**{**fields, "class_names": tuple(fields["class_names"])})


def prepare_data(
    source: str,
    img_size: int,
    *,
    cache_dir: Path | None = None,
    val_data: str | None = None,
    group_by: str | None = None,
    options: ReadOptions = DEFAULTS,
    emit: Emit,
) -> CachedData:
    """Returns the source's images, decoded and resized in the cache; read only where the cache lacks them.

    Args:
        source: `digits`, a folder with one subfolder per class (or with `train`, which holds them), a .tar, a folder of
            .tar files, `torch/NAME[:DIR]`, `hfds/NAME`, `wds/DIR`, `module:function` or `path/to/file.py:function` (see
            `hilo_nas.data.functions`). Test and validation splits are never read.
        img_size: Side of the square images in pixels.
        cache_dir: The cache's folder; None for `default_cache_dir()`.
        val_data: A source of its own for scoring; then the whole of `source` trains.
        group_by: `ProxyPlan.group_by`: whether whole groups can be held out is looked at now, and part of the hash.
        options: How both sources are read.
        emit: Takes `DataPrepared` and `Notice`.

    Raises:
        DataError: The data is not there, is broken, or cannot serve.
        UsageError: A function is not there, is none, or cannot be imported; or `group_by` and `val_data` are given.
        StorageError: The cache cannot be written.
    """
    if group_by is not None and val_data is not None:
        raise UsageError("--group-by is for a split, but with --val-data nothing is split. Leave out one of them.")
    folder = cache_dir or default_cache_dir()
    spec = parse_source(source)
    val_spec = parse_source(val_data) if val_data is not None else None
    entry = _prepare(spec, img_size, folder, options, emit)
    fields: dict[str, Any] = {
        "name": spec.name,
        "content_hash": entry.content_hash,
        "class_names": entry.class_names,
        "img_size": img_size,
        "n_images": entry.n_images,
        "path": str(entry.path),
        "hflip": spec.hflip,
        "source_hash": plugins.hash_source(spec.text) if spec.kind == "function" else None,
    }
    if val_spec is None:
        _check_splittable(entry, spec)
        if group_by is not None:
            fields["content_hash"] = _hash_grouped(entry, group_by, emit)
        return CachedData(**fields)
    val = _prepare(val_spec, img_size, folder, options, emit)
    _check_validation(entry, val, spec, val_spec)
    both = hashlib.sha256(f"{entry.content_hash} {val.content_hash}".encode()).hexdigest()
    fields |= {"content_hash": both, "val_path": str(val.path), "n_val_images": val.n_images}
    return CachedData(**fields)


def _prepare(spec: SourceSpec, img_size: int, cache_dir: Path, options: ReadOptions, emit: Emit) -> CacheEntry:
    build = functools.partial(_build, spec, img_size, options, emit)
    return find_or_build(cache_dir, read_fingerprint(spec, options), img_size, build, emit)


def _build(spec: SourceSpec, img_size: int, options: ReadOptions, emit: Emit, workshop: Path) -> tuple[str, str]:
    # timm and torch take seconds to import, and a source that is in the cache already does without them.
    from hilo_nas.data.readers import open_source

    source = open_source(spec, options)
    for sentence in source.left_out:
        emit(Notice(text=sentence, level="warning"))
    return build_set(workshop, spec, source, img_size, options, emit)


def _check_splittable(entry: CacheEntry, spec: SourceSpec) -> None:
    small = [name for name, count in zip(entry.class_names, entry.class_counts, strict=True) if count < 2]
    if small:
        raise DataError(
            f"every class needs 2 images or more, one to train on and one to score on, but in {spec.text} "
            f"{', '.join(map(repr, small[:5]))}{' and others have' if len(small) > 5 else ' has'} 1. "
            "Add images, remove the class, or name validation images with --val-data."
        )


def _check_validation(entry: CacheEntry, val: CacheEntry, spec: SourceSpec, val_spec: SourceSpec) -> None:
    if val.content_hash == entry.content_hash:
        raise DataError(
            f"training and validation images must differ, but {spec.text} and {val_spec.text} hold the same "
            "(of a folder with splits, train is read). Name the validation split itself, or leave --val-data out."
        )
    if unknown := [name for name in val.class_names if name not in entry.class_names]:
        raise DataError(
            f"validation images must be of classes that are trained on, but {val_spec.text} has "
            f"{', '.join(map(repr, unknown[:5]))}; {spec.text} has {', '.join(map(repr, entry.class_names[:5]))} ..."
        )


def _hash_grouped(entry: CacheEntry, group_by: str, emit: Emit) -> str:
    """Returns the hash of the images and of which are together, once it is sure that whole groups can be held out.

    It is of the grouping itself: the same images under names that are grouped otherwise give another split.
    """
    _, _, labels, digests = load_arrays(entry.path)
    groups, alone = group_images(load_members(entry.path), group_by)
    split_held_out(labels, digests, ProxyPlan.val_fraction, groups=groups, class_names=entry.class_names)
    emit(Notice(text=f"{entry.n_images:,} images in {len(np.unique(groups)):,} groups by {group_by!r}"))
    if alone:
        text = (
            f"{alone:,} of {entry.n_images:,} images do not match --group-by {group_by!r}: each is a group of its own"
        )
        emit(Notice(level="warning", text=text))
    return hashlib.sha256(f"{entry.content_hash} {hash_groups(digests, groups)}".encode()).hexdigest()


def split_held_out(
    labels: np.ndarray,
    digests: np.ndarray,
    fraction: float,
    *,
    groups: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of training and held-out images: of each class, the share with the lowest digests is held out.

    The rule depends on the images alone, so every network, seed and machine is scored on the same ones, in the same
    order; copies of one image stay together. Each class has at least one image on either side.

    Args:
        labels: Classes, (N).
        digests: The images' hashes, (N, 2).
        fraction: Share of each class to hold out, in (0, 1).
        groups: Which images stay on one side, (N); then whole groups are held out, see `hold_out_groups`.
        class_names: For messages about groups.

    Raises:
        DataError: A class cannot have whole groups on both sides.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0], labels))
    if groups is not None:
        is_held_out = hold_out_groups(labels, digests, groups, fraction, class_names)[order]
        return order[~is_held_out], order[is_held_out]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    training, held_out = [], []
    for members in np.split(order, starts[1:]):
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        held_out.append(members[:count])
        training.append(members[count:])
    return np.concatenate(training), np.concatenate(held_out)


def describe_data(
    source: str,
    img_size: int,
    cache_dir: str | None,
    val_data: str | None,
    group_by: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    emit: Emit,
) -> dict[str, Any]:
    """Returns `prepare_data`'s answer as plain data, for a caller in another process; see there."""
    folder = Path(cache_dir) if cache_dir else None
    data = prepare_data(
        source,
        img_size,
        cache_dir=folder,
        val_data=val_data,
        group_by=group_by,
        options=ReadOptions.from_dict(options or {}),
        emit=emit,
    )
    return data.to_dict()
