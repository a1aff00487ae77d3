"""Report of all faults of a data set at once, without a search."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from hilo_nas.data.cache import CacheEntry, default_cache_dir, load_arrays
from hilo_nas.data.copies import find_scarce
from hilo_nas.data.faults import Fault, LabeledSet, find_faults, find_overlaps
from hilo_nas.data.formats import describe_kinds
from hilo_nas.data.held_out import number_labels
from hilo_nas.data.prepared_images import read_set
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import parse_source
from hilo_nas.data.summary import SetSummary, summarize_set
from hilo_nas.errors import DataError
from hilo_nas.events import Emit

__all__ = ["Checked", "check_data"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Contents and faults of a data set, as `hilo-nas data check` reports them."""

    sets: tuple[SetSummary, ...]
    """Summaries of the training source and, if given, of the validation source.

    A source is missing here if it cannot be read or has no images of the classes of the training source.
    """
    faults: tuple[Fault, ...]


def check_data(
    source: str,
    img_size: int,
    *,
    cache_dir: Path | None = None,
    val_data: str | None = None,
    options: ReadOptions = DEFAULTS,
    emit: Emit,
) -> Checked:
    """Reads a source and, if given, a validation source. Returns all faults that are found.

    Args:
        source: The source, as for `prepare_data`.
        img_size: Side in pixels to which images are resized in the cache.
        cache_dir: Folder of the cache. None means `default_cache_dir()`.
        val_data: Another source with validation images.
        options: Options for reading both sources. Broken images are reported and never end the check.
        emit: Receives `DataPrepared` and `Notice`.

    Raises:
        DataError: The source does not exist.
        UsageError: A function does not exist, is not callable, or cannot be imported.
        StorageError: The cache cannot be written.
    """
    folder = cache_dir or default_cache_dir()
    options = dataclasses.replace(options, skip_broken=True)
    specs = [parse_source(source)] + ([] if val_data is None else [parse_source(val_data)])
    entries: list[CacheEntry | None] = []
    faults: list[Fault] = []
    for spec in specs:
        try:
            entries.append(read_set(spec, img_size, folder, options, emit))
        except DataError as error:
            entries.append(None)
            faults.append(Fault(kind="unreadable", text=str(error)))
    class_names = entries[0].class_names if entries[0] else ()
    sets: list[LabeledSet] = []
    for spec, entry in zip(specs, entries, strict=True):
        if entry is not None:
            names = class_names or entry.class_names
            sets.append(_label(spec.name, entry, names))
            faults += _faults_of_reading(entry, spec.name)
            faults += find_faults(sets[-1])
            if unknown := sorted({*entry.class_names} - {*names}):
                text = f"classes of {spec.name} that the training source lacks: {', '.join(map(repr, unknown))}"
                faults.append(Fault(kind="unknown class", text=text))
    if entries[0] is not None and val_data is None:
        scarce = find_scarce(sets[0].labels, sets[0].digests)
        named = ", ".join(f"{sets[0].class_names[label]!r} ({count})" for label, count in scarce.items())
        if scarce:
            text = f"every class needs 2 distinct images for a split, but these have 1 (counts include copies): {named}"
            faults.append(Fault(kind="scarce", text=text))
    if len(sets) == 2:
        faults += find_overlaps(*sets)
    summaries = tuple(summarize_set(images) for images in sets if (images.labels >= 0).any())
    return Checked(sets=summaries, faults=tuple(faults))


def _label(name: str, entry: CacheEntry, class_names: tuple[str, ...]) -> LabeledSet:
    _, _, labels, digests = load_arrays(entry.path)
    numbers: np.ndarray = number_labels(labels, entry.class_names, class_names)
    return LabeledSet(name=name, path=entry.path, labels=numbers, digests=digests, class_names=class_names)


def _faults_of_reading(entry: CacheEntry, name: str) -> list[Fault]:
    """Returns the faults that were found while the source was read."""
    facts = entry.facts
    found = [Fault(kind="left out", text=str(sentence)) for sentence in facts.get("left_out", ())]
    if broken := facts.get("broken"):
        lines = "\n".join(f"  {member} ({reason})" for member, reason in broken)
        found.append(Fault(kind="broken", text=f"broken images in {name}: {len(broken):,}\n{lines}"))
    if skipped := facts.get("skipped"):
        kinds = describe_kinds(dict(sorted(skipped.items())))
        found.append(Fault(kind="skipped", text=f"files of {name} that are not images: {kinds}"))
    return found
