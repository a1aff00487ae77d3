"""Preparation of the images of a proxy training: read once, described by plain data, split by a rule without a seed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilo_nas import plugins
from hilo_nas.data.build import build_set
from hilo_nas.data.cache import CacheEntry, default_cache_dir, find_or_build, load_arrays, load_members
from hilo_nas.data.cache_budget import trim_cache
from hilo_nas.data.copies import find_scarce
from hilo_nas.data.faults import LabeledSet, find_faults, find_overlaps
from hilo_nas.data.groups import group_images, hash_groups
from hilo_nas.data.held_out import COPIES_RULE, is_changed_by_copies, keep_together, number_labels, share_of, split_set
from hilo_nas.data.image_sets import load_entry
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.set_uses import SetUse
from hilo_nas.data.sources import SourceSpec, list_files, parse_source, read_fingerprint
from hilo_nas.data.summary import DataSummary, summarize_set
from hilo_nas.data.timm_reader import list_differences
from hilo_nas.errors import DataError, UsageError
from hilo_nas.events import DataRead, Emit, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.text.plurals import agree, count_of

__all__ = ["CachedData", "Places", "find_places", "prepare_data", "read_set"]

_uses: dict[Path, SetUse] = {}
"""Image sets that this process prepared for a search. It uses them until it ends. The evaluator uses them too, because
a search lasts longer than a worker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachedData:
    """Prepared images, described by plain data for other processes."""

    name: str
    """Name of the source, without its folder."""
    content_hash: str
    """SHA-256 of the training and scored images, and of the groups, if any. Independent of machine, folder and image
    size."""
    class_names: tuple[str, ...]
    img_size: int
    """Side of the square images in pixels."""
    n_images: int
    """Number of images of the training source, without classes left out. A share is held out if `val_path` is None."""
    path: str
    """Folder of the decoded training images, see `hilo_nas.data.cache`."""
    val_path: str | None = None
    """Folder of the decoded validation images. None if they are held out of the training images."""
    n_val_images: int | None = None
    hflip: bool = True
    """True if mirrored images keep their class, judging by the source's name. Default of `ProxyPlan.hflip`."""
    source_hash: str | None = None
    """SHA-256 of the file whose function gives the training images. None if the source is not a function."""
    reading: dict[str, Any] = dataclasses.field(default_factory=dict)
    """`ReadOptions.to_dict()` of the options for reading the images."""
    val_name: str | None = None
    """Name of the validation source. None if validation images are held out."""
    n_scored: int | None = None
    """Number of images that networks are scored on."""
    chance: float | None = None
    """Share of the largest class among the scored images, which is the accuracy of guessing."""
    pixels: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Values that change pixels: `background` and `value_range`, as in `DataIdentity.pixels`."""
    unlike_timm: tuple[str, ...] = ()
    """Reasons why timm's reader would read the images differently, as in `DataIdentity.unlike_timm`."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data."""
        lists = {"class_names": list(self.class_names), "unlike_timm": list(self.unlike_timm)}
        return {**dataclasses.asdict(self), **lists}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CachedData:
        """Returns the images that a result of `to_dict` describes."""
        lists = {name: tuple(fields[name]) for name in ("class_names", "unlike_timm") if name in fields}
        return cls(**{**fields, **lists})


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
    """Returns the images of a source, decoded and resized in the cache. The source is read only if they are not cached.

    Args:
        source: `digits`, a folder with one subfolder per class (or with splits that hold them), an archive or a folder
            of archives, rows in Parquet files, `torch/NAME[:DIR]`, `hfds/NAME`, `wds/DIR`, `module:function` or
            `path/to/file.py:function` (see `hilo_nas.data.functions`). Test and validation splits are never read.
        img_size: Side of the square images in pixels.
        cache_dir: Folder of the cache. None means `default_cache_dir()`.
        val_data: Another source with validation images. If given, all images of `source` are training images.
        group_by: `ProxyPlan.group_by`. The groups are part of the hash. An error is raised if they cannot be held out.
        options: Options for reading both sources.
        emit: Receives `DataPrepared`, `DataRead` and `Notice`.

    Raises:
        DataError: The data does not exist, is broken, or cannot be used for a search.
        UsageError: A function does not exist, is not callable, or cannot be imported; or both `group_by` and `val_data`
            are given.
        StorageError: The cache cannot be written.
    """
    if group_by is not None and val_data is not None:
        raise UsageError(
            "data.group_by must not be set with data.val_source because then no images are held out. Remove one of "
            "them."
        )
    folder = cache_dir or default_cache_dir()
    spec = parse_source(source)
    val_spec = parse_source(val_data) if val_data is not None else None
    entry = read_set(spec, img_size, folder, options, emit)
    val = None if val_spec is None else read_set(val_spec, img_size, folder, _with_range_of(entry, options), emit)
    class_names = entry.class_names if val else _usable_classes(entry, spec, options, emit)
    facts = entry.facts
    counts = dict(zip(entry.class_names, entry.class_counts, strict=True))
    content_hash = entry.content_hash
    if len(class_names) < len(entry.class_names):
        content_hash = _hash_of(content_hash, "classes", *class_names)
    if val is not None and val_spec is not None:
        _check_validation(entry, val, spec, val_spec)
        content_hash = _hash_of(content_hash, val.content_hash)
    data = CachedData(
        name=spec.name,
        content_hash=content_hash,
        class_names=class_names,
        img_size=img_size,
        n_images=sum(counts[name] for name in class_names),
        path=str(entry.path),
        val_path=None if val is None else str(val.path),
        n_val_images=None if val is None else val.n_images,
        hflip=spec.hflip,
        source_hash=plugins.hash_source(spec.text) if spec.kind == "function" else None,
        reading=options.to_dict(),
        val_name=None if val_spec is None else val_spec.name,
        pixels={name: facts[name] for name in ("background", "value_range") if name in facts},
        unlike_timm=tuple(list_differences(spec, entry, class_names, facts)),
    )
    places = find_places(data, ProxyPlan, group_by)
    scored = places.scored_labels[places.scored]
    data = dataclasses.replace(
        data,
        content_hash=data.content_hash if val else _hash_split(data, places, group_by, emit),
        n_scored=len(scored),
        chance=float(np.bincount(scored).max() / len(scored)),
    )
    _report(data, places, entry, val, emit)
    return data


def _with_range_of(entry: CacheEntry, options: ReadOptions) -> ReadOptions:
    """Returns read options that scale the images of another source by the value range of this image set."""
    if options.value_range is not None or not (found := entry.facts.get("value_range")):
        return options
    low, high = found
    return dataclasses.replace(options, value_range=(low, high)) if low < high else options


def _report(data: CachedData, places: Places, entry: CacheEntry, val: CacheEntry | None, emit: Emit) -> None:
    """Emits the summary of the images and warnings about them."""
    images = LabeledSet(
        name=data.name,
        path=entry.path,
        labels=places.labels,
        digests=places.digests,
        class_names=data.class_names,
    )
    sets, faults = [summarize_set(images)], find_faults(images)
    if val is not None:
        validation = dataclasses.replace(
            images,
            name=data.val_name or "",
            path=val.path,
            labels=places.scored_labels,
            digests=places.scored_digests,
        )
        sets.append(summarize_set(validation))
        faults += find_overlaps(images, validation)
    summary = DataSummary(
        train=sets[0],
        validation=sets[1] if val else None,
        n_training=len(places.training),
        n_scored=len(places.scored),
        img_size=data.img_size,
    )
    emit(DataRead(summary=summary.to_dict()))
    for text in [*(sentence for part in sets for sentence in part.left_out), *(fault.text for fault in faults)]:
        emit(Notice(level="warning", text=text))


def read_set(spec: SourceSpec, img_size: int, cache_dir: Path, options: ReadOptions, emit: Emit) -> CacheEntry:
    """Returns the images of a source in the cache. The source is read only if they are not cached.

    Raises:
        DataError: The source cannot be read.
        StorageError: The cache cannot be written.
    """
    build = functools.partial(_build, spec, img_size, options, emit)
    files = functools.partial(list_files, spec)
    return find_or_build(cache_dir, read_fingerprint(spec, options), img_size, build, emit, files)


def _build(spec: SourceSpec, img_size: int, options: ReadOptions, emit: Emit, workshop: Path) -> tuple[str, str]:
    # timm and torch take seconds to import and are not needed for a cached source.
    from hilo_nas.data.readers import open_source

    source = open_source(spec, options)
    return build_set(workshop, spec, source, img_size, options, emit)


def _usable_classes(entry: CacheEntry, spec: SourceSpec, options: ReadOptions, emit: Emit) -> tuple[str, ...]:
    """Returns the classes that have images for both sides of a split.

    Raises:
        DataError: A class has fewer than two distinct images and `skip_broken` is not set, or only one class is left.
    """
    _, _, labels, digests = load_arrays(entry.path)
    scarce = {entry.class_names[label]: count for label, count in find_scarce(labels, digests).items()}
    if not scarce:
        return entry.class_names
    named = ", ".join(
        f"{name!r} (1 image)" if count == 1 else f"{name!r} ({count} copies of 1 image)"
        for name, count in scarce.items()
    )
    rule = "every class needs at least 2 distinct images, one for training and one for scoring"
    if not options.skip_broken:
        raise DataError(
            f"{rule}, but {spec.text} has {named}. Add images, remove these classes, leave them out with "
            "data.skip_broken=true, or set data.val_source to validation images."
        )
    usable = tuple(name for name in entry.class_names if name not in scarce)
    if len(usable) < 2:
        raise DataError(f"{rule}, but without {named} fewer than two classes of {spec.text} are left. Add images.")
    emit(Notice(level="warning", text=f"data.skip_broken leaves out classes without 2 distinct images: {named}"))
    return usable


def _check_validation(entry: CacheEntry, val: CacheEntry, spec: SourceSpec, val_spec: SourceSpec) -> None:
    if val.content_hash == entry.content_hash:
        raise DataError(
            f"training and validation images must differ, but {spec.text} and {val_spec.text} hold the same "
            "(only the training split of a folder is read). Set data.val_source to the validation split itself, or "
            "remove it."
        )
    if unknown := [name for name in val.class_names if name not in entry.class_names]:
        raise DataError(
            f"validation images must be of the classes of the training images, but {val_spec.text} has "
            f"{', '.join(map(repr, unknown[:5]))}; {spec.text} has {', '.join(map(repr, entry.class_names[:5]))} ..."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Positions of the training and scored images in their image sets, with labels and digests."""

    labels: np.ndarray
    """Classes of the training source as indices into `CachedData.class_names`, (N; int64). It is -1 for classes left
    out."""
    digests: np.ndarray
    """Hashes of the images of the training source, (N, 2)."""
    training: np.ndarray
    """Indices of the training images."""
    scored_labels: np.ndarray
    """Classes of all images in the source of the scored images, in the format of `labels`."""
    scored_digests: np.ndarray
    scored: np.ndarray
    """Indices of the scored images in their source, which is the training source unless there is a validation
    source."""


def find_places(data: CachedData, plan: ProxyPlan | type[ProxyPlan], group_by: str | None) -> Places:
    """Returns the training and the scored images.

    Args:
        data: The prepared images.
        plan: Plan that defines how many images are held out.
        group_by: `ProxyPlan.group_by`.

    Raises:
        DataError: A class cannot be split.
        StorageError: The image cache is missing or damaged.
    """
    labels, digests = _load_labels(data.path, data.class_names)
    if data.val_path is not None:
        scored_labels, scored_digests = _load_labels(data.val_path, data.class_names)
        training, scored = np.flatnonzero(labels >= 0), np.flatnonzero(scored_labels >= 0)
    else:
        scored_labels, scored_digests = labels, digests
        training, scored = split_set(
            Path(data.path),
            labels,
            digests,
            share_of(plan, data.n_images),
            group_by=group_by,
            class_names=data.class_names,
        )
    return Places(
        labels=labels,
        digests=digests,
        training=training,
        scored_labels=scored_labels,
        scored_digests=scored_digests,
        scored=scored,
    )


def _load_labels(path: str, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    entry, _, labels, digests = load_arrays(Path(path))
    return number_labels(labels, entry.class_names, class_names), digests


def _hash_split(data: CachedData, places: Places, group_by: str | None, emit: Emit) -> str:
    """Returns the hash of the images and of everything else that determines the held-out images.

    With groups, the hash includes which images belong together, because the same images with other names can give other
    groups and another split. If keeping copies together changes the split, the hash includes the version of that rule.
    """
    kept = np.flatnonzero(places.labels >= 0)
    labels, digests = places.labels[kept], places.digests[kept]
    if group_by is None:
        held_out = np.searchsorted(kept, places.scored)
        if is_changed_by_copies(labels, digests, share_of(ProxyPlan, data.n_images), held_out):
            return _hash_of(data.content_hash, COPIES_RULE)
        return data.content_hash
    groups, unmatched = group_images([load_members(Path(data.path))[place] for place in kept], group_by)
    groups = keep_together(labels, digests, groups, share_of(ProxyPlan, data.n_images), data.class_names)
    total = count_of(data.n_images, "image")
    emit(Notice(text=f"{total} in {count_of(len(np.unique(groups)), 'group')} by {group_by!r}"))
    if unmatched:
        text = f"{unmatched:,} of {total} {agree(unmatched, 'does', 'do')} not match data.group_by {group_by!r}"
        emit(Notice(level="warning", text=f"{text}: {agree(unmatched, 'it', 'each')} forms its own group"))
    return _hash_of(data.content_hash, hash_groups(digests, groups))


def _hash_of(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode(errors="surrogateescape")).hexdigest()


def describe_data(
    source: str,
    img_size: int,
    cache_dir: str | None,
    val_data: str | None,
    group_by: str | None = None,
    options: Mapping[str, Any] | None = None,
    max_cache_gib: float | None = None,
    *,
    emit: Emit,
) -> dict[str, Any]:
    """Returns the result of `prepare_data` as plain data, so that it can be called in another process.

    The process uses the image sets until it ends. The arguments are those of `prepare_data`, as plain data, and
    `max_cache_gib`: the disk budget of the cache in GiB (`trim_cache`), or None without a limit.
    """
    folder = Path(cache_dir) if cache_dir else default_cache_dir()
    for _ in range(3):
        data = prepare_data(
            source,
            img_size,
            cache_dir=folder,
            val_data=val_data,
            group_by=group_by,
            options=ReadOptions.from_dict(options or {}),
            emit=emit,
        )
        paths = [Path(path) for path in (data.path, data.val_path) if path is not None]
        _uses.update({path: SetUse(path) for path in paths})
        # Another process may have removed a set before it was in use.
        if all(load_entry(path) is not None for path in paths):
            break
    if max_cache_gib is not None:
        trim_cache(folder, max_cache_gib, needed=paths, emit=emit)
    return data.to_dict()
