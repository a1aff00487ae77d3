"""Summary of a data set: images, classes, sizes, split, and parts left out. It is the first output of a search."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hilo_nas.data.copies import number_images
from hilo_nas.data.faults import LabeledSet
from hilo_nas.data.formats import describe_kinds
from hilo_nas.data.reading import render_range
from hilo_nas.text.one_line import one_line
from hilo_nas.text.plurals import count_of

__all__ = ["ClassCount", "DataSummary", "SetSummary", "describe_facts", "load_facts", "summarize_set"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Class and its number of images."""

    name: str
    images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetSummary:
    """Summary of the images of one source: number, classes, sizes and parts left out."""

    name: str
    images: int
    classes: int
    least: ClassCount
    """Class with the fewest images."""
    median: float
    """Median number of images per class."""
    most: ClassCount
    copies: int
    """Number of images that are copies. The first of several equal images is not counted."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was skipped, changed or assumed."""
    left_out: tuple[str, ...] = ()
    """One sentence for each part of the source that is not used, shown as a warning."""

    def to_lines(self) -> list[str]:
        """Returns the summary as text."""
        if self.least.images == self.most.images:
            each = f"{self.least.images:,} per class"
        else:
            each = (
                f"per class {self.least.images:,} ({_short(self.least.name)}) to {self.most.images:,} "
                f"({_short(self.most.name)}), median {self.median:,.0f}"
            )
        of = f"{count_of(self.images, 'image')} of {count_of(self.classes, 'class', 'classes')}"
        return [f"{self.name}: {of}, {each}", *self.notes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Summary of the images that a search trains and scores on."""

    train: SetSummary
    """Training source, without classes left out."""
    validation: SetSummary | None
    """Source of `data.val_source`, or None."""
    n_training: int
    n_scored: int
    img_size: int
    """Side of the resized images in pixels."""

    def to_lines(self) -> list[str]:
        """Returns the summary as text."""
        if self.validation is None:
            split = f"split: {self.n_training:,} for training, {self.n_scored:,} held out for scoring"
        else:
            split = f"split: all {self.n_training:,} for training, {self.n_scored:,} of data.val_source for scoring"
        others = [] if self.validation is None else self.validation.to_lines()
        return [*self.train.to_lines(), *others, f"{split}, at {self.img_size} px"]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSummary:
        """Returns the summary from the result of `to_dict`."""
        validation = fields["validation"]
        sets = {"train": _set_from(fields["train"]), "validation": validation and _set_from(validation)}
        return cls(**{**fields, **sets})


def _set_from(fields: Mapping[str, Any]) -> SetSummary:
    counts = {name: ClassCount(**fields[name]) for name in ("least", "most")}
    sentences = {name: tuple(fields[name]) for name in ("notes", "left_out")}
    return SetSummary(**{**fields, **counts, **sentences})


def summarize_set(images: LabeledSet) -> SetSummary:
    """Returns the summary of a cached image set. Classes that are left out are ignored."""
    kept = images.labels >= 0
    counts = np.bincount(images.labels[kept], minlength=len(images.class_names))
    present = np.flatnonzero(counts)  # validation images may lack some classes
    order = present[np.argsort(counts[present], kind="stable")]
    least, most = (
        ClassCount(name=images.class_names[place], images=int(counts[place])) for place in (order[0], order[-1])
    )
    n_images, facts = int(kept.sum()), load_facts(images.path)
    return SetSummary(
        name=images.name,
        images=n_images,
        classes=len(present),
        least=least,
        median=float(np.median(counts[present])),
        most=most,
        copies=n_images - int(number_images(images.digests[kept]).max()) - 1,
        notes=tuple(describe_facts(facts)),
        left_out=tuple(facts.get("left_out", ())),
    )


def load_facts(path: Path) -> dict[str, Any]:
    """Returns the facts about how a cached image set was read (`CacheEntry.facts`). Empty if there are none."""
    try:
        found = json.loads((path / "meta.json").read_text(encoding="utf-8")).get("facts", {})
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def describe_facts(facts: Mapping[str, Any]) -> list[str]:
    """Returns sentences about what was skipped, changed or assumed while an image set was read."""
    lines = []
    if sizes := facts.get("sizes"):
        lines.append(f"sizes: {_describe_sizes(sizes)}")
    if level := facts.get("class_level"):
        lines.append(str(level))
    if split := facts.get("split"):
        lines.append(str(split))
    if skipped := facts.get("skipped"):
        total, kinds = count_of(sum(skipped.values()), "file"), describe_kinds(dict(sorted(skipped.items())))
        lines.append(f"skipped because they are not images: {total} ({kinds})")
    if turned := facts.get("n_turned"):
        lines.append(f"rotated by their EXIF orientation: {count_of(turned, 'image')}")
    if composited := facts.get("n_composited"):
        ground = facts.get("background", "white")
        lines.append(
            f"transparent: {count_of(composited, 'image')}, composited on {ground} (set another color with "
            "data.background)"
        )
    if scaled := facts.get("n_scaled"):
        deep, bounds = count_of(scaled, "image"), render_range(*(facts.get("value_range") or (0, 0)))
        lines.append(f"more than 8 bits: {deep}, scaled from the range {bounds} (set another with data.value_range)")
        if (rest := facts.get("n_images", scaled) - scaled) > 0:
            lines.append(f"8 bits: {count_of(rest, 'other image')}, not scaled")
        if 0 < (floats := facts.get("n_float", 0)) < scaled:
            lines.append(f"of these, {floats:,} have float values and {scaled - floats:,} have integer values")
    if missing := facts.get("n_nan"):
        lines.append(f"NaN, read as the low end of the range: in {count_of(missing, 'image')}")
    if infinite := facts.get("n_infinite"):
        lines.append(f"infinite values, read as the ends of the range: in {count_of(infinite, 'image')}")
    if frames := facts.get("n_first_frame"):
        lines.append(f"several frames, only the first is read: {count_of(frames, 'image')}")
    if cut := facts.get("n_cut"):
        lines.append(f"not square, cropped to the center: {count_of(cut, 'image')}")
    if broken := facts.get("broken"):
        lines.append(f"broken and left out (data.skip_broken): {count_of(len(broken), 'image')}")
    return lines


def _describe_sizes(sizes: Any) -> str:
    if isinstance(sizes, Mapping):
        least, most, median = (sizes.get(name) for name in ("smallest", "largest", "median"))
        if least == most:
            return f"{_pixels(least)} pixels"
        middle = f", median {_pixels(median)}" if median else ""
        return f"{_pixels(least)} to {_pixels(most)} pixels{middle}"
    return str(sizes)


def _pixels(size: Any) -> str:
    return "x".join(str(side) for side in size) if isinstance(size, list | tuple) else str(size)


def _short(name: str, length: int = 40) -> str:
    name = one_line(name)
    return name if len(name) <= length else f"{name[: length - 3]}..."
